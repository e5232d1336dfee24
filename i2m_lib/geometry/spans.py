"""Triangles of the plane cut into rows, which is how silhouettes and inside tests meet many points at once."""

import numpy as np


def ranges(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The whole numbers start[i], start[i] + 1, ... of each i, `count` (n,) of them: i and number, all in one row."""
    i = np.repeat(np.arange(len(start)), count)
    return i, np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count) + start[i]


def spans(corners: np.ndarray, first: np.ndarray, n_rows: np.ndarray, height: int) -> tuple[np.ndarray, ...]:
    """Where triangles (m, 3, 2) meet rows v = first, first + 1, ..., `n_rows` (m,) of them, each `height` high, 0 or 1.

    Returns:
        triangle, row, and the least and largest u of their common part, inf and -inf where there is none.
    """
    triangle, row = ranges(first, n_rows)
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for i in range(3):
        p, q = corners[:, i], corners[:, (i + 1) % 3]
        rise = q[:, 1] - p[:, 1]
        slope = ((q[:, 0] - p[:, 0]) / np.where(rise == 0, 1, rise))[triangle]
        low, high = np.minimum(p[:, 1], q[:, 1])[triangle], np.maximum(p[:, 1], q[:, 1])[triangle]
        meets = (low <= row + height) & (high >= row) & (rise != 0)[triangle]
        for v in (np.maximum(low, row), np.minimum(high, row + height)) if height else (row,):
            u = p[triangle, 0] + (v - p[triangle, 1]) * slope
            left = np.where(meets, np.minimum(left, u), left)
            right = np.where(meets, np.maximum(right, u), right)
    return triangle, row, left, right
