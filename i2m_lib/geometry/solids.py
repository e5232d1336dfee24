"""Solids: which points lie inside of a surface, and the volume that two of them share.

A surface that bounds a solid is closed: inside is where its winding number is not zero, a whole number that is right
where parts overlap, which counting crossings by odd and even is not. Most models are parts put together, with faces
missing where parts meet and faces turned either way. Such a surface is turned outwards by what its sides see (Takayama
et al. 2014), and inside is where most of six rays say so (Nooruddin and Turk 2003, but by signed crossings). Six other
rays tell whether there is an inside: if they change more than MOST_CHANGED of its volume, the surface is refused.
"""

from dataclasses import dataclass

import igl
import numpy as np
import point_cloud_utils as pcu
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from .surfaces import bounds_solid, cross_products, edge_keys, merged
from .voxels import mask_iou
from .winding import crossings, winding

# Rays run along no axis or diagonal, or those in a board without its narrow sides would leave it by these.
TILT, OTHER_TILT = Rotation.from_rotvec([[1.0, 0.7, 0.4], [-0.5, 0.9, 1.4]]).as_matrix()
# Volumes of boxes and balls with holes are then off by 5 % at most, and a box without its lid is refused.
N_PROBES, MOST_CHANGED = 20_000, 0.03
RAYS_PER_FACE, FAR = 8, 10.0  # a ray that meets nothing sees this many diagonals far


@dataclass(frozen=True)
class Solid:
    """A surface V (k, 3), F (m, 3) with an inside, and whether it is closed."""

    V: np.ndarray
    F: np.ndarray
    closed: bool = True

    def contains(self, X: np.ndarray) -> np.ndarray:
        """Whether each of the points X (n, 3) is inside."""
        if self.closed:
            return winding(self.V, self.F, X) != 0
        corners, n = self.V[self.F].reshape(-1, 3), np.zeros(len(X), np.int64)
        near = np.flatnonzero(((corners.min(0) <= X) & (corners.max(0) >= X)).all(1))
        n[near] = votes(self.V, self.F, X[near], axes=(0, 1))
        tied = np.flatnonzero((n > 0) & (n < 4))  # The last two rays change no other majority of six.
        n[tied] += votes(self.V, self.F, X[tied], axes=(2,))
        return n > 3


def volumetric_iou(A: Solid | None, B: Solid | None, n: int, rng: np.random.Generator) -> float:
    """Intersection over union of the volumes in two solids, 0..1, by n points uniform in the box around both; NaN where
    one of them is None. Standard error about sqrt(iou (1 - iou) / points in the union)."""
    if A is None or B is None:
        return np.nan
    corners = np.concatenate([solid.V[solid.F].reshape(-1, 3) for solid in (A, B)])
    points = rng.uniform(corners.min(0), corners.max(0), (n, 3))
    return mask_iou(A.contains(points), B.contains(points))


def as_solid(V: np.ndarray, F: np.ndarray) -> Solid | None:
    """The solid of a surface V (n, 3), F (m, 3), or None: one that is not closed is refused if six other rays
    change more than MOST_CHANGED of its volume, by N_PROBES points in its box.

    Equal positions are merged if the surface is closed only then, as in STL, flat-shaded GLB and OBJ with seams.
    Connected parts are turned outwards, as parts that overlap would cancel if they were turned to different sides. In a
    closed surface a part inside another one keeps its orientation relative to that one, so that a cavity stays empty.
    """
    if not bounds_solid(F):
        V, F = merged(V, F)
        if not len(F) or not bounds_solid(F):
            return _nearly_closed(V, F)
    a, b = (np.argsort(edge_keys(F)[0]) // 3).reshape(-1, 2).T  # each edge has two faces
    _, part = connected_components(coo_array((np.ones(len(a)), (a, b)), (len(F), len(F))), directed=False)
    volume = np.bincount(part, np.linalg.det((V - V.mean(0))[F]))
    if (volume < 0).any() and (volume > 0).any():
        # Exchanging two corners, not reversing all three, changes signs in `winding` but no digit.
        F = np.where(_turned(V, F, part, volume)[part, None], F[:, [0, 2, 1]], F)
    return Solid(V, F)


def _nearly_closed(V: np.ndarray, F: np.ndarray) -> Solid | None:
    F = outwards(V, F)
    if not len(F):
        return None
    X = np.random.default_rng(0).uniform(V[F].min((0, 1)), V[F].max((0, 1)), (N_PROBES, 3))
    solid, turned = Solid(V, F, closed=False), Solid(V @ OTHER_TILT, F, closed=False)
    inside, again = solid.contains(X), turned.contains(X @ OTHER_TILT)
    return solid if inside.any() and (inside != again).sum() <= MOST_CHANGED * inside.sum() else None


def votes(V: np.ndarray, F: np.ndarray, X: np.ndarray, axes: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """(n,) how many of the rays from points X (n, 3), two along each of the tilted axes, say that they are inside."""
    return sum((crossings(V @ TILT, F, X @ TILT, axis) != 0).sum(0) for axis in axes)


def outwards(V: np.ndarray, F: np.ndarray) -> np.ndarray:
    """The faces (m', 3) that have an area, each connected patch turned so that its front sees farther than its back:
    by RAYS_PER_FACE random rays from the middle of each face to either side, weighted by area."""
    F, patch = igl.bfs_orient(F[(cross_products(V, F) != 0).any(1)])
    normals, diagonal = cross_products(V, F), np.linalg.norm(np.ptp(V, axis=0))
    area = np.linalg.norm(normals, axis=1)
    rays = np.random.default_rng(0).normal(size=(len(F), RAYS_PER_FACE, 3))
    rays *= np.sign(np.einsum("mrk,mk->mr", rays, normals))[..., None] / np.linalg.norm(rays, axis=2, keepdims=True)
    rays, start, farther = rays.reshape(-1, 3), np.repeat(V[F].mean(1), RAYS_PER_FACE, axis=0), 0
    for side in (1, -1):
        away = side * 1e-5 * diagonal * np.repeat(normals / area[:, None], RAYS_PER_FACE, axis=0)
        seen = pcu.ray_mesh_intersection(V, F.astype(np.int32), start + away, side * rays)[2]
        farther = farther + side * np.minimum(seen, FAR * diagonal).reshape(-1, RAYS_PER_FACE).sum(1)
    return np.where((np.bincount(patch, farther * area) < 0)[patch, None], F[:, ::-1], F)


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
