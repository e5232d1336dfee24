"""Models that are in two splits under two names, found by geometry: they would measure memory.

A short descriptor finds candidates; chamfer-L1 between samples decides. Each surface is sampled twice, and

    ratio = mean of d(A1,B2), d(A2,B1)  over  floor = mean of d(A1,A2), d(B1,B2)

is 1 in expectation for one surface under two names, whatever its area and the number of samples, with a standard
deviation of 0.6 % at N_SAMPLES (105 models of six categories). A surface that is off by delta everywhere has a ratio
near sqrt(1 + (delta / floor)^2): THRESHOLD takes in copies that are off by 3/4 of a floor, 0.5 % of the diagonal.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.surfaces import Surface, sample_surface

from .splits import SPLITS, hashed

N_SAMPLES = 4096  # in each of the two samplings
THRESHOLD = 1.25
N_CANDIDATES = 4
N_AXES = 12
REACH = 0.03  # root mean square of two descriptors' difference, beyond which a pair is no candidate
COLUMNS = dict.fromkeys(("model_id", "split", "other", "other_split"), "string")
COLUMNS |= dict.fromkeys(("distance", "floor", "ratio"), float) | {"near_duplicate": bool}
PROBES = np.stack(np.meshgrid(*[(np.arange(4) - 1.5) / 4] * 3), axis=-1).reshape(-1, 3)


def descriptor(S: np.ndarray) -> np.ndarray:
    """(64,) float32: the distance from each point of a grid in the canonical frame to the nearest of the samples S
    (N_SAMPLES,3). Entries of two shapes differ by no more than the Hausdorff distance of the shapes."""
    return Target.of(S).tree.query(PROBES)[0].astype(np.float32)


def find_near_duplicates(
    model_ids: Sequence[str], splits: Sequence[str], descriptors: np.ndarray, mesh_of: Callable[[str], Surface]
) -> pd.DataFrame:
    """A row for each test model and candidate of train or val, and each val model and candidate of train: the
    N_CANDIDATES with the nearest `descriptors` (n,64), within REACH and of any category. Columns: model_id, split,
    other, other_split, distance (chamfer-L1 in canonical units), floor, ratio, near_duplicate (ratio <= THRESHOLD).
    `mesh_of` gives V (n,3), F (m,3) in the canonical frame. Depends on its arguments alone."""

    @lru_cache(maxsize=1024)
    def sampled(model_id: str) -> tuple[Target, Target, float]:
        rng, mesh = np.random.default_rng(hashed("leakage", model_id)), mesh_of(model_id)
        first, second = (Target.of(sample_surface(*mesh, N_SAMPLES, rng)[0]) for _ in range(2))
        return first, second, chamfer(first, second)

    rows = []
    for i, j in _candidates(np.array(splits), descriptors):
        a1, a2, floor_a = sampled(model_ids[i])
        b1, b2, floor_b = sampled(model_ids[j])
        distance, floor = (chamfer(a1, b2) + chamfer(a2, b1)) / 2, (floor_a + floor_b) / 2
        names = (model_ids[i], splits[i], model_ids[j], splits[j])
        rows.append((*names, distance, floor, distance / floor, distance <= THRESHOLD * floor))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def near_duplicate_of(table: pd.DataFrame) -> dict[str, str]:
    """{near-duplicate: the model that it equals} in a table of `find_near_duplicates`: one of train rather than of val,
    as training on it does more harm, and then the one of the smallest ratio."""
    found = table[table.near_duplicate].assign(order=table.other_split.map(SPLITS.index))
    first = found.sort_values(["order", "ratio", "other"]).drop_duplicates("model_id")
    return dict(zip(first.model_id, first.other, strict=True))


def _candidates(splits: np.ndarray, descriptors: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, j) of rows, i of a later split than j: j among the nearest to i."""
    centred = descriptors.astype(np.float64) - descriptors.mean(0)
    # A KD-tree of few dimensions need not visit all points; these hold 98 % of the variance.
    points = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -N_AXES:]
    pairs = []
    for k, split in enumerate(SPLITS[1:], start=1):
        late, early = np.flatnonzero(splits == split), np.flatnonzero(np.isin(splits, SPLITS[:k]))
        n = min(N_CANDIDATES, len(early))
        if not len(late) or not n:
            continue
        reach = REACH * np.sqrt(descriptors.shape[1])  # bounds the search in a large corpus
        _, near = cKDTree(points[early]).query(points[late], k=range(1, n + 1), distance_upper_bound=reach)
        pairs += [(i, early[j]) for i, row in zip(late, near, strict=True) for j in row if j < len(early)]
    return pairs
