"""Error along a condition, as category means of groups of views, and how well a score ranks; intervals over shapes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .statistics import PERCENTILES, bootstrap, category_mean


def curve(
    table: pd.DataFrame, by: Sequence[str], *, value: str = "chamfer_l1", n_boot: int = 2000, seed: int
) -> pd.DataFrame:
    """Category mean of `value` in each group of `by`, where a shape counts with its mean over views.

    `table` has a row a view: category, model_id, `value` and the columns of `by`. Returns the columns of `by`,
    n_shapes, mean, low and high: a 95 % interval of a bootstrap over shapes.
    """
    rows = []
    for key, views in table.groupby(list(by), sort=False, observed=True):
        shapes = views.groupby(["category", "model_id"], observed=True)[value].mean()
        category = shapes.index.get_level_values("category").to_numpy()
        draws = bootstrap(shapes.to_numpy(float)[:, None], category, n_boot=n_boot, seed=seed).mean((0, 2))
        rows.append((*key, len(shapes), category_mean(shapes, category), *np.percentile(draws, PERCENTILES)))
    return pd.DataFrame(rows, columns=[*by, "n_shapes", "mean", "low", "high"])


def middles(values: pd.Series, n: int, low: float, high: float) -> pd.Series:
    """The middle of the bin of each value, of n equal bins from low to high; low where these are equal."""
    width = (high - low) / n
    return low + width * (((values - low) / (width or 1)).astype(int).clip(0, n - 1) + 0.5)


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half; score (n,), positive
    (n,) bool; 0.5 for a score that says nothing, NaN if one class is empty."""
    n = positive.sum()
    if n in (0, len(positive)):
        return np.nan
    return float((rankdata(score)[positive].sum() / n - (n + 1) / 2) / (len(positive) - n))


def auroc_interval(
    score: np.ndarray, positive: np.ndarray, shape: np.ndarray, *, n_boot: int = 2000, seed: int
) -> tuple[float, float, float]:
    """`auroc` with its 95 % interval (value, low, high). The views of a `shape`, a name for each view, are drawn
    together, positive and negative ones separately."""
    value = auroc(score, positive)
    if np.isnan(value):
        return value, np.nan, np.nan
    (p, P), (q, Q) = ((score[rows], _members(shape[rows])) for rows in (positive, ~positive))
    wins = P @ ((p[:, None] > q) + 0.5 * (p[:, None] == q)) @ Q.T
    rng = np.random.default_rng(seed)
    a, b = (rng.multinomial(len(M), np.full(len(M), 1 / len(M)), size=n_boot) for M in (P, Q))
    draws = np.einsum("np,pq,nq->n", a, wins, b, optimize=True) / ((a @ P.sum(1)) * (b @ Q.sum(1)))
    return value, *map(float, np.percentile(draws, PERCENTILES))


def _members(names: np.ndarray) -> np.ndarray:
    """(k, n) which of n views belong to each of k names."""
    return (np.unique(names)[:, None] == names).astype(float)


def calibration_error(confidence: np.ndarray, right: np.ndarray, n_bins: int = 10) -> float:
    """Expected calibration error, 0..1: the mean over views of |confidence - accuracy| of their bin of confidence."""
    at = np.minimum((np.asarray(confidence) * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(at, np.asarray(confidence) - np.asarray(right, float), n_bins)
    return float(np.abs(gaps).sum() / len(at))
