from itertools import combinations

import numpy as np
import pytest
import trimesh
from joblib import Parallel

from i2m_lib.geometry.voxels import mask_iou, solid
from i2m_lib.graph.template_choice import (
    CHOICES,
    check_choice,
    choose_templates,
    descriptor,
    greedy_coverage,
    k_medoids,
    spread,
)


def samples(mesh, n=40_000):
    return np.asarray(trimesh.sample.sample_surface(mesh, n, seed=0)[0])


@pytest.mark.parametrize(
    ("mesh", "volume"),
    [(trimesh.creation.icosphere(4, 0.4), 4 / 3 * np.pi * 0.4**3), (trimesh.creation.box((0.8, 0.5, 0.6)), 0.24)],
    ids=["ball", "box"],
)
def test_a_closed_surface_encloses_its_volume(mesh, volume):
    # The voxels that the surface crosses count as inside: half a voxel too much all around.
    shell = mesh.area * 0.5 / 32
    assert solid(samples(mesh), 32).sum() / 32**3 == pytest.approx(volume + shell, rel=0.06)


def test_an_open_box_holds_what_three_axes_see():
    box = trimesh.creation.box((0.8, 0.8, 0.8))
    lid = box.face_normals[:, 1] > 0.5
    box.update_faces(~lid)
    # Without a lid no ray along y leaves through the surface, so only the walls and floor count.
    assert solid(samples(box), 16).mean() < 0.5 * 0.8**3


def test_mask_iou_of_boxes():
    a, b = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    a[:2], b[1:3] = True, True
    assert mask_iou(a, b) == pytest.approx(1 / 3)
    assert mask_iou(a, a) == 1


def test_the_descriptor_does_not_see_proportions():
    points = samples(trimesh.creation.icosphere(3, 0.4))
    np.testing.assert_array_equal(descriptor(points), descriptor(points * [0.2, 1, 0.7] + [0.1, 0, 0]))


def test_spread_starts_at_the_medoid_and_goes_far():
    features = np.array([[0.0], [1.0], [1.1], [5.0]])
    assert spread(features, 3).tolist() == [2, 3, 0]
    assert len(spread(features, 10)) == 4


def test_greedy_coverage_adds_the_best_row_each_time():
    costs = np.random.default_rng(0).random((12, 30))
    chosen = greedy_coverage(costs, 5)
    assert len(set(chosen.tolist())) == 5
    for k in range(5):
        totals = [costs[[*chosen[:k], i]].min(0).sum() for i in range(12)]
        assert totals[chosen[k]] == pytest.approx(min(totals))


def test_one_template_for_each_of_two_kinds():
    costs = np.array([[0.0, 0.0, 9.0], [9.0, 9.0, 0.0], [4.0, 4.0, 4.0]])
    assert greedy_coverage(costs, 2).tolist() == [0, 1]


def test_medoids_are_the_best_of_all_sets_where_greed_is_not():
    # Greed takes the middle of the line first, and can only add one end to it.
    X = np.array([0.0, 0.1, 1.0, 1.9, 2.0])
    costs = np.abs(X[:, None] - X)
    best = min(costs[[i, j]].min(0).sum() for i in range(5) for j in range(i))
    assert costs[greedy_coverage(costs, 2)].min(0).sum() > best
    assert costs[k_medoids(costs, 2)].min(0).sum() == pytest.approx(best)


@pytest.mark.parametrize("choice", CHOICES)
def test_sets_of_templates_are_distinct_and_repeatable(boxes, choice):
    options = {"choice": choice, "seed": 0, "parallel": Parallel(n_jobs=1)}
    one, three = choose_templates(*boxes, [1, 3], **options)
    assert len(one) == 1
    assert len(set(three.tolist())) == 3
    np.testing.assert_array_equal(choose_templates(*boxes, [1, 3], **options)[1], three)
    assert choose_templates(*boxes, [12], **options)[0].tolist() == list(range(12))


def test_coverage_takes_one_of_each_kind_whatever_their_proportions(boxes):
    chosen = choose_templates(*boxes, [2], choice="coverage", seed=0, parallel=Parallel(n_jobs=1))[0]
    assert sorted(chosen // 6) == [0, 1]


def test_an_unknown_choice_is_named():
    check_choice("coverage")
    with pytest.raises(ValueError, match="coverage, k_medoids, random, not by 'best'"):
        check_choice("best")


@pytest.mark.parametrize("seed", range(5))
def test_greed_gains_at_least_its_share_of_the_best_from_the_highest_cost(seed):
    costs = np.random.default_rng(seed).random((9, 12)) ** 2
    for k in (1, 2, 3, 4):
        best = min(costs[list(rows)].min(0).sum() for rows in combinations(range(9), k))
        start, found = costs.max() * 12, costs[greedy_coverage(costs, k)].min(0).sum()
        assert start - found >= (1 - 1 / np.e) * (start - best)
