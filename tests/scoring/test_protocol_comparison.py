import dataclasses

import numpy as np
import pytest
import trimesh

from i2m_lib.scoring.protocol_comparison import cards, under_all
from i2m_lib.scoring.protocols import PROTOCOLS

FEW = {
    name: dataclasses.replace(p, n_samples=min(p.n_samples, 2000), n_inside=min(p.n_inside, 1000))
    for name, p in PROTOCOLS.items()
}


def box(scale: float = 1.0):
    mesh = trimesh.creation.box(np.array([0.4, 0.5, 0.7]) * scale)
    return np.array(mesh.vertices), np.array(mesh.faces)


def test_every_protocol_has_a_card():
    table = cards(PROTOCOLS)
    assert table.index.tolist() == list(PROTOCOLS)
    assert table.loc["occnet", "chamfer"] == "L1 x10"
    assert table.loc["image2mesh", "samples"] == "vertices"
    assert table.loc["meshrcnn", "F thresholds"] == "0.1, 0.3, 0.5"


def test_the_truth_scores_its_floor_under_every_protocol():
    table = under_all(box(), box(), FEW, seed=0)
    assert table.protocol.unique().tolist() == list(FEW)
    np.testing.assert_array_equal(table.value, table.floor)


def test_one_mesh_is_near_perfect_and_far_off_by_protocol():
    table = under_all(box(1.1), box(), FEW, seed=0).set_index(["protocol", "metric"])
    assert table.value["what3d", "f_20"] == 100
    assert table.value["canonical", "f_0.5"] < 30
    chamfer = table.value["occnet", "chamfer_l1"] / table.value["canonical", "chamfer_l1"]
    assert chamfer == pytest.approx(10)
