"""Inside or outside: the winding number of solids, and the volume that two of them share.

The inside test of every IoU here: a point is inside where the winding number of the surface around it is not zero. For
a surface that bounds a solid (`as_solid`) it is a whole number, and it is right where parts overlap, which counting
crossings by odd and even is not. Other surfaces are refused.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .spans import ranges, spans
from .surfaces import Surface, bounds_solid, cross_products, edge_keys, merged
from .voxels import mask_iou

POINTS_PER_STRIP = 700


def volumetric_iou(A: Surface | None, B: Surface | None, n: int, rng: np.random.Generator) -> float:
    """Intersection over union of the volumes in two solids (`as_solid`), 0..1, by n points uniform in the box around
    both; NaN where one of them is None. Standard error about sqrt(iou (1 - iou) / points in the union)."""
    if A is None or B is None:
        return np.nan
    corners = np.concatenate([V[F].reshape(-1, 3) for V, F in (A, B)])
    points = rng.uniform(corners.min(0), corners.max(0), (n, 3))
    return mask_iou(*(winding(V, F, points) != 0 for V, F in (A, B)))


def as_solid(V: np.ndarray, F: np.ndarray) -> Surface | None:
    """The solid that V (n, 3), F (m, 3) bound, or None if they bound none (`surfaces.bounds_solid`).

    Equal positions are merged if the surface is closed only then, as in STL, flat-shaded GLB and OBJ with seams.
    Connected parts are turned outwards, as parts that overlap would cancel if they were turned to different sides. A
    part inside another one keeps its orientation relative to that one, so that a cavity stays empty.
    """
    if not bounds_solid(F):
        V, F = merged(V, F)
        if not len(F) or not bounds_solid(F):
            return None
    a, b = (np.argsort(edge_keys(F)[0]) // 3).reshape(-1, 2).T  # each edge has two faces
    _, part = connected_components(coo_array((np.ones(len(a)), (a, b)), (len(F), len(F))), directed=False)
    volume = np.bincount(part, np.linalg.det((V - V.mean(0))[F]))
    if (volume < 0).any() and (volume > 0).any():
        # Exchanging two corners, not reversing all three, changes signs in `winding` but no digit.
        F = np.where(_turned(V, F, part, volume)[part, None], F[:, [0, 2, 1]], F)
    return V, F


def _turned(V: np.ndarray, F: np.ndarray, part: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """Which parts of signed `volume` (p,) are to be turned: as the smallest part around them, if there is one."""
    vertices = [V[np.unique(F[part == i])] for i in range(len(volume))]
    low, high = (np.array([f(X, axis=0) for X in vertices]) for f in (np.min, np.max))
    order, around, turned = np.argsort(-np.abs(volume)), np.full(len(volume), -1), volume < 0
    for k, outer in enumerate(order):  # from large to small, so that the smallest part around another comes last
        if around[outer] >= 0:
            turned[outer] = turned[around[outer]]
        rest = order[k + 1 :]
        rest = rest[((low[rest] >= low[outer]) & (high[rest] <= high[outer])).all(1)]
        if len(rest):
            w = winding(V, F[part == outer], np.concatenate([vertices[i] for i in rest]))
            outside = np.repeat(rest, [len(vertices[i]) for i in rest])[w == 0]
            around[np.setdiff1d(rest, outside)] = outer
    return turned


def winding(V: np.ndarray, F: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Winding numbers (n,) int of the solid V (k, 3), F (m, 3) around points X (n, 3): 1 inside, if its faces are
    turned outwards, and 0 outside.

    A ray from each point along one axis counts +1 for each face that it leaves the solid by and -1 for each that it
    enters by. Points are sorted into thin strips and along them, so that a face meets whole runs of points.
    """
    # Along the axis that the faces are turned to least, a ray meets fewest of them.
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
    return np.bincount(point[below], np.where(out[below], 1.0, -1.0), len(X)).astype(np.int64)


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
