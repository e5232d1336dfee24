import numpy as np
import pytest
import trimesh

from i2m_lib.geometry.cameras import Camera, check_ranges, sample_cameras
from i2m_lib.geometry.silhouettes import mask_iou, silhouette
from i2m_lib.geometry.surfaces import normalise

CAMERAS = [
    Camera(0, 0, 2, 1.5),
    Camera(35, 25, 1.6, 1.2),
    Camera(200, -30, 2.4, 2, right=0.2, down=-0.1),
    Camera(90, 90, 2, 1.5),
]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def lopsided() -> tuple[np.ndarray, np.ndarray]:
    """A shape that no rotation and no mirror maps to itself."""
    boxes = [((0, 0, 0), (2, 1, 3)), ((0, 1, 0), (0.5, 3, 0.5)), ((2, 0, 2), (3, 0.4, 3))]
    mesh = trimesh.util.concatenate([trimesh.creation.box(bounds=b) for b in boxes])
    return normalise(np.asarray(mesh.vertices))[0], np.asarray(mesh.faces)


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
    assert np.allclose(camera.eye - camera.target, camera.distance * np.array(direction))
    assert np.allclose(R @ -camera.eye, [camera.right, camera.down, camera.distance])


@pytest.mark.parametrize("camera", CAMERAS)
def test_project_is_a_pinhole(camera):
    points = rng().uniform(-0.3, 0.3, (2, 5, 3))
    uv = camera.project(points)
    assert uv.shape == (2, 5, 2)
    x, y, z = np.moveaxis((points - camera.eye) @ camera.rotation.T, -1, 0)
    assert np.allclose(uv, np.stack([0.5 + camera.focal * x / z, 0.5 + camera.focal * y / z], -1))
    assert np.allclose(camera.project(camera.target), 0.5)


def test_sampled_cameras_stay_in_their_ranges_and_fill_the_frame():
    V, _ = lopsided()
    ranges = {"azimuth": (20, 50), "elevation": (-10, 0), "distance": (1.5, 3), "fill": (0.6, 0.9)}
    for camera in sample_cameras(50, rng(), V=V, **ranges):
        for name in ("azimuth", "elevation", "distance"):
            assert ranges[name][0] <= getattr(camera, name) <= ranges[name][1]
        assert 0.3 <= np.abs(camera.project(V) - 0.5).max() <= 0.45
    sphere = np.array(trimesh.creation.icosphere(subdivisions=4).vertices) / 2
    for camera in sample_cameras(20, rng(), sphere, fill=(0.9, 0.9)):
        assert np.abs(camera.project(sphere) - 0.5).max() == pytest.approx(0.45, rel=5e-3)


def test_sampled_cameras_depend_on_the_generator_alone():
    V, _ = lopsided()
    assert sample_cameras(3, rng(), V) == sample_cameras(3, rng(), V)
    assert len(set(sample_cameras(20, rng(), V))) == 20


def test_a_focal_range_takes_the_place_of_fill():
    V, _ = lopsided()
    cameras = sample_cameras(30, rng(), V=V, focal=(1, 1.2))
    assert all(1 <= camera.focal <= 1.2 for camera in cameras)
    by_fill = sample_cameras(30, rng(), V=V)
    assert [c.azimuth for c in cameras] == [c.azimuth for c in by_fill]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("azimuth", (0, 400)),
        ("azimuth", (np.nan, 1)),
        ("elevation", (10, 0)),
        ("elevation", (0, 91)),
        ("distance", (0.4, 2)),
        ("fill", (0.5, 1.1)),
        ("focal", (0, 1)),
    ],
)
def test_ranges_that_cannot_be_drawn_from_are_named(name, wrong):
    good = {"azimuth": (0, 360), "elevation": (0, 0), "distance": (2, 2), "fill": (1, 1), "focal": None}
    check_ranges(**good)
    with pytest.raises(ValueError, match=f"{name} = .* is no range"):
        check_ranges(**good | {name: wrong})


# Silhouettes


def plain_mask(uv: np.ndarray, F: np.ndarray, size: int) -> np.ndarray:
    """Pixels of which at least two of four places lie in a projected triangle; uv (n,2)."""
    at = (np.arange(2 * size) + 0.5) / (2 * size)
    u, v = np.meshgrid(at, at)
    covered = np.zeros((2 * size, 2 * size), bool)
    for a, b, c in uv[F]:
        sides = [(q - p)[0] * (v - p[1]) - (q - p)[1] * (u - p[0]) for p, q in ((a, b), (b, c), (c, a))]
        covered |= (np.min(sides, 0) >= -1e-12) | (np.max(sides, 0) <= 1e-12)
    return covered.reshape(size, 2, size, 2).sum((1, 3)) >= 2


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("size", [16, 61])
def test_silhouette_against_a_plain_twin(camera, size):
    V, F = lopsided()
    mask = silhouette(V, F, camera, size)
    assert 0.1 < mask.mean() < 0.9
    assert mask_iou(mask, plain_mask(camera.project(V), F, size)) > 0.99


def test_silhouette_of_a_ball_is_a_disc():
    V = np.array(trimesh.creation.icosphere(subdivisions=5).vertices) / 2
    F = trimesh.creation.icosphere(subdivisions=5).faces
    at = (np.arange(200) + 0.5) / 200 - 0.5
    radius = 1.2 * 0.5 / np.sqrt(1.8**2 - 0.5**2)
    disc = np.hypot(*np.meshgrid(at, at)) < radius
    assert mask_iou(silhouette(V, F, Camera(30, 40, 1.8, 1.2), 200), disc) > 0.995


def test_silhouette_is_cut_at_the_border_and_sees_both_sides():
    V, F = np.array([[-9, -9, 0], [9, -9, 0], [0, 9, 0.0]]), np.array([[0, 1, 2]])
    for azimuth in (0, 180):
        assert silhouette(V, F, Camera(azimuth, 0, 2, 1), 32).all()
    assert not silhouette(V, F, Camera(90, 0, 20, 1), 32).any()  # edge on
    assert not silhouette(V + np.array([0, 30, 0]), F, Camera(0, 0, 2, 1), 32).any()


def test_mask_iou():
    a = np.array([[1, 1, 0, 0]], bool)
    assert mask_iou(a, a[:, ::-1]) == 0
    assert mask_iou(a, np.roll(a, 1)) == pytest.approx(1 / 3)
    assert mask_iou(a & False, a & False) == 0
