import subprocess
import sys
import time

import numpy as np
import pytest
import trimesh

from i2m_lib.dataset.render import Renderer, _reduce
from i2m_lib.dataset.textures import Skin
from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import silhouette
from i2m_lib.geometry.surfaces import normalise

SIZE = 64
GREY = (200, 200, 200)
CAMERAS = [
    Camera(0, 0, 2, 1.5),
    Camera(35, 25, 1.6, 1.2),
    Camera(200, -30, 2.4, 2, right=0.2, down=-0.1),
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


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_mask_is_the_projected_surface(renderer, camera):
    V, F, C = lopsided()
    image = renderer.render(V, F, C, camera, rng())
    assert image.shape == (SIZE, SIZE, 4)
    assert image.dtype == np.uint8
    assert set(np.unique(image[..., 3])) == {0, 255}
    mask = image[..., 3] > 0
    assert (mask != silhouette(V, F, camera, SIZE)).mean() < 1e-3
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


def board(image: np.ndarray, turns: float = 1.0) -> tuple:
    """A square that faces the front, its picture upright and `turns` times along each side."""
    V = np.array([[0.3, -0.3, 0], [-0.3, -0.3, 0], [-0.3, 0.3, 0], [0.3, 0.3, 0]])
    F = np.array([[0, 1, 2], [0, 2, 3]])
    uv = np.float32([[0, 0], [1, 0], [1, 1], [0, 1]])[F] * np.float32(turns)
    return V, F, np.tile(np.uint8(GREY), (2, 1)), Skin(uv, np.zeros(2, int), (image,))


FRONT = Camera(0, 0, 2, 1.6)


def draw(renderer: Renderer, *mesh_and_skin) -> np.ndarray:
    renderer.load(*mesh_and_skin)
    return renderer.shoot(FRONT, rng())


@pytest.mark.parametrize("turns", [1, 3])
def test_textures_lie_where_their_coordinates_say(renderer, turns):
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32, 0], image[:32, 32:, 1], image[32:, :32, 2], image[32:, 32:] = 250, 250, 250, 250
    V, F, C, skin = board(image, turns)
    view = draw(renderer, V, F, C, skin)
    lines, columns = np.nonzero(view[..., 3])
    low, high = np.array([lines.min(), columns.min()]), np.array([lines.max(), columns.max()])
    for i in range(2 * turns):
        for j in range(2 * turns):
            line, column = np.round(low + (high - low) * (np.array([i, j]) + 0.5) / (2 * turns)).astype(int)
            shown = view[line, column, :3] > 40
            expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]][2 * (i % 2) + j % 2]
            assert shown.tolist() == [bool(x) for x in expected]


def test_a_texture_that_repeats_thousands_of_times_is_its_mean_colour_and_costs_no_more(renderer):
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::2] = 2 * np.uint8((100, 80, 60))
    V, F, C, skin = board(image, 8500)
    seconds = []
    for shown in (skin, None):
        C[:] = 100, 80, 60
        draw(renderer, V, F, C, shown)
        start = time.perf_counter()
        views = [draw(renderer, V, F, C, shown) for _ in range(5)]
        seconds.append(time.perf_counter() - start)
        if shown is skin:
            textured = views[0]
    assert np.abs(textured.astype(int) - views[0]).max() <= 4
    assert seconds[0] < 20 * seconds[1]


def test_a_texture_of_one_colour_is_that_colour(renderer):
    V, F, C, skin = board(np.tile(np.uint8(GREY), (8, 8, 1)))
    plain = renderer.render(V, F, C, FRONT, rng())
    textured = draw(renderer, V, F, C * 0, skin)
    assert np.abs(textured.astype(int) - plain).max() <= 1
    assert np.array_equal(textured[..., 3], plain[..., 3])


def test_faces_without_a_texture_keep_their_colour(renderer):
    V, F, C, skin = board(np.full((4, 4, 3), 255, np.uint8))
    C[1] = 200, 0, 0
    mixed = Skin(skin.uv, np.array([0, -1]), skin.images)
    view = draw(renderer, V, F, C, mixed)
    red = view[..., 0].astype(int) - view[..., 1] > 50
    assert 0.4 < red.sum() / (view[..., 3] > 0).sum() < 0.6
    assert np.array_equal(view, draw(renderer, V, F, C, mixed))
    # Nothing is left of it in the next picture.
    assert np.array_equal(renderer.render(*lopsided(), FRONT, rng()), renderer.render(*lopsided(), FRONT, rng()))


def test_a_moved_mesh_is_drawn_as_a_loaded_one(renderer):
    V, F, C, skin = board(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8), 2)
    mixed = Skin(skin.uv, np.array([0, -1]), skin.images)
    moved = V * (0.5, 1.2, 1) + 0.1
    loaded = draw(renderer, moved, F, C, mixed)
    draw(renderer, V, F, C, mixed)
    renderer.move(moved)
    assert np.array_equal(renderer.shoot(FRONT, rng()), loaded)


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
