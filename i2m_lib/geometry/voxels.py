"""Solids as voxels of the cube [-1/2, 1/2]^3."""

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
