"""From a model's file to a clean mesh in the canonical frame, and samples of its surface."""

import hashlib
import posixpath
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.surfaces import sample_surface

from .obj import MeshError, read_obj
from .source import ModelSource
from .textures import Skin, paint

MERGE_TOLERANCE = 1e-6  # of the bounding-box diagonal
PROBES = 20_000  # samples of a surface that is to be simplified
TOLERANCE = 1.25  # of the Chamfer distance of two such sets
DIAGONALS = (1e-30, 1e30)  # beyond them squares of coordinates leave the range of floats
# ShapeNetCore v1 faces +X where v2 faces -Z; a quarter turn about +Y takes one to the other.
V1_TO_CANONICAL = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


@dataclass(frozen=True)
class RawMesh:
    """Vertices V (n,3) float64, faces F (m,3) int64, face colours C (m,3) uint8 sRGB, the textures if there are any,
    and what models.parquet records: the file's sha256 and how many of each fault were found."""

    V: np.ndarray
    F: np.ndarray
    C: np.ndarray
    skin: Skin | None = None
    facts: dict[str, int | str] = field(default_factory=dict)


def load_mesh(source: ModelSource) -> RawMesh:
    """All triangles of the model's file, +Y up and -Z front, in the file's own units. Raises MeshError if it is
    unreadable or empty."""
    name = posixpath.basename(source.entry)
    try:
        data = source.read(name)
    except FileNotFoundError:
        raise MeshError(f"missing: {source.container.name} holds no {source.entry}; download the model again") from None
    except OSError as error:
        raise MeshError(f"unreadable: {error}; check the disk and the file's rights") from error
    if not data.strip():
        raise MeshError(f"empty: {name} has no content; download it again")
    obj = read_obj(data)
    C, skin, counts = paint(obj, source)
    V = obj.V @ V1_TO_CANONICAL.T if source.layout == "v1" else obj.V
    # By material, the last first: samples depend on this order.
    order = np.argsort(-obj.material, kind="stable")
    facts = {"sha256": hashlib.sha256(data).hexdigest(), "n_source_faces": len(obj.F), **counts}
    return RawMesh(V, obj.F[order], C[order], skin and skin.of(order), facts)


def clean(raw: RawMesh) -> RawMesh:
    """Removes, and counts in the facts, what carries no surface: vertices that are NaN, infinite, unused or within 1e-6
    of the diagonal of another; faces that name a vertex twice or repeat a face, reversed or not. Faces without area but
    with three vertices stay: they close T-junctions. Raises MeshError if no shape is left."""
    V, F = raw.V, raw.F
    finite = np.isfinite(V).all(1)
    whole = np.flatnonzero(finite[F].all(1))
    F = F[whole]
    if not len(F):
        raise MeshError("NaN: no face has three finite vertices; export the model again")
    used = np.unique(F)
    diagonal, n_flat = _measure(V[used])
    n_used, n_unreferenced = len(used), int(finite.sum()) - len(used)
    V, F = _merge(V[used], np.searchsorted(used, F), diagonal * MERGE_TOLERANCE)

    corners = np.sort(F, axis=1)
    proper = np.flatnonzero((np.diff(corners, axis=1) > 0).all(1))
    if not len(proper):
        raise MeshError("empty: every face is degenerate; export the model again")
    _, first = np.unique(corners[proper], axis=0, return_index=True)
    keep = proper[np.sort(first)]
    used = np.unique(F[keep])
    facts = {"n_nan_vertices": int((~finite).sum()), "n_nan_faces": len(raw.F) - len(whole), "n_flat_axes": n_flat}
    facts |= {"n_merged_vertices": n_used - len(V), "n_unreferenced_vertices": n_unreferenced + len(V) - len(used)}
    facts |= {"n_degenerate_faces": len(F) - len(proper), "n_duplicate_faces": len(proper) - len(keep)}
    skin = raw.skin and raw.skin.of(whole[keep])
    return RawMesh(V[used], np.searchsorted(used, F[keep]), raw.C[whole[keep]], skin, raw.facts | facts)


def _measure(V: np.ndarray) -> tuple[float, int]:
    """The diagonal of the bounding box, and 1 if the model is flat, as a sheet may be, else 0."""
    with np.errstate(over="ignore"):
        extent = np.ptp(V, axis=0)
    if not extent.any():
        raise MeshError("all vertices are equal: the file may be compressed in an unknown way; export it again")
    if not DIAGONALS[0] < extent.max() < DIAGONALS[1]:
        raise MeshError(f"absurd coordinates: the shape is {extent.max():.3g} long; scale it")
    n_flat = int((extent <= MERGE_TOLERANCE * extent.max()).sum())
    if n_flat >= 2:
        raise MeshError(f"flat: its extents are {np.round(extent, 6).tolist()}, so it is a line; remove it")
    return float(np.linalg.norm(extent)), n_flat


def _merge(V: np.ndarray, F: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """One vertex per occupied cell of a grid of `tolerance`: its first vertex."""
    # The diagonal is 1e6 cells, so a cell number has 20 bits per axis and one int64 holds three.
    cell = np.rint((V - V.min(0)) / tolerance).astype(np.int64)
    key = (cell[:, 0] << 42) | (cell[:, 1] << 21) | cell[:, 2]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return V[first], inverse[F]


def simplify(mesh: RawMesh, max_faces: int) -> RawMesh:
    """At most `max_faces` faces by quadric edge collapse (Garland and Heckbert 1997), in the colours of the nearest
    places on the old surface. Raises MeshError if the new surface is further from the old one than resampling would
    be."""
    from .render import pv  # Here, because only models with too many faces need VTK.

    surface = pv.PolyData.from_regular_faces(mesh.V, mesh.F).decimate(1 - max_faces / len(mesh.F))
    V, F, rng = np.asarray(surface.points, np.float64), surface.regular_faces.astype(np.int64), np.random.default_rng(0)
    (points, face), (again, _) = (sample_surface(mesh.V, mesh.F, PROBES, rng) for _ in range(2))
    floor = chamfer(again, old := Target.of(points))
    if not 0 < len(F) <= max_faces or chamfer(sample_surface(V, F, PROBES, rng)[0], old) > TOLERANCE * floor:
        raise MeshError(f"too many faces: {len(mesh.F)} cannot be simplified to {max_faces}; raise max_faces")
    _, nearest = cKDTree(np.concatenate([points, mesh.V[mesh.F].mean(1)])).query(V[F].mean(1))
    C = mesh.C[np.concatenate([face, np.arange(len(mesh.F))])[nearest]]
    return RawMesh(V, F, C, facts=mesh.facts | {"n_simplified_faces": len(mesh.F) - len(F)})
