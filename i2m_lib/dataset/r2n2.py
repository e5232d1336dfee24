"""3D-R2N2's renderings as views.

<root>/<synset>/<model_id>/rendering/renderings.txt           names of images, one a line: 00.png ...
                                     rendering_metadata.txt   of each image azimuth, elevation, in-plane rotation,
                                                              distance and field of view
                                     00.png ...               RGBA, 137 x 137

From 3D-R2N2's renderer (github.com/chrischoy/3D-R2N2, lib/blender_renderer.py, lib/config.py) and the projection that
Mesh R-CNN and PyTorch3D use for its images:
- The model is ShapeNetCore v1's file, in the file's own frame and unit; the camera looks at the file's origin.
- `distance` is a share of MAX_CAMERA_DIST = 1.75 of the file's units.
- Azimuth 0 sees the front (+X in v1), 90 sees the side that is +Z there; angles are in degrees.
- The lens is Blender's default, 35 mm on a sensor of 32 mm. The 25 degrees of the metadata were never set.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import silhouette_iou

from .obj import MeshError

MAX_CAMERA_DIST = 1.75  # units of the model's file
FOCAL = 35 / 32  # image widths
MIN_IOU = 0.8  # of masks and mesh, in the mean over a model's views


def to_camera(
    azimuth: float, elevation: float, distance: float, layout: str, centre: np.ndarray, scale: float
) -> Camera:
    """The camera, in the canonical frame, of a line of metadata; `layout`, `centre` (3,) and `scale` are the model's.
    The v1 file of a model in layout v2, which was drawn, is taken to be centred, with a diagonal of 1."""
    if layout != "v1":
        centre, scale = np.zeros(3), 1.0
    drawn = Camera(azimuth, elevation, MAX_CAMERA_DIST * distance, FOCAL)
    right, down, ahead = drawn.rotation @ (centre - drawn.eye) / scale
    return Camera(azimuth, elevation, float(ahead), FOCAL, float(right), float(down))


def read_renderings(
    folder: Path, row: dict, V: np.ndarray, F: np.ndarray, n_views: int, size: int
) -> tuple[list[Camera], np.ndarray]:
    """The first n_views cameras and images (n_views,size,size,4) uint8 in a model's `folder`. `row` has the model's
    layout, centre and scale, V (n,3) and F (m,3) are its canonical mesh. Raises MeshError if a file is missing or
    wrong, or shows another shape."""
    names, table = _read_lists(folder, n_views)
    cameras = [to_camera(*line[[0, 1, 3]].tolist(), row["layout"], row["centre"], row["scale"]) for line in table]
    images = np.stack([_read_image(folder / name, size) for name in names])
    ious = []
    for name, camera, mask in zip(names, cameras, images[..., 3] > 0, strict=True):
        if camera.distance < 0.6 or not mask.any():
            raise MeshError(f"rendering {name} shows nothing, or its camera is inside the model")
        ious.append(silhouette_iou(V, F, camera, mask))
    if (iou := np.mean(ious)) < MIN_IOU:
        raise MeshError(f"its renderings show another shape or frame: IoU {iou:.2f} with the mesh, not {MIN_IOU}")
    return cameras, images


def _read_lists(folder: Path, n_views: int) -> tuple[list[str], np.ndarray]:
    """The names of n_views images and their metadata (n_views,5)."""
    try:
        names = (folder / "renderings.txt").read_text(encoding="utf-8").split()
        lines = (folder / "rendering_metadata.txt").read_text(encoding="utf-8").splitlines()
        table = np.array([line.split() for line in lines if line.strip()], float)
    except OSError as error:
        raise MeshError(f"no rendering: {Path(error.filename or folder).name}: {error.strerror}") from error
    except ValueError as error:
        raise MeshError(f"rendering_metadata.txt or renderings.txt is no list: {error}") from error
    if table.shape != (len(names), 5):
        raise MeshError(f"{len(names)} renderings have {len(table)} lines of metadata; each needs one of 5 numbers")
    if len(names) < n_views:
        raise MeshError(f"only {len(names)} renderings where n_views is {n_views}")
    names, table = names[:n_views], table[:n_views]
    _, elevation, roll, distance, _ = table.T
    if not (np.isfinite(table).all() and (abs(elevation) <= 90).all() and (distance > 0).all()):
        raise MeshError("rendering_metadata.txt holds an impossible elevation or distance")
    if roll.any():
        raise MeshError(f"rendering_metadata.txt has an in-plane rotation of {roll[roll != 0][0]}, only 0 is read")
    for name in names:
        if not re.fullmatch(r"[\w-][\w.-]*\.png", name):
            raise MeshError(f"renderings.txt names {name!r}, which is no png beside it")
    return names, table


def _read_image(path: Path, size: int) -> np.ndarray:
    """(size,size,4) uint8; alpha is 255 where it was at least half of that, else 0, as are colours there."""
    try:
        with Image.open(path) as image:
            if image.size != (size, size):
                w, h = image.size
                raise MeshError(f"rendering {path.name} is {w} x {h}: set image_size to {w}")
            if image.mode != "RGBA":
                raise MeshError(f"rendering {path.name} is {image.mode}, not RGBA")
            rgba = np.array(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise MeshError(f"rendering {path.name} cannot be read: {type(error).__name__}: {error}") from error
    mask = rgba[..., 3:] >= 128
    return np.where(mask, np.dstack([rgba[..., :3], np.full_like(mask, 255, np.uint8)]), 0).astype(np.uint8)
