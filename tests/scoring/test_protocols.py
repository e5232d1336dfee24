import re
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from i2m_lib.geometry.surfaces import why_broken
from i2m_lib.scoring.protocols import PROTOCOLS
from i2m_lib.scoring.statistics import is_lower_better

CANONICAL = PROTOCOLS["canonical"]
SMALL = replace(CANONICAL, n_samples=2_000, n_inside=2_000)
METRICS = ["chamfer_l1", "chamfer_l2", "f_0.5", "f_1", "f_2", "f_5", "f_10"]
METRICS += ["normal_consistency", "iou", "dist"]


def box(extents=(0.5, 0.8, 0.3)) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.box(extents)
    return np.array(mesh.vertices), np.array(mesh.faces)


def ball(radius: float) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return np.array(mesh.vertices), np.array(mesh.faces)


def broken_meshes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    V, F = box()
    nan, inf, far = V.copy(), V.copy(), V.copy()
    nan[3, 1], inf[0, 0], far[0, 0] = np.nan, -np.inf, 1e200
    line = V * [1, 0, 0]
    return {
        "empty: 0 vertices": (np.zeros((0, 3)), np.zeros((0, 3), int)),
        "and 0 faces": (V, np.zeros((0, 3))),
        "1 of 8 vertices are NaN": (nan, F),
        "vertices are NaN or infinite": (inf, F),
        "a coordinate is 1e+200": (far, F),
        "area is 0": (line, F),
        "its area is": (V * 1e-9, F),
        "run from 0 to 8, but there are 8": (V, F + (F == 7)),
        "run from -1 to 7": (V, F - (F == 0)),
        "not integers": (V, F.astype(float)),
        "are not (n, 3) and (m, 3)": (V, np.zeros(0, int)),
    }


@pytest.mark.parametrize("reason", broken_meshes())
def test_a_broken_prediction_scores_worst(reason):
    V, F = broken_meshes()[reason]
    target = SMALL.prepare(*box(), seed=0)
    diagonal = np.linalg.norm([0.5, 0.8, 0.3]) / 0.8
    score = target.score(V, F, seed=0)
    assert score["chamfer_l1"] == pytest.approx(diagonal)
    assert score["chamfer_l2"] == pytest.approx(2 * diagonal**2)
    assert score["normal_consistency"] == 0
    assert score["dist"] == 2
    assert score["iou"] == 0
    assert all(score[name] == 0 for name in METRICS if name.startswith("f_"))
    assert list(score) == METRICS
    with pytest.raises(ValueError, match=f"cannot be scored against: .*{re.escape(reason)}"):
        SMALL.prepare(V, F, seed=0)


@pytest.mark.parametrize("reason", broken_meshes())
def test_why_broken_says_why(reason):
    assert reason in why_broken(*broken_meshes()[reason])


def test_a_sound_mesh_is_not_broken():
    V, F = box()
    assert why_broken(V, F) is None
    assert why_broken(V.astype(np.float32), F.astype(np.int32)) is None
    V, F = np.vstack([V, V[:1]]), np.vstack([F, [[0, 0, 1]]])  # a spare vertex, a flat face
    assert why_broken(V, F) is None
    floor = SMALL.prepare(V, F, 0).floor(0)
    assert floor["iou"] == 1  # neither is part of its volume
    assert floor == pytest.approx(SMALL.prepare(*box(), 0).floor(0), rel=0.1, abs=1e-4)  # nor of its surface


def test_concentric_balls():
    r, R = 0.4, 0.5
    score = CANONICAL.prepare(*ball(R), seed=0).score(*ball(r), seed=0)
    assert list(score) == METRICS
    assert score["chamfer_l1"] == pytest.approx(R - r, rel=5e-3)  # longest edge 1 = 2 R
    assert score["chamfer_l2"] == pytest.approx(2 * (R - r) ** 2, rel=1e-2)
    assert score["normal_consistency"] == pytest.approx(1, abs=5e-3)
    assert score["iou"] == pytest.approx((r / R) ** 3, abs=5e-3)
    assert score["f_5"] == 0
    assert score["dist"] == 2


def test_the_f_threshold_is_a_share_of_the_longest_edge():
    """A box of longest edge 4 moved by 1.5 % of it: all is within 2 %, not all within 1 %."""
    V, F = box((2.0, 4.0, 1.0))
    score = CANONICAL.prepare(V, F, seed=0).score(V + np.array([0.06, 0, 0]), F, seed=0)
    assert score["f_2"] > 99.9
    assert 50 < score["f_1"] < 100
    faces = 2 * 4 * 1  # the two faces across the motion; the others slide within themselves
    moved = faces / (faces + 2 * (2 * 4 + 2 * 1))
    assert score["chamfer_l1"] == pytest.approx(moved * 0.015, abs=2e-3)


def test_scale_is_the_ground_truths_and_the_same_for_both():
    (V, F), (W, G) = box(), ball(0.3)
    plain = SMALL.prepare(V, F, seed=1).score(W, G, seed=2)
    scaled = SMALL.prepare(7 * V, F, seed=1).score(7 * W, G, seed=2)
    assert scaled == pytest.approx(plain, rel=1e-9)
    smaller = SMALL.prepare(V, F, seed=1).score(0.5 * V, F, seed=2)
    assert smaller["chamfer_l1"] > 0.05  # the prediction's own size is not normalised away


def test_without_a_scale_rule_chamfer_scales_with_its_power():
    (V, F), (W, G) = box(), ball(0.3)
    as_given = replace(SMALL, scale="units as given: bounding-box diagonal = 1")
    plain = as_given.prepare(V, F, seed=1).score(W, G, seed=2)
    scaled = as_given.prepare(7 * V, F, seed=1).score(7 * W, G, seed=2)
    assert scaled["chamfer_l1"] == pytest.approx(7 * plain["chamfer_l1"])
    assert scaled["chamfer_l2"] == pytest.approx(49 * plain["chamfer_l2"])


def test_the_floor_is_sampling_noise():
    """One of n points on area A has another within t with probability 1 - exp(-pi t^2 n / A)."""
    V, F = box((1.0, 1.0, 1.0))
    floor = CANONICAL.prepare(V, F, seed=0).floor(seed=0)
    area, n = 6, CANONICAL.n_samples
    assert floor["chamfer_l1"] == pytest.approx(np.sqrt(area / n) / 2, rel=0.02)
    assert floor["chamfer_l2"] == pytest.approx(2 * area / (np.pi * n), rel=0.04)
    for name in METRICS[2:7]:
        t = CANONICAL.metrics[name]
        expected = 100 * (1 - np.exp(-np.pi * t**2 * n / area))
        assert floor[name] == pytest.approx(expected, abs=0.3)
    assert floor["normal_consistency"] > 0.98
    assert floor["dist"] == 0


def test_the_seed_decides():
    target = SMALL.prepare(*box(), seed=0)
    assert target.floor(seed=0) == target.floor(seed=0)
    assert target.floor(seed=0) != target.floor(seed=1)
    assert target.floor(seed=0) != SMALL.prepare(*box(), seed=1).floor(seed=0)
    assert target.floor(seed=0)["chamfer_l1"] > 0  # not the ground truth's own sample


def test_float32_meshes_score_as_float64():
    V, F = ball(0.3)
    target = SMALL.prepare(*box(), seed=0)
    expected = target.score(V, F, seed=0)
    assert target.score(V.astype(np.float32), F.astype(np.int32), seed=0) == pytest.approx(expected, rel=1e-4)


def test_the_card_names_what_a_number_depends_on():
    card = CANONICAL.card
    for fact in ("canonical", "longest bounding-box edge = 1", "100,000", "not squared", "sum"):
        assert fact in card
    for fact in ("mean of the two", "factor 1", "percent", "f_1 at 0.01", "above 0.001", "winding number"):
        assert fact in card
    assert "factor 10" in PROTOCOLS["occnet"].card
    assert "vertices of each mesh" in PROTOCOLS["image2mesh"].card
    assert all(protocol.name == name for name, protocol in PROTOCOLS.items())


def pair() -> tuple:
    """A ball and a box of unlike size and place, in no protocol's units."""
    (V, F), (W, G) = ball(0.6), box((1.5, 0.9, 1.1))
    return (V, F), (W + np.array([0.1, 0.0, -0.05]), G)


# Written down once; a change of any protocol's scale, factor, threshold, samples or alignment shows here.
PINNED = {
    "canonical": {
        "chamfer_l1": 0.112003519,
        "chamfer_l2": 0.0406890865,
        "f_0.5": 1.62776216,
        "f_1": 4.6278524,
        "f_2": 9.88410175,
        "f_5": 25.9826868,
        "f_10": 52.5294677,
        "normal_consistency": 0.766490407,
        "iou": 0.507649019,
        "dist": 1.65578,
    },
    "occnet": {
        "chamfer_l1": 1.12003519,
        "normal_consistency": 0.766490407,
        "iou": 0.507649019,
    },
    "pixel2mesh": {
        "chamfer_l2": 0.0190758038,
        "f_tau": 4.61469214,
        "f_2tau": 8.07081176,
    },
    "meshrcnn": {
        "chamfer_l2": 4.07728101,
        "f_0.1": 2.03168704,
        "f_0.3": 13.3828769,
        "f_0.5": 25.1415078,
        "normal_consistency": 0.767621492,
    },
    "atlasnet": {
        "chamfer_l2": 168.671813,
        "f_0.001": 1.85978495,
    },
    "what3d": {
        "f_1": 1.26496063,
        "f_2": 5.74079392,
        "f_5": 19.9106201,
        "f_10": 44.0265907,
        "f_20": 73.9275323,
    },
    "image2mesh": {
        "chamfer_l2": 0.0363344626,
        "dist": 0.987509758,
        "dist_real": 0.0366900859,
    },
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_each_protocol_is_pinned_on_one_pair(name):
    truth, prediction = pair()
    scores = PROTOCOLS[name].prepare(*truth, seed=0).score(*prediction, seed=0)
    assert scores == pytest.approx(PINNED[name], rel=1e-6)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_each_protocol_has_a_floor_better_than_a_shift_and_a_worst_score(name):
    truth, prediction = pair()
    target = PROTOCOLS[name].prepare(*truth, seed=0)
    floor, other, worst = target.floor(seed=0), target.score(*prediction, seed=0), target.worst()
    assert list(floor) == list(other) == list(worst)
    for metric, value in floor.items():
        ordered = [value, other[metric], worst[metric]]
        assert ordered == sorted(ordered, reverse=not is_lower_better(metric)), metric


def test_scale_rules_give_the_numbers_their_papers_would():
    """A square sheet moved by h along its normal: every distance is h times the protocol's scale."""
    V = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    F, h = np.array([[0, 1, 2], [0, 2, 3]]), 0.05
    shifted = V + np.array([0, h, 0])
    factors = {"meshrcnn": 10, "pixel2mesh": 0.57, "atlasnet": 2**0.5}
    for name, factor in factors.items():
        protocol = replace(PROTOCOLS[name], n_samples=20_000)
        score = protocol.prepare(V, F, seed=0).score(shifted, F, seed=0)
        expected = 2 * (factor * h) ** 2 * protocol.metrics["chamfer_l2"]
        assert score["chamfer_l2"] == pytest.approx(expected, rel=0.05), name
    occnet = PROTOCOLS["occnet"].prepare(V, F, seed=0).score(shifted, F, seed=0)
    assert occnet["chamfer_l1"] == pytest.approx(10 * h, rel=0.01)
    assert np.isnan(occnet["iou"])  # a sheet bounds no solid


def test_the_official_alignment_undoes_shift_and_size():
    target = PROTOCOLS["image2mesh"].prepare(*ball(0.5), seed=0)
    V, F = ball(0.2)
    assert target.score(V + np.array([1.0, 2.0, 3.0]), F, seed=0)["chamfer_l2"] == pytest.approx(0, abs=1e-12)
