"""Wavefront OBJ to arrays: exactly what a file says, or one sentence that says why it cannot be read.

Written here because general loaders guess where a study must refuse: they count negative indices from the end of the
file, take index 0 for the first vertex, and skip broken lines.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

BLOCK = 2**22  # bytes parsed at once, which bounds the memory that Python's lists take
FOREIGN = {
    b"glTF": "binary glTF",
    b"{": "JSON, perhaps glTF",
    b"; FBX": "ASCII FBX",
    b"Kaydara FBX": "binary FBX",
    b"ply": "PLY",
    b"solid": "ASCII STL",
    b"<": "XML or HTML",
    b"PK\x03\x04": "a zip",
    b"version https://git-lfs": "a pointer of Git LFS",
}
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
    reader, number = _Reader(), 1
    for lines in _blocks(data):
        try:
            reader.feed(lines)
        except (ValueError, OverflowError):
            raise MeshError(_blame(lines, number)) from None
        number += len(lines)
    return reader.result()


def _blocks(data: bytes) -> Iterator[list[bytes]]:
    """The lines, some megabytes at once."""
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\\\n", b" ")
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + BLOCK) + 1 or len(data)
        yield data[start:end].split(b"\n")[: None if end == len(data) else -1]
        start = end


def _blame(lines: list[bytes], number: int) -> str:
    """What is wrong with the first line that cannot be read alone; `number` counts the first."""
    for i, line in enumerate(lines):
        try:
            _Reader().feed([line])
        except (ValueError, OverflowError) as error:
            text = line[:40].decode("utf-8", "replace")
            return f"unreadable: line {number + i}, {text!r}, is broken ({str(error)[:60]}); download the file again"
    raise AssertionError("a block fails but none of its lines does")


class _Reader:
    """Collects, block by block, vertices (n,6) with their colours, texture coordinates (n,2), the corners (n,2) of
    faces, and the size and material of each face."""

    def __init__(self) -> None:
        self.blocks: list[tuple[np.ndarray, ...]] = []
        self.n_vertices = self.n_uvs = 0
        self.materials: dict[str, int] = {}
        self.libraries: list[str] = []
        self.material = -1
        self.coloured = True

    def feed(self, lines: list[bytes]) -> None:
        """Raises ValueError or OverflowError if a line cannot be understood."""
        v, vt, corners, sizes, groups, counts = [], [], [], [], [], []
        for line in lines:
            words = line.split()
            match words[0] if words else b"#":
                case b"v":
                    v.append(words[1:7])
                case b"f":
                    corners += words[1:]
                    sizes.append(len(words) - 1)
                    groups.append(self.material)
                    counts.append((self.n_vertices + len(v), self.n_uvs + len(vt)))
                case b"vt":
                    vt.append(words[1:3])
                case b"usemtl":
                    self.material = self.materials.setdefault(_name(line), len(self.materials))
                case b"mtllib":
                    self.libraries.append(_name(line))
                case word if word not in IGNORED and not word.startswith(b"#"):
                    raise ValueError("no keyword of OBJ")
        uvs = np.array([(float(u[0]), float(u[1]) if len(u) > 1 else 0.0) for u in vt]).reshape(-1, 2)
        faces = (np.array(values, np.int64) for values in (sizes, groups))
        self.blocks.append((self._vertices(v), uvs, _indices(corners, sizes, counts), *faces))
        self.n_vertices += len(v)
        self.n_uvs += len(vt)

    def _vertices(self, v: list[list[bytes]]) -> np.ndarray:
        widths = set(map(len, v))
        if min(widths, default=3) < 3:
            raise ValueError("a vertex needs three numbers")
        self.coloured &= widths <= {6}
        width = 6 if self.coloured else 3
        rows = np.array(list(map(float, chain.from_iterable(row[:width] for row in v)))).reshape(-1, width)
        return np.pad(rows, ((0, 0), (0, 6 - width)))

    def result(self) -> Obj:
        if not any(len(sizes) for *_, sizes, _ in self.blocks):
            raise MeshError("empty: the file holds no face")
        vertices, uvs, corners, sizes, groups = map(np.concatenate, zip(*self.blocks, strict=True))
        V, vertex, uv = vertices[:, :3], *corners.T
        if vertex.min() < 0 or vertex.max() >= len(V):
            raise MeshError(f"unreadable: a face names a vertex that is not among the file's {len(V)}")
        triangles, face = _triangulate(V, vertex, sizes)
        named = (uv >= 0) & (uv < len(uvs))
        UV = np.full((len(corners), 2), np.nan)
        UV[named] = uvs[uv[named]]
        colours = vertices[:, 3:] if self.coloured else None
        return Obj(V, colours, vertex[triangles], UV[triangles], groups[face], list(self.materials), self.libraries)


def _indices(corners: list[bytes], sizes: list[int], counts: list[tuple[int, int]]) -> np.ndarray:
    """(n,2) vertex and texture coordinate of each corner, counted from 0 and negative where there is none; `counts` are
    how many of each came before the face."""
    if min(sizes, default=3) < 3:
        raise ValueError("a face needs three corners")
    index = np.zeros((len(corners), 2), np.int64)
    if any(b"/" in corner for corner in corners):
        parts = [corner.split(b"/") for corner in corners]
        index[:, 1] = [int(p[1]) if len(p) > 1 and p[1] else 0 for p in parts]
        corners = [p[0] for p in parts]
    index[:, 0] = list(map(int, corners))
    # The file counts from 1, and with negative numbers back from the face; 0 is none.
    before = np.repeat(np.array(counts, np.int64).reshape(-1, 2), sizes, axis=0)
    return np.where(index < 0, index + before, index - 1)


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
