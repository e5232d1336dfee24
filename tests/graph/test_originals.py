import csv
import shutil
from io import BytesIO

import numpy as np
import pytest
import trimesh
from PIL import Image

from i2m_lib.dataset.build import build_dataset
from i2m_lib.graph.build_graph import build_graph
from i2m_lib.graph.originals import dress, keep_originals
from i2m_lib.graph.template_graph import TemplateGraph

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
MTL = "newmtl checked\nKd 1 1 1\nmap_Kd checked.png\nnewmtl red\nKd 0.8 0.1 0.1\n"


@pytest.fixture(scope="module")
def textured(tmp_path_factory):
    """Three boxes with a checked texture, one face doubled so that cleaning drops it: corpus and dataset."""
    root = tmp_path_factory.mktemp("textured")
    squares = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)
    png = BytesIO()
    Image.fromarray(np.dstack([squares, squares // 2, squares])).save(png, "png")
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
    graph, _ = build_graph(dataset, n_templates=2, seed=0, workers=1)
    graph.save(tmp_path)
    assert keep_originals(dataset, graph, root, tmp_path) == 2
    for t in TemplateGraph.load(tmp_path).templates:
        d = 0.05 * np.random.default_rng(0).normal(size=(32, 3))
        a = np.ones(len(t.neighbours))
        path = tmp_path / "deformed.glb"
        dress(t, d, a).export(path)
        before, after = dress(t), trimesh.load_scene(path, process=False)
        parts = list(after.geometry.values())
        # All 14 triangles of the file are there, in two materials, although the clean mesh lost the doubled ones.
        assert sum(len(part.faces) for part in parts) == 14 > len(t.F)
        textures = [p.visual.material.baseColorTexture for p in parts if p.visual.material.baseColorTexture]
        assert [image.size for image in textures] == [(8, 8)]
        for name, part in before.geometry.items():
            other = after.geometry[name]
            np.testing.assert_array_equal(other.faces, part.faces)
            np.testing.assert_allclose(other.visual.uv, part.visual.uv, atol=1e-6)
            np.testing.assert_allclose(other.vertices, t.deform(part.vertices, d, a), atol=1e-5)
        # Corners of the file lie where the clean mesh has them.
        corners, clean = np.concatenate([p.vertices for p in parts]), t.decode(d, a)
        assert np.linalg.norm(corners[:, None] - clean, axis=2).min(1).max() < 1e-5


def test_without_an_original_the_colours_of_faces_remain(textured, tmp_path):
    graph, _ = build_graph(textured[1], n_templates=1, seed=0, workers=1)
    dress(graph.templates[0]).export(tmp_path / "plain.glb")
    mesh = trimesh.load_mesh(tmp_path / "plain.glb")
    assert len(mesh.faces) == len(graph.templates[0].F)


def test_a_corpus_without_a_template_costs_its_textures_alone(textured, tmp_path, caplog):
    root, dataset = textured
    graph, _ = build_graph(dataset, n_templates=2, seed=0, workers=1)
    corpus = tmp_path / "corpus"
    shutil.copytree(root / "03001627" / "tall", corpus / "03001627" / "tall")
    assert keep_originals(dataset, graph, corpus, tmp_path) == 1
    assert "low keeps no textures" in caplog.text
