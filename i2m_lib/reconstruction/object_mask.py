"""Finds the object in a picture: by transparency that hides something, or by a plain ground of any colour.

A ground is plain where the picture's border is of one colour. Soft shadows and vignettes change slowly and keep the
ground's hue, so they are followed from the border inwards. Each doubt about the mask is told in a sentence.
"""

import numpy as np
from PIL import Image, ImageChops
from scipy import ndimage

TOLERANCE = 10  # of 255, between the ground and what still belongs to it: scans and JPEGs are not quite of one colour
PLAIN, WHITE = 0.6, 0.2  # shares of the border that a plain ground covers at least, and one that is nearly white
FRAME, FRAME_WIDTHS = 0.95, (0.02, 0.05)  # the same of a line around the picture; its widths, in sides of the picture
FILLED = 0.5, 0.9  # shares of the border in a mask that is hardly an object's: found on a ground, or given by alpha
COARSE = 256  # largest side, in pixels, at which shades and parts are looked for
SLOW = 1.5  # of 255 a coarse pixel: shades of the ground change less
SHADES = 0.1, 0.9  # shares of the mask: fewer shades do not matter, more are the object itself
SPECK, FAR = 0.01, 0.15  # smaller in area and farther from the object, in its largest part's area and longest side


def find_mask(rgba: Image.Image) -> tuple[Image.Image, list[str]]:
    """The object's mask, 0 or 255, in a picture of mode RGBA, and sentences that tell what makes it doubtful."""
    alpha = np.asarray(rgba.getchannel("A"))
    hides = bool(alpha.min() <= 127)
    mask, doubts = (alpha > 127, []) if hides else _on_ground(np.asarray(rgba)[..., :3])
    mask, n_parts = _without_specks(mask)
    if n_parts > 1:
        doubts.append(f"{n_parts} parts far from each other were taken for one object: show one object.")
    sides = mask[0], mask[-1], mask[:, 0], mask[:, -1]
    rows, columns = mask.any(1), mask.any(0)
    filled = np.concatenate(sides).mean() > FILLED[hides]
    if not hides and min(rows.mean(), columns.mean()) > 0.9:  # a picture within a frame
        filled |= mask.sum() > 0.9 * rows.sum() * columns.sum()
    if filled and not doubts:
        doubts.append("the object fills the picture to its borders: probably a ground was taken for a part of it.")
    elif not all(side.any() for side in sides) and any(side.mean() > 0.02 for side in sides):
        doubts.append("the object is cut by the border of the picture: show all of it.")
    return Image.fromarray(mask.astype(np.uint8) * 255), doubts


def _on_ground(rgb: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The mask (h, w) bool of what differs from the ground of rgb (h, w, 3), and doubts."""
    dy, dx = _frame(rgb)
    inner = np.ascontiguousarray(rgb[dy : len(rgb) - dy, dx : rgb.shape[1] - dx])
    (colour, share), picture, doubts = _border(inner), Image.fromarray(inner), []
    if share < PLAIN and (_ring(inner).min(1) >= 255 - TOLERANCE).mean() >= WHITE:
        colour, share = np.full(3, 255.0), 1.0
    mask = np.ones(inner.shape[:2], bool)
    if share >= PLAIN:
        mask = _differs(picture, Image.new("RGB", picture.size, tuple(map(int, colour))))
    shades = _shades(picture, colour)
    unshaded = mask if shades is None else mask & _differs(picture, shades)
    shaded = 1 - unshaded.sum() / max(mask.sum(), 1)
    if SHADES[0] < shaded < SHADES[1]:
        mask = unshaded
        doubts.append("shades of the ground were left out of the object: an evenly lit, plain ground is surer.")
    elif shaded >= SHADES[1] and share >= PLAIN:
        doubts.append("object and ground can hardly be told apart: choose a ground of another colour.")
    elif share < PLAIN:
        doubts.append(
            "no plain ground was found, so the whole picture was taken for the object: cut the object out (transparent "
            "PNG) or show it on a plain ground."
        )
    return np.pad(mask, ((dy, dy), (dx, dx))), doubts


def _differs(picture: Image.Image, ground: Image.Image) -> np.ndarray:
    return np.asarray(ImageChops.difference(picture, ground)).max(2) > TOLERANCE


def _ring(x: np.ndarray) -> np.ndarray:
    """The border (n, ...) of x (h, w, ...)."""
    return np.concatenate([x[0], x[-1], x[:, 0], x[:, -1]])


def _border(rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """The median colour (3,) of the border, and the share of the border that is of this colour."""
    ring = _ring(rgb)
    colour = np.median(ring, axis=0).round()
    return colour, float((abs(ring - colour).max(1) <= TOLERANCE).mean())


def _frame(rgb: np.ndarray) -> tuple[int, int]:
    """Rows and columns on each side of a frame: a border of one colour around one of another."""
    outer, share = _border(rgb)
    for width in FRAME_WIDTHS if share >= FRAME and min(rgb.shape[:2]) > 16 else ():
        dy, dx = (int(np.ceil(width * n)) for n in rgb.shape[:2])
        colour, share = _border(rgb[dy:-dy, dx:-dx])
        if share >= FRAME and abs(colour - outer).max() > TOLERANCE:
            return dy, dx
    return 0, 0


def _shades(picture: Image.Image, colour: np.ndarray) -> Image.Image | None:
    """The ground with its shades: everywhere the colour of the nearest pixel that is reached from the border by slow
    changes of a hue like `colour` (3,). None where less than PLAIN of the border is such."""
    if min(picture.size) <= 16:
        return None
    rgb = ndimage.gaussian_filter(np.asarray(picture.reduce(_factor(picture.size)), float), (1, 1, 0))
    slow = np.hypot(*np.gradient(rgb, axis=(0, 1))).max(2) < SLOW
    brightness = rgb.mean(2, keepdims=True) / max(colour.mean(), 1)
    alike = (abs(rgb - brightness * colour).max(2) <= TOLERANCE) & (brightness[..., 0] > 0.5)
    label, _ = ndimage.label(slow & alike)
    ring = _ring(label)
    if (ring > 0).mean() < PLAIN:
        return None
    reached = np.isin(label, np.unique(ring[ring > 0]))
    row, column = ndimage.distance_transform_edt(~reached, return_distances=False, return_indices=True)
    return Image.fromarray(rgb[row, column].round().astype(np.uint8)).resize(picture.size, Image.Resampling.BILINEAR)


def _without_specks(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The mask without small parts far from the largest one, and how many parts, each far from all others, it has."""
    k = _factor(mask.shape)
    size = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).reduce(k), float)
    label, n = ndimage.label(size > 0, np.ones((3, 3)))
    if n < 2:
        return mask, n
    area = ndimage.sum_labels(size, label, np.arange(n + 1))
    largest = ndimage.find_objects(label)[area[1:].argmax()]
    reach = max(2, round(FAR / 2 * max(s.stop - s.start for s in largest)))
    group, n = ndimage.label(ndimage.distance_transform_edt(size == 0) <= reach)
    area = ndimage.sum_labels(size, group, np.arange(n + 1))
    area[0] = 0
    keep = (area > 0) & (area >= SPECK * area.max())
    if keep.sum() == n:
        return mask, n
    rows, columns = (np.arange(s) // k for s in mask.shape)
    return mask & keep[group][rows][:, columns], int(keep.sum())


def _factor(size: tuple[int, int]) -> int:
    return -(-max(size) // COARSE)
