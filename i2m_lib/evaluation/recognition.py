"""What recognition answers: training shapes, whole and undeformed.

Methods that see an image answer once a view and predict the category. `random_shape` and `mean_shape` are told it, and
the oracles know the test shape itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from pykdtree.kdtree import KDTree
from torch.nn.functional import one_hot

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.reconstruction.memory import Memory

# Nearest-shape searches compare few samples with all shapes, then many samples with the few best.
FEW_SAMPLES, N_BEST = 512, 5
# Of a larger category, as many shapes stand for all when medoids are sought: their cost is quadratic.
MOST_COMPARED = 400
RIDGE = 1e-3


@dataclass(frozen=True)
class Shapes:
    """Training shapes that recognition may answer with: model_ids (n,), synsets (n,), samples S (n, k, 3)."""

    model_ids: np.ndarray
    synsets: np.ndarray
    S: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, model_ids: list[str]) -> "Shapes":
        synsets = dataset.models.set_index("model_id").synset.loc[model_ids].to_numpy()
        return cls(np.array(model_ids), synsets, np.stack([dataset.mesh(m).S for m in model_ids]))

    def select(self, rows: np.ndarray) -> "Shapes":
        """The shapes of `rows`, indices or bool."""
        return Shapes(self.model_ids[rows], self.synsets[rows], self.S[rows])

    def nearest(self, S: np.ndarray) -> str:
        """The shape with the lowest Chamfer-L1 to samples S (k, 3)."""
        few, every = (Target.of(X) for X in (S[:FEW_SAMPLES], S))
        # Half of one direction is the least that a distance can be: most shapes need no other.
        there = KDTree(few.points).query(self.few.reshape(-1, 3))[0].reshape(len(self.S), -1).mean(1)
        best = []
        for i in np.argsort(there):
            if len(best) == N_BEST and there[i] / 2 >= best[-1][0]:
                break
            best = sorted([*best, (chamfer(self.few[i], few), i)])[:N_BEST]
        return self.model_ids[min((i for _, i in best), key=lambda i: chamfer(self.S[i], every))]

    @property
    def few(self) -> np.ndarray:
        """(n, FEW_SAMPLES, 3) of the samples."""
        return self.S[:, :FEW_SAMPLES]

    @cached_property
    def distances(self) -> np.ndarray:
        """Chamfer-L1 (n, n) on few samples."""
        few = [Target.of(x) for x in self.few]
        D = np.zeros((len(few), len(few)))
        for i in range(len(few)):
            for j in range(i):
                # Both trees are there already, so each direction is one query.
                there, back = (X.tree.query(Y.points)[0].mean() for X, Y in ((few[i], few[j]), (few[j], few[i])))
                D[i, j] = D[j, i] = (there + back) / 2
        return D

    def medoid(self) -> str:
        """The shape with the lowest mean distance to all others."""
        return self.model_ids[self.distances.sum(1).argmin()]

    def cluster(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Medoids, as indices (k,), and the cluster (n,) of each shape: k-medoids from farthest-first seeds.

        Every medoid is the shape with the least total distance to its cluster; every shape is nearest to its medoid.
        """
        D, medoids = self.distances, [int(self.distances.sum(1).argmin())]
        while len(medoids) < min(k, len(D)):
            medoids.append(int(D[medoids].min(0).argmax()))
        medoids = np.array(medoids)
        while True:
            cluster = D[medoids].argmin(0)
            members = [np.flatnonzero(cluster == c) for c in range(len(medoids))]
            better = np.array([m[D[np.ix_(m, m)].sum(1).argmin()] for m in members])
            if D[better].min(0).sum() >= D[medoids].min(0).sum():
                return medoids, cluster
            medoids = better


@dataclass(frozen=True)
class Clusters:
    """Clusters of training shapes: the medoid (k,) model id of each, and {model_id: cluster} of their members."""

    medoids: np.ndarray
    of_model: dict[str, int]

    @classmethod
    def of(cls, parts: list[Shapes], sizes: list[int]) -> "Clusters":
        """Clusters each category by itself, parts into sizes."""
        medoids, of_model = [], {}
        for shapes, k in zip(parts, sizes, strict=True):
            chosen, cluster = shapes.cluster(k)
            of_model |= dict(zip(shapes.model_ids.tolist(), (cluster + len(medoids)).tolist(), strict=True))
            medoids += shapes.model_ids[chosen].tolist()
        return cls(np.array(medoids), of_model)


def classifier(memory: Memory, clusters: Clusters) -> Callable[[torch.Tensor], list[str]]:
    """What names the medoids of the clusters of codes (b, n_code), by ridge regression from codes onto clusters.

    Every cluster weighs the same, as every category does in training.
    """
    known = np.flatnonzero([m in clusters.of_model for m in memory.model_ids])
    label = torch.tensor([clusters.of_model[m] for m in memory.model_ids[known]])
    Z = _with_one(memory.codes[known]).double()
    weight = (1 / label.bincount(minlength=len(clusters.medoids)).clamp(min=1).double())[label, None]
    gram = Z.T @ (weight * Z)
    gram += RIDGE * gram.trace() / len(gram) * torch.eye(len(gram), dtype=gram.dtype)
    W = torch.linalg.solve(gram, Z.T @ (weight * one_hot(label, len(clusters.medoids)).double()))
    return lambda codes: clusters.medoids[(_with_one(codes).double() @ W).argmax(1).numpy()].tolist()


def _with_one(codes: torch.Tensor) -> torch.Tensor:
    return torch.cat([codes, torch.ones(len(codes), 1)], 1)
