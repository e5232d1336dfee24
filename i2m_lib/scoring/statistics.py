"""From tidy scores to tables: means with bootstrap intervals, paired differences, the gap closed.

`scores` has one row for each method, protocol, split, model, view and metric, with the columns COLUMNS. A shape's score
is the mean over its views. Intervals are 95 % percentile intervals of a bootstrap over SHAPES, drawn anew within each
category, so that every category keeps its size; all methods see the same draws, so that their differences are paired.
Such intervals are somewhat too narrow for fewer than about FEWEST shapes and have no width for one.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

COLUMNS = ("method", "protocol", "split", "synset", "category", "model_id", "view", "metric", "value")
LOWER_IS_BETTER = ("chamfer_", "dist")
HIGHER_IS_BETTER = ("f_", "normal_consistency", "iou", "silhouette_")
# These have no value where a mesh has no inside; shapes for which any method has none are left out, for all methods.
REFUSABLE = ("iou",)
PERCENTILES = (2.5, 97.5)
FEWEST = 20  # shapes that a claim needs


def is_lower_better(metric: str) -> bool:
    """Whether a smaller value of the metric is better. Raises ValueError for an unknown metric."""
    if not metric.startswith(LOWER_IS_BETTER + HIGHER_IS_BETTER):
        known = ", ".join(f"{name}..." for name in LOWER_IS_BETTER + HIGHER_IS_BETTER)
        raise ValueError(f"no direction is known for the metric {metric!r}: use one of {known}")
    return metric.startswith(LOWER_IS_BETTER)


def per_shape(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The metric's values, mean over views: sorted rows (category, model_id), a column a method.

    Columns are in the order in which `scores` first names the methods; a method without any row of this metric has
    none. Of a REFUSABLE metric only the shapes are kept for which every method has all its values.

    Raises:
        ValueError: a column of `scores` or the metric is missing; its rows come from several protocols or splits,
            repeat one another or are not finite; or a method lacks a shape that another method has.
    """
    rows = _rows_of(scores, metric)
    methods = rows["method"].unique()
    if metric in REFUSABLE:
        rows = rows[~rows["model_id"].isin(rows.loc[rows["value"].isna(), "model_id"])]
        if rows.empty:
            raise ValueError(f"{metric} was refused for every shape by some method: leave the metric out")
    table = rows.pivot_table("value", ["category", "model_id"], "method", "mean", observed=True)[methods]
    if lacks := [f"({method}, {c}/{m})" for (c, m), row in table.isna().iterrows() for method in row.index[row]]:
        shown = ", ".join(lacks[:10]) + (", ..." if len(lacks) > 10 else "")
        raise ValueError(f"{metric} lacks {len(lacks)} (method, shape): score {shown} as well")
    return table


def _rows_of(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    if lacking := [column for column in COLUMNS if column not in scores]:
        raise ValueError(f"scores lack the columns {lacking}: they have {list(scores)}")
    rows = scores[scores["metric"] == metric]
    if rows.empty:
        raise ValueError(f"no row is of metric {metric!r}: use one of {sorted(scores['metric'].unique())}")
    for column in ("protocol", "split"):
        if len(names := sorted(rows[column].unique())) > 1:
            raise ValueError(f"{metric} is given for the {column}s {names}: select one of them")
    key = ["method", "category", "model_id", "view"]
    finite = np.isfinite(rows["value"].fillna(0.0 if metric in REFUSABLE else np.nan))
    for fault, wrong in {"are given twice": rows.duplicated(key), "are not finite": ~finite}.items():
        if wrong.any():
            first = rows.loc[wrong, [*key, "value"]].iloc[0].to_dict()
            raise ValueError(f"{wrong.sum()} values of {metric} {fault}: correct {first}")
    return rows


def share_refused(scores: pd.DataFrame, metric: str) -> float:
    """Share of shapes, 0..1, for which some method has no value of the metric."""
    rows = scores[scores["metric"] == metric]
    return float(rows["value"].isna().groupby(rows["model_id"]).any().mean())


def without_near_duplicates(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of shapes that are not nearly those of training or validation; all rows if there are no others or the
    scores do not say."""
    if "near_duplicate" not in scores or scores["near_duplicate"].all():
        return scores
    return scores[~scores["near_duplicate"].astype(bool)]


def spread_of_runs(runs: Mapping[str, pd.DataFrame], metric: str) -> pd.DataFrame:
    """How much training seeds matter: category means of the scores of several runs {name: scores} on the same shapes.

    Returns:
        A row a method: a column for each run, then mean, std (of the runs, n - 1) and range (largest - smallest).

    Raises:
        ValueError: see `per_shape`; or the runs do not score the same shapes.
    """
    tables = {name: per_shape(scores, metric) for name, scores in runs.items()}
    first = next(iter(tables))
    for name, table in tables.items():
        if set(table.index) != set(tables[first].index):
            raise ValueError(f"runs {first} and {name} score different shapes: evaluate them on one split")
    means = pd.DataFrame({n: category_mean(t, t.index.get_level_values("category")) for n, t in tables.items()})
    spread = {"mean": means.mean(axis=1), "std": means.std(axis=1), "range": means.max(axis=1) - means.min(axis=1)}
    return means.assign(**spread).loc[tables[first].columns]


def bootstrap(values: np.ndarray, category: np.ndarray, *, n_boot: int, seed: int) -> np.ndarray:
    """Category means of resampled shapes, (C, n_boot, k), the C categories sorted by name.

    values (n, k) holds k numbers a shape, category (n,) the names. In each draw a category of m shapes is m of them
    drawn with replacement, the same ones for all k numbers. Constant values are returned unchanged, and linear maps of
    the k numbers commute with the bootstrap.
    """
    rng = np.random.default_rng(seed)
    means = []
    for name in np.unique(category):
        inside = values[category == name]
        m = len(inside)
        means.append(rng.multinomial(m, np.full(m, 1 / m), size=n_boot) @ inside / m)
    return np.stack(means)


def category_means(values: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Means (C, ...) of values (n, ...) within each category (n,), sorted by name."""
    return np.stack([values[category == name].mean(0) for name in np.unique(category)])


def category_mean(values: np.ndarray | pd.Series | pd.DataFrame, category: np.ndarray | pd.Series) -> float | pd.Series:
    """Mean over categories (n,) of the means within them: a float of values (n,), a Series of a table's columns."""
    means = category_means(np.asarray(values, float), np.asarray(category)).mean(0)
    return pd.Series(means, values.columns) if isinstance(values, pd.DataFrame) else float(means)


def groups(category: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, weights (G, C) of the categories' means and numbers of shapes (G,) of the groups.

    The groups of shapes whose categories are (n,) are each category; `category_mean`, in which categories weigh the
    same; and `instance_mean`, in which shapes do. Rows of weights sum to 1.
    """
    names, sizes = np.unique(category, return_counts=True)
    means = np.full(len(names), 1 / len(names)), sizes / len(category)
    n_shapes = np.array([*sizes, len(category), len(category)])
    return [*map(str, names), "category_mean", "instance_mean"], np.vstack([np.eye(len(names)), *means]), n_shapes


def summarise(
    scores: pd.DataFrame, *, baseline: str = "image_retrieval", n_boot: int = 2000, seed: int
) -> pd.DataFrame:
    """The results table: a row for each metric, method and group (see `groups`).

    Columns: metric, method, group, n_shapes; mean, low, high; difference (method - baseline, of the same shapes),
    difference_low, difference_high; win_rate, the share of shapes (averaged as the mean is) where the method is
    strictly better than the baseline, 0..1; refused, the share of the group's shapes that are left out as some method
    has no value, 0..1.

    Raises:
        ValueError: see `per_shape`; or the baseline has no row of a metric, or a metric's direction is unknown.
    """
    metrics = [m for m in scores["metric"].unique() if m not in REFUSABLE or share_refused(scores, m) != 1]
    parts = []
    for metric in metrics:
        found = _summarise_metric(per_shape(scores, metric), metric, baseline, n_boot, seed)
        shapes = scores[scores["metric"] == metric].drop_duplicates(["category", "model_id"])
        names, _, n_shapes = groups(shapes["category"].to_numpy())
        parts.append(found.assign(refused=1 - found["n_shapes"] / found["group"].map(pd.Series(n_shapes, names))))
    return pd.concat(parts, ignore_index=True)


def _summarise_metric(table: pd.DataFrame, metric: str, baseline: str, n_boot: int, seed: int) -> pd.DataFrame:
    at = table.columns.get_loc(_method(table, metric, baseline))
    values, category = table.to_numpy(), table.index.get_level_values("category").to_numpy()
    base = values[:, [at]]
    wins = (values < base) if is_lower_better(metric) else (values > base)
    names, weights, n_shapes = groups(category)
    means = weights @ category_means(values, category)  # (G, methods)
    draws = np.tensordot(weights, bootstrap(values, category, n_boot=n_boot, seed=seed), 1)
    columns = {"mean": means}
    columns["low"], columns["high"] = np.percentile(draws, PERCENTILES, axis=1)
    columns["difference"] = means - means[:, [at]]
    columns["difference_low"], columns["difference_high"] = np.percentile(draws - draws[..., [at]], PERCENTILES, axis=1)
    columns["win_rate"] = weights @ category_means(wins, category)
    index = pd.MultiIndex.from_product([[metric], table.columns, names], names=["metric", "method", "group"])
    found = pd.DataFrame({name: x.T.ravel() for name, x in columns.items()}, index).reset_index()
    found.insert(3, "n_shapes", np.tile(n_shapes, len(table.columns)))
    return found


def _method(table: pd.DataFrame, metric: str, method: str) -> str:
    if method not in table:
        raise ValueError(f"{metric} is not given for {method!r}: score it or use {list(table)}")
    return method


def gap_closed(
    scores: pd.DataFrame,
    *,
    method: str,
    baseline: str = "image_retrieval",
    ceiling: str = "oracle_ffd",
    metric: str = "chamfer_l1",
    n_boot: int = 2000,
    seed: int,
) -> tuple[float, float, float]:
    """(baseline - method) / (baseline - ceiling) of category means, and its interval (low, high).

    0 for the baseline and 1 for the ceiling; below 0 and above 1 beyond them.

    Raises:
        ValueError: see `per_shape`; or a method has no row of the metric, or there is no gap.
    """
    table = per_shape(scores, metric)
    values = table[[_method(table, metric, name) for name in (baseline, method, ceiling)]].to_numpy()
    category = table.index.get_level_values("category").to_numpy()
    base, ours, best = category_means(values, category).mean(0)
    if base == best:
        raise ValueError(f"{baseline} and {ceiling} both have {metric} {base:g}: there is no gap")
    b, m, c = np.moveaxis(bootstrap(values, category, n_boot=n_boot, seed=seed).mean(0), -1, 0)
    low, high = np.percentile((b - m) / (b - c), PERCENTILES)
    return float((base - ours) / (base - best)), float(low), float(high)
