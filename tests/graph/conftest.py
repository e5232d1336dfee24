import numpy as np
import pytest
import trimesh

from i2m_lib.dataset.dataset import Mesh
from i2m_lib.graph.build_graph import build_graph

CROSS = np.array([[2, 0.3, 0.3], [0.3, 2, 0.3]])  # extents of two crossing boxes


@pytest.fixture(scope="session")
def built(dataset):
    """Graph and fits of the small corpus, with all of its training shapes as templates."""
    return build_graph(dataset, n_templates=3, seed=0, workers=1)


@pytest.fixture(scope="session")
def boxes():
    """Six boxes and six crosses of two boxes, in many proportions: meshes and samples (12, 512, 3)."""
    rng, meshes = np.random.default_rng(0), []
    for k in range(12):
        extents = rng.uniform(0.2, 0.5, 3)
        parts = [trimesh.creation.box(extents)] if k < 6 else [trimesh.creation.box(extents * s) for s in CROSS]
        mesh = trimesh.util.concatenate(parts).subdivide()
        S = np.asarray(trimesh.sample.sample_surface(mesh, 1024, seed=0)[0])
        meshes.append(Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces), np.zeros((len(mesh.faces), 3)), S, S))
    return meshes, np.stack([m.S[:512] for m in meshes])
