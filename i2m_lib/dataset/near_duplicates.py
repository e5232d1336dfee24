"""Models that stand in two splits under two names: found by geometry, so that a test tests.

A short descriptor finds candidates; chamfer-L1 between samples decides. Two samplings of one surface
are never equal, so a pair is judged against its own floor: each surface is sampled twice, and

    ratio = mean of d(A1,B2), d(A2,B1)  over  mean of d(A1,A2), d(B1,B2)

is 1 in expectation for one surface under two names, whatever its area and the number of samples. At
N_SAMPLES its standard deviation is 0.6 % there (105 models of six categories), so no resampling comes
near THRESHOLD. A surface that is off by delta everywhere has a ratio near sqrt(1 + (delta / floor)^2):
the threshold takes in copies that are off by 3/4 of a floor, about half a percent of the diagonal.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from i2m_lib.files import save_parquet
from i2m_lib.geometry.surfaces import sample_surface

from .source import ModelSource
from .splits import SPLITS, hashed

N_SAMPLES = 4096  # in each of the two samplings
THRESHOLD = 1.25
N_CANDIDATES = 4
N_AXES = 12
REACH = 0.03  # root mean square of two descriptors' difference, beyond which a pair is no candidate
COLUMNS = ["model_id", "split", "other", "other_split", "distance", "floor", "ratio", "near_duplicate"]
PROBES = np.stack(np.meshgrid(*[(np.arange(4) - 1.5) / 4] * 3), axis=-1).reshape(-1, 3)


def descriptor(S: np.ndarray) -> np.ndarray:
    """(64,) float32: the distance from each point of a grid in the canonical frame to the nearest
    of the samples S (N_SAMPLES,3). No entry moves by more than the Hausdorff distance of two shapes."""
    return cKDTree(S).query(PROBES)[0].astype(np.float32)


def mark_near_duplicates(
    sources: Sequence[ModelSource],
    rows: Sequence[dict],
    descriptors: Sequence[np.ndarray],
    splits: dict[str, str],
    out: Path,
    *,
    drop: bool,
) -> None:
    """Audits the finished meshes of `out`, writes near_duplicates.parquet there and puts
    near_duplicate_of into the models' `rows`. The mark is on the test or val model, never on train.
    `drop` gives those of test the status 'dropped': they keep their split and mesh, but no views,
    and no room after this one uses them. Those of val are only marked."""
    paths = {s.model_id: out / "meshes" / s.synset / f"{s.model_id}.npz" for s in sources}

    def mesh_of(model_id: str) -> tuple[np.ndarray, np.ndarray]:
        with np.load(paths[model_id], allow_pickle=False) as arrays:
            return arrays["V"].astype(np.float64), arrays["F"]

    model_ids = [s.model_id for s in sources]
    table = find_near_duplicates(model_ids, [splits[i] for i in model_ids], np.stack(descriptors), mesh_of)
    save_parquet(out / "near_duplicates.parquet", table)
    other = near_duplicate_of(table)
    for source, row in zip(sources, rows, strict=True):
        if source.model_id not in other:
            continue
        row["near_duplicate_of"] = twin = other[source.model_id]
        if drop and splits[source.model_id] == "test":
            row |= {"status": "dropped", "reason": f"a near-duplicate of {twin} in {splits[twin]}"}


def find_near_duplicates(
    model_ids: Sequence[str],
    splits: Sequence[str],
    descriptors: np.ndarray,
    mesh_of: Callable[[str], tuple[np.ndarray, np.ndarray]],
) -> pd.DataFrame:
    """A row for each test model and candidate of train or val, and each val model and candidate of
    train: the N_CANDIDATES with the nearest `descriptors` (n,64), within REACH and of any category. Columns: model_id,
    split, other, other_split, distance (chamfer-L1 in canonical units), floor, ratio, near_duplicate
    (ratio <= THRESHOLD).
    `mesh_of` gives V (n,3), F (m,3) in the canonical frame. Depends on its arguments alone."""

    @lru_cache(maxsize=1024)
    def sampled(model_id: str) -> tuple[tuple, tuple, float]:
        rng = np.random.default_rng(hashed("leakage", model_id))
        V, F = mesh_of(model_id)
        first, second = ((S, cKDTree(S)) for S in (sample_surface(V, F, N_SAMPLES, rng)[0] for _ in range(2)))
        return first, second, _chamfer(first, second)

    rows = []
    for i, j in _candidates(np.array(splits), descriptors):
        a1, a2, floor_a = sampled(model_ids[i])
        b1, b2, floor_b = sampled(model_ids[j])
        distance, floor = (_chamfer(a1, b2) + _chamfer(a2, b1)) / 2, (floor_a + floor_b) / 2
        names = (model_ids[i], splits[i], model_ids[j], splits[j])
        rows.append((*names, distance, floor, distance / floor, distance <= THRESHOLD * floor))
    types = {"distance": float, "floor": float, "ratio": float, "near_duplicate": bool}
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[:4], "string") | types)


def near_duplicate_of(table: pd.DataFrame) -> dict[str, str]:
    """The id for each near-duplicate in a table of `find_near_duplicates`: of train rather than val,
    as train leaks more, and then the one of the smallest ratio."""
    found = table[table.near_duplicate]
    found = found.assign(order=found.other_split.map(SPLITS.index)).sort_values(["order", "ratio", "other"])
    first = found.drop_duplicates("model_id")
    return dict(zip(first.model_id, first.other, strict=True))


def _chamfer(a: tuple[np.ndarray, cKDTree], b: tuple[np.ndarray, cKDTree]) -> float:
    """Mean of the two directed mean distances between samples with their trees."""
    return (a[1].query(b[0])[0].mean() + b[1].query(a[0])[0].mean()) / 2


def _principal(descriptors: np.ndarray) -> np.ndarray:
    """(n,N_AXES) coordinates along the principal axes: neighbours stay neighbours, for the axes hold 98 % of
    the variance, no pair within REACH leaves it, and a KD-tree of few dimensions need not visit all points."""
    centred = descriptors.astype(np.float64) - descriptors.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return centred @ axes[:, -N_AXES:]


def _candidates(splits: np.ndarray, descriptors: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, j) of rows, i of a later split than j: j among the nearest to i."""
    pairs, points = [], _principal(descriptors)
    for k, split in enumerate(SPLITS[1:], start=1):
        late, early = np.flatnonzero(splits == split), np.flatnonzero(np.isin(splits, SPLITS[:k]))
        n = min(N_CANDIDATES, len(early))
        if not len(late) or not n:
            continue
        reach = REACH * np.sqrt(descriptors.shape[1])  # keeps the search from all of a large corpus
        _, nearest = cKDTree(points[early]).query(points[late], k=n, distance_upper_bound=reach)
        near = nearest.reshape(-1, n)
        pairs += [(i, early[j]) for i, row in zip(late, near, strict=True) for j in row if j < len(early)]
    return pairs
