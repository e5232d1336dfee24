"""Nearest points: KD-trees, and the one Chamfer distance."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Target:
    """Samples (m, 3) of the surface to reach, in random order, and their KD-tree."""

    points: np.ndarray
    tree: cKDTree

    @classmethod
    def of(cls, points: np.ndarray) -> "Target":
        return cls(points, cKDTree(points, balanced_tree=False, compact_nodes=False))

    @cached_property
    def coarse(self) -> "Target":
        """Every second sample: enough while the source is stiff."""
        return Target.of(self.points[::2])


def chamfer(points: np.ndarray, target: Target) -> float:
    """Mean of the two directed mean distances between points (s, 3) and the target's samples."""
    forward = target.tree.query(points)[0].mean()
    back = cKDTree(points, balanced_tree=False, compact_nodes=False).query(target.points)[0].mean()
    return float((forward + back) / 2)
