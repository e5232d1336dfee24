import numpy as np
import pytest
import trimesh

from i2m_lib.geometry.surfaces import bounds_solid, is_watertight, merged
from i2m_lib.geometry.winding import as_solid, volumetric_iou, winding


def box(extents=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0)):
    mesh = trimesh.creation.box(extents)
    return np.array(mesh.vertices) + np.array(shift), np.array(mesh.faces)


def ball(radius=1.0):
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=radius)
    return np.array(mesh.vertices), np.array(mesh.faces)


def together(*meshes):
    starts = np.cumsum([0] + [len(V) for V, _ in meshes])
    return np.vstack([V for V, _ in meshes]), np.vstack([F + s for (_, F), s in zip(meshes, starts, strict=False)])


def iou(A, B, n, rng):
    return volumetric_iou(as_solid(*A), as_solid(*B), n, rng)


def slow_winding(V, F, X):
    """The solid angle of all faces (van Oosterom and Strackee 1983), in whole turns."""
    a, b, c = (V[F[:, i]][None] - X[:, None] for i in range(3))
    x, y, z = (np.linalg.norm(p, axis=-1) for p in (a, b, c))
    triple = (a * np.cross(b, c)).sum(-1)
    rest = x * y * z + (a * b).sum(-1) * z + (b * c).sum(-1) * x + (c * a).sum(-1) * y
    return np.arctan2(triple, rest).sum(1) / (2 * np.pi)


def solids():
    V, F = ball()
    turned = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])[:3, :3]
    return {
        "ball": (V, F),
        "box": box((1.0, 2.0, 0.5)),
        "turned box": (box()[0] @ turned.T, box()[1]),
        "overlapping": together(box(), box(shift=(0.4, 0.3, 0.2))),
        "hollow": together((V, F), (0.5 * V, F[:, ::-1])),
        "inside out": (V, F[:, ::-1]),
        "torus": (lambda m: (np.array(m.vertices), np.array(m.faces)))(trimesh.creation.torus(1.0, 0.3)),
    }


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


def test_iou_of_shifted_boxes_is_that_on_paper():
    """Unit boxes shifted by s share 1 - s of a unit, and have 1 + s together."""
    rng = np.random.default_rng(0)
    for s in (0.0, 0.25, 0.5, 1.5):
        shared = iou(box(), box(shift=(s, 0, 0)), 100_000, rng)
        assert shared == pytest.approx(max(1 - s, 0) / (1 + min(s, 1)), abs=0.01)


def test_iou_of_scaled_and_turned_solids_is_that_on_paper():
    rng = np.random.default_rng(1)
    V, F = ball()
    assert iou((V, F), (0.8 * V, F), 100_000, rng) == pytest.approx(0.8**3, abs=0.01)
    # A square turned by 45 degrees shares a regular octagon of area 2 (sqrt 2 - 1) with itself.
    turned = trimesh.transformations.rotation_matrix(np.pi / 4, [0, 1, 0])[:3, :3]
    shared = 2 * (2**0.5 - 1)
    W, G = box()
    assert iou((W, G), (W @ turned.T, G), 100_000, rng) == pytest.approx(shared / (2 - shared), abs=0.01)


def test_overlapping_parts_count_once():
    rng = np.random.default_rng(0)
    double = together(box(), box(shift=(0.5, 0, 0)))
    assert iou(double, box((1.5, 1, 1), shift=(0.25, 0, 0)), 50_000, rng) == pytest.approx(1, abs=1e-4)


def test_what_is_no_solid_is_refused():
    V, F = box()
    rng = np.random.default_rng(0)
    assert not is_watertight(F[1:])
    assert not bounds_solid(F[1:])
    assert as_solid(V, F[1:]) is None
    turned = np.vstack([F[1:], F[:1, ::-1]])  # a face that turns its other side outwards
    assert is_watertight(turned)
    assert not bounds_solid(turned)
    assert np.isnan(iou((V, F[1:]), (V, F), 10, rng))
    assert np.isnan(iou((V, F), (V, F[1:]), 10, rng))


def unmerged(V, F):
    """Each face with corners of its own, as in STL."""
    return V[F].reshape(-1, 3), np.arange(F.size).reshape(-1, 3)


def test_equal_positions_are_one_vertex():
    V, F = box()
    W, G = merged(*unmerged(V, F))
    assert (len(W), bounds_solid(G)) == (8, True)
    np.testing.assert_array_equal(W[G], V[F])
    doubled = np.vstack([V, V[:1]]), np.vstack([F, [[0, 8, 5]]])  # a face that has two equal corners
    assert len(merged(*doubled)[1]) == len(F)


def test_a_solid_whose_positions_are_not_merged_is_the_same_solid():
    shape, other = together(ball(0.6), box()), box((0.7, 0.8, 0.9), shift=(0.2, 0, 0))
    expected = iou(shape, other, 20_000, np.random.default_rng(0))
    assert 0 < expected < 1
    assert iou(unmerged(*shape), unmerged(*other), 20_000, np.random.default_rng(0)) == expected
    assert as_solid(*unmerged(box()[0], box()[1][1:])) is None


@pytest.mark.parametrize("name", solids())
def test_a_body_of_mixed_orientation_is_the_same_body(name):
    """Two overlapping parts, the second inside out: without turning it, their common part would cancel."""
    V, F = solids()[name]
    W = 0.7 * V + 0.45 * np.ptp(V, axis=0)
    right, wrong = together((V, F), (W, F)), together((V, F), (W, F[:, ::-1]))
    rng = np.random.default_rng(0)
    assert iou(right, wrong, 20_000, rng) == 1
    points = rng.uniform(V.min(0), W.max(0), (20_000, 3))
    expected = (winding(V, F, points) != 0) | (winding(W, F, points) != 0)
    np.testing.assert_array_equal(winding(*as_solid(*wrong), points) != 0, expected)


def test_a_cavity_stays_empty_and_what_lies_in_it_full():
    """Nested balls of radius 1, 0.8 and 0.5: a shell and a core, whichever side all of them are turned to."""
    V, F = ball()
    nested, share = together((V, F), (0.8 * V, F[:, ::-1]), (0.5 * V, F)), 1 - 0.8**3 + 0.5**3
    beside = V + np.array([3.0, 0, 0]), F[:, ::-1]
    for body in (nested, (nested[0], nested[1][:, ::-1])):
        assert iou(body, (V, F), 100_000, np.random.default_rng(0)) == pytest.approx(share, abs=0.01)
        shared = iou(together(body, beside), together((V, F), beside), 100_000, np.random.default_rng(0))
        assert shared == pytest.approx((share + 1) / 2, abs=0.01)
    assert iou(together((V, F), (0.5 * V, F)), (V, F), 10_000, np.random.default_rng(0)) == 1


def test_turning_changes_no_point_of_a_solid_that_needs_none():
    for name, (V, F) in solids().items():
        W, G = as_solid(V, F)
        assert W is V
        np.testing.assert_array_equal(np.sort(G, 1), np.sort(F, 1), err_msg=name)
