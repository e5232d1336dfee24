"""Colours and textures as the files that name them say, whoever wrote those files; what is lost is counted."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2m_lib.dataset import textures
from i2m_lib.dataset.obj import read_obj
from i2m_lib.dataset.source import ModelSource
from i2m_lib.dataset.textures import DEFAULT_COLOUR, paint

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
UV = "vt 0 0\nvt 0.25 0\nvt 0.25 0.25\nvt 0 0.25\n"
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
NO_COUNTS = dict.fromkeys(("n_missing_materials", "n_missing_textures", "n_broken_textures"), 0)


def png(left: tuple, right: tuple) -> bytes:
    """8 x 8 pixels in two colours."""
    pixels, file = np.tile(np.uint8(left), (8, 8, 1)), io.BytesIO()
    pixels[:, 4:] = right
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


PICTURE = png(RED, BLUE)
PAINTED = f"mtllib m.mtl\n{SQUARE}{UV}usemtl t\nf 1/1 2/2 3/3\n"


def painted(folder: Path, obj: str | bytes, *, archive: bool = False, **files: bytes):
    """Colours, skin and counts that differ from 0 of a v2 model with `files` beside its obj, in a folder or a zip; `_`
    stands for the dot of a name."""
    if archive:
        with zipfile.ZipFile(folder / "03001627.zip", "a") as out:
            for name, data in files.items():
                out.writestr(f"03001627/a/models/{name.replace('_', '.')}", data)
        source = ModelSource("03001627", "a", "v2", folder / "03001627.zip", "03001627/a/models/m.obj")
    else:
        models = folder / "03001627" / "a" / "models"
        models.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (models / name.replace("_", ".")).write_bytes(data)
        source = ModelSource("03001627", "a", "v2", folder / "03001627", "a/models/m.obj")
    C, skin, counts = paint(read_obj(obj.encode() if isinstance(obj, str) else obj), source)
    assert counts.keys() == NO_COUNTS.keys()
    return list(map(tuple, C.tolist())), skin, {name: n for name, n in counts.items() if n}


def test_libraries_with_a_mark_and_several_in_a_line(tmp_path):
    text = f"mtllib a.mtl b.mtl\n{SQUARE}usemtl red\nf 1 2 3\nusemtl blue\nf 1 3 4\n"
    a, b = b"\xef\xbb\xbfnewmtl red\r\nKd 1 0 0\r\n", b"Kd 0 1 0\nnewmtl blue\n\tKD 0 0 1 # not 1 0 0\n"
    assert painted(tmp_path, text, a_mtl=a, b_mtl=b) == ([RED, BLUE], None, {})


@pytest.mark.parametrize(("encoding", "names"), [("gbk", "红蓝"), ("latin-1", "éè"), ("utf-8", "é木")])
def test_materials_with_names_in_any_encoding(tmp_path, encoding, names):
    text = f"mtllib m.mtl\n{SQUARE}usemtl {names[0]}\nf 1 2 3\nusemtl {names[1]}\nf 1 3 4\n"
    mtl = f"newmtl {names[0]}\nKd 1 0 0\nnewmtl {names[1]}\nKd 0 0 1\n"
    assert painted(tmp_path, text.encode(encoding), m_mtl=mtl.encode(encoding)) == ([RED, BLUE], None, {})


@pytest.mark.parametrize(
    ("line", "colour"),
    [
        *[
            (line, RED)
            for line in ("t.png", '"t.png"', "-clamp on -texres 512 t.png", "t.png -s 1 1 1", "-s\t1\tt.png")
        ],
        *[
            (line, RED)
            for line in ("-imfchan m t.png", "-bm -.5 -mm 0 1 -blendu off t.png", ".\\t.png", "-o 1 0 t.png")
        ],
        *[(line, BLUE) for line in ("-o 0.5 t.png", "-o -.5 0 0 t.png", "t.png -o 5e-1 0 0", "-s -1 1 1 t.png")],
        ("-o 0.25 -s 2 1 1 t.png", None),  # from 0.25 to 0.75: both
    ],
)
def test_options_of_a_texture(tmp_path, line, colour):
    C, skin, counts = painted(tmp_path, PAINTED, m_mtl=f"newmtl t\nKd 0 1 0\nmap_Kd {line}\n".encode(), t_png=PICTURE)
    assert counts == {}
    assert (skin.texture == 0).all()
    if colour:
        assert [colour] == C
    else:
        assert min(C[0][0], C[0][2]) > 0


def test_two_materials_may_place_one_texture_in_two_ways(tmp_path):
    mtl = b"newmtl a\nmap_Kd t.png\nnewmtl b\nmap_Kd -o 0.5 0 t.png\n"
    text = f"mtllib m.mtl\n{SQUARE}{UV}usemtl a\nf 1/1 2/2 3/3\nusemtl b\nf 1/1 2/2 3/3\n"
    C, skin, _ = painted(tmp_path, text, m_mtl=mtl, t_png=PICTURE)
    assert C == [RED, BLUE]
    assert len(skin.images) == 1
    assert np.allclose(skin.uv[1] - skin.uv[0], [0.5, 0])


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize(
    ("library", "texture"),
    [("M.MTL", "T.png"), ("C:\\work\\m.mtl", "d:\\maps\\T.PNG"), ("/home/me/m.mtl", "../../../../t.png")],
)
def test_names_in_other_letters_and_paths_of_another_disk(tmp_path, archive, library, texture):
    mtl, text = f"newmtl t\nmap_Kd {texture}\n".encode(), PAINTED.replace("m.mtl", library)
    C, _, counts = painted(tmp_path, text, archive=archive, m_mtl=mtl, t_png=PICTURE)
    assert (C, counts) == ([RED], {})


def test_of_two_files_that_differ_in_case_neither_is_guessed(tmp_path):
    mtl = b"newmtl t\nKd 0 1 0\nmap_Kd T.png\n"
    C, _, counts = painted(tmp_path, PAINTED, archive=True, m_mtl=mtl, t_png=PICTURE, t_PNG=PICTURE)
    assert (C, counts) == ([GREEN], {"n_missing_textures": 1})


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize(
    "line", [".", "../images/", "-s 1 1 1", "C:\\maps\\", "/home/someone/t.png", "x/../../../a.png"]
)
def test_a_texture_that_is_no_file_is_counted(tmp_path, archive, line):
    (tmp_path / "03001627" / "a" / "images").mkdir(parents=True)
    mtl = f"newmtl t\nKd 0 1 0\nmap_Kd {line}\n".encode()
    assert painted(tmp_path, PAINTED, archive=archive, m_mtl=mtl) == ([GREEN], None, {"n_missing_textures": 1})


def test_a_damaged_texture_in_a_zip_is_counted(tmp_path):
    mtl = b"newmtl t\nKd 0 1 0\nmap_Kd t.png\n"
    assert painted(tmp_path, PAINTED, archive=True, m_mtl=mtl, t_png=PICTURE)[0] == [RED]
    path = tmp_path / "03001627.zip"
    path.write_bytes(path.read_bytes().replace(PICTURE[-20:], b"*" * 20))
    assert painted(tmp_path, PAINTED, archive=True) == ([GREEN], None, {"n_broken_textures": 1})


def test_a_library_that_cannot_be_read_costs_colours_alone(tmp_path):
    (tmp_path / "03001627" / "a" / "models" / "m.mtl").mkdir(parents=True)
    assert painted(tmp_path, PAINTED) == ([DEFAULT_COLOUR], None, {"n_missing_materials": 1})


@pytest.mark.parametrize(
    ("kd", "colour"),
    [
        ("0.2 0.4 0.6", (51, 102, 153)),
        ("0.2", (51,) * 3),
        ("51 102 153", (51, 102, 153)),
        ("1 1.0000001 0", (255, 255, 0)),
    ],
)
def test_diffuse_colours(tmp_path, kd, colour):
    assert painted(tmp_path, PAINTED, m_mtl=f"newmtl t\nKd {kd}\n".encode()) == ([colour], None, {})


@pytest.mark.parametrize(("scale", "last"), [(1, 0), (255, 0), (1, "nan"), (255, "nan")])
def test_vertex_colours_of_1_or_255(tmp_path, scale, last):
    lines = [f"v {line[2:]} {0.8 * scale:g} {0.4 * scale:g} {last}" for line in SQUARE.splitlines()]
    assert painted(tmp_path, "\n".join([*lines, "f 1 2 3"]))[0] == [(204, 102, 0)]


@pytest.mark.parametrize(("turns", "is_mapped"), [(3, True), (8500, True), (1e7, False), (1e300, False)])
def test_a_face_on_which_a_texture_repeats_has_its_mean_colour(tmp_path, turns, is_mapped):
    text = PAINTED.replace("0.25", f"{turns:g}")
    C, skin, counts = painted(tmp_path, text, m_mtl=b"newmtl t\nmap_Kd t.png\n", t_png=PICTURE)
    assert (C, counts, skin.texture.tolist()) == ([(127, 0, 127)], {}, [0 if is_mapped else -1])
    assert np.isfinite(skin.uv).all()


@pytest.mark.parametrize("n", [1, 3, 12])
def test_many_textures_are_kept_smaller(tmp_path, monkeypatch, n):
    monkeypatch.setattr(textures, "MAX_SIDE", 6)
    monkeypatch.setattr(textures, "MAX_PIXELS", 48)
    mtl = "".join(f"newmtl {i}\nmap_Kd {i}.png\n" for i in range(n))
    text = f"mtllib m.mtl\n{SQUARE}{UV}" + "".join(f"usemtl {i}\nf 1/1 2/2 3/3\n" for i in range(n))
    C, skin, counts = painted(tmp_path, text, m_mtl=mtl.encode(), **{f"{i}_png": PICTURE for i in range(n)})
    assert [image.shape for image in skin.images] == [(side := {1: 6, 3: 4, 12: 2}[n], side, 3)] * n
    assert (counts, skin.texture.tolist()) == ({}, list(range(n)))
    assert all(colour[0] > 200 for colour in C)
