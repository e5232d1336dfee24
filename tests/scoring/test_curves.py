import numpy as np
import pandas as pd
import pytest

from i2m_lib.scoring.curves import auroc, auroc_interval, calibration_error, curve, middles


def views(values: dict[tuple[str, str], list[float]], **columns) -> pd.DataFrame:
    rows = [(c, m, v) for (c, m), several in values.items() for v in several]
    return pd.DataFrame(rows, columns=["category", "model_id", "value"]).assign(**columns)


def test_a_shape_counts_once_and_a_category_counts_once():
    table = views({("chair", "a"): [1, 3], ("chair", "b"): [4], ("sofa", "c"): [9]}, kind="all")
    row = curve(table, ["kind"], value="value", n_boot=500, seed=0).iloc[0]
    assert row["mean"] == ((2 + 4) / 2 + 9) / 2
    assert row.n_shapes == 3
    assert (2 + 9) / 2 <= row.low <= row["mean"] <= row.high <= (4 + 9) / 2


def test_groups_keep_their_order_and_constants_their_value():
    table = pd.concat([views({("chair", m): [v] for m in "abc"}, kind=k) for k, v in (("z", 2.0), ("a", 1.0))])
    found = curve(table, ["kind"], value="value", n_boot=50, seed=0)
    assert found.kind.tolist() == ["z", "a"]
    np.testing.assert_allclose(found[["mean", "low", "high"]], [[2.0] * 3, [1.0] * 3])


def test_values_lie_within_half_a_bin_of_its_middle():
    values = pd.Series([0.0, 44.9, 45.0, 359.9, 360.0])
    assert middles(values, 8, 0, 360).tolist() == [22.5, 22.5, 67.5, 337.5, 337.5]
    assert middles(pd.Series([2.0, 2.0]), 8, 2.0, 2.0).tolist() == [2.0, 2.0]


def test_auroc_of_separable_equal_and_opposite_scores():
    positive = np.array([True] * 3 + [False] * 4)
    assert auroc(positive.astype(float), positive) == 1
    assert auroc(np.zeros(7), positive) == 0.5
    assert auroc(-positive.astype(float), positive) == 0
    assert np.isnan(auroc(np.arange(7.0), np.ones(7, bool)))


def test_auroc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.4
    pairs = score[positive][:, None] - score[~positive]
    assert auroc(score, positive) == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    shape = np.arange(60).astype(str)
    value, low, high = auroc_interval(score, positive, shape, n_boot=500, seed=0)
    assert value == auroc(score, positive)
    assert low < value < high


def test_views_of_one_shape_tell_no_more_than_one_view():
    rng = np.random.default_rng(1)
    score, positive, shape = rng.normal(size=30), np.arange(30) < 12, np.arange(30).astype(str)
    once = auroc_interval(score, positive, shape, n_boot=200, seed=0)
    often = auroc_interval(*(np.repeat(x, 5) for x in (score, positive, shape)), n_boot=200, seed=0)
    np.testing.assert_allclose(once, often)


def test_an_interval_without_doubt_has_no_width():
    positive = np.array([True, True, False, False])
    assert auroc_interval(positive * 1.0, positive, np.array(list("abcd")), n_boot=50, seed=0) == (1, 1, 1)


def test_a_calibrated_prediction_has_no_error_and_a_boast_has_all_of_it():
    assert calibration_error(np.repeat([0.25, 1.0], 4), np.array([1, 0, 0, 0, 1, 1, 1, 1])) == 0
    assert calibration_error(np.ones(5), np.zeros(5, bool)) == 1
    assert calibration_error(np.full(10, 0.9), np.arange(10) < 6) == pytest.approx(0.3)
