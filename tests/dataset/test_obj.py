import numpy as np
import pytest
import trimesh

from i2m_lib.dataset.obj import MeshError, read_obj
from i2m_lib.geometry.surfaces import double_areas

SQUARE = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def test_all_that_a_corner_may_say():
    text = SQUARE + b"vt 0.1 0.2\nvt 0.3\nvn 0 0 1\nf 1 2 3\nf 1/1 2/2 3/1\nf 1//1 2//1 3//1\nf 1/2/1 2/-2/-1 3/9\n"
    read = read_obj(text)
    assert read.F.tolist() == [[0, 1, 2]] * 4
    a, b, none = [0.1, 0.2], [0.3, 0.0], [np.nan] * 2
    assert np.array_equal(read.UV, [[none] * 3, [a, b, a], [none] * 3, [b, a, none]], equal_nan=True)
    assert read.colours is None


def test_negative_indices_count_back_from_their_line():
    text = b"".join(b"v %d 0 0\nv %d 1 0\nv %d 0 1\nf -3 -2 -1\n" % (i, i, i) for i in range(50))
    assert read_obj(text).F.tolist() == np.arange(150).reshape(-1, 3).tolist()


def test_comments_at_the_end_of_a_line_say_nothing_but_names_may_hold_their_sign():
    read = read_obj(SQUARE.replace(b"v 1 0 0", b"v 1 0 0 # 1 0 0") + b"usemtl a#1\nf 1 2 3 # 4\n")
    assert (read.F.tolist(), read.colours, read.materials) == ([[0, 1, 2]], None, ["a#1"])
    for line, why in (("vt # 1", "needs a number"), ("vt", "needs a number"), ("vt -1.#IND 0", "could not convert")):
        with pytest.raises(MeshError, match=f"line 5, '{line}', is broken .*{why}"):
            read_obj(SQUARE + line.encode() + b"\nf 1 2 3\n")


def test_materials_libraries_and_colours():
    text = b"mtllib a b.mtl\r\nmtllib c.mtl\r\nv 0 0 0 1 0 0\r\nv 1 0 0 0 1 0\r\nv 0 1 0 0 0 1\r\n"
    read = read_obj(
        text + b"f 1 2 3\r\nusemtl my wood\r\nf 1 2 3\r\nusemtl b\r\nf 1 2 3\r\nusemtl my wood\r\nf 1 2 3\r\n"
    )
    assert read.libraries == ["a b.mtl", "c.mtl"]
    assert read.materials == ["my wood", "b"]
    assert read.material.tolist() == [-1, 0, 1, 0]
    assert np.array_equal(read.colours, np.eye(3))
    assert read_obj(SQUARE + b"v 1 2 3 0.5\nf 1 2 5\n").colours is None


@pytest.mark.parametrize("start", range(6))
@pytest.mark.parametrize("reverse", [False, True])
def test_polygons_keep_their_area(start, reverse):
    """An L, which no fan from most of its corners covers without folds."""
    corners = np.array([[0, 0], [2, 0], [2, 1], [1, 1], [1, 3], [0, 3]], float)
    order = np.roll(np.arange(6), start)[:: -1 if reverse else 1] + 1
    text = "".join(f"v {x} {y} {x + y}\n" for x, y in corners) + "f " + " ".join(map(str, order)) + "\nf 1 2 3 4\n"
    read = read_obj(text.encode())
    assert len(read.F) == 4 + 2
    areas = double_areas(read.V * [1, 1, 0], read.F) / 2
    assert areas.sum() == pytest.approx(4 + 1.5)
    assert areas[4:].sum() == pytest.approx(1.5)


def test_as_trimesh_reads_it():
    solid = trimesh.creation.torus(1, 0.3)
    text = trimesh.exchange.obj.export_obj(solid, digits=17)
    read = read_obj(text.encode())
    assert np.allclose(read.V, solid.vertices)
    assert np.array_equal(read.F, solid.faces)


def test_the_first_broken_line_is_named():
    with pytest.raises(MeshError, match="line 6, 'f 1 2', is broken"):
        read_obj(SQUARE + b"f 1 2 3\nf 1 2\nf 1\n")
