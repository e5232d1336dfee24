"""Real photographs with masks: the network's answers, and how well they fill the mask.

Photographs have no true shape. The silhouette's IoU after fitting the camera is the only number, and a wrong shape may
reach a high one too: look at the pictures.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from PIL import Image

from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import fit_camera, silhouette
from i2m_lib.reconstruction.reading import read_image
from i2m_lib.reconstruction.reconstructor import Reconstructor
from i2m_lib.show.figures import on_white, portraits

COLUMNS = ("path", "cls", "mask")
TINT = np.array([192, 57, 43])


def read_photos(folder: str | Path) -> pd.DataFrame:
    """The photographs that have a mask in a folder's manifest.csv, whose columns are path, mask (both relative to the
    folder) and cls: cls, path, source (the path's first folder) and rgba (s, s, 4) uint8, cut square around the object.

    Raises:
        FileNotFoundError: there is no manifest. ValueError: it lacks a column or names no mask, or a photograph or mask
            cannot be read, differs in size or shows nothing.
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
    rgba = [_cut(Path(folder) / row.path, Path(folder) / row.mask) for row in table.itertuples()]
    return (
        table[["cls", "path"]].assign(source=[Path(p).parts[0] for p in table.path], rgba=rgba).reset_index(drop=True)
    )


def _cut(photo: Path, mask: Path) -> np.ndarray:
    images = []
    for path, mode in ((photo, "RGB"), (mask, "L")):
        try:
            images.append(Image.open(path).convert(mode))
        except OSError as error:
            raise ValueError(f"{path} cannot be read as an image ({error}): correct manifest.csv.") from error
    if images[0].size != images[1].size:
        raise ValueError(f"{mask} is {images[1].size}, its photograph {images[0].size}: give one of its size.")
    images[0].putalpha(images[1])
    try:
        return read_image(images[0])[0]
    except ValueError as error:
        raise ValueError(f"{mask} shows nothing: mark the object in white.") from error


def look_at(reconstructor: Reconstructor, photos: pd.DataFrame, *, workers: int = -1) -> pd.DataFrame:
    """`photos` with answer (Reconstruction), camera, the one in which the answer fills the mask best, silhouette_iou
    there; predicted category and its probability, template, predicted azimuth and elevation, and those of the camera,
    fitted_azimuth and fitted_elevation."""
    answers = [reconstructor.predict(torch.from_numpy(x).permute(2, 0, 1)[None])[0] for x in photos.rgba]
    tasks = (delayed(fit_camera)(r.V, r.F, mask_of(x)) for r, x in zip(answers, photos.rgba, strict=True))
    cameras, ious = zip(*Parallel(n_jobs=workers)(tasks), strict=True)
    return photos.assign(
        answer=answers,
        camera=cameras,
        predicted=[r.category for r in answers],
        probability=[r.category_probabilities[r.category] for r in answers],
        template=[r.template.model_id for r in answers],
        **{name: [getattr(r, name) for r in answers] for name in ("azimuth", "elevation")},
        **{f"fitted_{name}": [getattr(c, name) for c in cameras] for name in ("azimuth", "elevation")},
        silhouette_iou=ious,
    )


def mask_of(rgba: np.ndarray) -> np.ndarray:
    """The mask (s, s) bool of an image (s, s, 4) uint8."""
    return rgba[..., 3] > 127


def pictures(look: pd.Series) -> list[np.ndarray]:
    """A row of `look_at` as images (h, w, 3) uint8: photograph, mask, mesh seen by the predicted camera, and silhouette
    seen by the fitted camera over the photograph."""
    r, image = look.answer, on_white(look.rgba)
    predicted = Camera(r.azimuth, r.elevation, distance=2.2, focal=1.75)
    covered = silhouette(r.V, r.F, look.camera, len(image))[..., None]
    mask = np.where(mask_of(look.rgba)[..., None], 0, 255).repeat(3, 2).astype(np.uint8)
    mesh = portraits([(r.V, r.F, r.template.C)], cameras=[predicted])[0]
    return [image, mask, mesh, np.where(covered, (image + TINT) // 2, image).astype(np.uint8)]
