"""The edges of the template graph: how well each template, deformed, lies on each other, and which pairs are joined.

There is an edge i -> j if V_ij lies on j, by Dist and by IoU of the solids, or if j is among the three best for i.
"""

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from i2m_lib.dataset.dataset import Mesh
from i2m_lib.geometry.nearest import chamfer_l1, dist, distances
from i2m_lib.geometry.registration import Registration
from i2m_lib.geometry.source_mesh import Source, sampling_matrix
from i2m_lib.geometry.voxels import mask_iou, solid

# METHOD section 3: an edge needs Dist at the squared distance FAR below MAX_DIST, and IoU above MIN_IOU.
FAR, MAX_DIST, MIN_IOU, MIN_EDGES = 3e-3, 0.035, 0.25, 3
N_DENSE, RESOLUTION = 16384, 32  # samples of a surface for its solid, and voxels along an axis
SCORES = ("dist", "iou", "residual", "flipped", "collapsed")


def edge_rule(dist: np.ndarray, iou: np.ndarray, i: int) -> np.ndarray:
    """(T,) bool: the templates that template i has an edge to, by dist (T,) in 0..2 and iou (T,) in 0..1."""
    others = np.delete(np.arange(len(dist)), i)
    selected = (dist < MAX_DIST) & (iou > MIN_IOU)
    selected[others[np.lexsort((-iou[others], dist[others]))][:MIN_EDGES]] = True
    selected[i] = False
    return selected


def score_edges(source: Source, found: list[Registration], targets: list, solids: list, seed: int) -> dict:
    """SCORES (T,) of the correspondences `found` from a template to T targets: Dist, IoU of the solids of V_ij and j,
    Chamfer-L1 in canonical units, and the shares of faces that turned over and that collapsed."""
    dense, rows = dense_samples(source, seed), []
    for r, target, other in zip(found, targets, solids, strict=True):
        d, iou = distances(source.A @ r.V, target), mask_iou(solid(dense @ r.V, RESOLUTION), other)
        rows.append((dist(*d, FAR), iou, chamfer_l1(*d), r.flipped, r.collapsed))
    return dict(zip(SCORES, np.array(rows).T, strict=True))


def dense_samples(shape: Mesh | Source, seed: int) -> csr_matrix:
    """(N_DENSE, n): takes the shape's vertices, moved or not, to samples of its surface, which make its solid."""
    return sampling_matrix(shape.V, shape.F, N_DENSE, np.random.default_rng(seed))


def edge_table(synset: str, ids: list[str], scores: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    """All ordered pairs of T templates: synset, source, target, SCORES and selected; scores[i] are those from i."""
    tables = []
    for i, one in enumerate(scores):
        columns = {name: one[name] for name in SCORES} | {"selected": edge_rule(one["dist"], one["iou"], i)}
        tables.append(pd.DataFrame({"synset": synset, "source": ids[i], "target": ids, **columns}).drop(index=i))
    return pd.concat(tables, ignore_index=True)
