"""Silhouettes: the mask that a camera sees of a mesh, and the camera under which a mesh fills a mask best."""

from dataclasses import replace

import numpy as np

from .cameras import OVERSAMPLING, Camera
from .spans import spans
from .surfaces import why_broken
from .voxels import mask_iou

START = Camera(azimuth=0.0, elevation=15.0, distance=2.0, focal=1.5)
COARSE, N_REFINEMENTS = 48, 4  # pixels of the first search; halvings of its steps


def silhouette(V: np.ndarray, F: np.ndarray, camera: Camera, size: int) -> np.ndarray:
    """(size, size) bool: the mask of the surface V (n, 3), F (m, 3), which must lie in front of the camera.

    A triangle covers the places whose centre is inside it; `Renderer` makes its masks by the same rule.
    """
    pixels = size * OVERSAMPLING
    corners = camera.project(V)[F] * pixels - 0.5  # (m, 3, 2), places at whole numbers
    first, last = np.ceil(corners[..., 1].min(1)), np.floor(corners[..., 1].max(1))
    first, last = np.clip([first, last + 1], 0, pixels).astype(np.int64)
    _, row, left, right = spans(corners, first, np.maximum(last - first, 0), 0)
    start, stop = np.clip([np.ceil(left), np.floor(right) + 1], 0, pixels).astype(np.int64)
    hit = start < stop
    # Where spans begin minus where they end, summed along the row, counts the layers.
    width = pixels + 1
    begins, ends = (np.bincount(row[hit] * width + at[hit], minlength=pixels * width) for at in (start, stop))
    covered = (begins - ends).reshape(pixels, width).cumsum(1)[:, :-1] > 0
    blocks = covered.reshape(size, OVERSAMPLING, size, OVERSAMPLING)
    return 2 * blocks.sum((1, 3)) >= OVERSAMPLING**2


def silhouette_iou(V: np.ndarray, F: np.ndarray, camera: Camera, mask: np.ndarray) -> float:
    """IoU, 0..1, of the mesh V (n, 3), F (m, 3) seen by `camera` and mask (s, s) bool; 0 for a mesh that is broken or
    reaches behind the camera."""
    if why_broken(V, F) or (V @ camera.rotation[2]).min() <= 1e-3 - camera.distance:
        return 0.0
    return mask_iou(silhouette(V, F, camera, len(mask)), mask)


def held_out(view: int, n_views: int) -> int:
    """The other view, which the answer to `view` has not seen, that it is judged by as well."""
    return (view + 1) % n_views


def aligned(V: np.ndarray, camera: Camera, mask: np.ndarray) -> Camera:
    """The camera with focal length and shift such that vertices V (n, 3) reach as far as mask (s, s) does."""
    low, high = (np.array([f(np.flatnonzero(mask.any(axis))) for axis in (0, 1)]) for f in (np.min, np.max))
    low, high = low / len(mask), (high + 1) / len(mask)
    camera = replace(camera, right=0.0, down=0.0)
    for _ in range(3):  # under perspective the extent depends a little on the shift
        uv = camera.project(V)
        focal = camera.focal * (high - low).max() / np.ptp(uv, axis=0).max()
        uv = 0.5 + (uv - 0.5) * focal / camera.focal
        shift = ((low + high) / 2 - (uv.min(0) + uv.max(0)) / 2) * camera.distance / focal
        camera = replace(camera, focal=focal, right=camera.right + shift[0], down=camera.down + shift[1])
    return camera


def fit_camera(V: np.ndarray, F: np.ndarray, mask: np.ndarray) -> tuple[Camera, float]:
    """The camera whose silhouette of the mesh V (n, 3), F (m, 3) fits mask (s, s) bool best, and their IoU.

    Azimuth and elevation are searched on a grid in a reduced mask, then by halved steps around the best; focal length
    and shift follow from the mask's extent. The distance is fixed, since one silhouette hardly determines it. Raises
    ValueError if the mask is empty.
    """
    if not mask.any():
        raise ValueError("the mask is empty: there is nothing to fit a camera to")

    def fit(azimuth: float, elevation: float, target: np.ndarray) -> tuple[float, Camera]:
        turned = replace(START, azimuth=azimuth % 360, elevation=float(np.clip(elevation, -89, 89)))
        camera = aligned(V, turned, target)
        return silhouette_iou(V, F, camera, target), camera

    small = reduced(mask, COARSE)
    grid = [(a, e) for a in np.arange(0, 360, 15.0) for e in (-5.0, 10.0, 25.0, 40.0)]
    _, camera = max((fit(a, e, small) for a, e in grid), key=lambda found: found[0])
    best = fit(camera.azimuth, camera.elevation, mask)
    for step in 7.5 / 2.0 ** np.arange(N_REFINEMENTS):
        a, e = best[1].azimuth, best[1].elevation
        around = [(a + i * step, e + j * step) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
        best = max([best, *(fit(*angles, mask) for angles in around)], key=lambda found: found[0])
    return best[1], best[0]


def reduced(mask: np.ndarray, size: int) -> np.ndarray:
    """Mask (s, s) bool at `size` pixels a side, by nearest places; unchanged if it is smaller."""
    if len(mask) <= size:
        return mask
    at = ((np.arange(size) + 0.5) * len(mask) / size).astype(int)
    return mask[np.ix_(at, at)]
