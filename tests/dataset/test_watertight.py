import numpy as np
import pytest
import trimesh

from i2m_lib.dataset.watertight import watertight_copy
from i2m_lib.geometry.surfaces import is_watertight


def arrays(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    return np.array(mesh.vertices), np.array(mesh.faces)


def test_a_closed_mesh_is_its_own_copy():
    V, F = arrays(trimesh.creation.box(extents=(1, 2, 3)))
    copy = watertight_copy(V, F[:, ::-1])
    assert np.array_equal(copy.V, V)
    assert copy.volume == copy.source_volume == pytest.approx(6)
    assert copy.volume_change == 0


def test_two_boxes_that_meet_become_one_body():
    """The faces within the union go; the volume, 1 + 1 - 0.25, stays. A small fin makes it open."""
    a, b = trimesh.creation.box(), trimesh.creation.box()
    b.apply_translation([0.5, 0.5, 0])
    fin = trimesh.Trimesh([[0, -0.5, 0], [0, -0.6, 0], [0.05, -0.5, 0]], [[0, 1, 2]])
    V, F = arrays(trimesh.util.concatenate([a, b, fin]))
    copy, again = (watertight_copy(V, F, resolution=2000) for _ in range(2))
    assert is_watertight(copy.F)
    assert copy.source_volume == pytest.approx(1.75, rel=0.01)
    assert copy.volume == pytest.approx(1.75, rel=0.01)
    assert copy.volume_change == pytest.approx(copy.volume / copy.source_volume - 1)
    assert np.array_equal(again.V, copy.V)
    assert np.array_equal(again.F, copy.F)


def test_an_open_box_loses_its_inside_and_says_so():
    V, F = arrays(trimesh.creation.box())
    top = V[F][:, :, 1].min(1) > 0.49
    copy = watertight_copy(V, F[~top], resolution=2000)
    assert is_watertight(copy.F)
    assert copy.source_volume > 0.6
    assert copy.volume < 0.05
    assert copy.volume_change < -0.9
