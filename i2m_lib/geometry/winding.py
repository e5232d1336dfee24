"""Signed crossings: how often rays from points leave a surface more than they enter it, and so what lies in a solid."""

import numpy as np

from .spans import ranges, spans
from .surfaces import cross_products

POINTS_PER_STRIP = 700


def winding(V: np.ndarray, F: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Winding numbers (n,) int of the solid V (k, 3), F (m, 3) around points X (n, 3): 1 inside, if its faces are
    turned outwards, and 0 outside."""
    # Along the axis that the faces are turned to least, a ray meets fewest of them.
    return crossings(V, F, X, int(np.abs(cross_products(V, F)).sum(0).argmin()))[0]


def crossings(V: np.ndarray, F: np.ndarray, X: np.ndarray, axis: int) -> np.ndarray:
    """(2, n) int: of the two rays from each point X (n, 3) up and down an axis, how many more faces of V (k, 3),
    F (m, 3) it leaves by than it enters by. Both are the winding number if the surface bounds a solid.

    Points are sorted into thin strips and along them, so that a face meets whole runs of points.
    """
    order = [(axis + 1) % 3, (axis + 2) % 3, axis]
    V, X = V[:, order], X[:, order]
    normals = cross_products(V, F)
    F, normals = F[normals[:, 2] != 0], normals[normals[:, 2] != 0]
    face, point = _candidates(V, F, X)
    x, y = X[point, 0], X[point, 1]
    out = normals[face, 2] > 0
    hit = np.ones(len(face), bool)
    for i in range(3):
        hit &= _left_of_edge(V[F[:, i]], V[F[:, (i + 1) % 3]], face, x, y) == out
    face, point, out = face[hit], point[hit], out[hit]
    offset = np.einsum("mk,mk->m", normals, V[F[:, 0]])
    below = (np.einsum("nk,nk->n", normals[face], X[point]) < offset[face]) == out
    sign = np.where(out, 1.0, -1.0)
    up, down = (np.bincount(point[at], sign[at], len(X)) for at in (below, ~below))
    return np.stack([up, -down]).astype(np.int64)


def _left_of_edge(p: np.ndarray, q: np.ndarray, face: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether (x, y) lies left of the edge from p to q of its face: of two faces at an edge, exactly one says yes."""
    # The two faces see each coefficient with opposite signs and the same digits.
    a, b, c = p[:, 1] - q[:, 1], q[:, 0] - p[:, 0], p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]
    side = a[face] * x + b[face] * y + c[face]
    on = np.flatnonzero(side == 0)
    side[on] = np.where(a != 0, a, b)[face[on]]
    return side > 0


def _candidates(V: np.ndarray, F: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (face, point) that hold every point seen within a face along the last axis, and few others."""
    low, extent = V.min(0)[:2], np.ptp(V, axis=0)[:2] * (1 + 1e-9)
    extent[extent == 0] = 1  # a flat part holds no point
    at = (X[:, :2] - low) / extent
    near = np.flatnonzero(((at >= 0) & (at < 1)).all(1))
    n_strips = max(1, len(near) // POINTS_PER_STRIP)
    # One number orders by strip and, within it, along the strip.
    key = 2 * (at[near, 1] * n_strips).astype(np.int64) + at[near, 0]
    order = np.argsort(key)
    key, near = key[order], near[order]
    corners = (V[F][..., :2] - low) / extent * [1, n_strips]
    first = np.floor(corners[..., 1].min(1)).astype(np.int64)
    last = np.minimum(np.floor(corners[..., 1].max(1)).astype(np.int64), n_strips - 1)
    face, row, left, right = spans(corners, first, last - first + 1, 1)
    start = np.searchsorted(key, 2 * row + left - 1e-9)
    count = np.maximum(np.searchsorted(key, 2 * row + right + 1e-9) - start, 0)
    span, position = ranges(start, count)
    return face[span], near[position]
