"""The edges of the template graph: how well each template, deformed, lies on each other, and which pairs are joined.

There is an edge i -> j if V_ij lies on j, by Dist and by IoU of the solids, or if j is among the three best for i.
"""

import numpy as np
import pandas as pd

from i2m_lib.dataset.dataset import Mesh
from i2m_lib.geometry.nearest import Target, chamfer_l1, dist, distances
from i2m_lib.geometry.registration import Registration
from i2m_lib.geometry.source_mesh import Source, sampling_matrix
from i2m_lib.geometry.voxels import mask_iou, solid

# METHOD section 3: D counts squared distances above FAR.
FAR, MAX_DIST, MIN_IOU, MIN_EDGES = 3e-3, 0.035, 0.25, 3
N_DENSE, RESOLUTION = 16384, 32  # samples and voxels along an axis of a solid
SCORES = ("dist", "iou", "residual", "flipped", "collapsed")


def edge_rule(dist: np.ndarray, iou: np.ndarray, i: int) -> np.ndarray:
    """(T,) bool: which templates have an edge from the i-th; dist (T,) in 0..2 and iou (T,) in 0..1 are its scores."""
    others = np.delete(np.arange(len(dist)), i)
    selected = (dist < MAX_DIST) & (iou > MIN_IOU)
    selected[others[np.lexsort((-iou[others], dist[others]))][:MIN_EDGES]] = True
    selected[i] = False
    return selected


def score_edges(
    mesh: Mesh, source: Source, found: list[Registration], targets: list[Target], solids: list[np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    """SCORES (T,) of a template's correspondences: Dist of METHOD section 3, IoU of V_ij and j as `solids`, Chamfer-L1
    in canonical units, and the shares of faces that turned over and that collapsed."""
    dense = dense_samples(mesh, seed)
    rows = []
    for r, target, shape in zip(found, targets, solids, strict=True):
        d = distances(source.A @ r.V, target)
        iou = mask_iou(solid(dense @ r.V, RESOLUTION), shape)
        rows.append((dist(*d, FAR), iou, chamfer_l1(*d), r.flipped, r.collapsed))
    return dict(zip(SCORES, np.array(rows).T, strict=True))


def solid_of(mesh: Mesh, seed: int) -> np.ndarray:
    """Voxels (RESOLUTION,) * 3 bool of a template's solid."""
    return solid(dense_samples(mesh, seed) @ mesh.V, RESOLUTION)


def dense_samples(mesh: Mesh, seed: int):
    """(N_DENSE, n) sparse: samples of a mesh's surface for its solid, wherever its vertices move."""
    return sampling_matrix(mesh.V, mesh.F, N_DENSE, np.random.default_rng(seed))


def edge_table(synset: str, ids: list[str], scores: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    """All ordered pairs of T templates: synset, source, target, SCORES, selected; scores[i] are those of template i."""
    tables = []
    for i, one in enumerate(scores):
        columns = {name: one[name] for name in SCORES} | {"selected": edge_rule(one["dist"], one["iou"], i)}
        tables.append(pd.DataFrame({"synset": synset, "source": ids[i], "target": ids, **columns}).drop(index=i))
    return pd.concat(tables, ignore_index=True)
