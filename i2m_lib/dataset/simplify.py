"""Fewer faces for models that have too many."""

import numpy as np
import pyvista as pv
from scipy.spatial import cKDTree

from .meshes import MeshError, RawMesh, sample_surface

PROBES = 100_000  # places at which a surface tells its colours


def simplify(mesh: RawMesh, max_faces: int) -> RawMesh:
    """At most `max_faces` faces by quadric edge collapse (Garland and Heckbert, as in VTK), which
    VTK's docs allow on meshes that are no manifold. Each face takes the colour of the nearest
    place on the old surface; textures become such colours. Adds n_simplified_faces to the counts.
    Raises MeshError if so few are out of reach, as for loose triangles."""
    surface = pv.PolyData.from_regular_faces(mesh.V, mesh.F).decimate(1 - max_faces / len(mesh.F))
    V, F = np.asarray(surface.points, np.float64), surface.regular_faces.astype(np.int64)
    if not 0 < len(F) <= max_faces:
        raise MeshError(f"too many faces: {len(mesh.F)} come down to {len(F)}, and max_faces is {max_faces}; raise it")
    points, face = sample_surface(mesh.V, mesh.F, PROBES, np.random.default_rng(0))
    old = cKDTree(np.concatenate([points, mesh.V[mesh.F].mean(1)]))
    _, nearest = old.query(V[F].mean(1))
    C = mesh.C[np.concatenate([face, np.arange(len(mesh.F))])[nearest]]
    return RawMesh(V, F, C, counts=mesh.counts | {"n_simplified_faces": len(mesh.F) - len(F)})
