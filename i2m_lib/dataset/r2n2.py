"""3D-R2N2's renderings as views, and views written in that form.

<root>/<synset>/<model_id>/rendering/renderings.txt             names of images, one a line: 00.png ...
                                     rendering_metadata.txt     a line for each image: azimuth,
                                         elevation, in-plane rotation, distance, field of view
                                     00.png ...                 RGBA, 137 x 137

Facts from the renderer of 3D-R2N2 (github.com/chrischoy/3D-R2N2, lib/blender_renderer.py and
lib/config.py) and from the projection that Mesh R-CNN and PyTorch3D use for its images:
- The model is ShapeNetCore v1's file, in the file's own frame and unit; the camera looks at the
  file's origin, whether or not the bounding box is centred there.
- `distance` is a share of MAX_CAMERA_DIST = 1.75 of the file's units.
- Azimuth 0 sees the front (+X in v1), 90 sees the side that is +Z there; angles are in degrees.
- The lens is Blender's own, 35 mm on a sensor of 32 mm. The field of view of 25 degrees that the
  metadata names was never set.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from i2m_lib.files import whole
from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import mask_iou, silhouette

from .dataset import Dataset
from .render import Renderer
from .splits import hashed

MAX_CAMERA_DIST = 1.75  # units of the model's file
FOCAL = 35 / 32  # image widths
SIZE = 137  # pixels
AZIMUTH, ELEVATION, DISTANCE = (0, 360), (25, 30), (0.65, 0.95)  # what 3D-R2N2 drew from
FIELD_OF_VIEW = 25  # what its metadata say
MIN_IOU = 0.8  # of masks and mesh, in the mean over a model's views


class RenderingError(ValueError):
    """The renderings of a model cannot be used; the message is one sentence that says why."""


def to_camera(
    azimuth: float,
    elevation: float,
    distance: float,
    layout: str,
    centre: np.ndarray,
    scale: float,
) -> Camera:
    """The camera, in the canonical frame, of a line of metadata. `layout`, `centre` (3,) and
    `scale` are those of the model in models.parquet. For a model in layout v2 the file that was
    drawn, its twin in v1, is taken to be centred, with a diagonal of 1."""
    if layout != "v1":
        centre, scale = np.zeros(3), 1.0
    drawn = Camera(azimuth, elevation, MAX_CAMERA_DIST * distance, FOCAL)
    right, down, ahead = drawn.rotation @ (centre - drawn.eye) / scale
    return Camera(azimuth, elevation, float(ahead), FOCAL, float(right), float(down))


def read_renderings(
    folder: Path, row: dict, V: np.ndarray, F: np.ndarray, *, n_views: int, size: int
) -> tuple[list[Camera], np.ndarray]:
    """The first n_views cameras and images (n_views,size,size,4) uint8 in `folder`, a model's
    `rendering`; alpha is 255 where it was at least half of that, colours are 0 elsewhere. `row` has
    the model's layout, centre and scale, V (n,3) and F (m,3) are its canonical mesh.
    Raises RenderingError if a file is missing or wrong, or shows another shape."""
    names, table = _read_lists(folder, n_views)
    cameras = [to_camera(*line[[0, 1, 3]].tolist(), row["layout"], row["centre"], row["scale"]) for line in table]
    images = np.stack([_read_image(folder / name, size) for name in names])
    masks = images[..., 3] > 0
    for name, mask, camera in zip(names, masks, cameras, strict=True):
        if camera.distance < 0.6 or not mask.any():
            raise RenderingError(f"rendering {name} shows nothing, or its camera is inside the model")
    pairs = zip(masks, cameras, strict=True)
    iou = np.mean([mask_iou(mask, silhouette(V, F, camera, size)) for mask, camera in pairs])
    if iou < MIN_IOU:
        raise RenderingError(f"its renderings show another shape or frame: IoU {iou:.2f} with the mesh, not {MIN_IOU}")
    return cameras, images


def _read_lists(folder: Path, n_views: int) -> tuple[list[str], np.ndarray]:
    """The names of n_views images and their metadata (n_views,5)."""
    try:
        names = (folder / "renderings.txt").read_text(encoding="utf-8").split()
        lines = (folder / "rendering_metadata.txt").read_text(encoding="utf-8").splitlines()
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
    except OSError as error:
        raise RenderingError(f"no rendering: {Path(error.filename or folder).name}: {error.strerror}") from error
    except ValueError as error:
        raise RenderingError(f"rendering_metadata.txt or renderings.txt is no list: {error}") from error
    if len(names) != len(rows) or any(len(row) != 5 for row in rows):
        raise RenderingError(f"{len(names)} renderings have {len(rows)} lines of metadata; each needs one of 5 numbers")
    if len(rows) < n_views:
        raise RenderingError(f"only {len(rows)} renderings where n_views is {n_views}")
    table = np.array(rows[:n_views])
    _, elevation, roll, distance, _ = table.T
    if not (np.isfinite(table).all() and (abs(elevation) <= 90).all() and (distance > 0).all()):
        raise RenderingError("rendering_metadata.txt holds an impossible elevation or distance")
    if roll.any():
        raise RenderingError(f"rendering_metadata.txt has an in-plane rotation of {roll[roll != 0][0]}, only 0 is read")
    for name in names[:n_views]:
        if not re.fullmatch(r"[\w-][\w.-]*\.png", name):
            raise RenderingError(f"renderings.txt names {name!r}, which is no png beside it")
    return names[:n_views], table


def _read_image(path: Path, size: int) -> np.ndarray:
    """(size,size,4) uint8, alpha 0 or 255, colours 0 where it is 0."""
    try:
        with Image.open(path) as image:
            if image.size != (size, size):
                raise RenderingError(
                    f"rendering {path.name} is {image.width} x {image.height}: set image_size to {image.width}"
                )
            if image.mode != "RGBA":
                raise RenderingError(f"rendering {path.name} is {image.mode}, not RGBA")
            rgba = np.array(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise RenderingError(f"rendering {path.name} cannot be read: {type(error).__name__}: {error}") from error
    mask = rgba[..., 3:] >= 128
    return np.where(mask, np.dstack([rgba[..., :3], np.full_like(mask, 255, np.uint8)]), 0).astype(np.uint8)


def write_renderings(dataset: Dataset, root: str | Path, *, n_views: int = 24, seed: int) -> None:
    """Draws the usable models of `dataset` as 3D-R2N2 did, with cameras from its ranges and its
    lens, into `root`: for programs that expect ShapeNetRendering. Its light is ours."""
    with Renderer(SIZE) as renderer:
        for model in dataset.models.itertuples():
            mesh = dataset.mesh(model.model_id)
            renderer.load(mesh.V, mesh.F, mesh.C)
            folder = Path(root) / model.synset / model.model_id / "rendering"
            lines = []
            for view in range(n_views):
                rng = np.random.default_rng([seed, hashed(model.model_id), 1 + view])
                a, e, d = rng.uniform(*np.transpose([AZIMUTH, ELEVATION, DISTANCE])).tolist()
                image = renderer.shoot(to_camera(a, e, d, model.layout, model.centre, model.scale), rng)
                with whole(folder / f"{view:02d}.png") as temporary:
                    Image.fromarray(image).save(temporary, format="PNG")
                lines.append(f"{a} {e} 0 {d} {FIELD_OF_VIEW}\n")
            (folder / "renderings.txt").write_text("".join(f"{view:02d}.png\n" for view in range(n_views)))
            (folder / "rendering_metadata.txt").write_text("".join(lines))
