import numpy as np
import pytest

from i2m_lib.geometry.nearest import Target, chamfer, dist, distances
from i2m_lib.geometry.registration import Registration
from i2m_lib.geometry.voxels import solid
from i2m_lib.graph.correspondence import source_of
from i2m_lib.graph.edges import (
    FAR,
    MAX_DIST,
    MIN_EDGES,
    MIN_IOU,
    RESOLUTION,
    SCORES,
    dense_samples,
    edge_rule,
    edge_table,
    score_edges,
)


def slow_rule(dist, iou, i):
    """METHOD section 3, a pair at a time: near and overlapping, or among the three best by (dist, -iou)."""
    others = [j for j in range(len(dist)) if j != i]
    best = sorted(others, key=lambda j: (dist[j], -iou[j]))[:MIN_EDGES]
    return [j != i and ((dist[j] < MAX_DIST and iou[j] > MIN_IOU) or j in best) for j in range(len(dist))]


@pytest.mark.parametrize("n", [1, 2, 4, 12])
def test_the_edge_rule_is_that_of_the_method(n):
    rng = np.random.default_rng(n)
    for i in range(n):
        dist, iou = rng.choice([0, 0.03, 0.04, 1], n), rng.choice([0.2, 0.3, 0.9], n)
        selected = edge_rule(dist, iou, i)
        assert selected.tolist() == slow_rule(dist, iou, i)
        assert selected.sum() >= min(MIN_EDGES, n - 1)


def test_scores_of_a_template_that_stays(dataset, built):
    """Registered to itself, all of its solid overlaps; registered to another, each score is that of the definition."""
    i, j = (dataset.mesh(t.model_id) for t in built[0].templates[:2])
    source = source_of(i, 0)
    targets = [Target.of(source.S), Target.of(j.S)]
    solids = [solid(dense_samples(m, 0) @ m.V, RESOLUTION) for m in (i, j)]
    stays = Registration(np.zeros((32, 3)), np.zeros((192, 3)), i.V, 0.25, 0.5)
    scores = score_edges(source, [stays, stays], targets, solids, 0)
    assert tuple(scores) == SCORES
    assert scores["iou"][0] == 1 > scores["iou"][1]
    assert scores["dist"][0] == scores["residual"][0] == 0
    for k, target in enumerate(targets):
        assert scores["dist"][k] == dist(*distances(source.S, target), FAR)
        assert scores["residual"][k] == chamfer(source.S, target)
    assert scores["flipped"].tolist() == [0.25, 0.25]
    assert scores["collapsed"].tolist() == [0.5, 0.5]


def test_the_table_has_all_ordered_pairs():
    rng, ids = np.random.default_rng(0), ["a", "b", "c", "d", "e"]
    scores = [{name: rng.random(5) for name in SCORES} for _ in ids]
    table = edge_table("03001627", ids, scores)
    assert list(zip(table.source, table.target, strict=True)) == [(i, j) for i in ids for j in ids if i != j]
    for row in table.itertuples():
        i, j = ids.index(row.source), ids.index(row.target)
        assert row.iou == scores[i]["iou"][j]
        assert row.selected == edge_rule(scores[i]["dist"], scores[i]["iou"], i)[j]
