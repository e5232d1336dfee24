"""The projection of Blender, step by step as 3D-R2N2's script sets it up, is the oracle here."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation

from i2m_lib.dataset import r2n2
from i2m_lib.dataset.build import build_dataset
from i2m_lib.dataset.dataset import overlay
from i2m_lib.dataset.render import Renderer
from i2m_lib.dataset.source import CorpusError
from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import mask_iou
from i2m_lib.geometry.surfaces import normalise

SIZE = 137
BUILD = {"n_views": 5, "image_size": SIZE, "n_surface": 100, "seed": 0, "workers": 1, "progress": False}


def blender_pixels(X: np.ndarray, azimuth: float, elevation: float, distance: float) -> np.ndarray:
    """Points X (n,3) of a model's file -> pixels (n,2), column and row, of a 137 x 137 image."""
    # The importer makes +Y up into +Z up. The camera lies on +X, looks back at the origin with +Z
    # up, and turns with its parent, by Euler angles in the order XYZ.
    world = X @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T
    parent = Rotation.from_euler("xyz", [0, -elevation, -azimuth], degrees=True)
    camera = Rotation.from_euler("zxy", [90, 0, 90], degrees=True)
    place = parent.apply([1.75 * distance, 0, 0])
    x, y, z = (parent * camera).inv().apply(world - place).T  # -z ahead, y up
    lens = 35 / 32 * SIZE
    return np.stack([SIZE / 2 + lens * x / -z, SIZE / 2 - lens * y / -z], axis=1)


def blender_mask(V: np.ndarray, F: np.ndarray, *view: float) -> np.ndarray:
    """What Pillow fills of the projected triangles, at four times the resolution."""
    image = Image.new("L", (4 * SIZE, 4 * SIZE))
    for triangle in blender_pixels(V, *view)[F]:
        ImageDraw.Draw(image).polygon([tuple(p) for p in 4 * triangle - 0.5], fill=1)
    return np.array(image).reshape(SIZE, 4, SIZE, 4).sum((1, 3)) >= 8


@pytest.fixture(scope="module")
def v1(tmp_path_factory):
    """A v1 corpus of one shape, once centred with diagonal 1 and once not, and its dataset."""
    root = tmp_path_factory.mktemp("ShapeNetCore.v1")
    boxes = [((0, 0, 0), (2, 1, 3)), ((0, 1, 0), (0.5, 3, 0.5)), ((2, 0, 2), (3, 0.4, 3))]
    mesh = trimesh.util.concatenate([trimesh.creation.box(bounds=b) for b in boxes])
    V, _, _ = normalise(np.asarray(mesh.vertices))
    for model_id, vertices in {"plain": V, "moved": 0.8 * V + [0.1, -0.05, 0.07]}.items():
        path = root / "03001627" / model_id / "model.obj"
        path.parent.mkdir(parents=True)
        path.write_text(trimesh.exchange.obj.export_obj(trimesh.Trimesh(vertices, mesh.faces, process=False)))
    return build_dataset(root, tmp_path_factory.mktemp("v1") / "out", **BUILD), root


@pytest.fixture(scope="module")
def renderings(v1, tmp_path_factory):
    """Six grey views of each model, as Blender projects its file."""
    root, rng = tmp_path_factory.mktemp("ShapeNetRendering"), np.random.default_rng(1)
    for model_id in ("plain", "moved"):
        mesh, folder = (
            trimesh.load(v1[1] / "03001627" / model_id / "model.obj", process=False),
            folder_of(root, model_id),
        )
        folder.mkdir(parents=True)
        views = rng.uniform([0, 25, 0.65], [360, 30, 0.95], (6, 3))
        for k, view in enumerate(views):
            mask = blender_mask(mesh.vertices, mesh.faces, *view)
            assert mask_iou(mask, blender_mask(mesh.vertices, mesh.faces, *(view * [-1, 1, 1]))) < 0.95  # not symmetric
            rgba = np.where(mask[..., None], (90, 80, 70, 255), 0).astype(np.uint8)
            Image.fromarray(rgba).save(folder / f"{k:02d}.png")
        (folder / "renderings.txt").write_text("".join(f"{k:02d}.png\n" for k in range(6)))
        (folder / "rendering_metadata.txt").write_text("".join(f"{a} {e} 0 {d} 25\n" for a, e, d in views))
    return root


def folder_of(root: Path, model_id: str = "plain") -> Path:
    return root / "03001627" / model_id / "rendering"


@pytest.mark.parametrize("azimuth", [0, 30, 135, 290])
def test_cameras_project_as_blender_does(azimuth):
    rng = np.random.default_rng(azimuth)
    centre, scale = np.array([0.2, -0.1, 0.05]), 0.9  # in the turned frame
    X = rng.uniform(-0.4, 0.4, (20, 3))
    turned = X @ np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]).T  # +X to the front, -Z
    camera = r2n2.to_camera(azimuth, 27, 0.8, "v1", centre, scale)
    assert np.allclose(SIZE * camera.project((turned - centre) / scale), blender_pixels(X, azimuth, 27, 0.8))
    camera = r2n2.to_camera(azimuth, 27, 0.8, "v2", centre, scale)
    assert np.allclose(SIZE * camera.project(turned), blender_pixels(X, azimuth, 27, 0.8))
    assert (camera.azimuth, camera.distance) == (azimuth, pytest.approx(1.4))


def test_renderings_have_no_varied_views(v1, renderings, tmp_path):
    with pytest.raises(CorpusError, match="n_varied must be 0, not 2"):
        build_dataset(v1[1], tmp_path / "out", renderings=renderings, n_varied=2, **BUILD)


def test_read_views_are_the_written_ones_and_drawn_again(v1, renderings, tmp_path):
    built = build_dataset(v1[1], tmp_path / "out", renderings=renderings, **BUILD)
    assert len(built.views) == 10
    assert overlay(built, built.views).min() > 0.97
    with Renderer(SIZE) as renderer:
        for view in built.views.itertuples():
            image = built.image(view.index)
            written = np.array(Image.open(folder_of(renderings, view.model_id) / f"{view.view:02d}.png"))
            assert np.array_equal(image, written)
            mesh = built.mesh(view.model_id)
            again = renderer.render(mesh.V, mesh.F, mesh.C, Camera.of(view), np.random.default_rng(0))
            assert mask_iou(again[..., 3] > 0, image[..., 3] > 0) > 0.97
    assert built.parameters["renderings"] is True
    assert abs(built.views[built.views.model_id == "moved"].right).max() > 0.05


def test_soft_borders_become_masks(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:] = (10, 20, 30, 127)
    rgba[1] = (10, 20, 30, 128)
    Image.fromarray(rgba).save(tmp_path / "00.png")
    image = r2n2._read_image(tmp_path / "00.png", 4)
    assert image[1].tolist() == [[10, 20, 30, 255]] * 4
    assert not image[[0, 2, 3]].any()


def metadata(change):
    def edit(folder):
        path = folder / "rendering_metadata.txt"
        path.write_text("\n".join(change(path.read_text().splitlines())))

    return edit


def image(change):
    def edit(folder):
        path = folder / "00.png"
        change(Image.open(path)).save(path, format="PNG")

    return edit


def names(text):
    return lambda folder: (folder / "renderings.txt").write_text(text)


BROKEN = {
    "no rendering: renderings.txt": shutil.rmtree,
    "no rendering: rendering_metadata.txt": lambda folder: (folder / "rendering_metadata.txt").unlink(),
    "rendering 00.png cannot be read: FileNotFoundError": lambda folder: (folder / "00.png").unlink(),
    "rendering 00.png cannot be read: UnidentifiedImageError": lambda f: (f / "00.png").write_bytes(b"no image"),
    "rendering 00.png cannot be read: OSError": lambda f: (f / "00.png").write_bytes((f / "00.png").read_bytes()[:400]),
    "rendering 00.png is 64 x 64: set image_size to 64": image(lambda image: image.resize((64, 64))),
    "rendering 00.png is RGB, not RGBA": image(lambda image: image.convert("RGB")),
    "rendering 00.png shows nothing": image(lambda image: Image.new("RGBA", (SIZE, SIZE))),
    "6 renderings have 5 lines of metadata": metadata(lambda lines: lines[:5]),
    "each needs one of 5 numbers": metadata(lambda lines: [line[:-3] for line in lines]),
    "is no list: could not convert": metadata(lambda lines: [line.replace(" ", ",") for line in lines]),
    "an in-plane rotation of 10.0, only 0": metadata(lambda lines: [li.replace(" 0 ", " 10 ") for li in lines]),
    "impossible elevation or distance": metadata(lambda lines: ["nan 25 0 0.7 25"] * 6),
    "its camera is inside the model": metadata(lambda lines: ["0 25 0 0.1 25"] * 6),
    "only 1 renderings where n_views is 5": lambda f: (names("00.png")(f), metadata(lambda lines: lines[:1])(f)),
    "names '../00.png', which is no png beside it": names("../00.png 01.png 02.png 03.png 04.png 05.png"),
    "show another shape or frame: IoU 0": metadata(lambda lines: [f"{i * 50} 25 0 0.9 25" for i in range(6)]),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_broken_renderings_quarantine_their_model(v1, renderings, tmp_path, reason):
    shutil.copytree(renderings, tmp_path / "renderings")
    BROKEN[reason](folder_of(tmp_path / "renderings"))
    built = build_dataset(v1[1], tmp_path / "out", renderings=tmp_path / "renderings", **BUILD)
    assert built.models.model_id.tolist() == ["moved"]
    (row,) = built.manifest[built.manifest.status == "quarantined"].itertuples()
    assert reason in row.reason


def test_a_missing_folder_of_renderings_is_told_at_once(v1, tmp_path):
    with pytest.raises(CorpusError, match="is no folder"):
        build_dataset(v1[1], tmp_path / "out", renderings=tmp_path / "nowhere", **BUILD)
    assert not (tmp_path / "out").exists()
