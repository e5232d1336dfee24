"""What becomes of files that are broken in named ways: a reason, an error or a count, never silence."""

import zipfile
from pathlib import Path

import pandas as pd
import pytest

from i2m_lib.dataset.build import build_dataset
from i2m_lib.dataset.shapenet import Corpus
from i2m_lib.dataset.source import CorpusError

CORNERS = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"
GOOD = CORNERS + b"f 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
UV = b"vt 0 0\nvt 1 0\nvt 0 1\n"
TEXTURED = b"mtllib m.mtl\n" + CORNERS + UV + b"usemtl t\nf 1/1 3/2 2/3\nf 1/1 2/2 4/3\n"
MTL = b"newmtl t\nKd 0 1 0\nmap_Kd ../images/t.png\n"
OBJ = "models/model_normalized.obj"


def picture(width: int, height: int) -> bytes:
    """The head of a PPM; its pixels are missing."""
    return f"P6 {width} {height} 255\n".encode()


# name -> (the obj, expected: a pattern of the reason, or the counts that differ from 0 if it is accepted)
OBJS = {
    "no bytes": (b"", "empty: .*no content"),
    "blank lines": (b"\n \n\n", "empty: .*no content"),
    "comments only": (b"# nothing\n", "empty: the file holds no face"),
    "vertices without faces": (CORNERS, "empty: the file holds no face"),
    "faces without vertices": (b"f 1 2 3\n", "names a vertex that is not among the file's 0"),
    "truncated within a vertex": (GOOD[:20], "line 3, 'v 0 ', is broken"),
    "truncated within a face": (GOOD[:-2], "line 8, 'f 2 3 ', is broken .*three corners"),
    "truncated within an index": (GOOD[:-2] + b" 4/", {}),
    "letters for numbers": (GOOD + b"v a b c\n", "line 9, 'v a b c', is broken"),
    "an index of letters": (GOOD + b"f 1 2 x\n", "line 9, 'f 1 2 x', is broken"),
    "an unknown keyword": (GOOD + b"triangle 1 2 3\n", "line 9, .*no keyword of OBJ"),
    "binary": (bytes(range(256)) * 9, "unreadable: .*binary"),
    "zeros at the end": (GOOD + bytes(512), "unreadable: .*cut short"),
    "a mark of UTF-8 before all": (b"\xef\xbb\xbf" + GOOD, {}),
    "a mark of UTF-8 within": (GOOD + b"\xef\xbb\xbff 1 2 3\n", "line 9, .*no keyword of OBJ"),
    "the end of a DOS file": (GOOD + b"\x1a", {}),
    "no numbers as Windows prints them": (
        GOOD + b"v -1.#IND 0 -nan(ind)\nf 1 2 5\n",
        {"n_nan_vertices": 1, "n_nan_faces": 1},
    ),
    "another file called": (GOOD + b"call more.obj\n", "line 9, .*no keyword of OBJ"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "unreadable: .*binary"),
    "latin-1 names and comments": (b"# caf\xe9\nusemtl bl\xe9\n" + GOOD, {"n_missing_materials": 1}),
    "DOS lines, continued": (GOOD.replace(b"\n", b"\r\n").replace(b"f 2 3 4", b"f 2 \\\r\n3 4"), {}),
    "all NaN": (GOOD.replace(b"v 0", b"v nan"), "NaN: no face"),
    "one NaN": (GOOD + b"v nan 0 0\nf 1 2 5\n", {"n_nan_vertices": 1, "n_nan_faces": 1}),
    "one infinity": (GOOD + b"v inf 0 0\nf 1 2 5\n", {"n_nan_vertices": 1, "n_nan_faces": 1}),
    "huge coordinates": (GOOD.replace(b"v 1", b"v 1e200"), "absurd coordinates: .*1e\\+200 long"),
    "an axis of 1e-200": (b"v 0 0 0\nv 1 0 0\nv 0 1 1e-200\nf 1 2 3\n", {"n_flat_axes": 1}),
    "all tiny coordinates": (b"v 0 0 0\nv 1e-99 0 0\nv 0 1e-99 0\nf 1 2 3\n", "absurd coordinates: .*1e-99 long"),
    "a huge index": (GOOD + b"f 1 2 1000000000\n", "names a vertex that is not among the file's 4"),
    "an index of 30 digits": (GOOD + b"f 1 2 " + b"9" * 30 + b"\n", "line 9, .*is broken"),
    "index 0": (GOOD + b"f 0 1 2\n", "names a vertex that is not among"),
    "a negative index too far back": (GOOD + b"f -1 -2 -9\n", "names a vertex that is not among"),
    "negative indices": (CORNERS + b"f -4 -2 -3\nf -4 -3 -1\nf -4 -1 -2\nf -3 -2 -1\n", {}),
    "texture indices out of range": (GOOD.replace(b"f 1 3 2", b"f 1/7 3/8 2/9"), {}),
    "quads only": (b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 1\nv 1 0 1\nf 1 2 3 4\nf 1 2 6 5\n", {}),
    "a flat sheet": (CORNERS[:24] + b"f 1 2 3\n", {"n_flat_axes": 1}),
    "a line": (b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "flat: .*a line"),
    "a point": (b"v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "all vertices are equal"),
    "degenerate faces only": (CORNERS + b"f 1 1 2\nf 3 3 3\n" + b"f 4 2 4\n", "every face is degenerate"),
    "faces without area": (b"v 0 0 0\nv 1 1 1\nv 2 2 2\nv 0 1 0\nf 1 2 3\nf 1 4 4\n", "without area"),
    "doubled and degenerate faces": (GOOD + b"f 1 2 3\nf 1 1 2\n", {"n_duplicate_faces": 1, "n_degenerate_faces": 1}),
    "an unused vertex": (GOOD + b"v 9 9 9\n", {"n_unreferenced_vertices": 1}),
    "glTF 1.0": (b"glTF\x01\0\0\0", "the file is binary glTF"),
    "Draco in glTF": (b'{"extensionsRequired": ["KHR_draco_mesh_compression"]}', "the file is JSON, perhaps glTF"),
    "ASCII FBX": (b"; FBX 7.3.0 project file\n", "the file is ASCII FBX"),
    "a page of an error": (b"<!DOCTYPE html>\n<p>404", "the file is XML or HTML"),
    "a pointer of LFS": (b"version https://git-lfs.github.com/spec/v1\n", "the file is a pointer of Git LFS"),
    "the mtl missing": (TEXTURED, {"n_missing_materials": 1}),
}
# name -> (the mtl, the texture, expected)
TEXTURES = {
    "the texture missing": (MTL, None, {"n_missing_textures": 1}),
    "the texture broken": (MTL, b"no picture", {"n_broken_textures": 1}),
    "the texture cut short": (MTL, picture(8, 8), {"n_broken_textures": 1}),
    "the texture a bomb": (MTL, picture(60_000, 60_000), {"n_broken_textures": 1}),
    "the texture outside": (MTL.replace(b"../", b"../../../../"), None, {"n_missing_textures": 1}),
    "the texture absolute": (MTL.replace(b"../images", b"/etc"), None, {"n_missing_textures": 1}),
    "the mtl binary": (bytes(range(256)), None, {"n_missing_materials": 1}),
    "the texture a folder": (MTL.replace(b"t.png", b""), None, {"n_missing_textures": 1}),
    "a texture of options only": (MTL.replace(b"../images/t.png", b"-s 1 1 1"), None, {"n_missing_textures": 1}),
    "a texture of an impossible name": (MTL.replace(b"t.png", b"\0" * 999), None, {"n_broken_textures": 1}),
    "a texture moved beyond all numbers": (
        MTL.replace(b"../", b"-s 1e999 -o nan ../"),
        None,
        {"n_missing_textures": 1},
    ),
    "colours of no number": (b"newmtl t\nKd nan inf x\n", None, {"n_missing_materials": 1}),
    "colours of two numbers": (b"newmtl t\nKd 0 1\n", None, {"n_missing_materials": 1}),
}
OTHERS = {
    "the obj missing": "missing: 03001627 holds no",
    "the obj a folder": "is a folder where a file should be",
    "the obj a link out of the root": "a link that leaves the folder of its model",
    "the model a link out of the root": "a link that leaves the folder of its model",
    "the texture a link out of the root": {"n_broken_textures": 1},
    "wrong CRC in the zip": "cannot be unpacked .*CRC",
    "absurd expansion in the zip": "expands more than 200 times",
}
EXPECTED = {name: case[-1] for name, case in (OBJS | TEXTURES).items()} | OTHERS


def write(root: Path, name: str, **files: bytes | None) -> Path:
    """A model's folder; `files` are the obj, mtl and texture."""
    folder = root / "03001627" / name
    places = {"obj": folder / OBJ, "mtl": folder / "models" / "m.mtl", "texture": folder / "images" / "t.png"}
    for path in places.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    for key, data in files.items():
        if data is not None:
            places[key].write_bytes(data)
    return folder


def add_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"04256520/wrong CRC in the zip/{OBJ}", GOOD)
        bomb = zipfile.ZipInfo(f"04256520/absurd expansion in the zip/{OBJ}")
        archive.writestr(bomb, GOOD + b"#" * 2**20, zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"v 0 1 0", b"v 0 2 0", 1))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """models.parquet of one run over all broken models and a good one."""
    folder = tmp_path_factory.mktemp("broken")
    root = folder / "corpus"
    write(root, "good", obj=GOOD)
    for name, (obj, _) in OBJS.items():
        write(root, name, obj=obj)
    for name, (mtl, texture, _) in TEXTURES.items():
        write(root, name, obj=TEXTURED, mtl=mtl, texture=texture)
    write(root, "the obj missing")
    (write(root, "the obj a folder") / OBJ).mkdir()
    (folder / "there" / "models").mkdir(parents=True)
    for path, data in ((folder / "secret", GOOD), (folder / "there" / OBJ, GOOD)):
        path.write_bytes(data)
    (write(root, "the obj a link out of the root") / OBJ).symlink_to(folder / "secret")
    (root / "03001627" / "the model a link out of the root").symlink_to(folder / "there")
    linked = write(root, "the texture a link out of the root", obj=TEXTURED, mtl=MTL)
    (linked / "images" / "t.png").symlink_to(folder / "secret")
    add_zip(root / "04256520.zip")
    sizes = {"n_views": 1, "image_size": 16, "n_surface": 50, "seed": 0}
    return build_dataset(root, folder / "out", **sizes, workers=1, progress=False).manifest.set_index("model_id")


@pytest.mark.parametrize("name", ["good", *EXPECTED])
def test_a_broken_model_gets_its_reason_or_its_counts(manifest, name):
    row, expected = manifest.loc[name], EXPECTED.get(name, {})
    if isinstance(expected, str):
        assert row.status == "quarantined"
        assert pd.Series([row.reason]).str.contains(expected).item(), row.reason
        assert pd.isna(row.n_faces)
    else:
        assert (row.status, row.reason is pd.NA) == ("ok", True), row.reason
        faults = row[
            [c for c in manifest if c.startswith("n_") and c not in ("n_vertices", "n_faces", "n_source_faces")]
        ]
        assert faults[faults != 0].to_dict() == expected


def test_there_are_as_many_ways_as_promised(manifest):
    assert len(EXPECTED) >= 25
    assert len(manifest) == len(EXPECTED) + 1


def two_zips(root: Path, name: str) -> None:
    with zipfile.ZipFile(root / "04256520.zip", "w") as archive:
        archive.writestr(name, GOOD)


# name -> (how to break a corpus, the error)
CORPORA = {
    "a zip cut short": (lambda root: (root / "04256520.zip").write_bytes(b"PK\x03\x04 cut"), "is no readable zip"),
    "a zip of a page": (lambda root: (root / "04256520.zip").write_bytes(b"<html>"), "is no readable zip"),
    "a zip of something else": (lambda root: two_zips(root, "readme.txt"), "holds no model but begins with readme"),
    "a zip with ..": (lambda root: two_zips(root, "04256520/../../x/model.obj"), "which leaves its folder"),
    "a zip with an absolute path": (lambda root: two_zips(root, "/04256520/x/model.obj"), "which leaves its folder"),
    "a taxonomy cut short": (lambda root: (root / "taxonomy.json").write_text("[{"), "not ShapeNet's taxonomy"),
    "a taxonomy of numbers": (lambda root: (root / "taxonomy.json").write_text("[1]"), "not ShapeNet's taxonomy"),
    "a taxonomy without names": (
        lambda root: (root / "taxonomy.json").write_text('[{"synsetId": "1", "name": 5}]'),
        "not ShapeNet's taxonomy",
    ),
    "a taxonomy in latin-1": (
        lambda root: (root / "taxonomy.json").write_bytes(b'["\xe9"]'),
        "not ShapeNet's taxonomy",
    ),
    "a list without columns": (lambda root: (root / "all.csv").write_text("a,b\n1,2\n"), "needs the columns"),
    "a list with another split": (lambda root: (root / "all.csv").write_text("modelId,split\nx,dev\n"), "'dev'"),
    "a list in latin-1": (lambda root: (root / "all.csv").write_bytes(b"modelId,split\n\xe9,val\n"), "cannot be read"),
    "a list that is binary": (lambda root: (root / "all.csv").write_bytes(bytes(99)), "all.csv"),
}


@pytest.mark.parametrize("name", CORPORA)
def test_a_broken_corpus_is_an_error_that_names_the_file(tmp_path, name):
    write(tmp_path, "good", obj=GOOD)
    assert len(Corpus.open(tmp_path, split_seed=0).models) == 1
    breaks, message = CORPORA[name]
    breaks(tmp_path)
    with pytest.raises(CorpusError, match=message) as error:
        Corpus.open(tmp_path, split_seed=0)
    assert str(tmp_path) in str(error.value)
