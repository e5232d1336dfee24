"""Wavefront OBJ to arrays: exactly what a file says, or one sentence that says why it cannot be read.

Written here because general loaders guess where a study must refuse: they count negative indices from the end of the
file, take index 0 for the first vertex, and skip broken lines.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from itertools import takewhile

import numpy as np

FOREIGN = {b"glTF": "binary glTF", b"{": "JSON, perhaps glTF", b"; FBX": "ASCII FBX", b"Kaydara FBX": "binary FBX"}
FOREIGN |= {b"ply": "PLY", b"solid": "ASCII STL", b"<": "XML or HTML", b"PK\x03\x04": "a zip"}
FOREIGN |= {b"version https://git-lfs": "a pointer of Git LFS"}
# Keywords of the specification that carry no triangle.
IGNORED = set(
    b"vn vp deg bmat step cstype p l curv curv2 surf parm trim hole scrv sp end con g s mg o bevel "
    b"c_interp d_interp lod usemap maplib shadow_obj trace_obj ctech stech".split()
)


class MeshError(ValueError):
    """The mesh cannot be used; the message is one sentence that says why."""


@dataclass(frozen=True)
class Obj:
    """Vertices V (n,3) float64, their colours (n,3) float64 in [0,1] or None; triangles F (m,3) int64; texture
    coordinates UV (m,3,2) float64 of their corners, v up, NaN where there are none; material (m,) int64 in `materials`,
    -1 where there is none; `libraries` are the mtl files."""

    V: np.ndarray
    colours: np.ndarray | None
    F: np.ndarray
    UV: np.ndarray
    material: np.ndarray
    materials: list[str]
    libraries: list[str]


def read_obj(data: bytes) -> Obj:
    """Parses an OBJ file; polygons are cut into triangles. Raises MeshError if it is another format, holds no face, or
    a line of it cannot be understood."""
    for magic, name in FOREIGN.items():
        if data.lstrip().startswith(magic):
            raise MeshError(f"unreadable: the file is {name}, not Wavefront OBJ; convert or download it again")
    if b"\0" in data:
        raise MeshError("unreadable: the file is binary or was cut short (it has NUL bytes); download it again")
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\\\n", b" ")
    numbers, materials, libraries = _parse(BytesIO(data))
    V, colours, UV, vertex, uv, sizes, material = map(np.array, numbers)
    V, colours, UV, vertex, uv = V.reshape(-1, 3), colours.reshape(-1, 3), UV.reshape(-1, 2), vertex - 1, uv - 1
    if not len(sizes):
        raise MeshError(f"empty: the file holds no face{', it is a point cloud' if len(V) else ''}")
    if vertex.min() < 0 or vertex.max() >= len(V):
        raise MeshError(f"unreadable: a face names a vertex that is not among the file's {len(V)}")
    triangles, face = _triangulate(V, vertex, sizes)
    named = (uv >= 0) & (uv < len(UV))
    corners = np.full((len(uv), 2), np.nan)
    corners[named] = UV[uv[named]]
    colours = colours if len(colours) == len(V) else None
    return Obj(V, colours, vertex[triangles], corners[triangles], material[face], materials, libraries)


def _parse(lines: Iterable[bytes]) -> tuple[tuple[array, ...], list[str], list[str]]:
    """Numbers of vertices, colours and texture coordinates; of each corner its vertex and texture coordinate, counted
    from 1, 0 where there is none; of each face its size and material. Then the names of materials and libraries."""
    V, colours, UV, vertex, uv, sizes, groups = numbers = tuple(map(array, "dddqqqq"))
    materials, libraries, material = {}, [], -1
    number, line = 0, b""
    try:
        for line in lines:
            number += 1
            words = line.split()
            keyword = words[0] if words else b"#"
            if b"#" in line and keyword in (b"v", b"vt", b"f"):
                words = list(takewhile(lambda word: not word.startswith(b"#"), words))
            if keyword == b"f":
                places = [0] * len(words[1:])
                if len(places) < 3:
                    raise ValueError("a face needs three corners")
                if b"/" in line:
                    parts = [word.split(b"/") for word in words]
                    words = [part[0] for part in parts]
                    places = [int(part[1]) if len(part) > 1 and part[1] else 0 for part in parts[1:]]
                corners = list(map(int, words[1:]))
                if b"-" in line:
                    corners, places = _from_front(corners, len(V) // 3), _from_front(places, len(UV) // 2)
                vertex.extend(corners)
                uv.extend(places)
                sizes.append(len(places))
                groups.append(material)
            elif keyword == b"v":
                if len(words) < 4:
                    raise ValueError("a vertex needs three numbers")
                V.extend(map(float, words[1:4]))
                if len(words) > 6:
                    colours.extend(map(float, words[4:7]))
            elif keyword == b"vt":
                if len(words) < 2:
                    raise ValueError("a texture coordinate needs a number")
                UV.extend([*map(float, words[1:3]), 0.0][:2])
            elif keyword == b"usemtl":
                material = materials.setdefault(_name(line), len(materials))
            elif keyword == b"mtllib":
                libraries.append(_name(line))
            elif keyword not in IGNORED and not keyword.startswith(b"#"):
                raise ValueError("no keyword of OBJ")
    except (ValueError, OverflowError) as error:
        what = f"line {number}, {line.decode('utf-8', 'replace').rstrip(chr(10))[:40]!r}, is broken ({str(error)[:60]})"
        raise MeshError(f"unreadable: {what}; download the file again") from None
    return numbers, list(materials), libraries


def _from_front(numbers: list[int], n: int) -> list[int]:
    """Negative ones, which count back from the n-th, become n, n - 1, ..."""
    return [i if i >= 0 else i + n + 1 for i in numbers]


def _name(line: bytes) -> str:
    """The rest of a line after its keyword; names may hold spaces."""
    return b"".join(line.split(None, 1)[1:]).strip().decode("utf-8", "replace")


def _triangulate(V: np.ndarray, vertex: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polygons with `sizes` (m,) corners, whose vertices are `vertex`, as triangles of corner numbers (k,3), and the
    polygon (k,) of each. They are cut into fans, or into ears where a fan would cover places outside of the polygon."""
    face = np.repeat(np.arange(len(sizes)), sizes - 2)
    first = np.cumsum(sizes) - sizes
    step = np.arange(len(face)) - np.repeat(np.cumsum(sizes - 2) - (sizes - 2), sizes - 2)
    triangles = first[face][:, None] + np.stack([np.zeros_like(step), step + 1, step + 2], axis=1)
    if (sizes > 3).any():
        a, b, c = np.moveaxis(V[vertex[triangles]], 1, 0)
        normals = np.cross(b - a, c - a)
        whole = np.zeros((len(sizes), 3))
        np.add.at(whole, face, normals)
        for i in np.unique(face[(normals * whole[face]).sum(1) < 0]):
            ears = _ears(V[vertex[first[i] : first[i] + sizes[i]]])
            if len(ears) == sizes[i] - 2:
                triangles[face == i] = first[i] + ears
    return triangles, face


def _ears(polygon: np.ndarray) -> np.ndarray:
    """(n-2,3) triangles of a polygon (n,3), or fewer if it crosses itself."""
    from .render import pv  # Here, because reading triangles does not need VTK.

    cut = pv.PolyData(polygon, faces=[len(polygon), *range(len(polygon))]).triangulate()
    return cut.regular_faces if cut.n_cells else np.zeros((0, 3), np.int64)
