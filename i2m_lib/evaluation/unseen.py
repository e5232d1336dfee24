"""Categories that a network has never seen: each is left out once, and its test shapes are then shown all the same."""

from pathlib import Path

import pandas as pd
import torch

from i2m_lib.dataset.dataset import Dataset, views_of
from i2m_lib.graph.fits import Fits
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.learning.settings import Settings
from i2m_lib.learning.train import train
from i2m_lib.reconstruction.doubt import SIGNS, Doubt, masks_of, signs_of_doubt
from i2m_lib.reconstruction.memory import Memory
from i2m_lib.reconstruction.reconstructor import Reconstructor
from i2m_lib.scoring.curves import auroc, auroc_interval

from .ladder import surface_of
from .swaps import Distances


def leave_each_out(
    dataset: Dataset,
    graph: TemplateGraph,
    fits: dict[str, Fits],
    folder: str | Path,
    settings: Settings,
    *,
    device: torch.device,
    n_views: int = 4,
    workers: int = -1,
) -> pd.DataFrame:
    """Trains a network without each category, in folder/<synset>, and shows it the test models of all.

    A network neither trains on the category, nor has its templates, nor remembers its views; each training goes on
    from where it was killed.

    Returns:
        For each category left out and each of `n_views` views of each test model, a row: left_out (a synset), unseen
        (bool), synset, category, model_id, view, predicted, the signs of doubt and doubt, which is measured against
        validation models of the categories seen; chamfer_l1 (`limits.Distances`) and retrieval, that of the training
        shape whose view looks most alike.

    Raises:
        ValueError: there is only one category.
    """
    if len(graph.synsets) < 2:
        raise ValueError("of a single category none can be left out: build a dataset with more.")
    parts = []
    for synset in graph.synsets:
        rest, others = dataset.without(synset), graph.without(synset)
        here = Path(folder) / synset
        others.save(here / "graph")
        known = {s: fit for s, fit in fits.items() if s != synset}
        train(rest, others, known, here, settings, device=device)
        reconstructor = Reconstructor.load(here, str(device))
        parts.append(_shown(dataset, rest, reconstructor, n_views, workers).assign(left_out=synset))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(unseen=table.synset == table.left_out)


def _shown(dataset: Dataset, rest: Dataset, reconstructor: Reconstructor, n_views: int, workers: int) -> pd.DataFrame:
    """What a network that knows the `rest` says of the test views of all of the dataset."""
    memory = Memory.of(reconstructor, rest)
    doubt = Doubt.on_validation(rest, reconstructor, memory, n_views=n_views, workers=workers)
    views, images = views_of(dataset, "test", n_views)
    answers, retrieved = reconstructor.predict(images), memory.retrieve(reconstructor.codes(images))
    signs = signs_of_doubt(answers, masks_of(images), memory, workers=workers)
    distances, model_ids = Distances(dataset), views.model_id.tolist()
    nearest = [surface_of(dataset, model_id) for model_id in retrieved]
    table = views[["synset", "model_id", "view"]].join(signs)
    return table.assign(
        category=table.model_id.map(dataset.models.set_index("model_id").category),
        predicted=[r.category for r in answers],
        doubt=doubt(signs),
        chamfer_l1=distances.of_all([(r.V, r.F) for r in answers], model_ids, workers),
        retrieval=distances.of_all(nearest, model_ids, workers),
    )


def unseen_summary(table: pd.DataFrame, full: pd.DataFrame, *, n_boot: int, seed: int) -> pd.DataFrame:
    """How bad it is, and whether the network knows, a row for each category left out.

    Args:
        table: of `leave_each_out`.
        full: of `diagnosis.diagnose`, by the network that saw all categories, with the same views.

    Returns:
        category, n_shapes; means over its test shapes of chamfer_l1 without it, of full, the network that saw all, and
        of retrieval without it; auroc (low, high) of doubt, its shapes against those of the categories seen, and the
        AUROC of each sign by itself.
    """
    keys = ["model_id", "view"]
    table = table.merge(full[[*keys, "chamfer_l1"]].rename(columns={"chamfer_l1": "full"}), on=keys)
    rows = []
    for _, views in table.groupby("left_out"):
        mine = views[views.unseen]
        means = mine.groupby("model_id")[["chamfer_l1", "full", "retrieval"]].mean()
        unseen, shape = views.unseen.to_numpy(), views.model_id.to_numpy(str)
        found = auroc_interval(views.doubt.to_numpy(), unseen, shape, n_boot=n_boot, seed=seed)
        signs = {sign: auroc(views[sign].to_numpy(), unseen) for sign in SIGNS}
        score = dict(zip(("auroc", "low", "high"), found, strict=True))
        rows.append({"category": mine.category.iloc[0], "n_shapes": len(means), **means.mean(), **score, **signs})
    return pd.DataFrame(rows)
