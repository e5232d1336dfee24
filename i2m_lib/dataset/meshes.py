"""From a model's file to a clean mesh in the canonical frame, and samples of its surface."""

import posixpath
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from .source import ModelSource

DEFAULT_COLOUR = (200, 200, 200)
MERGE_TOLERANCE = 1e-6  # of the bounding-box diagonal
# ShapeNetCore v1 faces +X where v2 faces -Z; a quarter turn about +Y takes one to the other.
V1_TO_CANONICAL = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


class MeshError(ValueError):
    """The mesh cannot be used; the message is one sentence that says why."""


@dataclass(frozen=True)
class RawMesh:
    """Vertices V (n,3) float64, faces F (m,3) int64, face colours C (m,3) uint8 sRGB."""

    V: np.ndarray
    F: np.ndarray
    C: np.ndarray


@dataclass(frozen=True)
class _Beside:
    """What trimesh asks for materials and textures: they come through ModelSource.read alone."""

    source: ModelSource

    def get(self, name: str) -> bytes:
        return self.source.read(name)

    __getitem__ = get


def load_mesh(source: ModelSource, *, max_faces: int) -> RawMesh:
    """All triangles of the model's file, +Y up and -Z front, in the file's own units.
    Raises MeshError if it is unreadable, empty or has more than `max_faces` faces."""
    import trimesh  # here, as training nodes sample surfaces without having it

    data = source.read(posixpath.basename(source.entry))
    file_type = posixpath.splitext(source.entry)[1][1:]
    try:
        scene = trimesh.load_scene(BytesIO(data), file_type=file_type, resolver=_Beside(source), process=False)
    except Exception as error:  # trimesh raises whatever its parsers run into
        raise MeshError(f"unreadable: {type(error).__name__}: {error}") from error
    # An obj has no transforms, so its geometries share one frame.
    parts = [part for part in scene.geometry.values() if len(getattr(part, "faces", ()))]
    n_faces = sum(len(part.faces) for part in parts)
    if not n_faces:
        raise MeshError("empty: the file holds no triangle")
    if n_faces > max_faces:
        raise MeshError(f"too many faces: {n_faces} where max_faces is {max_faces}")
    if any(part.faces.max() >= len(part.vertices) for part in parts):
        raise MeshError("unreadable: a face names a vertex that is not in the file")
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    V = np.concatenate([part.vertices for part in parts]).astype(np.float64)
    F = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    C = np.concatenate([_face_colours(part.visual, part.faces) for part in parts])
    return RawMesh(V @ V1_TO_CANONICAL.T if source.layout == "v1" else V, F.astype(np.int64), C)


def _face_colours(visual: Any, F: np.ndarray) -> np.ndarray:
    """(m,3) uint8 from texture, diffuse or vertex colours, in this order of preference."""
    material = getattr(visual, "material", None)
    image = getattr(material, "image", None)
    # trimesh stands in for a missing .mtl with a grey image, which comes from no file.
    if image is not None and "file_path" in image.info:
        with suppress(OSError):  # a broken image need not cost the model
            return _sample_texture(np.asarray(image.convert("RGB")), visual.uv, F)
    if "kd" in getattr(material, "kwargs", {}):
        colours = material.diffuse[:3]
    elif material is None and visual.defined:
        colours = visual.face_colors[:, :3]
    else:
        colours = DEFAULT_COLOUR
    return np.broadcast_to(np.uint8(colours), (len(F), 3))


def _sample_texture(image: np.ndarray, uv: np.ndarray | None, F: np.ndarray) -> np.ndarray:
    """Mean texture (h,w,3) colour of each face at four points inside it; uv (n,2) has v up."""
    if uv is None or not np.isfinite(uv).all():
        return np.tile(image.mean((0, 1)).astype(np.uint8), (len(F), 1))
    inside = np.vstack([np.full((1, 3), 1 / 3), np.full((3, 3), 1 / 6) + np.eye(3) / 2])
    at = np.einsum("pk,mkc->mpc", inside, uv[F]) % 1.0  # (m,4,2); textures repeat
    h, w = image.shape[:2]
    columns = np.minimum((at[..., 0] * w).astype(int), w - 1)
    rows = np.minimum(((1 - at[..., 1]) * h).astype(int), h - 1)
    return image[rows, columns].mean(1).astype(np.uint8)


def clean(V: np.ndarray, F: np.ndarray, C: np.ndarray) -> tuple[RawMesh, dict[str, int]]:
    """Removes what carries no surface: vertices that are NaN or equal to another within 1e-6 of
    the diagonal (by place alone), faces that name a vertex twice, doubled faces (reversed ones
    too), unused vertices. Also returns the number of each. Faces without area but with three
    vertices stay: they close T-junctions. Raises MeshError if no shape is left."""
    finite = np.isfinite(V).all(1)
    whole = finite[F].all(1)
    F, C = F[whole], C[whole]
    if not len(F):
        raise MeshError("NaN: no face has three finite vertices")
    used = np.unique(F)
    extent = np.ptp(V[used], axis=0)
    _check_extent(extent)
    n_used, n_unreferenced = len(used), int(finite.sum()) - len(used)
    V, F = _merge(V[used], np.searchsorted(used, F), np.linalg.norm(extent) * MERGE_TOLERANCE)

    corners = np.sort(F, axis=1)
    proper = np.flatnonzero((np.diff(corners, axis=1) > 0).all(1))
    if not len(proper):
        raise MeshError("empty: every face is degenerate")
    _, first = np.unique(corners[proper], axis=0, return_index=True)
    keep = proper[np.sort(first)]
    used = np.unique(F[keep])
    counts = {
        "n_nan_vertices": int((~finite).sum()),
        "n_merged_vertices": n_used - len(V),
        "n_unreferenced_vertices": n_unreferenced + len(V) - len(used),
        "n_degenerate_faces": len(F) - len(proper),
        "n_duplicate_faces": len(proper) - len(keep),
    }
    return RawMesh(V[used], np.searchsorted(used, F[keep]), C[keep]), counts


def _check_extent(extent: np.ndarray) -> None:
    if not extent.any():
        raise MeshError("all vertices are equal: the file may be compressed in an unknown way")
    if (extent <= MERGE_TOLERANCE * extent.max()).sum() >= 2:
        raise MeshError(f"flat: its extents are {np.round(extent, 6).tolist()}, so it is a line")


def _merge(V: np.ndarray, F: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """One vertex per occupied cell of a grid of `tolerance`: its first vertex."""
    # The diagonal is 1e6 cells, so a cell number has 20 bits per axis and one int64 holds three.
    cell = np.rint((V - V.min(0)) / tolerance).astype(np.int64)
    key = (cell[:, 0] << 42) | (cell[:, 1] << 21) | cell[:, 2]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return V[first], inverse[F]


def normalise(V: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """V with bounding-box centre 0 and diagonal 1, the centre (3,) and the scale that were taken
    away: input = output * scale + centre. Raises MeshError if all vertices are equal."""
    low, high = V.min(0), V.max(0)
    scale = float(np.linalg.norm(high - low))
    if not scale > 0:
        raise MeshError("all vertices are equal: there is no scale")
    centre = (low + high) / 2
    return (V - centre) / scale, centre, scale


def cross_products(V: np.ndarray, F: np.ndarray) -> np.ndarray:
    """(m,3) normals of the faces, as long as twice their areas."""
    a, b, c = np.moveaxis(V[F], 1, 0)
    return np.cross(b - a, c - a)


def double_areas(V: np.ndarray, F: np.ndarray) -> np.ndarray:
    """(m,) twice the areas of the faces."""
    return np.linalg.norm(cross_products(V, F), axis=1)


def barycentric_samples(
    V: np.ndarray, F: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """n points uniform on the surface: the face (n,) of each and its barycentric weights (n,3).
    Raises ValueError if the surface has no area."""
    total = np.cumsum(double_areas(V, F))
    if not (len(total) and total[-1] > 0):
        raise ValueError("cannot sample a surface without area")
    # side='right' never lands on a face without area.
    face = np.searchsorted(total, rng.random(n) * total[-1], side="right")
    root, t = np.sqrt(rng.random(n)), rng.random(n)
    return face, np.stack([1 - root, root * (1 - t), root * t], axis=1)


def sample_surface(V: np.ndarray, F: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n points (n,3) uniform on the surface and the index (n,) of the face of each.
    Raises ValueError if the surface has no area."""
    face, weights = barycentric_samples(V, F, n, rng)
    return np.einsum("nk,nkc->nc", weights, V[F[face]]), face


def is_watertight(F: np.ndarray) -> bool:
    """Every edge belongs to exactly two faces."""
    edges = np.sort(F[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, counts = np.unique(edges[:, 0] * (F.max() + 1) + edges[:, 1], return_counts=True)
    return bool((counts == 2).all())
