"""Real photographs with masks: what the network makes of them, and how well its answer can be made to fill the mask.

No photograph comes with a true shape, so the only number is the silhouette's IoU after the camera was fitted, which a
wrong shape may reach as well: look at the pictures.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from PIL import Image

from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import fit_camera, silhouette
from i2m_lib.reconstruction.reconstructor import Reconstruction, Reconstructor, read_image
from i2m_lib.show.figures import on_white, portraits

COLUMNS = ("path", "cls", "mask")
TINT = np.array([192, 57, 43])


@dataclass(frozen=True)
class Photo:
    """A photograph of one object, cut square around it: rgba (s, s, 4) uint8 with its mask; source is the folder that
    it came from, cls what it shows."""

    path: str
    source: str
    cls: str
    rgba: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(s, s) bool."""
        return self.rgba[..., 3] > 127


def read_photos(folder: str | Path) -> list[Photo]:
    """The photographs with masks that manifest.csv of a folder names in its columns path, cls and mask, relative to it;
    a row without mask is passed over.

    Raises:
        FileNotFoundError: there is no manifest. ValueError: it lacks a column or names no mask, or a photograph or mask
            cannot be read, is of another size or shows nothing.
    """
    manifest = Path(folder) / "manifest.csv"
    if not manifest.is_file():
        raise FileNotFoundError(f"{manifest} is not there: list photographs in it, with columns {', '.join(COLUMNS)}.")
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    if lacking := [name for name in COLUMNS if name not in table]:
        raise ValueError(f"{manifest} lacks the columns {', '.join(lacking)}.")
    table = table[table["mask"] != ""]
    if table.empty:
        raise ValueError(f"{manifest} names no mask: photographs are read with their masks only.")
    return [_read(Path(folder), row) for row in table.itertuples()]


def _read(folder: Path, row) -> Photo:
    path, images = folder / row.path, []
    for part in (path, folder / row.mask):
        try:
            images.append(Image.open(part).convert("RGB" if part == path else "L"))
        except OSError as error:
            raise ValueError(f"{part} cannot be read as an image ({error}): correct manifest.csv.") from error
    picture, mask = images
    if picture.size != mask.size:
        raise ValueError(f"{folder / row.mask} is {mask.size}, its photograph {picture.size}: give one of its size.")
    picture.putalpha(mask)
    try:
        rgba = read_image(picture)
    except ValueError as error:
        raise ValueError(f"{folder / row.mask} shows nothing: mark the object in white.") from error
    return Photo(row.path, Path(row.path).parts[0], row.cls, rgba)


@dataclass(frozen=True)
class Look:
    """A photograph, the network's answer, the camera that lets it fill the mask best, and their IoU."""

    photo: Photo
    answer: Reconstruction
    camera: Camera
    iou: float

    def pictures(self) -> list[np.ndarray]:
        """Input, mask, mesh as the predicted camera sees it and the fitted silhouette over the input: each (h, w, 3)
        uint8."""
        r, size = self.answer, len(self.photo.rgba)
        seen = Camera(r.azimuth, r.elevation, distance=2.2, focal=1.75)
        mesh = portraits([(r.V, r.F, r.template.C)], cameras=[seen])[0]
        image = on_white(self.photo.rgba)
        covered = silhouette(r.V, r.F, self.camera, size)[..., None]
        overlay = np.where(covered, (image + TINT) // 2, image).astype(np.uint8)
        return [image, np.where(self.photo.mask[..., None], 0, 255).repeat(3, 2).astype(np.uint8), mesh, overlay]


def look_at(reconstructor: Reconstructor, photos: list[Photo], *, workers: int = -1) -> list[Look]:
    """The network's answer to each photograph, with a camera fitted to it."""
    answers = [reconstructor.predict(torch.from_numpy(p.rgba).permute(2, 0, 1)[None])[0] for p in photos]
    tasks = (delayed(fit_camera)(r.V, r.F, p.mask) for r, p in zip(answers, photos, strict=True))
    fitted = Parallel(n_jobs=workers)(tasks)
    return [Look(p, r, *found) for p, r, found in zip(photos, answers, fitted, strict=True)]


def photo_table(looks: list[Look]) -> pd.DataFrame:
    """A row for each photograph: source, cls, path, predicted, its probability, template, azimuth and elevation as
    predicted, fitted_azimuth, fitted_elevation, and silhouette_iou."""
    rows = [
        {
            **{"source": x.photo.source, "cls": x.photo.cls, "path": x.photo.path, "predicted": x.answer.category},
            "probability": x.answer.category_probabilities[x.answer.category],
            **{"template": x.answer.template.model_id, "azimuth": x.answer.azimuth, "elevation": x.answer.elevation},
            **{"fitted_azimuth": x.camera.azimuth, "fitted_elevation": x.camera.elevation, "silhouette_iou": x.iou},
        }
        for x in looks
    ]
    return pd.DataFrame(rows)
