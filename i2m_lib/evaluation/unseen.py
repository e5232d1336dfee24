"""Categories that a network has never seen: each is left out of training once, and its test models are shown anyway.

A network without a category is compared with the one that saw all, so it trains as long: with the same settings, for as
many optimiser steps, to whole epochs rounded up. Its epochs are shorter, as it has fewer views.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from i2m_lib.dataset.dataset import Dataset, Views, views_of
from i2m_lib.graph.fits import Fits
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.learning.batches import ViewDataset
from i2m_lib.learning.settings import Settings
from i2m_lib.reconstruction.doubt import SIGNS
from i2m_lib.reconstruction.memory import Memory, codes_of
from i2m_lib.reconstruction.reconstructor import Reconstructor
from i2m_lib.scoring.curves import auroc, auroc_interval

from .ablation import trained
from .diagnosis import doubt_on_validation, judged
from .distances import Distances
from .method import surface_of


def leave_each_out(
    dataset: Dataset, graph: TemplateGraph, fits: dict[str, Fits], folder: str | Path, settings: Settings, *,
    device: torch.device, n_views: int = 4, workers: int = -1,
) -> pd.DataFrame:  # fmt: skip
    """Trains a network without each category's shapes and templates, in folder/<synset>, `as_long` as the one of
    `settings` that saw all categories. Shows it the test models of all categories: the columns of `show`, left_out
    (synset) and unseen (bool). Raises ValueError if no category can be left out."""
    parts, synsets = [], can_be_left_out(dataset)
    if not synsets:
        raise ValueError("no category can be left out: build a dataset with more.")
    for synset in synsets:
        rest, known = dataset.without(synset), {s: fit for s, fit in fits.items() if s != synset}
        longer = as_long(settings, dataset, rest)
        reconstructor = trained(rest, graph.without(synset), known, Path(folder) / synset, longer, device)
        parts.append(show(dataset, rest, reconstructor, n_views, workers).assign(left_out=synset))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(unseen=table.synset == table.left_out)


def can_be_left_out(dataset: Dataset) -> list[str]:
    """The synsets that have test models and without which training and validation models remain."""
    train, val, test = (set(dataset.select(split).synset) for split in ("train", "val", "test"))
    return sorted(synset for synset in test if train - {synset} and val - {synset})


def as_long(settings: Settings, dataset: Dataset, part: Dataset) -> Settings:
    """The settings with as many epochs on a part of the dataset as have at least the optimiser steps of all epochs on
    the whole dataset, and no epoch more."""
    steps, fewer = (-(-len(ViewDataset(data, "train")) // settings.batch_size) for data in (dataset, part))
    return replace(settings, epochs=-(-settings.epochs * steps // fewer))


def show(dataset: Dataset, known: Dataset, reconstructor: Reconstructor, n_views: int, workers: int) -> pd.DataFrame:
    """The answers to a dataset's test views by a network that was trained on a part of it, `known`: the columns of
    `judged`, doubt (with the reference and the weights of the validation models of `known`), and retrieval, the
    distance of the training shape with the nearest code."""
    memory, distances = Memory.of(reconstructor, known), Distances(dataset)
    doubt = doubt_on_validation(known, reconstructor, memory, workers=workers)
    views = Views(*views_of(dataset, "test", n_views))
    answers = reconstructor.predict(views.images)
    table = judged(dataset, views, answers, memory, distances, workers)
    retrieved = [surface_of(dataset, model_id) for model_id in memory.retrieve(codes_of(answers))]
    return table.assign(doubt=doubt(table), retrieval=distances.of_all(retrieved, table.model_id, workers))


def unseen_summary(table: pd.DataFrame, full: pd.DataFrame, *, n_boot: int, seed: int) -> pd.DataFrame:
    """How wrong answers are for a category left out, and whether doubt shows it, a row a category: n_shapes; means over
    its test shapes of chamfer_l1 and retrieval without it, and of `full`, the diagnosis of the network that saw it, in
    the same views; auroc (low, high) of doubt, its shapes against those of the other categories; AUROC of each sign."""
    keys, rows = ["model_id", "view"], []
    table = table.merge(full[[*keys, "chamfer_l1"]].rename(columns={"chamfer_l1": "full"}), on=keys)
    for _, views in table.groupby("left_out"):
        mine, unseen = views[views.unseen], views.unseen.to_numpy()
        means = mine.groupby("model_id")[["chamfer_l1", "full", "retrieval"]].mean()
        found = auroc_interval(views.doubt.to_numpy(), unseen, views.model_id.to_numpy(str), n_boot=n_boot, seed=seed)
        signs = {sign: auroc(views[sign].to_numpy(), unseen) for sign in SIGNS}
        score = dict(zip(("auroc", "low", "high"), found, strict=True))
        rows.append({"category": mine.category.iloc[0], "n_shapes": len(means), **means.mean(), **score, **signs})
    return pd.DataFrame(rows)
