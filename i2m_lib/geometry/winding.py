"""Inside or outside: the winding number of solids, and the volume that two of them share.

The inside test of every IoU here: a point is inside where the winding number of the surface around it is not zero. For
a surface that bounds a solid (see `surfaces.why_not_solid`) it is a whole number, whichever way its faces point, and it
is right where parts overlap, which counting crossings by odd and even is not. Other surfaces are refused.
"""

import numpy as np

from .surfaces import Surface, cross_products, why_not_solid

POINTS_PER_STRIP = 700


def volumetric_iou(A: Surface, B: Surface, n: int, rng: np.random.Generator) -> float:
    """Intersection over union of the volumes in two solids, 0..1, by n points uniform in the box around both.

    NaN where one of them is no solid. Standard error about sqrt(iou (1 - iou) / points in the union).
    """
    if why_not_solid(A[1]) or why_not_solid(B[1]):
        return np.nan
    corners = np.concatenate([V[F].reshape(-1, 3) for V, F in (A, B)])
    points = rng.uniform(corners.min(0), corners.max(0), (n, 3))
    a, b = (winding(V, F, points) != 0 for V, F in (A, B))
    return float((a & b).sum() / max((a | b).sum(), 1))


def winding(V: np.ndarray, F: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Winding numbers (n,) int of the solid V (k, 3), F (m, 3) around points X (n, 3): 1 inside, if its faces are
    turned outwards, and 0 outside.

    A ray from each point along one axis counts +1 for each face that it leaves the solid by and -1 for each that it
    enters by. Points are sorted into thin strips and along them, so that a face meets whole runs of points.
    """
    # Along the axis that faces turn to least, a ray meets fewest of them.
    axis = int(np.abs(cross_products(V, F)).sum(0).argmin())
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
    signs = np.where(out[below], 1.0, -1.0)
    return np.bincount(point[below], signs, len(X)).astype(np.int64)


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
    at = (X[:, :2] - low) / extent
    near = np.flatnonzero(((at >= 0) & (at < 1)).all(1))
    n_strips = max(1, len(near) // POINTS_PER_STRIP)
    u, strip = at[near, 0], (at[near, 1] * n_strips).astype(np.int64)
    # One number orders by strip and, within it, along the strip.
    key = 2 * strip + u
    order = np.argsort(key)
    key, near = key[order], near[order]
    corners = (V[F][..., :2] - low) / extent * [1, n_strips]
    face, row, left, right = _spans(corners, n_strips)
    start = np.searchsorted(key, 2 * row + left - 1e-9)
    count = np.maximum(np.searchsorted(key, 2 * row + right + 1e-9) - start, 0)
    face = np.repeat(face, count)
    position = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(start, count)
    return face, near[position]


def _spans(corners: np.ndarray, n_strips: int) -> tuple[np.ndarray, ...]:
    """Each triangle (m, 3, 2) cut into strips v in [row, row + 1]: triangle, row, and the least and largest u."""
    first = np.floor(corners[..., 1].min(1)).astype(np.int64)
    n_rows = np.minimum(np.floor(corners[..., 1].max(1)).astype(np.int64), n_strips - 1) - first + 1
    triangle = np.repeat(np.arange(len(corners)), n_rows)
    row = np.arange(len(triangle)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows) + first[triangle]
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for i in range(3):
        p, q = corners[:, i], corners[:, (i + 1) % 3]
        rise = q[:, 1] - p[:, 1]
        safe = np.where(rise == 0, 1, rise)
        low, high = np.minimum(p[:, 1], q[:, 1])[triangle], np.maximum(p[:, 1], q[:, 1])[triangle]
        meets = (low <= row + 1) & (high >= row) & (rise != 0)[triangle]
        for v in (np.maximum(low, row), np.minimum(high, row + 1)):
            u = p[triangle, 0] + (v - p[triangle, 1]) * ((q[:, 0] - p[:, 0]) / safe)[triangle]
            left = np.where(meets, np.minimum(left, u), left)
            right = np.where(meets, np.maximum(right, u), right)
    return triangle, row, left, right
