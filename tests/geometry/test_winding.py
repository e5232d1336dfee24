import numpy as np
import pytest
import trimesh
from bodies import ball, box, solids

from i2m_lib.geometry.spans import spans
from i2m_lib.geometry.surfaces import bounds_solid, edge_keys
from i2m_lib.geometry.winding import crossings, winding


def slow_winding(V, F, X):
    """The solid angle of all faces (van Oosterom and Strackee 1983), in whole turns."""
    a, b, c = (V[F[:, i]][None] - X[:, None] for i in range(3))
    x, y, z = (np.linalg.norm(p, axis=-1) for p in (a, b, c))
    triple = (a * np.cross(b, c)).sum(-1)
    rest = x * y * z + (a * b).sum(-1) * z + (b * c).sum(-1) * x + (c * a).sum(-1) * y
    return np.arctan2(triple, rest).sum(1) / (2 * np.pi)


@pytest.mark.parametrize("name", solids())
def test_solid_angles_agree(name):
    V, F = solids()[name]
    assert bounds_solid(F)
    X = np.random.default_rng(0).uniform(1.2 * V.min(0), 1.2 * V.max(0), (200, 3))
    expected = slow_winding(V, F, X)
    np.testing.assert_allclose(winding(V, F, X), expected, atol=1e-6)


def test_points_level_with_edges_and_corners_are_counted_once():
    V, F = box((2, 2, 2))
    grid = np.stack(np.meshgrid(*[[-1.5, -1.0 + 2**-40, -0.5, 0.0, 0.5, 1.5]] * 3, indexing="ij"), -1).reshape(-1, 3)
    inside = (np.abs(grid) < 1).all(1)
    np.testing.assert_array_equal(winding(V, F, grid), inside.astype(int))


def test_the_share_of_points_is_the_volume():
    X = np.random.default_rng(0).uniform(-1, 1, (200_000, 3))
    V, F = ball()
    volume = trimesh.Trimesh(V, F).volume
    assert (winding(V, F, X) != 0).mean() == pytest.approx(volume / 8, abs=4 * (0.25 / 200_000) ** 0.5)


@pytest.mark.parametrize("n", [0, 1, 5000])
def test_any_number_of_points(n):
    X = np.random.default_rng(0).uniform(-1, 1, (n, 3))
    np.testing.assert_array_equal(winding(*box(), X), (np.abs(X) < 0.5).all(1).astype(int))


def test_rows_cut_a_triangle_where_its_edges_say():
    """Of a right triangle with legs of 2 and 4, row v is cut from 0 to 2 - v / 2; a row of height 1 holds that of v."""
    corners = np.array([[[0.0, 0], [2, 0], [0, 4]]])
    for height in (0, 1):
        triangle, row, left, right = spans(corners, np.array([1]), np.array([2]), height)
        assert triangle.tolist() == [0, 0]
        assert row.tolist() == [1, 2]
        np.testing.assert_allclose(left, 0)
        np.testing.assert_allclose(right, [1.5, 1.0])


def test_equal_edges_have_equal_keys():
    key, directed = (x.reshape(2, 3) for x in edge_keys(np.array([[0, 1, 2], [2, 1, 3]])))
    assert key[0, 1] == key[1, 0]
    assert directed[0, 1] != directed[1, 0]
    assert len(np.unique(key)) == 5
    assert len(np.unique(directed)) == 6


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_both_rays_along_any_axis_tell_the_winding_number_of_a_solid(axis):
    for name, (V, F) in solids().items():
        X = np.random.default_rng(0).uniform(V.min(0), V.max(0), (2000, 3))
        expected = np.tile(winding(V, F, X), (2, 1))
        np.testing.assert_array_equal(crossings(V, F, X, axis), expected, err_msg=name)


def test_a_ray_through_a_sheet_leaves_it_once_on_one_side():
    """A unit square at z = 0 that looks up: rays from below leave it upwards, rays from above enter it downwards."""
    V, F = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]])
    X = np.array([[0.3, 0.4, -1.0], [0.3, 0.4, 1.0], [2.0, 0.4, -1.0]])
    np.testing.assert_array_equal(crossings(V, F, X, 2), [[1, 0, 0], [0, -1, 0]])
    np.testing.assert_array_equal(crossings(V, F[:, ::-1], X, 2), [[-1, 0, 0], [0, 1, 0]])
