from dataclasses import replace

import numpy as np
import pytest
import trimesh

from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import aligned, fit_camera, held_out, reduced, silhouette, silhouette_iou

CAMERA = Camera(azimuth=200.0, elevation=20.0, distance=2.0, focal=1.4)
SIZE = 64


def slab(thickness: float = 0.2):
    """Unlike itself from every side that matters: a box with a tower on one corner."""
    parts = trimesh.creation.box((0.8, thickness, 0.4)), trimesh.creation.box((0.15, 0.5, 0.15))
    parts[1].apply_translation([0.3, 0.25, 0.1])
    mesh = trimesh.util.concatenate(parts)
    return np.array(mesh.vertices), np.array(mesh.faces)


def test_a_mesh_fills_its_own_silhouette():
    V, F = slab()
    assert silhouette_iou(V, F, CAMERA, silhouette(V, F, CAMERA, SIZE)) == 1


def test_a_shifted_square_loses_what_paper_says():
    """Seen along z, a square of side 1 shifted by s shares (1 - s) / (1 + s) with itself."""
    V = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    F = np.array([[0, 1, 2], [0, 2, 3]])
    front = Camera(azimuth=0.0, elevation=0.0, distance=2.0, focal=1.0)
    mask = silhouette(V, F, front, 512)
    for s in (0.1, 0.25):
        iou = silhouette_iou(V + np.array([s, 0, 0]), F, front, mask)
        assert iou == pytest.approx((1 - s) / (1 + s), abs=0.01)
    assert silhouette_iou(0.5 * V, F, front, mask) == pytest.approx(0.25, abs=0.01)


def test_a_mask_is_reduced_to_its_nearest_places():
    mask = np.arange(36).reshape(6, 6) % 5 == 0
    np.testing.assert_array_equal(reduced(mask, 3), mask[1::2, 1::2])
    assert reduced(mask, 6) is mask
    assert reduced(mask, 9) is mask


def test_what_cannot_be_seen_scores_nothing():
    V, F = slab()
    mask = silhouette(V, F, CAMERA, SIZE)
    assert silhouette_iou(V, F[:0], CAMERA, mask) == 0
    assert silhouette_iou(V * np.nan, F, CAMERA, mask) == 0
    assert silhouette_iou(10 * V, F, CAMERA, mask) == 0  # reaches behind the camera
    assert silhouette_iou(V, F, CAMERA, np.zeros_like(mask)) == 0


def test_the_held_out_view_is_another_one():
    assert [held_out(v, 3) for v in range(3)] == [1, 2, 0]


def test_alignment_meets_the_extent_of_the_mask():
    V, F = slab()
    true = replace(CAMERA, focal=0.9, right=0.1, down=-0.2)
    found = aligned(V, CAMERA, silhouette(V, F, true, 256))
    assert found.focal == pytest.approx(true.focal, rel=0.03)
    assert (found.right, found.down) == (pytest.approx(true.right, abs=0.02), pytest.approx(true.down, abs=0.02))


def test_the_camera_of_a_silhouette_is_found():
    V, F = slab()
    camera, iou = fit_camera(V, F, silhouette(V, F, CAMERA, SIZE))
    assert iou > 0.95
    assert abs((camera.azimuth - CAMERA.azimuth + 180) % 360 - 180) < 6
    assert camera.elevation == pytest.approx(CAMERA.elevation, abs=6)
    with pytest.raises(ValueError, match="the mask is empty"):
        fit_camera(V, F, np.zeros((8, 8), bool))
