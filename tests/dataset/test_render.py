import subprocess
import sys

import numpy as np
import pytest
import trimesh

from i2m_lib.dataset.meshes import normalise
from i2m_lib.dataset.render import Camera, Renderer, _reduce, sample_cameras

SIZE = 64
GREY = (200, 200, 200)
CAMERAS = [
    Camera(0, 0, 2, 1.5),
    Camera(35, 25, 1.6, 1.2),
    Camera(200, -30, 2.4, 2),
    Camera(90, 90, 2, 1.5),
]


@pytest.fixture(scope="module")
def renderer():
    with Renderer(SIZE) as renderer:
        yield renderer


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def solid(mesh: trimesh.Trimesh, colour=GREY) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    V, _, _ = normalise(np.asarray(mesh.vertices))
    return V, np.asarray(mesh.faces), np.tile(np.uint8(colour), (len(mesh.faces), 1))


def lopsided() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A shape that no rotation and no mirror maps to itself."""
    boxes = [((0, 0, 0), (2, 1, 3)), ((0, 1, 0), (0.5, 3, 0.5)), ((2, 0, 2), (3, 0.4, 3))]
    return solid(trimesh.util.concatenate([trimesh.creation.box(bounds=b) for b in boxes]))


# Cameras


def test_azimuth_0_sees_the_front_from_minus_z():
    assert np.allclose(Camera(0, 0, 2, 1).eye, [0, 0, -2])
    assert np.allclose(Camera(90, 0, 2, 1).eye, [2, 0, 0])
    assert np.allclose(Camera(0, 90, 2, 1).eye, [0, 2, 0])
    u, v = Camera(0, 0, 2, 1).project(np.array([-0.1, 0.1, 0.0]))
    assert u > 0.5 > v  # facing the front, -X is at the right, and +Y is up


@pytest.mark.parametrize("camera", CAMERAS)
def test_rotation_is_one_and_the_eye_follows_its_formula(camera):
    R = camera.rotation
    assert np.allclose(R @ R.T, np.eye(3))
    assert np.linalg.det(R) == pytest.approx(1)
    a, e = np.radians([camera.azimuth, camera.elevation])
    direction = [np.cos(e) * np.sin(a), np.sin(e), -np.cos(e) * np.cos(a)]
    assert np.allclose(camera.eye, camera.distance * np.array(direction))
    assert np.allclose(R @ -camera.eye, [0, 0, camera.distance])


@pytest.mark.parametrize("camera", CAMERAS)
def test_project_is_a_pinhole(camera):
    points = rng().uniform(-0.3, 0.3, (2, 5, 3))
    uv = camera.project(points)
    assert uv.shape == (2, 5, 2)
    x, y, z = np.moveaxis((points - camera.eye) @ camera.rotation.T, -1, 0)
    assert np.allclose(uv, np.stack([0.5 + camera.focal * x / z, 0.5 + camera.focal * y / z], -1))
    assert np.allclose(camera.project(np.zeros(3)), 0.5)


def test_sampled_cameras_stay_in_their_ranges_and_fill_the_frame():
    V, _, _ = lopsided()
    ranges = {"azimuth": (20, 50), "elevation": (-10, 0), "distance": (1.5, 3), "fill": (0.6, 0.9)}
    for camera in sample_cameras(50, rng(), V=V, **ranges):
        for name in ("azimuth", "elevation", "distance"):
            assert ranges[name][0] <= getattr(camera, name) <= ranges[name][1]
        assert 0.3 <= np.abs(camera.project(V) - 0.5).max() <= 0.45
    sphere = np.array(trimesh.creation.icosphere(subdivisions=4).vertices) / 2
    for camera in sample_cameras(20, rng(), fill=(0.9, 0.9)):
        assert np.abs(camera.project(sphere) - 0.5).max() == pytest.approx(0.45, rel=5e-3)


def test_sampled_cameras_depend_on_the_generator_alone():
    assert sample_cameras(3, rng()) == sample_cameras(3, rng())
    assert len(set(sample_cameras(20, rng()))) == 20


# Pictures


def plain_mask(uv: np.ndarray, F: np.ndarray, size: int) -> np.ndarray:
    """Pixels of which at least two of four places lie in a projected triangle; uv (n,2)."""
    at = (np.arange(2 * size) + 0.5) / (2 * size)
    u, v = np.meshgrid(at, at)
    covered = np.zeros((2 * size, 2 * size), bool)
    for a, b, c in uv[F]:
        sides = [(q - p)[0] * (v - p[1]) - (q - p)[1] * (u - p[0]) for p, q in ((a, b), (b, c), (c, a))]
        covered |= (np.sign(sides[0]) == np.sign(sides[1])) & (np.sign(sides[1]) == np.sign(sides[2]))
    return covered.reshape(size, 2, size, 2).sum((1, 3)) >= 2


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_mask_is_the_projected_surface(renderer, camera):
    V, F, C = lopsided()
    image = renderer.render(V, F, C, camera, rng())
    assert image.shape == (SIZE, SIZE, 4)
    assert image.dtype == np.uint8
    assert set(np.unique(image[..., 3])) == {0, 255}
    mask, plain = image[..., 3] > 0, plain_mask(camera.project(V), F, SIZE)
    assert (mask != plain).mean() < 1e-3
    assert 0.1 < mask.mean() < 0.9
    assert not image[~mask].any()


def test_both_sides_of_a_face_are_lit(renderer):
    V, F = np.array([[-0.3, -0.3, 0], [0.3, -0.3, 0], [0, 0.3, 0]]), np.array([[0, 1, 2]])
    C = np.uint8([GREY])
    front, back = (renderer.render(V, F, C, Camera(a, 0, 2, 1), rng()) for a in (0, 180))
    middle = SIZE // 2
    assert np.abs(front[middle, middle].astype(int) - back[middle, middle]).max() <= 2
    assert front[middle, middle, 0] > 80


def test_colours_keep_their_hue_in_any_light(renderer):
    V, F, C = solid(trimesh.creation.icosphere(), (200, 100, 0))
    levels = []
    for seed in range(10):
        image = renderer.render(V, F, C, CAMERAS[1], np.random.default_rng(seed))
        red, green, blue = image[image[..., 3] > 0][:, :3].astype(float).mean(0)
        assert green / red == pytest.approx(0.5, abs=0.02)
        assert blue < 1
        levels.append(red)
    assert min(levels) > 60
    assert max(levels) - min(levels) > 20


def test_views_depend_on_their_arguments_alone(renderer):
    shapes = [lopsided(), solid(trimesh.creation.icosphere())]
    first = [renderer.render(*shape, CAMERAS[1], rng()) for shape in shapes]
    again = [renderer.render(*shape, CAMERAS[1], rng()) for shape in reversed(shapes)]
    assert np.array_equal(first, again[::-1])
    renderer.load(*shapes[0])
    assert np.array_equal(renderer.shoot(CAMERAS[1], rng()), first[0])


def test_reduce_against_a_plain_twin():
    draws = rng()
    rgba = draws.integers(0, 256, (12, 12, 4)).astype(np.uint8)
    rgba[..., 3] = 255 * draws.integers(0, 2, (12, 12))
    rgba[rgba[..., 3] == 0] = 0
    for k in (1, 2, 3):
        out = _reduce(rgba, k)
        for i in range(12 // k):
            for j in range(12 // k):
                block = rgba[i * k : i * k + k, j * k : j * k + k].reshape(-1, 4).astype(float)
                covered = block[block[:, 3] > 0]
                if len(covered) >= k * k / 2:
                    assert np.abs(covered.mean(0) - out[i, j]).max() <= 0.5
                else:
                    assert not out[i, j].any()


def test_torchvision_can_be_imported_after_drawing():
    # Both bring an LLVM of their own, and the second to come used to crash the process.
    code = "from i2m_lib.dataset.render import Renderer\nwith Renderer(8) as r: r._window.Render()\nimport torchvision"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
