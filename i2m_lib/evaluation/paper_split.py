"""The paper's own test on synthetic images: held-out samples of the generator that it was trained on.

Their templates and deformations are those of training, so a score says nothing of unseen objects. It has a row of its
own, named NAME, beside the held-out models.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from i2m_lib.artefacts import Key, StaleError, key_of, read_key
from i2m_lib.dataset.dataset import Dataset
from i2m_lib.geometry.surfaces import Surface
from i2m_lib.published.generator import read_samples
from i2m_lib.published.paper import PaperMethod
from i2m_lib.scoring.protocols import Protocol
from i2m_lib.scoring.statistics import summarise

from .ladder import kept_table
from .method import Method, methods_table

VERSION = 1  # Raise it when results change.
NAME = "paper split"
METHOD = PaperMethod.name
COMPARISONS = ["difference", "difference_low", "difference_high", "win_rate"]


def kept_paper_split(
    run: str | Path, dataset: Dataset, *, protocol: Protocol, seed: int, workers: int = -1
) -> pd.DataFrame:
    """`run`/paper_split.parquet, made by `score_paper_split` with the networks and samples of `run`; made anew if they
    or the parameters are others."""
    run, how = Path(run), {"protocol": protocol, "seed": seed}
    inputs = {s: key_of(run / "paper" / s / "networks.safetensors") for s in PaperMethod.load(run).networks}
    key = Key("paper_split", VERSION, how | {"protocol": asdict(protocol)}, {"dataset": dataset.digest, **inputs})
    make = partial(score_paper_split, run, dataset, **how, workers=workers)
    return kept_table(run / "paper_split.parquet", key, make)


def score_paper_split(
    run: str | Path, dataset: Dataset, *, protocol: Protocol, seed: int, workers: int = -1
) -> pd.DataFrame:
    """Scores the paper's networks on as many held-out samples of each category as the dataset has test models there:
    the columns of `score_ladder`, where a sample is a model with one view. Raises StaleError if the networks were
    trained on other samples."""
    method, tasks = PaperMethod.load(run), []
    for synset, samples in read_samples(Path(run) / "samples", method.graph).items():
        path = Path(run) / "paper" / synset / "networks.safetensors"
        if read_key(path).inputs["samples"] != samples.digest:
            raise StaleError(f"{path} was trained on other samples: run 03_training again.")
        n_test = len(dataset.select("test", synset))
        rows = range(samples.n_train, min(samples.n_train + n_test, len(samples.c)))
        answers = method.predict_samples(samples.images[rows.start : rows.stop], synset)
        names = dataset.models.set_index("synset").category
        for i, answer in zip(rows, answers, strict=True):
            truth = samples.surface(method.graph.of(synset), i)
            about = {"synset": synset, "category": names[synset].iloc[0], "model_id": f"{synset}_{i}"}
            tasks.append(delayed(_score)(truth, answer, about, protocol, seed))
    table = pd.concat(Parallel(n_jobs=workers)(tasks), ignore_index=True)
    return table.assign(method=NAME, view=0, protocol=protocol.name, split=NAME)


def _score(truth: Surface, answer: Surface, about: dict, protocol: Protocol, seed: int) -> pd.DataFrame:
    scores = protocol.prepare(*truth, seed).score(*answer, seed)
    return pd.DataFrame(scores.items(), columns=["metric", "value"]).assign(**about)


def summarise_paper_split(scores: pd.DataFrame, *, n_boot: int = 2000, seed: int) -> pd.DataFrame:
    """The columns of `summarise`; nothing else was scored on these samples, so nothing is compared."""
    return summarise(scores, baseline=NAME, n_boot=n_boot, seed=seed).assign(**dict.fromkeys(COMPARISONS, np.nan))


def with_budgets(summary: pd.DataFrame, methods: list[Method]) -> pd.DataFrame:
    """The summary with the optimiser steps and the seconds of `training` of each row's method."""
    budgets = methods_table(methods).set_index("method")
    method = summary["method"].replace(NAME, METHOD)
    return summary.assign(steps=method.map(budgets["steps"]), training=method.map(budgets["seconds"]))
