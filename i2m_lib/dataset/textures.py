"""Materials of a model: diffuse colours, texture images, and what of them lies on each face."""

import re
import warnings
from codecs import BOM_UTF8
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from .obj import Obj, name_of
from .source import ModelSource

DEFAULT_COLOUR = (200, 200, 200)
# Before or after the name of a texture file, which may hold spaces: `-s 2 2 1 -clamp on`.
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
VALUES = rf"(?:\s+(?:on|off|[rgbmlz]|{NUMBER})(?!\S)){{1,3}}"
OPTION = re.compile(rf"(?<!\S)-(blend[uv]|bm|boost|cc|clamp|imfchan|mm|o|s|t|texres)({VALUES})", re.IGNORECASE)
# Pixels that are kept of a texture, along a side, and of all textures of a model: views have fewer.
MAX_SIDE, MAX_PIXELS = 1024, 16 * 1024**2
MAX_TURNS = 1e5  # of a texture: further away float32 tells its pixels no longer apart


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


@dataclass
class Material:
    """Diffuse colour, None if it cannot be read; path of the texture, if any, and the scale and offset of its
    coordinates."""

    diffuse: tuple[int, ...] | None = DEFAULT_COLOUR
    path: str | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)


@np.errstate(over="ignore", invalid="ignore")  # Coordinates may be anything.
def paint(obj: Obj, source: ModelSource) -> tuple[np.ndarray, Skin | None, dict[str, int]]:
    """Face colours C (m,3) uint8, the skin if there are textures, and the counts of materials that no mtl file gives a
    colour and of textures that are missing or broken. C is the texture's mean over the face, else the diffuse colour,
    else that of the vertices. A texture replaces the diffuse colour, as in Blender."""
    known = _read_materials(source, obj.libraries)
    counts = dict.fromkeys(("n_missing_materials", "n_missing_textures", "n_broken_textures"), 0)
    plain = np.uint8(DEFAULT_COLOUR) if obj.colours is None else _bytes(obj.colours)[obj.F].mean(1).astype(np.uint8)
    C = np.array(np.broadcast_to(plain, obj.F.shape))
    texture, uv = np.full(len(obj.F), -1), obj.UV.copy()
    images, tried = {}, set()
    n_paths = len({known[name].path for name in obj.materials if name in known and known[name].path is not None})
    side = int(min(MAX_SIDE, (MAX_PIXELS / max(n_paths, 1)) ** 0.5))
    for i, name in enumerate(obj.materials):
        faces, material = np.flatnonzero(obj.material == i), known.get(name, Material(diffuse=None))
        if not len(faces):
            continue
        if material.diffuse is None:
            counts["n_missing_materials"] += 1
        else:
            C[faces] = material.diffuse
        path = material.path
        if path is not None and path not in tried:
            tried.add(path)
            image, trouble = _read_image(source, path, side)
            if trouble:
                counts[f"n_{trouble}_textures"] += 1
            else:
                images[path] = image
        if path in images:
            uv[faces] = uv[faces] * material.scale + material.offset
            C[faces], mapped = _mean_colours(images[path], uv[faces])
            texture[faces[mapped]] = list(images).index(path)
    if not images:
        return C, None, counts
    uv = np.where(np.abs(uv) < MAX_TURNS, uv, 0)
    return C, Skin(uv.astype(np.float32), texture, tuple(images.values())), counts


def _bytes(colours: np.ndarray) -> np.ndarray:
    """Of [0,1], or of [0,255] if one is above 2 -> uint8; values outside are clipped, NaN is 0."""
    of_255 = colours.max(initial=0.0, where=np.isfinite(colours)) > 2
    return np.round(np.clip(np.nan_to_num(colours / 255 if of_255 else colours), 0, 1) * 255).astype(np.uint8)


def _read_materials(source: ModelSource, libraries: list[str]) -> dict[str, Material]:
    """By name; libraries that are missing or cannot be read define none."""
    materials = {}
    for library in dict.fromkeys(libraries):
        try:
            data = source.find(library)
        except (OSError, ValueError):
            continue
        material = None
        for line in data.removeprefix(BOM_UTF8).splitlines():
            keyword, rest = b"".join(line.split(None, 1)[:1]).lower(), name_of(line)
            if keyword == b"newmtl":
                material = materials[rest] = Material()
            elif material and keyword == b"kd":
                material.diffuse = _diffuse(rest.split("#")[0])
            elif material and keyword == b"map_kd" and rest:
                material.path = OPTION.sub("", rest).strip()
                options = {option.lower(): values for option, values in OPTION.findall(rest)}
                material.scale, material.offset = _pair(options.get("s", ""), 1.0), _pair(options.get("o", ""), 0.0)
    return materials


def _pair(values: str, default: float) -> tuple[float, float]:
    """The first two of an option's numbers; `default` for those that it leaves out."""
    u, v = [*map(float, re.findall(NUMBER, values)), default, default][:2]
    return u, v


def _diffuse(text: str) -> tuple[int, ...] | None:
    """'r g b' or one grey, each in [0,1]; None if it is neither."""
    try:
        numbers = [float(word) for word in text.split()[:3]]
    except ValueError:
        return None
    if len(numbers) not in (1, 3) or not np.isfinite(numbers).all():
        return None
    return tuple(np.broadcast_to(_bytes(np.array(numbers)), 3).tolist())


def _read_image(source: ModelSource, path: str, side: int) -> tuple[np.ndarray | None, str]:
    """(h,w,3) uint8 with h, w <= side, or None with 'missing' or 'broken'."""
    try:
        data = source.find(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None, "missing"
    except (OSError, ValueError):
        return None, "broken"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data))
        image.draft("RGB", (side, side))
        image = image.convert("RGB")
        image.thumbnail((side, side))
        return np.asarray(image), ""
    except Exception:  # Pillow fails in many ways, and colours are not worth a model
        return None, "broken"


def _mean_colours(image: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour (m,3) of each face at four points inside it, and whether uv (m,3,2) says where it lies; else, and
    where the face is larger than the image, the colour is that of the whole image."""
    mapped = (np.abs(uv) < MAX_TURNS).all((1, 2))
    small = mapped & (np.abs(np.linalg.det(uv[:, 1:] - uv[:, :1])) < 2)
    inside = np.vstack([np.full((1, 3), 1 / 3), np.full((3, 3), 1 / 6) + np.eye(3) / 2])
    at = np.einsum("pk,mkc->mpc", inside, uv[small]) % 1.0  # (m,4,2)
    h, w = image.shape[:2]
    columns = np.minimum((at[..., 0] * w).astype(int), w - 1)
    rows = np.minimum(((1 - at[..., 1]) * h).astype(int), h - 1)
    C = np.tile(image.mean((0, 1)).astype(np.uint8), (len(uv), 1))
    C[small] = image[rows, columns].mean(1).astype(np.uint8)
    return C, mapped
