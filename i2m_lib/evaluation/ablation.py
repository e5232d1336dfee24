"""What each term of the loss contributes: networks trained without one term, compared on validation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from i2m_lib.dataset.dataset import Dataset, views_of
from i2m_lib.graph.fits import Fits
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.learning.losses import TERMS
from i2m_lib.learning.settings import Settings
from i2m_lib.learning.train import train
from i2m_lib.reconstruction.reconstructor import Reconstructor

from .distances import Distances


def trained(
    dataset, graph: TemplateGraph, fits, folder: Path, settings: Settings, device: torch.device
) -> Reconstructor:
    """A network trained in `folder`, or read there if it was trained before, with its graph."""
    graph.save(folder / "graph")
    train(dataset, graph, fits, folder, settings, device=device)
    return Reconstructor.load(folder, str(device))


def ablate(
    dataset: Dataset, graph: TemplateGraph, fits: dict[str, Fits], folder: str | Path, settings: Settings, *,
    device: torch.device, n_views: int = 4,
) -> pd.DataFrame:  # fmt: skip
    """Trains a network with all terms and one without each, in folder/<term>. A row a network, for `n_views` views of
    each validation model: without (`nothing`, or a term), category mean of chamfer_l1 (`Distances`), share
    right_category, and median errors of azimuth and elevation in degrees."""
    views, images = views_of(dataset, "val", n_views)
    category, rows = views.model_id.map(dataset.models.set_index("model_id").category), []
    for term in ("nothing", *TERMS):
        without = replace(settings, without=() if term == "nothing" else (term,))
        answers = trained(dataset, graph, fits, Path(folder) / term, without, device).predict(images)
        error = pd.DataFrame([(r.azimuth, r.elevation) for r in answers], columns=["azimuth", "elevation"])
        error -= views[["azimuth", "elevation"]]
        row = {
            "without": term,
            "chamfer_l1": Distances(dataset).mean([(r.V, r.F) for r in answers], views),
            "right_category": np.mean(category == [r.category for r in answers]),
            "azimuth": ((error.azimuth + 180) % 360 - 180).abs().median(),
            "elevation": error.elevation.abs().median(),
        }
        rows.append(row)
    return pd.DataFrame(rows)
