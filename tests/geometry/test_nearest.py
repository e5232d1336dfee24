import numpy as np
import pytest
import torch

from i2m_lib.geometry.batched_nearest import offsets, squared_chamfer
from i2m_lib.geometry.nearest import Target, chamfer, chamfer_l1, chamfer_l2, dist, distances


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 3)), rng.normal(size=(50, 3))


def test_distances_are_the_least_of_all_pairs(clouds):
    X, Y = clouds
    pairs = np.linalg.norm(X[:, None] - Y, axis=2)
    for given in (X, Target.of(X)):
        d_x, d_y = distances(given, Target.of(Y))
        np.testing.assert_allclose(d_x, pairs.min(1), rtol=1e-14)
        np.testing.assert_allclose(d_y, pairs.min(0), rtol=1e-14)
        assert chamfer(given, Target.of(Y)) == chamfer_l1(d_x, d_y)


def test_the_measures_are_those_of_their_definitions():
    d_x, d_y = np.array([0.0, 1.0, 2.0]), np.array([3.0])
    assert chamfer_l1(d_x, d_y) == (1 + 3) / 2
    assert chamfer_l2(d_x, d_y) == pytest.approx(5 / 3 + 9)
    assert [dist(d_x, d_y, t) for t in (0.5, 1.0, 4.0, 9.0)] == pytest.approx([5 / 3, 4 / 3, 1, 0])


def test_which_cloud_comes_first_changes_nothing(clouds):
    X, Y = map(Target.of, clouds)
    assert chamfer(X, Y) == chamfer(Y, X)


def test_a_coarse_target_has_every_second_point(clouds):
    coarse = Target.of(clouds[0]).coarse
    np.testing.assert_array_equal(coarse.points, clouds[0][::2])
    assert coarse.tree.n == 20


def test_the_batched_twin_agrees(clouds):
    X, Y = clouds
    x, y = torch.from_numpy(np.stack([X, 2 * X])).requires_grad_(), torch.from_numpy(Y)
    for one, found in zip((X, 2 * X), squared_chamfer(x, y), strict=True):
        d_x, d_y = distances(one, Target.of(Y))
        assert found.item() == pytest.approx((d_x**2).sum() + (d_y**2).sum())


def test_gradients_pull_points_to_their_nearest(clouds):
    X, Y = (torch.from_numpy(c) for c in clouds)
    X.requires_grad_()
    squared_chamfer(X, Y).backward()
    forward, back = offsets(X.detach(), Y)
    to_x = torch.cdist(Y, X.detach()).argmin(1)
    expected = 2 * forward - 2 * torch.zeros_like(forward).index_add(0, to_x, back)
    torch.testing.assert_close(X.grad, expected)
