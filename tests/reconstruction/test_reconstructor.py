from dataclasses import replace

import numpy as np
import pytest
import trimesh
from PIL import Image

from i2m_lib.dataset.dataset import load_images
from i2m_lib.learning.azimuth import mirrored
from i2m_lib.reconstruction import Reconstructor


@pytest.fixture(scope="module")
def reconstructor(tiny_run):
    return Reconstructor.load(tiny_run.folder)


@pytest.fixture(scope="module")
def view(dataset):
    return dataset.image(0)


def test_an_image_becomes_a_mesh_with_the_template_faces(reconstructor, view):
    r = reconstructor.reconstruct(view)
    assert r.V.shape == r.template.V.shape
    assert np.isfinite(r.V).all()
    np.testing.assert_array_equal(r.F, r.template.F)
    np.testing.assert_allclose(r.V, r.template.decode(r.d, r.weights))
    assert 0 <= r.azimuth < 360


def test_the_category_is_the_sum_of_its_templates(reconstructor, view):
    r = reconstructor.reconstruct(view)
    assert r.probabilities.sum() == pytest.approx(1, abs=1e-6)
    assert reconstructor.graph.templates[r.probabilities.argmax()] is r.template
    for synset, name in reconstructor.categories.items():
        its = [p for p, t in zip(r.probabilities, reconstructor.graph.templates, strict=True) if t.synset == synset]
        assert r.category_probabilities[name] == pytest.approx(sum(its))


def test_a_batch_is_answered_like_its_images(reconstructor, dataset):
    images = load_images(dataset, np.arange(3))
    together = reconstructor.predict(images)
    for image, answer in zip(images, together, strict=True):
        alone = reconstructor.predict(image[None])[0]
        np.testing.assert_allclose(alone.V, answer.V, atol=1e-4)


def test_mirror_images_get_one_shape(reconstructor, view):
    r, other = reconstructor.reconstruct(view), reconstructor.reconstruct(np.ascontiguousarray(view[:, ::-1]))
    assert r.template is other.template
    np.testing.assert_allclose(r.V, other.V, atol=1e-3)


def test_mirror_images_are_seen_from_opposite_sides(reconstructor, dataset):
    images = load_images(dataset, np.arange(3))
    # The likeliest angle itself may be a tie, which rounding decides: the tiny network is unsure.
    angles, others = (reconstructor.outputs(x)["azimuth"] for x in (images, images.flip(3)))
    np.testing.assert_allclose(mirrored(angles), others, atol=1e-3)


def test_a_search_stays_among_the_likely_templates(reconstructor, tiny_run, dataset):
    images = load_images(dataset, np.arange(2))
    searched = Reconstructor.load(tiny_run.folder, top_k=2, refinement=3)
    for plain, found in zip(reconstructor.predict(images), searched.predict(images), strict=True):
        assert found.template in searched.graph.templates
        assert np.isfinite(found.V).all()
        np.testing.assert_allclose(found.probabilities, plain.probabilities, atol=1e-6)
        likely = np.argsort(-plain.probabilities)[:2]
        assert found.template.model_id in [reconstructor.graph.templates[i].model_id for i in likely]
    assert reconstructor.search is None


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_files_hold_the_mesh(reconstructor, view, tmp_path, suffix):
    r = reconstructor.reconstruct(view)
    loaded = trimesh.load_mesh(r.save(tmp_path / "out" / f"mesh.{suffix}"), process=False)
    assert len(loaded.faces) == len(r.F)
    np.testing.assert_allclose(loaded.bounds, r.mesh.bounds, atol=1e-5)


@pytest.mark.parametrize("suffix", ["obj", "gltf"])
def test_two_meshes_in_a_folder_keep_their_own_textures(reconstructor, view, tmp_path, suffix):
    r = reconstructor.reconstruct(view)
    colours = {"my chair": [200, 30, 30], "table": [20, 60, 180]}
    paths = {}
    for name, colour in colours.items():
        scene = trimesh.Scene()
        for k, factor in enumerate((1, 2)):  # two textures, whose names hold what no file's name may
            image = Image.new("RGB", (4, 4), tuple(c // factor for c in colour))
            visual = trimesh.visual.TextureVisuals(
                np.zeros((8, 2)), material=trimesh.visual.material.PBRMaterial(f"a/b {k}", baseColorTexture=image)
            )
            box = trimesh.creation.box()
            scene.add_geometry(trimesh.Trimesh(box.vertices + k, box.faces, visual=visual, process=False))
        template = replace(r.template, original=tmp_path / f"{name}.glb")
        scene.export(template.original)
        paths[name] = replace(r, template=template).save(tmp_path / "out" / f"{name}.{suffix}")
    if suffix == "obj":
        written = {"my chair.obj", "my_chair.mtl", "my_chair.png", "my_chair_1.png"}
        written |= {"table.obj", "table.mtl", "table.png", "table_1.png"}
        assert {path.name for path in (tmp_path / "out").iterdir()} == written
    for name, colour in colours.items():
        parts = trimesh.load_scene(paths[name], process=False).geometry.values()
        materials = [part.visual.material for part in parts]
        pixels = [getattr(m, "image", None) or m.baseColorTexture for m in materials]
        found = sorted(tuple(np.asarray(p.convert("RGB"))[0, 0]) for p in pixels)
        assert found == sorted(tuple(c // factor for c in colour) for factor in (1, 2))


def test_what_is_unlikely_to_be_answered_well_is_warned_of(reconstructor, view):
    assert reconstructor.reconstruct(view).warnings == ()
    pair = np.concatenate([view, view], axis=1)
    with pytest.warns(UserWarning, match="2 parts far from each other") as caught:
        r = reconstructor.reconstruct(pair)
    assert r.warnings == tuple(str(w.message) for w in caught)


def test_a_run_without_a_model_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run 02_template_graph first"):
        Reconstructor.load(tmp_path)
