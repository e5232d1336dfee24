import numpy as np
import pytest
import trimesh
from bodies import ball, box, solids, together

from i2m_lib.geometry.solids import Solid, as_solid, outwards, volumetric_iou, votes
from i2m_lib.geometry.surfaces import bounds_solid, cross_products, is_watertight, merged
from i2m_lib.geometry.winding import winding


def iou(A, B, n, rng):
    return volumetric_iou(as_solid(*A), as_solid(*B), n, rng)


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


def without(V, F, axis, side=1):
    """A surface without the faces that look straight along an axis, to one side."""
    normals = cross_products(V, F)
    return V, F[normals[:, axis] * side < 0.999 * np.linalg.norm(normals, axis=1)]


def test_what_has_no_inside_is_refused():
    V, F = box()
    rng = np.random.default_rng(0)
    lidless = without(V, F, 1)
    assert len(lidless[1]) == 10
    assert not is_watertight(lidless[1])
    assert not bounds_solid(lidless[1])
    for surface in (lidless, without(*lidless, 1, -1), (V, F[:1])):
        assert as_solid(*surface) is None
        assert np.isnan(iou(surface, (V, F), 10, rng))
        assert np.isnan(iou((V, F), surface, 10, rng))


def test_a_face_that_is_turned_the_wrong_way_is_turned_back():
    V, F = ball()
    wrong = F.copy()
    wrong[::3] = wrong[::3, ::-1]
    assert is_watertight(wrong)
    assert not bounds_solid(wrong)
    assert bounds_solid(outwards(V, wrong))
    assert iou((V, wrong), (V, F), 20_000, np.random.default_rng(0)) == 1


def test_patches_are_turned_outwards_whatever_way_they_were_turned():
    """A box of six unconnected sides, three of them inside out, is the box; faces without area are left out."""
    V, F = unmerged(*box())
    V = 1.0001 * V + 0.0001 * np.repeat(cross_products(V, F), 3, axis=0)  # sides that do not touch
    sides = np.abs(cross_products(V, F)).argmax(1) * 2 + (cross_products(V, F).sum(1) > 0)
    mixed = np.where((sides % 3 == 0)[:, None], F[:, ::-1], F)
    turned = outwards(V, np.vstack([mixed, [[0, 0, 1]]]))
    assert len(turned) == len(F)
    assert ((cross_products(V, turned) * V[turned].mean(1)).sum(1) > 0).all()
    assert iou((V, mixed), box(), 20_000, np.random.default_rng(0)) == pytest.approx(1, abs=0.01)


def test_a_board_without_its_rims_is_that_board():
    """Parts of models often lack the narrow faces by which they touch others; its volume is known all the same."""
    V, F = box((1, 1, 0.02))
    for axis in (0, 1):
        V, F = without(*without(V, F, axis), axis, -1)
    assert len(F) == 4
    board = as_solid(V, F)
    assert not board.closed
    X = np.random.default_rng(0).uniform(-0.6, 0.6, (200_000, 3))
    inside = (np.abs(X) < [0.5, 0.5, 0.01]).all(1)
    assert (board.contains(X) != inside).sum() < 0.05 * inside.sum()


def test_all_six_rays_of_a_closed_surface_agree_and_a_majority_decides():
    V, F = ball()
    X = np.random.default_rng(0).uniform(-1, 1, (5000, 3))
    inside = winding(V, F, X) != 0
    np.testing.assert_array_equal(votes(V, F, X), 6 * inside)
    holed = F[np.argsort(V[F].mean(1)[:, 1])][:-3]  # without three faces at the top
    np.testing.assert_array_equal(Solid(V, holed, closed=False).contains(X), votes(V, holed, X) > 3)
    assert (as_solid(V, holed).contains(X) == inside).mean() > 0.99


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
    assert as_solid(*unmerged(*without(*box(), 1))) is None


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
    np.testing.assert_array_equal(as_solid(*wrong).contains(points), expected)


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
        solid = as_solid(V, F)
        assert solid.V is V
        np.testing.assert_array_equal(np.sort(solid.F, 1), np.sort(F, 1), err_msg=name)
