import numpy as np
import pandas as pd
import pytest

from i2m_lib.scoring.statistics import (
    COLUMNS,
    PERCENTILES,
    bootstrap,
    category_mean,
    category_means,
    gap_closed,
    groups,
    is_lower_better,
    per_shape,
    share_refused,
    spread_of_runs,
    summarise,
    without_near_duplicates,
)

SIZES = {"chair": 30, "table": 12, "lamp": 6}
METHODS = ("image_retrieval", "image2mesh", "oracle_ffd")


def tidy(values: dict[str, np.ndarray], metric: str = "chamfer_l1", views: int = 1) -> pd.DataFrame:
    """Scores of each method: one value a shape, shapes being those of SIZES in this order."""
    shapes = [(category, f"{category}{i}") for category, n in SIZES.items() for i in range(n)]
    rows = [
        (method, "canonical", "test", category, category, model_id, view, metric, value)
        for method, column in values.items()
        for (category, model_id), value in zip(shapes, column, strict=True)
        for view in range(views)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def example(seed: int = 0, **kwargs) -> pd.DataFrame:
    """Methods whose errors share each shape's difficulty, better from left to right."""
    rng = np.random.default_rng(seed)
    difficulty = rng.uniform(0.5, 2.0, sum(SIZES.values()))
    offsets = zip(METHODS, (0.3, 0.2, 0.0), strict=True)
    return tidy({m: difficulty + c + rng.normal(0, 0.02, len(difficulty)) for m, c in offsets}, **kwargs)


def row(summary: pd.DataFrame, method: str, group: str, metric: str = "chamfer_l1") -> pd.Series:
    wanted = (summary["method"] == method) & (summary["group"] == group)
    return summary[wanted & (summary["metric"] == metric)].iloc[0]


def test_per_shape_averages_views_first():
    scores = example(views=2)
    scores["value"] += 10.0 * scores["view"]
    table = per_shape(scores, "chamfer_l1")
    assert list(table.columns) == list(METHODS)
    assert table.index.names == ["category", "model_id"]
    expected = per_shape(example(), "chamfer_l1") + 5
    pd.testing.assert_frame_equal(table, expected)


def test_per_shape_takes_methods_without_views():
    scores = example()
    scores["view"] = scores["view"].astype("Int64").where(scores["method"] != "oracle_ffd")
    pd.testing.assert_frame_equal(per_shape(scores, "chamfer_l1"), per_shape(example(), "chamfer_l1"))


def test_a_missing_shape_is_named():
    scores = example()
    gone = (scores["method"] == "image2mesh") & (scores["model_id"] == "lamp3")
    with pytest.raises(ValueError, match=r"lacks 1 .*\(image2mesh, lamp/lamp3\)"):
        summarise(scores[~gone], n_boot=10, seed=0)
    with pytest.raises(ValueError, match=r"lacks 12 .*, \.\.\. as well"):
        per_shape(
            scores[(scores["method"] != "image2mesh") | (scores["category"] != "table")],
            "chamfer_l1",
        )


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda s: s.drop(columns="split"), r"lack the columns \['split'\]"),
        (
            lambda s: s.assign(metric="f_1"),
            r"no row is of metric 'chamfer_l1': use one of \['f_1'\]",
        ),
        (lambda s: pd.concat([s, s.iloc[[3]]]), "1 values of chamfer_l1 are given twice.*chair3"),
        (
            lambda s: s.assign(value=s["value"].where(s.index != 4)),
            "1 values .* not finite.*chair4",
        ),
        (lambda s: s.assign(value=np.inf), "144 values of chamfer_l1 are not finite"),
        (lambda s: pd.concat([s, s.assign(split="val")]), r"for the splits \['test', 'val'\]"),
        (lambda s: pd.concat([s, s.assign(protocol="occnet")]), "for the protocols"),
    ],
)
def test_bad_scores_are_refused(fault, message):
    with pytest.raises(ValueError, match=message):
        per_shape(fault(example()), "chamfer_l1")


def test_groups_are_the_means_they_are_called():
    category = np.repeat(list(SIZES), list(SIZES.values()))
    values = np.random.default_rng(0).random((len(category), 2))
    names, weights, n_shapes = groups(category)
    assert names == ["chair", "lamp", "table", "category_mean", "instance_mean"]
    assert n_shapes.tolist() == [30, 6, 12, 48, 48]
    means = weights @ category_means(values, category)
    by_category = [values[category == name].mean(0) for name in names[:3]]
    expected = [*by_category, np.mean(by_category, axis=0), values.mean(0)]
    np.testing.assert_allclose(means, expected, rtol=1e-13)


def test_every_category_weighs_the_same():
    table = pd.DataFrame({"a": [1.0, 3.0, 10.0], "b": [0.0, 0.0, 1.0]})
    category = pd.Series(["chair", "chair", "sofa"])
    assert category_mean(table.a, category) == category_mean(table.a.to_numpy(), category.to_numpy()) == 6
    assert category_mean(table, category).to_dict() == {"a": 6.0, "b": 0.5}


def test_bootstrap_is_stratified_and_paired():
    category = np.array(["a"] * 5 + ["b"])
    values = np.random.default_rng(0).random((6, 1))
    draws = bootstrap(np.hstack([values, 2 * values + 1, np.ones((6, 1))]), category, n_boot=50, seed=3)
    assert draws.shape == (2, 50, 3)
    np.testing.assert_allclose(draws[..., 1], 2 * draws[..., 0] + 1)  # the same shapes in each draw
    np.testing.assert_allclose(draws[..., 2], 1)
    np.testing.assert_allclose(draws[1, :, 0], values[5, 0])  # the only shape of its category
    assert np.ptp(draws[0, :, 0]) > 0


def test_bootstrap_agrees_with_resampling_one_by_one():
    rng = np.random.default_rng(0)
    values, category = rng.random((20, 1)), np.repeat("a", 20)
    fast = bootstrap(values, category, n_boot=20_000, seed=1)[0, :, 0]
    slow = np.array([values[rng.integers(0, 20, 20), 0].mean() for _ in range(20_000)])
    levels = [2.5, 25, 50, 75, 97.5]
    np.testing.assert_allclose(np.percentile(fast, levels), np.percentile(slow, levels), atol=5e-3)
    assert fast.std() == pytest.approx(values.std() / np.sqrt(20), rel=0.03)


def test_intervals_cover_the_truth_in_95_percent_of_repeats():
    rng = np.random.default_rng(5)
    category = np.repeat(["a", "b"], [60, 40])
    hits, repeats = 0, 400
    for seed in range(repeats):
        values = np.concatenate([rng.normal(1, 0.5, 60), rng.exponential(2, 40)])[:, None]
        draws = bootstrap(values, category, n_boot=400, seed=seed).mean(0)[:, 0]
        low, high = np.percentile(draws, PERCENTILES)
        hits += low <= 1.5 <= high
    assert 0.91 < hits / repeats < 0.98


def test_the_table_has_a_row_for_each_metric_method_and_group():
    scores = pd.concat([example(), example(metric="f_1")])
    summary = summarise(scores, n_boot=50, seed=0)
    assert len(summary) == 2 * len(METHODS) * (len(SIZES) + 2)
    assert not summary.duplicated(["metric", "method", "group"]).any()
    assert not summary.isna().any(axis=None)
    assert row(summary, "image2mesh", "table")["n_shapes"] == 12
    assert row(summary, "image2mesh", "category_mean", "f_1")["n_shapes"] == 48


def test_means_and_differences_are_those_of_the_shapes():
    scores = example()
    summary = summarise(scores, n_boot=500, seed=0)
    table = per_shape(scores, "chamfer_l1")
    chairs = table.loc["chair"]
    chair = row(summary, "image2mesh", "chair")
    assert chair["mean"] == pytest.approx(chairs["image2mesh"].mean())
    assert chair["difference"] == pytest.approx((chairs["image2mesh"] - chairs["image_retrieval"]).mean())
    instance, category = (row(summary, "oracle_ffd", f"{m}_mean") for m in ("instance", "category"))
    assert instance["mean"] == pytest.approx(table["oracle_ffd"].mean())
    by_category = table.groupby("category").mean()
    assert category["mean"] == pytest.approx(by_category["oracle_ffd"].mean())
    assert (summary["low"] < summary["mean"]).all()
    assert (summary["mean"] < summary["high"]).all()
    itself = summary[summary["method"] == "image_retrieval"]
    assert (itself[["difference", "difference_low", "difference_high", "win_rate"]] == 0).all(axis=None)


def test_pairing_narrows_the_interval_of_correlated_methods():
    scores = example()
    summary = summarise(scores, n_boot=1000, seed=0)
    ours, base = (row(summary, m, "category_mean") for m in ("image2mesh", "image_retrieval"))
    paired = ours["difference_high"] - ours["difference_low"]
    unpaired = np.hypot(ours["high"] - ours["low"], base["high"] - base["low"])
    assert paired < 0.2 * unpaired
    assert ours["difference_high"] < 0


@pytest.mark.parametrize(
    ("metric", "lower"),
    [("chamfer_l1", True), ("chamfer_l2", True), ("dist", True), ("f_0.5", False), ("f_10", False)]
    + [(m, False) for m in ("normal_consistency", "iou", "silhouette_iou_held_out")],
)
def test_win_rates_know_the_direction(metric, lower):
    base = np.ones(48)
    smaller = np.where(np.arange(48) < 30, 0.5, 1.0)  # smaller for chairs, a tie for the others
    scores = tidy({"image_retrieval": base, "ours": smaller}, metric=metric)
    summary = summarise(scores, n_boot=20, seed=0)
    assert is_lower_better(metric) == lower
    wins = {g: row(summary, "ours", g, metric)["win_rate"] for g in summary["group"].unique()}
    expected = {"chair": 1, "lamp": 0, "table": 0, "category_mean": 1 / 3, "instance_mean": 30 / 48}
    assert wins == pytest.approx({g: v * lower for g, v in expected.items()})


def test_an_unknown_metric_or_baseline_is_refused():
    with pytest.raises(ValueError, match="no direction is known for the metric 'speed'"):
        summarise(example(metric="speed"), n_boot=10, seed=0)
    with pytest.raises(ValueError, match="chamfer_l1 is not given for 'best'"):
        summarise(example(), baseline="best", n_boot=10, seed=0)
    with pytest.raises(ValueError, match="chamfer_l1 is not given for 'best'"):
        gap_closed(example(), method="best", n_boot=10, seed=0)


def test_gap_closed_is_0_for_the_baseline_and_1_for_the_ceiling():
    scores = example()
    assert gap_closed(scores, method="image_retrieval", n_boot=100, seed=0) == (0, 0, 0)
    assert gap_closed(scores, method="oracle_ffd", n_boot=100, seed=0) == (1, 1, 1)
    value, low, high = gap_closed(scores, method="image2mesh", n_boot=1000, seed=0)
    assert low < value < high
    assert value == pytest.approx(1 / 3, abs=0.05)
    means = per_shape(scores, "chamfer_l1").groupby("category").mean().mean()
    retrieval, ours, oracle = means[list(METHODS)]
    assert value == pytest.approx((retrieval - ours) / (retrieval - oracle))


def test_no_gap_is_refused():
    scores = tidy({"image_retrieval": np.ones(48), "oracle_ffd": np.ones(48)})
    with pytest.raises(ValueError, match="both have chamfer_l1 1: there is no gap"):
        gap_closed(scores, method="oracle_ffd", n_boot=10, seed=0)


def test_the_seed_decides():
    scores = example()
    one, same, other = (summarise(scores, n_boot=100, seed=s) for s in (0, 0, 1))
    pd.testing.assert_frame_equal(one, same)
    assert not one["low"].equals(other["low"])
    assert one["mean"].equals(other["mean"])
    shuffled = scores.sample(frac=1, random_state=0).sort_values("method", kind="stable")
    again = summarise(shuffled, n_boot=100, seed=0)
    key = ["method", "group"]
    pd.testing.assert_frame_equal(again.sort_values(key, ignore_index=True), one.sort_values(key, ignore_index=True))
    gaps = [gap_closed(scores, method="image2mesh", n_boot=100, seed=s) for s in (0, 0, 1)]
    assert gaps[0] == gaps[1] != gaps[2]


def test_what_some_method_was_refused_is_left_out_for_all():
    scores = example(metric="iou")
    chairs = sorted(scores[scores.category == "chair"].model_id.unique())
    lost = (scores.method == METHODS[0]) & (scores.model_id == chairs[0])
    refused = scores.assign(value=scores.value.mask(lost))
    table = per_shape(refused, "iou")
    assert ("chair", chairs[0]) not in table.index
    pd.testing.assert_frame_equal(table, per_shape(scores, "iou").drop(index=("chair", chairs[0])))
    assert share_refused(refused, "iou") == pytest.approx(1 / 48)
    summary = summarise(refused, n_boot=10, seed=0)
    assert row(summary, METHODS[0], "chair", "iou")["n_shapes"] == 29
    shares = summary[summary.method == METHODS[1]].set_index("group").refused
    assert shares.to_dict() == pytest.approx(
        {"chair": 1 / 30, "lamp": 0, "table": 0, "category_mean": 1 / 48, "instance_mean": 1 / 48}
    )
    nothing = scores.assign(value=np.nan)
    with pytest.raises(ValueError, match="iou was refused for every shape"):
        per_shape(nothing, "iou")
    both = pd.concat([nothing, example()])
    assert set(summarise(both, n_boot=10, seed=0).metric) == {"chamfer_l1"}
    with pytest.raises(ValueError, match="are not finite"):
        per_shape(refused.assign(metric="f_1"), "f_1")


def test_near_duplicates_are_left_out_where_scores_tell_them():
    scores = example()
    assert without_near_duplicates(scores) is scores
    easy = scores.model_id.isin(["chair0", "chair1", "lamp2"])
    told = scores.assign(near_duplicate=easy, value=scores.value.mask(easy, 0.0))
    kept = summarise(without_near_duplicates(told), n_boot=10, seed=0)
    pd.testing.assert_frame_equal(kept, summarise(scores[~easy], n_boot=10, seed=0))
    assert row(kept, "image2mesh", "category_mean")["n_shapes"] == 45
    every = scores.assign(near_duplicate=True)
    assert without_near_duplicates(every) is every


def test_runs_spread_as_their_means_do():
    one = example()
    better = one.assign(value=one.value - 0.002 * (one.method == "image2mesh"))
    table = spread_of_runs({"a": one, "b": better}, "chamfer_l1")
    assert list(table.columns) == ["a", "b", "mean", "std", "range"]
    assert table.loc["image2mesh", "range"] == pytest.approx(0.002)
    assert table.loc["image2mesh", "std"] == pytest.approx(0.002 / 2**0.5)
    assert (table.drop(index="image2mesh")[["std", "range"]] == 0).all(axis=None)
    with pytest.raises(ValueError, match="runs a and b score different shapes"):
        spread_of_runs({"a": one, "b": one[one.category == "chair"]}, "chamfer_l1")
