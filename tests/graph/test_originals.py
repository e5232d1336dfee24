import csv
import shutil
from io import BytesIO

import numpy as np
import pytest
import trimesh
from PIL import Image

from i2m_lib.dataset.build import build_dataset
from i2m_lib.dataset.obj import read_obj
from i2m_lib.dataset.source import ModelSource
from i2m_lib.graph.build_graph import build_graph, make_graph
from i2m_lib.graph.originals import dress, keep_originals, read_original

# A unit cube by its corners, each face with its own texture coordinates, in two materials.
CUBE = """mtllib model_normalized.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0 0 1
v 1 0 1
v 1 1 1
v 0 1 1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl checked
f 1/1 4/4 3/3 2/2
f 5/1 6/2 7/3 8/4
f 1/1 2/2 6/3 5/4
usemtl red
f 4/1 8/2 7/3 3/4
f 1/1 5/2 8/3 4/4
f 2/1 3/2 7/3 6/4
f 2/1 3/2 7/3 6/4
"""
PIXELS = np.zeros((8, 8, 3), np.uint8)
PIXELS[np.indices((8, 8)).sum(0) % 2 == 1] = 255, 127, 255
MTL = "newmtl checked\nKd 1 1 1\nmap_Kd checked.png\nnewmtl red\nKd 0.8 0.1 0.1\n"


@pytest.fixture(scope="module")
def textured(tmp_path_factory):
    """Three boxes with a checked texture, one face doubled so that cleaning drops it: corpus and dataset."""
    root = tmp_path_factory.mktemp("textured")
    png = BytesIO()
    Image.fromarray(PIXELS).save(png, "png")
    rows = [("id", "synsetId", "subSynsetId", "modelId", "split")]
    for i, (name, split) in enumerate({"low": "train", "tall": "train", "held": "val"}.items()):
        folder = root / "03001627" / name / "models"
        folder.mkdir(parents=True)
        scaled = CUBE.replace("v 0 1", f"v 0 {1 + i}").replace("v 1 1", f"v 1 {1 + i}")
        (folder / "model_normalized.obj").write_text(scaled)
        (folder / "model_normalized.mtl").write_text(MTL)
        (folder / "checked.png").write_bytes(png.getvalue())
        rows.append((str(i), "03001627", "03001627", name, split))
    with (root / "all.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    out = tmp_path_factory.mktemp("textured-dataset")
    options = {"n_views": 1, "image_size": 32, "n_surface": 500, "seed": 0, "workers": 1, "progress": False}
    return root, build_dataset(root, out, **options)


def test_faces_coordinates_and_materials_survive_deformation_and_glb(textured, tmp_path):
    root, dataset = textured
    options = {"n_templates": 2, "choice": "coverage", "seed": 0, "workers": 1}
    graph, _ = make_graph(dataset, tmp_path, corpus_root=root, **options)
    assert len(graph.templates) == 2
    for t in graph.templates:
        d = 0.05 * np.random.default_rng(0).normal(size=(32, 3))
        a = np.ones(len(t.neighbours))
        path = tmp_path / "deformed.glb"
        dress(t, d, a).export(path)
        before, after = dress(t), trimesh.load_scene(path, process=False)
        parts = list(after.geometry.values())
        # All 14 triangles of the file are there, in two materials, although the clean mesh lost the doubled ones.
        assert sum(len(part.faces) for part in parts) == 14 > len(t.F)
        assert set(after.geometry) == {"checked", "red"}
        texture = after.geometry["checked"].visual.material.baseColorTexture
        np.testing.assert_array_equal(np.asarray(texture.convert("RGB")), PIXELS)
        assert after.geometry["red"].visual.material.baseColorTexture is None
        assert after.geometry["red"].visual.material.baseColorFactor.tolist() == [204, 26, 26, 255]
        for name, part in before.geometry.items():
            other = after.geometry[name]
            np.testing.assert_array_equal(other.faces, part.faces)
            np.testing.assert_allclose(other.visual.uv, part.visual.uv, atol=1e-6)
            np.testing.assert_allclose(other.vertices, t.deform(part.vertices, d, a), atol=1e-5)
        # Corners of the file lie where the clean mesh has them.
        corners, clean = np.concatenate([p.vertices for p in parts]), t.decode(d, a)
        assert np.linalg.norm(corners[:, None] - clean, axis=2).min(1).max() < 1e-5


def corners(scene):
    """Places and texture coordinates of all corners of faces, sorted."""
    rows = [
        np.hstack([part.vertices[part.faces].reshape(-1, 3), part.visual.uv[part.faces].reshape(-1, 2)])
        for part in scene.geometry.values()
    ]
    return np.unique(np.concatenate(rows).round(6), axis=0)


def source_with(folder, obj, layout="v2"):
    """A model on disk of the given text, with materials and texture."""
    entry = "m/models/model_normalized.obj" if layout == "v2" else "m/model.obj"
    (folder / entry).parent.mkdir(parents=True)
    (folder / entry).write_text(obj)
    (folder / entry).with_name("model_normalized.mtl").write_text(MTL)
    Image.fromarray(PIXELS).save((folder / entry).with_name("checked.png"))
    return ModelSource("03001627", "m", layout, folder, entry)


def test_corners_keep_place_and_coordinates(tmp_path):
    centre, scale = np.array([0.5, 0.5, 0.5]), 2.0
    scene = read_original(source_with(tmp_path, CUBE), centre, scale)
    obj = read_obj(CUBE.encode())
    wanted = np.hstack([((obj.V[obj.F] - centre) / scale).reshape(-1, 3), obj.UV.reshape(-1, 2)])
    np.testing.assert_allclose(corners(scene), np.unique(wanted, axis=0), atol=1e-6)
    turned = read_original(source_with(tmp_path / "v1", CUBE, "v1"), centre, scale)
    np.testing.assert_allclose(corners(turned)[:, 1].max(), corners(scene)[:, 1].max())
    assert corners(turned)[:, 2].min() == pytest.approx(-0.75)  # its front, +X, is at -Z


def test_relative_indices_are_what_the_format_says(tmp_path):
    """trimesh takes them from the end of the whole file, where the last vertices here are no part of the cube."""
    counts = {"v": 8, "vt": 4}
    lines = []
    for line in CUBE.splitlines():
        if line.startswith("f"):
            pairs = [corner.split("/") for corner in line.split()[1:]]
            line = "f " + " ".join(f"{int(v) - counts['v'] - 1}/{int(t) - counts['vt'] - 1}" for v, t in pairs)
        lines.append(line)
    relative = "\n".join([*lines, "v 9 9 9", "v 8 8 8", "vt 5 5"])
    found = [
        read_original(source_with(tmp_path / n, text), np.zeros(3), 1.0) for n, text in (("a", CUBE), ("r", relative))
    ]
    np.testing.assert_array_equal(corners(found[0]), corners(found[1]))


def test_a_file_without_coordinates_has_no_original(tmp_path):
    plain = "\n".join(line for line in CUBE.splitlines() if line[:2] != "vt").replace("/", " 1 ")
    assert read_original(source_with(tmp_path, plain), np.zeros(3), 1.0) is None


def test_a_corpus_without_a_template_costs_its_textures_alone(textured, tmp_path, caplog):
    root, dataset = textured
    graph, _ = build_graph(dataset, n_templates=2, seed=0, workers=1)
    corpus = tmp_path / "corpus"
    shutil.copytree(root / "03001627" / "tall", corpus / "03001627" / "tall")
    keep_originals(dataset, graph, corpus, tmp_path)
    assert [path.stem for path in tmp_path.rglob("*.glb")] == ["tall"]
    assert "low keeps no textures" in caplog.text
