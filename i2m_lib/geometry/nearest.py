"""Nearest points of two clouds by KD-trees, and measures of their distances; `batched_nearest` is the torch twin.

d_x (n,) are the distances from each point of X to its nearest point of Y, and d_y (m,) those from Y to X.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Target:
    """Points (m, 3) and their KD-tree."""

    points: np.ndarray
    tree: cKDTree

    @classmethod
    def of(cls, points: np.ndarray) -> "Target":
        # Most trees here answer few queries: balancing one would cost more time than it saves.
        return cls(points, cKDTree(points, balanced_tree=False, compact_nodes=False))

    @cached_property
    def coarse(self) -> "Target":
        """Every second point, of samples in random order: enough while a registration is stiff."""
        return Target.of(self.points[::2])


def distances(X: np.ndarray | Target, Y: Target) -> tuple[np.ndarray, np.ndarray]:
    """d_x (n,), d_y (m,) between points X (n, 3), indexed or not, and Y (m, 3)."""
    X = X if isinstance(X, Target) else Target.of(X)
    return Y.tree.query(X.points)[0], X.tree.query(Y.points)[0]


def chamfer(X: np.ndarray | Target, Y: Target) -> float:
    """Chamfer-L1 between points X (n, 3), indexed or not, and Y (m, 3)."""
    return chamfer_l1(*distances(X, Y))


def chamfer_l1(d_x: np.ndarray, d_y: np.ndarray) -> float:
    """(mean d_x + mean d_y) / 2, 0 .. inf, lower is better; scales linearly."""
    return float(d_x.mean() + d_y.mean()) / 2


def chamfer_l2(d_x: np.ndarray, d_y: np.ndarray) -> float:
    """mean d_x^2 + mean d_y^2, 0 .. inf, lower is better; scales quadratically."""
    return float((d_x**2).mean() + (d_y**2).mean())


def fscore(d_x: np.ndarray, d_y: np.ndarray, threshold: float) -> float:
    """2 p r / (p + r), 0 .. 1, higher is better: p and r are the shares of d_x and of d_y below the threshold."""
    p, r = float((d_x < threshold).mean()), float((d_y < threshold).mean())
    return 2 * p * r / (p + r) if p + r else 0.0


def dist(d_x: np.ndarray, d_y: np.ndarray, threshold: float) -> float:
    """Dist of the official Image2Mesh code, 0 .. 2, lower is better: the share of d_x^2 above the threshold plus
    that of d_y^2."""
    return float((d_x**2 > threshold).mean() + (d_y**2 > threshold).mean())
