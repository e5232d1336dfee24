"""Choosing templates: the few shapes that, once deformed, cover all the others."""

from collections.abc import Sequence

import numpy as np
from joblib import Parallel, delayed

from i2m_lib.dataset.dataset import Mesh
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.registration import FFD_STIFFNESS
from i2m_lib.geometry.voxels import solid

from .fits import fit_shapes

# coverage: under the fitted distance; k_medoids: under Chamfer-L1 of the shapes as they are; random: for comparison.
CHOICES = ("coverage", "k_medoids", "random")
# A rough fit ranks candidates nearly as the full one does, at a third of the cost.
COARSE_SAMPLES, COARSE_STIFFNESS = 512, FFD_STIFFNESS[::2]


def choose_templates(
    meshes: list[Mesh], points: np.ndarray, sizes: Sequence[int], *, choice: str, seed: int, parallel: Parallel, spare=3
) -> list[np.ndarray]:
    """For each number of `sizes`, the indices of at most so many templates among S training meshes with samples points
    (S, k, 3), from one table of costs. Its candidates, `spare` for a template of the largest set, are spread by
    descriptor, so that the work grows with S and not with its square."""
    if min(sizes) >= len(meshes):
        return [np.arange(len(meshes))] * len(sizes)
    if choice == "random":
        order = np.random.default_rng(seed).permutation(len(meshes))
        return [order[:t] for t in sizes]
    candidates = spread(np.stack([descriptor(p) for p in points]), spare * max(sizes))
    cost, pick = (_fitted_costs, greedy_coverage) if choice == "coverage" else (_plain_costs, k_medoids)
    costs = np.array(parallel(delayed(cost)(meshes[i], points[:, :COARSE_SAMPLES], seed) for i in candidates))
    return [candidates[pick(costs, t)] for t in sizes]


def check_choice(choice: str) -> None:
    """Raises ValueError if the choice is none of CHOICES."""
    if choice not in CHOICES:
        raise ValueError(f"templates are chosen by one of {', '.join(CHOICES)}, not by {choice!r}.")


def _fitted_costs(mesh: Mesh, points: np.ndarray, seed: int) -> np.ndarray:
    return fit_shapes(mesh, points, seed, n_samples=COARSE_SAMPLES, stiffness=COARSE_STIFFNESS)["cost"]


def _plain_costs(mesh: Mesh, points: np.ndarray, seed: int) -> np.ndarray:
    # By the last samples: the first are among the points, and the mesh would be too near itself.
    return np.array([chamfer(mesh.S[-COARSE_SAMPLES:], Target.of(p)) for p in points])


def descriptor(points: np.ndarray, resolution: int = 12) -> np.ndarray:
    """A shape apart from its proportions, which any lattice fits: (resolution^3,) float32 voxels of its solid after
    stretching to a cube."""
    extent = np.ptp(points, axis=0)
    stretched = (points - points.min(0)) / np.where(extent > 0, extent, 1) - 0.5
    return solid(stretched, resolution).ravel().astype(np.float32)


def spread(features: np.ndarray, k: int) -> np.ndarray:
    """Indices of k rows of features (n, m): the medoid, then always the row farthest from those chosen."""
    squared = (features**2).sum(1)
    distances = squared[:, None] + squared - 2 * features @ features.T
    chosen = [int(distances.sum(1).argmin())]
    while len(chosen) < min(k, len(features)):
        chosen.append(int(distances[chosen].min(0).argmax()))
    return np.array(chosen)


def greedy_coverage(costs: np.ndarray, k: int) -> np.ndarray:
    """Indices of k rows of costs (candidates, shapes), best first. Each step adds the row that lowers most the sum over
    shapes of the lowest chosen cost. From a start where every shape costs as much as the costliest, k rows lower it by
    at least 1 - 1/e of what the best k would (Nemhauser et al., 1978)."""
    chosen, best = [], np.full(costs.shape[1], np.inf)
    for _ in range(min(k, len(costs))):
        totals = np.minimum(costs, best).sum(1)
        totals[chosen] = np.inf
        chosen.append(int(totals.argmin()))
        best = np.minimum(best, costs[chosen[-1]])
    return np.array(chosen)


def k_medoids(costs: np.ndarray, k: int) -> np.ndarray:
    """The rows of `greedy_coverage`, improved by swaps of one row as long as one lowers the sum (PAM)."""
    chosen = greedy_coverage(costs, k)
    total = costs[chosen].min(0).sum()
    while True:
        others = (np.delete(costs[chosen], slot, 0).min(0, initial=np.inf) for slot in range(len(chosen)))
        swaps = np.array([np.minimum(costs, rest).sum(1) for rest in others])
        slot, row = np.unravel_index(swaps.argmin(), swaps.shape)
        if swaps[slot, row] >= total * (1 - 1e-9):
            return chosen
        chosen[slot], total = row, swaps[slot, row]
