"""Wavefront OBJ to arrays: exactly what a file says, or one sentence that says why it cannot be read.

Written here because general loaders guess where a study must refuse: they count negative indices from the end of the
file, take index 0 for the first vertex, and skip broken lines.
"""

import re
from array import array
from codecs import BOM_UTF8
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

import numpy as np

FOREIGN = {b"glTF": "binary glTF", b"{": "JSON, perhaps glTF", b"; FBX": "ASCII FBX", b"Kaydara FBX": "binary FBX"}
FOREIGN |= {b"ply": "PLY", b"solid": "ASCII STL", b"<": "XML or HTML", b"PK\x03\x04": "a zip"}
FOREIGN |= {b"version https://git-lfs": "a pointer of Git LFS"}
# Keywords of the specification that carry no triangle.
IGNORED = set(
    b"vn vp deg bmat step cstype p l curv curv2 surf parm trim hole scrv sp end con g s mg o bevel "
    b"c_interp d_interp lod usemap maplib shadow_obj trace_obj ctech stech res".split()
)
# A backslash goes on with a line of numbers; at the end of a comment or a name it is part of a Windows path.
CONTINUED = re.compile(rb"\\\n(?=[ \t]*([-+.\d\n]|\Z))")
# As C libraries of Windows print numbers that are none.
WINDOWS_NAN = re.compile(rb"(?<=\s)[-+]?(1\.#[A-Z]+\d*|nan\(\w*\))(?=\s)", re.IGNORECASE)


class MeshError(ValueError):
    """The mesh cannot be used; the message is one sentence that says why."""


@dataclass(frozen=True)
class Obj:
    """Vertices V (n,3) float64, their colours (n,3) float64 as the file has them or None; triangles F (m,3) int64;
    texture coordinates UV (m,3,2) float64 of their corners, v up, NaN where there are none; material (m,) int64 in
    `materials`, -1 where there is none; `libraries` are the mtl files."""

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
    data = data.removeprefix(BOM_UTF8).rstrip(b"\r\n\x1a") + b"\n"  # ^Z ends files of DOS.
    for magic, name in FOREIGN.items():
        if data[:99].lstrip().startswith(magic):
            raise MeshError(f"unreadable: the file is {name}, not Wavefront OBJ; convert or download it again")
    if b"\0" in data:
        raise MeshError("unreadable: the file is binary or was cut short (it has NUL bytes); download it again")
    data = CONTINUED.sub(b" ", data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    if b"1.#" in data or b"nan(" in data:
        data = WINDOWS_NAN.sub(b"nan", data)
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
            if b"#" in line and keyword in (b"v", b"vt", b"f", b"fo"):
                words = line.split(b"#")[0].split()
            if keyword == b"f" or keyword == b"fo":  # its old name
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
                if 6 < len(words) < 9:  # x y z r g b or x y z w r g b
                    colours.extend(map(float, words[-3:]))
            elif keyword == b"vt":
                if len(words) < 2:
                    raise ValueError("a texture coordinate needs a number")
                UV.extend([*map(float, words[1:3]), 0.0][:2])
            elif keyword == b"usemtl":
                material = materials.setdefault(name_of(line), len(materials))
            elif keyword == b"mtllib":
                libraries += re.split(r"(?<=\.mtl)\s+", name_of(line), flags=re.IGNORECASE)
            elif keyword not in IGNORED and not keyword.startswith(b"#"):
                raise ValueError("no keyword of OBJ")
    except (ValueError, OverflowError) as error:
        what = f"line {number}, {line.decode('utf-8', 'replace').rstrip(chr(10))[:40]!r}, is broken ({str(error)[:60]})"
        raise MeshError(f"unreadable: {what}; download the file again") from None
    return numbers, list(materials), libraries


def _from_front(numbers: list[int], n: int) -> list[int]:
    """Negative ones, which count back from the n-th, become n, n - 1, ..."""
    return [i if i >= 0 else i + n + 1 for i in numbers]


def name_of(line: bytes) -> str:
    """The rest of a line after its keyword; names may hold spaces, and bytes that are no UTF-8 stay distinct."""
    return b"".join(line.split(None, 1)[1:]).strip().decode("utf-8", "surrogateescape")


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
