"""What each term of the loss is worth: networks trained without one, judged on validation."""

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

from .swaps import Distances


def ablate(
    dataset: Dataset,
    graph: TemplateGraph,
    fits: dict[str, Fits],
    folder: str | Path,
    settings: Settings,
    *,
    device: torch.device,
    n_views: int = 4,
) -> pd.DataFrame:
    """Trains a network with all terms and one without each, in folder/<term>; killed, each goes on where it was.

    Returns:
        A row a network, the first with all terms: without (`nothing`, or a term); on `n_views` views of each validation
        model the category mean of chamfer_l1 (`limits.Distances`), the share right_category, and the median errors of
        azimuth and elevation in degrees.
    """
    views, images = views_of(dataset, "val", n_views)
    names, distances = dataset.models.set_index("model_id").category, Distances(dataset)
    rows = []
    for term in ("nothing", *TERMS):
        here = Path(folder) / term
        graph.save(here / "graph")
        without = () if term == "nothing" else (term,)
        train(dataset, graph, fits, here, replace(settings, without=without), device=device)
        answers = Reconstructor.load(here, str(device)).predict(images)
        turned = np.array([r.azimuth for r in answers]) - views.azimuth
        tilted = np.array([r.elevation for r in answers]) - views.elevation
        rows.append(
            {
                "without": term,
                "chamfer_l1": distances.mean(answers, views),
                "right_category": np.mean(
                    [r.category == names[m] for r, m in zip(answers, views.model_id, strict=True)]
                ),
                "azimuth": np.median(np.abs((turned + 180) % 360 - 180)),
                "elevation": np.median(np.abs(tilted)),
            }
        )
    return pd.DataFrame(rows)
