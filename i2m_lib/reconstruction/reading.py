"""Reads an image of one object: finds its mask and cuts the object out."""

from pathlib import Path

import numpy as np
from PIL import Image

# In an image without transparency the object stands on white. Scans and JPEGs are not quite white.
NEARLY_WHITE = 245
WORKING_SIZE = 256  # largest side of what is cut out, in pixels


def read_image(image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    """RGBA (s, s, 4) uint8 of the object alone, centred, at most WORKING_SIZE wide.

    Raises:
        ValueError: the file is missing, is no image or is too large to decode, or it shows only background.
    """
    picture = _open(image)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        mask = rgba.getchannel("A").point(lambda a: 255 if a > 127 else 0)
    else:
        rgba = picture.convert("RGB").convert("RGBA")
        darkest = np.asarray(rgba)[..., :3].min(-1)
        mask = Image.fromarray(np.where(darkest < NEARLY_WHITE, 255, 0).astype(np.uint8))
    box = mask.getbbox()
    if box is None:
        name = image if isinstance(image, str | Path) else "the image"
        raise ValueError(f"{name} shows nothing: give one object on white or on transparent ground.")
    rgba.putalpha(mask)
    side = int(np.ceil(max(box[2] - box[0], box[3] - box[1]) * 1.2)) + 2
    left, top = (box[0] + box[2] - side) // 2, (box[1] + box[3] - side) // 2
    square = rgba.crop((left, top, left + side, top + side))
    # Premultiplied (RGBa), so that the colours of the background do not bleed into the object.
    small = square.convert("RGBa").resize((min(side, WORKING_SIZE),) * 2, Image.Resampling.LANCZOS)
    return np.array(small.convert("RGBA"))


def _open(image: str | Path | Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4):
            raise ValueError(f"an image array must be (h, w, 3 or 4) uint8, not {image.shape} {image.dtype}.")
        return Image.fromarray(image)
    try:
        picture = Image.open(image)
        picture.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{image} cannot be read as an image ({error}): give a PNG or JPEG.") from error
    return picture
