"""Recognition: methods that answer with a training shape, whole and undeformed."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from pykdtree.kdtree import KDTree
from torch import Tensor
from torch.nn.functional import one_hot

from i2m_lib.artefacts import Key, keep
from i2m_lib.dataset.dataset import Dataset
from i2m_lib.files import save_json
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.surfaces import Surface
from i2m_lib.reconstruction.memory import BLOCK, Memory, codes_of

from .method import Method, Network, from_image, surface_of

VERSION = 1  # Raise it when results change.
FEW_SAMPLES, N_BEST = 512, 5  # samples by which all shapes are ranked; shapes that are then compared by all samples
MOST_COMPARED = 400  # shapes of a category that medoids are sought among: the cost is quadratic
RIDGE = 1e-3


@dataclass(frozen=True)
class Shapes:
    """The n training shapes: model_ids (n,), synsets (n,) and few samples (n, k, 3) float32, which worker processes
    share by joblib's memory mapping."""

    model_ids: np.ndarray
    synsets: np.ndarray
    few: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset) -> "Shapes":
        """The training shapes of a dataset."""
        train = dataset.select("train")
        few = np.stack([dataset.mesh(m).S[:FEW_SAMPLES].astype(np.float32) for m in train.model_id])
        return cls(train.model_id.to_numpy(str), train.synset.to_numpy(str), few)

    def nearest(self, S: np.ndarray) -> list[str]:
        """The N_BEST shapes with the lowest Chamfer-L1 to samples S (k, 3) by few samples, nearest first."""
        few, there = Target.of(S[:FEW_SAMPLES]), np.empty(len(self.few))
        tree = KDTree(few.points)
        for i in range(0, len(there), 1024):
            block = self.few[i : i + 1024].astype(float)
            there[i : i + 1024] = tree.query(block.reshape(-1, 3))[0].reshape(len(block), -1).mean(1)
        best = []
        for i in np.argsort(there):
            # The distance is at least half of one direction: all that follow are farther away.
            if len(best) == N_BEST and there[i] / 2 >= best[-1][0]:
                break
            best = sorted([*best, (chamfer(self.few[i].astype(float), few), i)])[:N_BEST]
        return [str(self.model_ids[i]) for _, i in best]


def pairwise(points: np.ndarray) -> np.ndarray:
    """Chamfer-L1 (n, n) between shapes with samples (n, k, 3)."""
    targets, D = [Target.of(x) for x in points.astype(float)], np.zeros((len(points), len(points)))
    for i, j in zip(*np.tril_indices(len(D), -1), strict=True):
        D[i, j] = D[j, i] = chamfer(targets[j], targets[i])
    return D


def cluster(D: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """k-medoids of distances D (n, n), the first seed the medoid of all and each next the farthest from those before:
    medoids, as indices (k,), and clusters (n,). Every medoid has the least total distance to its cluster, and every
    shape is nearest to its medoid."""
    medoids = [int(D.sum(1).argmin())]
    while len(medoids) < k and D[medoids].min(0).any():  # equal shapes need no medoid each
        medoids.append(int(D[medoids].min(0).argmax()))
    medoids = np.array(medoids)
    while True:
        clusters = D[medoids].argmin(0)
        members = [np.flatnonzero(clusters == c) for c in range(len(medoids))]
        better = np.array([m[D[np.ix_(m, m)].sum(1).argmin()] for m in members])
        if D[better].min(0).sum() >= D[medoids].min(0).sum():
            return medoids, clusters
        medoids = better


@dataclass(frozen=True)
class Clusters:
    """Clusters of training shapes: model ids of their medoids (k,), {model_id: its cluster}, and {synset: model id of
    the category's medoid}."""

    medoids: list[str]
    of_model: dict[str, int]
    mean_shapes: dict[str, str]

    @classmethod
    def of(cls, shapes: Shapes, sizes: dict[str, int], *, seed: int, workers: int = -1) -> "Clusters":
        """Clusters each category by itself, by {synset: number of clusters}."""
        rng, parts, found = np.random.default_rng(seed), [], cls([], {}, {})
        for synset in sizes:
            rows = np.flatnonzero(shapes.synsets == synset)
            parts.append(np.sort(rng.choice(rows, min(len(rows), MOST_COMPARED), replace=False)))
        distances = Parallel(n_jobs=workers)(delayed(pairwise)(shapes.few[rows]) for rows in parts)
        for (synset, k), rows, D in zip(sizes.items(), parts, distances, strict=True):
            (medoids, clusters), ids = cluster(D, k), shapes.model_ids[rows]
            found.of_model.update(zip(ids.tolist(), (clusters + len(found.medoids)).tolist(), strict=True))
            found.medoids.extend(ids[medoids].tolist())
            found.mean_shapes[synset] = str(ids[D.sum(1).argmin()])
        return found

    @classmethod
    def kept(cls, run: str | Path, dataset: Dataset, shapes: Shapes, sizes: dict[str, int], *, seed: int, workers: int):
        """`Clusters.of`, kept in `run`/clusters.json; made anew if they are of other parameters or another dataset."""
        key = Key("clusters", VERSION, {"sizes": sizes, "seed": seed}, {"dataset": dataset.digest})
        path = Path(run) / "clusters.json"
        keep(path, key, lambda: save_json(path, asdict(cls.of(shapes, sizes, seed=seed, workers=workers))))
        return cls.load(run)

    @classmethod
    def load(cls, run: str | Path) -> "Clusters":
        """Those kept last in `run`."""
        return cls(**json.loads((Path(run) / "clusters.json").read_text()))


def classifier(memory: Memory, clusters: Clusters) -> Callable[[Tensor], list[str]]:
    """A function from codes (b, n_code) to medoids of clusters: ridge regression of clusters on codes, in which every
    cluster weighs the same, as every category does in training."""
    known = np.flatnonzero([m in clusters.of_model for m in memory.model_ids])
    label = torch.tensor([clusters.of_model[m] for m in memory.model_ids[known]])
    weight, gram, target = 1 / label.bincount(minlength=len(clusters.medoids)).clamp(min=1).double(), 0.0, 0.0
    for rows, labels in zip(torch.tensor(known).split(BLOCK), label.split(BLOCK), strict=True):
        Z, w = _with_one(memory.codes[rows]).double(), weight[labels, None]
        gram, target = gram + Z.T @ (w * Z), target + Z.T @ (w * one_hot(labels, len(weight)).double())
    gram += RIDGE * gram.trace() / len(gram) * torch.eye(len(gram), dtype=gram.dtype)
    W = torch.linalg.solve(gram, target)
    return lambda codes: [clusters.medoids[i] for i in (_with_one(codes).double() @ W).argmax(1)]


def _with_one(codes: Tensor) -> Tensor:
    return torch.cat([codes, torch.ones(len(codes), 1)], 1)


def recognition(name: str, dataset: Dataset, network: Network, choose: Callable[[Tensor], list[str]]) -> Method:
    """A method that answers with the training shapes that `choose` names for codes (b, n_code): `Memory.retrieve` or a
    `classifier`."""
    return from_image(name, network, lambda answers: [surface_of(dataset, m) for m in choose(codes_of(answers))])


def random_shape(dataset: Dataset, view: tuple, seed: int) -> Surface:
    """A random training shape of the category, drawn by the seed and the model's position in its split."""
    position = dataset.models.groupby("split").cumcount()[dataset.models.model_id == view.model_id].item()
    same = dataset.select("train", view.synset).model_id.to_numpy()
    return surface_of(dataset, np.random.default_rng([seed, position]).choice(same))


def mean_shape(dataset: Dataset, view: tuple, mean_shapes: dict[str, str]) -> Surface:
    """The medoid of the category, by {synset: model id}."""
    return surface_of(dataset, mean_shapes[view.synset])
