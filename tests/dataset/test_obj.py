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
    assert read_obj(SQUARE + b"f 1 2 3#4\n").F.tolist() == [[0, 1, 2]]
    for line in ("vt # 1", "vt"):
        with pytest.raises(MeshError, match=f"line 5, '{line}', is broken .*needs a number"):
            read_obj(SQUARE + line.encode() + b"\nf 1 2 3\n")


@pytest.mark.parametrize("line", [b"# D:\\chairs\\", b"g D:\\chairs\\", b"o D:\\", b"mtllib D:\\"])
@pytest.mark.parametrize("at", range(8))
def test_a_backslash_that_ends_a_windows_path_swallows_no_line(line, at):
    lines = [*SQUARE.splitlines(), b"usemtl m", b"f 1 2 3", b"f 1 3 \\", b" 4\\", b""]
    read = read_obj(b"\n".join([*lines[:at], *[line] * (at != 7), *lines[at:]]))
    assert (len(read.V), read.F.tolist()) == (4, [[0, 1, 2], [0, 2, 3]])
    assert read.material.tolist() == [0, 0]


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\x1a", b"\r\n\x1a\r\n"])
def test_marks_of_editors_and_old_keywords_change_nothing(end):
    text = b"\xef\xbb\xbf" + SQUARE.replace(b"\n", b"\r\n") + b"res 1\r\nfo 1 2 3\r\nf 1 3 4" + end
    assert read_obj(text).F.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert len(read_obj(text).V) == 4


@pytest.mark.parametrize("number", ["-1.#IND", "1.#QNAN00", "1.#INF", "-1.#J", "nan(ind)", "-nan(ind)", "NAN", "nan"])
def test_what_windows_prints_for_no_number_is_nan(number):
    lines = f"v {number} 0 {number}\nvt {number} 0.5\nvt 0 {number}\nf 1/1 2/2 3/1\n"
    read = read_obj(SQUARE + lines.encode())
    assert np.isfinite(read.V).tolist() == [[True] * 3] * 4 + [[False, True, False]]
    assert np.isfinite(read.UV).tolist() == [[[False, True], [True, False], [False, True]]]


def test_materials_libraries_and_colours():
    text = b"mtllib a b.mtl\r\nmtllib c.mtl D.MTL x\\e f.mtl\r\nv 0 0 0 1 0 0\r\nv 1 0 0 0 1 0\r\nv 0 1 0 0 0 1\r\n"
    read = read_obj(
        text + b"f 1 2 3\r\nusemtl my wood\r\nf 1 2 3\r\nusemtl b\r\nf 1 2 3\r\nusemtl my wood\r\nf 1 2 3\r\n"
    )
    assert read.libraries == ["a b.mtl", "c.mtl", "D.MTL", "x\\e f.mtl"]
    assert read.materials == ["my wood", "b"]
    assert read.material.tolist() == [-1, 0, 1, 0]
    assert np.array_equal(read.colours, np.eye(3))
    assert read_obj(SQUARE + b"v 1 2 3 0.5\nf 1 2 5\n").colours is None


def test_names_that_are_not_utf_8_stay_distinct():
    for encoding in ("gbk", "latin-1", "utf-8"):
        names = ["红", "蓝"] if encoding != "latin-1" else ["bl\xe9", "bl\xe8"]
        text = "".join(f"usemtl {name}\nf 1 2 3\n" for name in names)
        read = read_obj(SQUARE + text.encode(encoding))
        assert read.material.tolist() == [0, 1]
        assert [name.encode("utf-8", "surrogateescape").decode(encoding) for name in read.materials] == names


def test_a_weight_is_no_colour():
    text = b"".join(b"v %d %d 0 %s 0.5 0.25 0\n" % (i, i * i, b"1") for i in range(3)) + b"f 1 2 3\n"
    assert read_obj(text).colours.tolist() == [[0.5, 0.25, 0]] * 3


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
