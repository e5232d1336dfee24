"""Reads an image of one object, in any usual form, and cuts the object out."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from .object_mask import find_mask

ImageLike = str | Path | bytes | BinaryIO | Image.Image | np.ndarray
ACCEPTED = "give a path, the bytes of an image file, an open file, a PIL image or an array (h, w, 3 or 4)"
MAX_PIXELS = 64_000_000  # of a picture; larger ones cost gigabytes
LARGEST_SIDE = 4096  # pixels; larger pictures are reduced at once
WORKING_SIZE = 256  # largest side of what is cut out, in pixels


def read_image(image: ImageLike) -> tuple[np.ndarray, tuple[str, ...]]:
    """RGBA (s, s, 4) uint8 of the object alone, centred, at most WORKING_SIZE wide, and sentences that tell why it is
    unlikely to be answered well; they are also issued by `warnings.warn`.

    Raises:
        ValueError: the image is missing, broken, too large or of a kind that is not read, or it shows only background.
    """
    name = str(image) if isinstance(image, str | Path) else "the image"
    rgba = _open(image, name)
    mask, sentences = find_mask(rgba)
    box, doubts = mask.getbbox(), tuple(f"{name}: {sentence}" for sentence in sentences)
    if box is None:
        alpha = rgba.getchannel("A").getextrema()[1]
        why = f" (no alpha is above {alpha} of 255)" if 0 < alpha < 128 else ""
        raise ValueError(f"{name} shows nothing{why}: give one object on a plain or on transparent ground.")
    rgba.putalpha(mask)
    side = int(np.ceil(max(box[2] - box[0], box[3] - box[1]) * 1.2)) + 2
    left, top = (box[0] + box[2] - side) // 2, (box[1] + box[3] - side) // 2
    square = rgba.crop((left, top, left + side, top + side))
    # Premultiplied (RGBa), so that the colours of the background do not bleed into the object.
    small = square.convert("RGBa").resize((min(side, WORKING_SIZE),) * 2, Image.Resampling.LANCZOS)
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=3)
    return np.array(small.convert("RGBA")), doubts


def _open(image: ImageLike, name: str) -> Image.Image:
    """The picture upright, RGBA with 8 bits a channel, its sides at most LARGEST_SIDE."""
    if isinstance(image, np.ndarray):
        return _reduced(_from_array(image)).convert("RGBA")
    if isinstance(image, bytes | bytearray | memoryview):
        image = BytesIO(image)
    if not (isinstance(image, str | Path | Image.Image) or hasattr(image, "read")):
        cure = " (a tensor: tensor.permute(1, 2, 0).numpy())" if hasattr(image, "permute") else ""
        raise ValueError(f"{type(image).__name__} is not read as an image: {ACCEPTED}{cure}.")
    try:
        if isinstance(image, Image.Image):
            return _decode(image)
        with Image.open(image) as picture:
            return _decode(picture)
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        reason = str(error).replace(str(image), "").strip(" :'\"") or type(error).__name__
        raise ValueError(f"{name} cannot be read as an image ({reason}): give a PNG or JPEG.") from error


def _decode(picture: Image.Image) -> Image.Image:
    if picture.width * picture.height > MAX_PIXELS:
        size = f"{picture.width} x {picture.height} pixels"
        raise ValueError(f"{size} are more than {MAX_PIXELS / 1e6:.0f} million, make it smaller first")
    picture.load()
    picture = ImageOps.exif_transpose(picture)
    key = picture.info.get("transparency")
    if picture.mode.startswith(("I", "F")):  # among them I;16
        values = np.asarray(picture)
        picture = _from_array(values)
        if isinstance(key, int):
            picture.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    picture = _reduced(picture)
    premultiplied = {"RGBa": "RGBA", "La": "LA"}.get(picture.mode)
    if premultiplied or picture.has_transparency_data:
        return picture.convert(premultiplied or "RGBA").convert("RGBA")
    return picture.convert("RGB").convert("RGBA")


def _reduced(picture: Image.Image) -> Image.Image:
    factor = -(-max(picture.size) // LARGEST_SIDE)
    if factor == 1:
        return picture
    picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    return picture.reduce((min(factor, picture.width), min(factor, picture.height)))


def _from_array(x: np.ndarray) -> Image.Image:
    """An array (h, w) or (h, w, 1 to 4) of whole numbers of 8 or 16 bits, or floats in 0..1 or 0..255."""
    if x.dtype.kind not in "uif" or x.size == 0 or not (x.ndim == 2 or (x.ndim == 3 and x.shape[2] in (1, 2, 3, 4))):
        raise ValueError(f"an image array must be (h, w) or (h, w, 3 or 4) of numbers, not {x.shape} {x.dtype}.")
    if x.shape[0] * x.shape[1] > MAX_PIXELS:
        raise ValueError(f"the array has more than {MAX_PIXELS / 1e6:.0f} million pixels: make it smaller first.")
    low, high = float(x.min()), float(x.max())
    # Interpolation leaves floats a little outside 0..1. Whole numbers above 255 are of 16 bits.
    unit = x.dtype.kind == "f" and high <= 1.5
    top = 1 if unit else 65535 if x.dtype == np.uint16 or (high > 255 and x.dtype.kind != "f") else 255
    if not (-0.5 * unit <= low <= high <= max(top, 1.5)):
        raise ValueError(f"an image array must lie in 0..1, 0..255 or 16 bits, not in {low:g} to {high:g}.")
    if x.dtype != np.uint8:
        x = np.multiply(x, 255 / top, dtype=np.float32)
        x = np.rint(np.clip(x, 0, 255, out=x), out=x).astype(np.uint8)
    return Image.fromarray(x[..., 0] if x.ndim == 3 and x.shape[2] == 1 else x)
