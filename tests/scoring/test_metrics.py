import numpy as np
import pytest
import trimesh

from i2m_lib.geometry.nearest import chamfer_l1, chamfer_l2, dist, fscore
from i2m_lib.scoring.metrics import OrientedPoints, along_curve, between, point_to_surface


def unit(X: np.ndarray) -> np.ndarray:
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def sphere(radius: float, n: int, seed: int) -> OrientedPoints:
    normals = unit(np.random.default_rng(seed).normal(size=(n, 3)))
    return OrientedPoints.of(radius * normals, normals)


def square(height: float, n: int, seed: int) -> OrientedPoints:
    points = np.random.default_rng(seed).random((n, 3)) * [1, 0, 1] + [0, height, 0]
    return OrientedPoints.of(points, np.tile([0.0, 1.0, 0.0], (n, 1)))


def cloud(n: int, seed: int) -> OrientedPoints:
    rng = np.random.default_rng(seed)
    return OrientedPoints.of(rng.normal(size=(n, 3)), unit(rng.normal(size=(n, 3))))


def all_metrics(near: tuple) -> np.ndarray:
    scalars = [chamfer_l1(*near[0]), chamfer_l2(*near[0]), near[1]]
    return np.array([*scalars, *(m(*near[0], t) for m in (fscore, dist) for t in (0.05, 0.2, 0.6))])


def slow_metrics(X: OrientedPoints, Y: OrientedPoints) -> np.ndarray:
    """The definitions, on the dense matrix of distances."""
    D = np.sqrt(((X.points[:, None] - Y.points[None]) ** 2).sum(-1))
    N = np.abs(X.normals @ Y.normals.T)
    d, e = D.min(1), D.min(0)
    dots = [N[np.arange(len(d)), D.argmin(1)].mean(), N[D.argmin(0), np.arange(len(e))].mean()]
    values = [(d.mean() + e.mean()) / 2, (d**2).mean() + (e**2).mean(), np.mean(dots)]
    for t in (0.05, 0.2, 0.6):
        p, r = (d < t).mean(), (e < t).mean()
        values.append(2 * p * r / (p + r) if p + r else 0)
    return np.array([*values, *((d**2 > t).mean() + (e**2 > t).mean() for t in (0.05, 0.2, 0.6))])


@pytest.mark.parametrize(("n", "m"), [(1, 1), (300, 500), (700, 40)])
def test_the_dense_definition_agrees(n, m):
    X, Y = cloud(n, 0), cloud(m, 1)
    np.testing.assert_allclose(all_metrics(between(X, Y)), slow_metrics(X, Y), rtol=0, atol=1e-12)


def test_swapping_changes_nothing():
    X, Y = cloud(400, 2), cloud(600, 3)
    np.testing.assert_allclose(all_metrics(between(X, Y)), all_metrics(between(Y, X)), rtol=1e-14)


def test_order_changes_nothing():
    X, Y = cloud(400, 2), cloud(600, 3)
    shuffle = np.random.default_rng(0).permutation(400)
    shuffled = OrientedPoints.of(X.points[shuffle], X.normals[shuffle])
    expected = all_metrics(between(X, Y))
    np.testing.assert_allclose(all_metrics(between(shuffled, Y)), expected, rtol=1e-14)


def slow_place_on_curve(cell: np.ndarray) -> int:
    """The bits of three coordinates, interlaced."""
    return sum((int(c) >> bit & 1) << (3 * bit + 2 - axis) for axis, c in enumerate(cell) for bit in range(5))


@pytest.mark.parametrize("extent", [[1, 1, 1], [1, 0, 3], [0, 0, 0]])
def test_the_curve_goes_from_cell_to_cell(extent):
    X = np.random.default_rng(0).random((500, 3)) * extent
    side = np.ptp(X, axis=0).max() / 31.99 or 1
    cells = np.floor((X - X.min(0)) / side)
    places = [slow_place_on_curve(cell) for cell in cells]
    np.testing.assert_array_equal(along_curve(X), np.argsort(places, kind="stable"))


def test_points_keep_their_normals():
    X = sphere(2.0, 1000, 0)
    np.testing.assert_allclose(X.points, 2 * X.normals, rtol=1e-14)
    assert np.array_equal(X.tree.data_pts.reshape(-1, 3), X.points)


def test_the_same_points_score_best():
    X = cloud(500, 4)
    near = between(X, X)
    assert chamfer_l1(*near[0]) == chamfer_l2(*near[0]) == dist(*near[0], 1e-30) == 0
    assert fscore(*near[0], 1e-30) == 1
    assert near[1] == pytest.approx(1, abs=1e-14)


def test_parallel_squares():
    h = 0.25
    near = between(square(0, 20_000, 0), square(h, 20_000, 1))
    for d in near[0]:
        assert (d >= h).all()
        assert (d < h + 2e-3).all()
    assert chamfer_l1(*near[0]) == pytest.approx(h, rel=1e-3)
    assert chamfer_l2(*near[0]) == pytest.approx(2 * h**2, rel=1e-3)
    assert near[1] == 1


def test_a_shift_across_a_plane_steps_at_its_length():
    h = 0.25  # a power of two, so that every distance is h exactly
    X = square(0, 5_000, 0)
    near = between(X, OrientedPoints.of(X.points + np.array([0, h, 0]), X.normals))
    assert (chamfer_l1(*near[0]), chamfer_l2(*near[0])) == (h, 2 * h**2)
    assert (fscore(*near[0], h), fscore(*near[0], np.nextafter(h, 1))) == (0, 1)
    assert (dist(*near[0], h**2), dist(*near[0], np.nextafter(h**2, 0))) == (0, 2)


def test_concentric_spheres():
    r, R = 0.8, 1.0
    near = between(sphere(r, 50_000, 0), sphere(R, 50_000, 1))
    assert chamfer_l1(*near[0]) == pytest.approx(R - r, rel=1e-3)
    assert chamfer_l2(*near[0]) == pytest.approx(2 * (R - r) ** 2, rel=2e-3)
    assert near[1] == pytest.approx(1, abs=1e-3)


def test_normal_consistency_is_blind_to_orientation_and_sees_right_angles():
    X = square(0, 1_000, 0)
    flipped = OrientedPoints.of(X.points, -X.normals)
    turned = OrientedPoints.of(X.points, X.normals[:, [1, 0, 2]])
    assert between(X, flipped)[1] == 1
    assert between(X, turned)[1] == 0


def test_a_missing_half_costs_recall_only():
    X = square(0, 4_000, 0)
    half = X.points[:, 0] < 0.5
    near = between(OrientedPoints.of(X.points[half], X.normals[half]), X)
    r = (near[0][1] < 1e-9).mean()
    assert (near[0][0] == 0).all()
    assert r == pytest.approx(0.5, abs=0.05)
    assert fscore(*near[0], 1e-9) == pytest.approx(2 * r / (1 + r))


def test_metrics_scale_with_their_power_of_length():
    X, Y = cloud(300, 5), cloud(300, 6)
    near = between(X, Y)
    big = between(*(OrientedPoints.of(3 * A.points, A.normals) for A in (X, Y)))
    assert chamfer_l1(*big[0]) == pytest.approx(3 * chamfer_l1(*near[0]))
    assert chamfer_l2(*big[0]) == pytest.approx(9 * chamfer_l2(*near[0]))
    assert fscore(*big[0], 0.3) == fscore(*near[0], 0.1)
    assert dist(*big[0], 0.9) == dist(*near[0], 0.1)


def test_sampling_noise_is_that_of_poisson_points():
    """Two samplings of one surface of area A: mean d = sqrt(A/n)/2, mean d^2 = A/(pi n)."""
    n, area = 100_000, 4 * np.pi
    near = between(sphere(1, n, 0), sphere(1, n, 1))
    assert chamfer_l1(*near[0]) == pytest.approx(np.sqrt(area / n) / 2, rel=0.01)
    assert chamfer_l2(*near[0]) == pytest.approx(2 * area / (np.pi * n), rel=0.02)


def slow_point_to_surface(X: np.ndarray, V: np.ndarray, F: np.ndarray) -> np.ndarray:
    """The least of the distances to all triangles, edges and corners."""
    best = np.full(len(X), np.inf)
    for a, b, c in V[F]:
        normal = np.cross(b - a, c - a)
        n = normal / np.linalg.norm(normal)
        height = (X - a) @ n
        foot = X - height[:, None] * n
        within = np.all([np.cross(q - p, foot - p) @ n >= 0 for p, q in ((a, b), (b, c), (c, a))], axis=0)
        best = np.where(within, np.minimum(best, np.abs(height)), best)
        for p, q in ((a, b), (b, c), (c, a)):
            t = np.clip((X - p) @ (q - p) / ((q - p) @ (q - p)), 0, 1)
            best = np.minimum(best, np.linalg.norm(X - p - t[:, None] * (q - p), axis=1))
    return best


def test_distances_to_a_surface_are_exact():
    mesh = trimesh.creation.icosphere(subdivisions=1)
    V, F = np.array(mesh.vertices), np.array(mesh.faces)
    X = np.random.default_rng(0).normal(size=(500, 3))
    np.testing.assert_allclose(point_to_surface(X, V, F), slow_point_to_surface(X, V, F), atol=1e-12)


def test_vertices_to_surface_see_what_samples_miss():
    """A box in a box twice as wide: corners of the inner lie 0.5 off, corners of the outer 0.5 sqrt(3)."""
    box = trimesh.creation.box((1, 1, 1))
    V, F = np.array(box.vertices), np.array(box.faces)
    d = point_to_surface(V, 2 * V, F), point_to_surface(2 * V, V, F)
    assert chamfer_l1(*d) == pytest.approx((0.5 + 0.75**0.5) / 2)
    assert chamfer_l2(*d) == pytest.approx(0.25 + 0.75)
