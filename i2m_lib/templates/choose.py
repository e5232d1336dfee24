"""Choosing templates: the few shapes that, once deformed, cover all the others."""

import numpy as np


def solid(points: np.ndarray, resolution: int) -> np.ndarray:
    """Voxels (r, r, r) bool of the cube [-1/2, 1/2]^3 that samples (n, 3) of a surface enclose.

    The inside test needs no watertight mesh: a voxel is inside if along each of the three axes it lies between
    the first and the last voxel that the surface meets.
    """
    grid = np.zeros((resolution,) * 3, dtype=bool)
    cells = np.clip(((points + 0.5) * resolution).astype(int), 0, resolution - 1)
    grid[tuple(cells.T)] = True
    inside = np.ones_like(grid)
    for axis in range(3):
        after = np.maximum.accumulate(grid, axis)
        before = np.flip(np.maximum.accumulate(np.flip(grid, axis), axis), axis)
        inside &= after & before
    return inside | grid


def voxel_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two voxel grids."""
    return float((a & b).sum() / max((a | b).sum(), 1))


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
