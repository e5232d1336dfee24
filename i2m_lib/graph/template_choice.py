"""Choosing templates: the few shapes that, once deformed, cover all the others."""

import numpy as np
from joblib import Parallel, delayed

from i2m_lib.dataset.dataset import Mesh
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.registration import FFD_STIFFNESS, fit_cost, fit_ffd
from i2m_lib.geometry.source_mesh import Source
from i2m_lib.geometry.voxels import solid

# coverage: under the fitted distance; k_medoids: under Chamfer-L1 of the shapes as they are; random: for comparison.
CHOICES = ("coverage", "k_medoids", "random")
# A rough fit ranks candidates nearly as the full one does, at a third of the cost.
COARSE_SAMPLES, COARSE_STIFFNESS = 512, FFD_STIFFNESS[::2]
CANDIDATES_PER_TEMPLATE = 3


def choose_templates(
    meshes: list[Mesh], points: np.ndarray, n: int, *, choice: str, seed: int, parallel: Parallel
) -> np.ndarray:
    """Indices of at most n templates among S training meshes, with samples points (S, k, 3).

    Candidates are spread by descriptor, so that the work grows with S, not its square.

    Raises:
        ValueError: the choice is none of CHOICES.
    """
    check_choice(choice)
    if len(meshes) <= n:
        return np.arange(len(meshes))
    if choice == "random":
        return np.random.default_rng(seed).permutation(len(meshes))[:n]
    candidates = spread(np.stack([descriptor(p) for p in points]), CANDIDATES_PER_TEMPLATE * n)
    costs = candidate_costs([meshes[i] for i in candidates], points, choice=choice, seed=seed, parallel=parallel)
    return candidates[(greedy_coverage if choice == "coverage" else k_medoids)(costs, n)]


def check_choice(choice: str) -> None:
    """Raises ValueError if the choice is none of CHOICES."""
    if choice not in CHOICES:
        raise ValueError(f"templates are chosen by one of {', '.join(CHOICES)}, not by {choice!r}.")


def candidate_costs(
    meshes: list[Mesh], points: np.ndarray, *, choice: str, seed: int, parallel: Parallel
) -> np.ndarray:
    """Costs (candidates, S) of answering with each mesh for each shape of points (S, k, 3): Chamfer-L1 after a rough
    fit for the choice "coverage", as they are otherwise."""
    row, coarse = _fitted_costs if choice == "coverage" else _plain_costs, points[:, :COARSE_SAMPLES]
    return np.array(parallel(delayed(row)(mesh, coarse, seed) for mesh in meshes))


def _fitted_costs(mesh: Mesh, points: np.ndarray, seed: int) -> np.ndarray:
    source = Source.of(mesh.V, mesh.F, rng=np.random.default_rng(seed), n_samples=COARSE_SAMPLES)
    targets = [Target.of(p) for p in points]
    return np.array([fit_cost(source, fit_ffd(source, t, COARSE_STIFFNESS), t) for t in targets])


def _plain_costs(mesh: Mesh, points: np.ndarray, seed: int) -> np.ndarray:
    # Not the first samples, which are among the points: a shape would be too near itself.
    return np.array([chamfer(mesh.S[-COARSE_SAMPLES:], Target.of(p)) for p in points])


def descriptor(points: np.ndarray, resolution: int = 12) -> np.ndarray:
    """What a shape looks like apart from its proportions: its solid voxels after stretching to a cube, flattened.

    A lattice can take up any difference in proportions, so they must not separate shapes here.
    """
    extent = np.ptp(points, axis=0)
    stretched = (points - points.min(0)) / np.where(extent > 0, extent, 1) - 0.5
    return solid(stretched, resolution).ravel().astype(np.float32)


def spread(features: np.ndarray, k: int) -> np.ndarray:
    """Indices of k rows of features (n, m) that represent the rest: the medoid, then always the row farthest from
    those chosen."""
    squared = (features**2).sum(1)
    distances = squared[:, None] + squared - 2 * features @ features.T
    chosen = [int(distances.sum(1).argmin())]
    while len(chosen) < min(k, len(features)):
        chosen.append(int(distances[chosen].min(0).argmax()))
    return np.array(chosen)


def greedy_coverage(costs: np.ndarray, k: int) -> np.ndarray:
    """Indices of k rows of costs (candidates, shapes), best first, so that the sum over shapes of the lowest chosen
    cost is small: each step adds the row that lowers it most, which is within 1 - 1/e of the best possible gain."""
    chosen, best = [], np.full(costs.shape[1], np.inf)
    for _ in range(min(k, len(costs))):
        totals = np.minimum(costs, best).sum(1)
        totals[chosen] = np.inf
        chosen.append(int(totals.argmin()))
        best = np.minimum(best, costs[chosen[-1]])
    return np.array(chosen)


def k_medoids(costs: np.ndarray, k: int) -> np.ndarray:
    """Like `greedy_coverage`, whose answer it improves by swapping rows as long as a swap lowers the sum."""
    chosen = greedy_coverage(costs, k)
    total = costs[chosen].min(0).sum()
    while True:
        swaps = []
        for slot in range(len(chosen)):
            others = np.delete(costs[chosen], slot, 0).min(0, initial=np.inf)
            swaps.append(np.minimum(costs, others).sum(1))
        slot, row = np.unravel_index(np.argmin(swaps), (len(chosen), len(costs)))
        if swaps[slot][row] >= total * (1 - 1e-9):
            return chosen
        chosen[slot], total = row, swaps[slot][row]
