"""Solids as voxels of the cube [-1/2, 1/2]^3, and the share that two of them have in common."""

import numpy as np


def solid(points: np.ndarray, resolution: int) -> np.ndarray:
    """Voxels (r, r, r) bool of the cube [-1/2, 1/2]^3 that samples (n, 3) of a surface enclose.

    The mesh need not be watertight: a voxel is inside if along each of the three axes it lies between the first and
    the last voxel that the surface meets.
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


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union, 0..1, of two masks, grids or lists of bool of one shape; 0 where both are empty."""
    return float((a & b).sum() / max((a | b).sum(), 1))
