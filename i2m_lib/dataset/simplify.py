"""Fewer faces for models that have too many."""

import numpy as np
import pyvista as pv
from scipy.spatial import cKDTree

from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.surfaces import sample_surface

from .cleaning import MeshError, RawMesh

PROBES = 20_000  # places on the old surface that tell its shape and colours
TOLERANCE = 1.25  # of the mean distance between two such sets of places


def simplify(mesh: RawMesh, max_faces: int) -> RawMesh:
    """At most `max_faces` faces by quadric edge collapse (Garland and Heckbert, as in VTK). Each face takes the colour
    of the nearest place on the old surface; textures become such colours. Adds n_simplified_faces to the facts. Raises
    MeshError if the shape is lost: if the Chamfer distance of new and old surface exceeds that of two samplings of the
    old one, as it does for loose triangles."""
    surface = pv.PolyData.from_regular_faces(mesh.V, mesh.F).decimate(1 - max_faces / len(mesh.F))
    V, F = np.asarray(surface.points, np.float64), surface.regular_faces.astype(np.int64)
    if not (0 < len(F) <= max_faces and _resembles(V, F, mesh)):
        raise MeshError(f"too many faces: {len(mesh.F)} cannot be simplified to {max_faces}; raise max_faces")
    points, face = sample_surface(mesh.V, mesh.F, PROBES, np.random.default_rng(0))
    old = cKDTree(np.concatenate([points, mesh.V[mesh.F].mean(1)]))
    _, nearest = old.query(V[F].mean(1))
    C = mesh.C[np.concatenate([face, np.arange(len(mesh.F))])[nearest]]
    return RawMesh(V, F, C, facts=mesh.facts | {"n_simplified_faces": len(mesh.F) - len(F)})


def _resembles(V: np.ndarray, F: np.ndarray, mesh: RawMesh) -> bool:
    rng = np.random.default_rng(0)
    a, b, new = (sample_surface(*s, PROBES, rng)[0] for s in ((mesh.V, mesh.F), (mesh.V, mesh.F), (V, F)))
    return chamfer(new, Target.of(a)) <= TOLERANCE * chamfer(b, Target.of(a))
