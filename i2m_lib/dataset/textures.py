"""Materials of a model: diffuse colours, texture images, and what of them lies on each face."""

import re
import struct
import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from .obj import Obj
from .source import CorpusError, ModelSource

DEFAULT_COLOUR = (200, 200, 200)
# Before the name of a texture file, which may hold spaces: `-s 1 1 1 -clamp on`.
OPTIONS = re.compile(r"^(-\w+\s+((on|off|[-+]?[\d.]+(e[-+]?\d+)?)\s+)*)+", re.IGNORECASE)
MAX_SIDE = 1024  # pixels of a texture that are kept: views have fewer


@dataclass(frozen=True)
class Skin:
    """Textures of a mesh with m faces: `uv` (m,3,2) float32 of their corners, u right and v up, repeating beyond [0,1];
    `texture` (m,) int64 in `images`, -1 where a face has a colour only; `images`, each (h,w,3) uint8 sRGB."""

    uv: np.ndarray
    texture: np.ndarray
    images: tuple[np.ndarray, ...]

    def of(self, faces: np.ndarray) -> "Skin":
        """That of some of the faces."""
        return Skin(self.uv[faces], self.texture[faces], self.images)


def paint(obj: Obj, source: ModelSource) -> tuple[np.ndarray, Skin | None, dict[str, int]]:
    """Face colours C (m,3) uint8, the skin if there are textures, and the counts of materials that no mtl file defines
    and of textures that are missing or broken. C is the texture's mean over the face, else the diffuse colour, else
    that of the vertices. A texture replaces the diffuse colour, as in Blender. Raises CorpusError if a path leaves the
    model's folder or an image is absurdly large."""
    diffuse, paths = _read_materials(source, obj.libraries)
    counts = dict.fromkeys(("n_missing_materials", "n_missing_textures", "n_broken_textures"), 0)
    plain = np.uint8(DEFAULT_COLOUR) if obj.colours is None else _bytes(obj.colours)[obj.F].mean(1).astype(np.uint8)
    C = np.array(np.broadcast_to(plain, obj.F.shape))
    texture = np.full(len(obj.F), -1)
    images, tried = {}, set()
    for i, name in enumerate(obj.materials):
        faces, path = np.flatnonzero(obj.material == i), paths.get(name)
        if not len(faces):
            continue
        C[faces] = diffuse.get(name, C[faces])
        counts["n_missing_materials"] += name not in diffuse
        if path is not None and path not in tried:
            tried.add(path)
            image, trouble = _read_image(source, path)
            if trouble:
                counts[f"n_{trouble}_textures"] += 1
            else:
                images[path] = image
        if path in images:
            C[faces], mapped = _mean_colours(images[path], obj.UV[faces])
            texture[faces[mapped]] = list(images).index(path)
    if not images:
        return C, None, counts
    # Coordinates near 0 keep the most digits of float32.
    uv = obj.UV - np.floor(np.nanmin(obj.UV, axis=1, keepdims=True, initial=0.0, where=np.isfinite(obj.UV)))
    return C, Skin(np.nan_to_num(uv).astype(np.float32), texture, tuple(images.values())), counts


def _bytes(colours: np.ndarray) -> np.ndarray:
    """[0,1] -> uint8; values outside are clipped, NaN is 0."""
    return np.round(np.clip(np.nan_to_num(colours), 0, 1) * 255).astype(np.uint8)


def _read_materials(source: ModelSource, libraries: list[str]) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Diffuse colours by name, and the paths of textures of those that have one; missing libraries define none."""
    colours, paths = {}, {}
    for library in dict.fromkeys(libraries):
        try:
            text = source.read(library).decode("utf-8", "replace")
        except FileNotFoundError:
            continue
        name = None
        for line in text.splitlines():
            word, rest = [*line.split(None, 1), "", ""][:2]
            if word.lower() == "newmtl":
                name = rest.strip()
                colours[name] = DEFAULT_COLOUR
                paths.pop(name, None)
            elif name is not None and word.lower() == "kd":
                colours[name] = _diffuse(rest)
            elif name is not None and word.lower() == "map_kd" and rest:
                paths[name] = OPTIONS.sub("", rest.strip())
    return colours, paths


def _diffuse(text: str) -> tuple[int, ...]:
    """'r g b' or one grey, each in [0,1]; the default colour if it is neither."""
    try:
        numbers = [float(word) for word in text.split()[:3]]
    except ValueError:
        return DEFAULT_COLOUR
    return tuple(_bytes(np.array(numbers * (3 if len(numbers) == 1 else 1))).tolist()) if numbers else DEFAULT_COLOUR


def _read_image(source: ModelSource, path: str) -> tuple[np.ndarray | None, str]:
    """(h,w,3) uint8, or None with 'missing' or 'broken'."""
    try:
        data = source.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None, "missing"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data))
        image.draft("RGB", (MAX_SIDE, MAX_SIDE))
        image = image.convert("RGB")
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        return np.asarray(image), ""
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        what = f"{source.container.name}: the texture {path} of {source.model_id}"
        raise CorpusError(f"{what} has more than {Image.MAX_IMAGE_PIXELS} pixels: scale it down.") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error):  # Pillow's ways to fail
        return None, "broken"


def _mean_colours(image: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour (m,3) of each face at four points inside it, and whether uv (m,3,2) says where it lies; else the
    colour is that of the whole image."""
    mapped = np.isfinite(uv).all((1, 2))
    inside = np.vstack([np.full((1, 3), 1 / 3), np.full((3, 3), 1 / 6) + np.eye(3) / 2])
    at = np.einsum("pk,mkc->mpc", inside, uv[mapped]) % 1.0  # (m,4,2)
    h, w = image.shape[:2]
    columns = np.minimum((at[..., 0] * w).astype(int), w - 1)
    rows = np.minimum(((1 - at[..., 1]) * h).astype(int), h - 1)
    C = np.tile(image.mean((0, 1)).astype(np.uint8), (len(uv), 1))
    C[mapped] = image[rows, columns].mean(1).astype(np.uint8)
    return C, mapped
