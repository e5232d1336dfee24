"""One protocol for every method: ours and its rungs, recognition, oracles, published methods and a user's own.

A baseline of one's own is a class with three attributes and one function:

    class FirstShape:
        name, told, budget = "first_shape", "the image", Budget()

        def __init__(self, dataset: Dataset):
            self.mesh = dataset.mesh(dataset.select("train").model_id[0])

        def answer(self, views: Views) -> list[Surface]:
            return [(self.mesh.V, self.mesh.F)] * len(views)

    methods = [*ladder_methods(dataset, run, seed=0), FirstShape(dataset)]
    scores = score_ladder(dataset, methods, split="test", n_views=1, protocol=PROTOCOLS["canonical"], seed=0)
    summarise(scores, seed=0)
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import pandas as pd

from i2m_lib.dataset.dataset import Dataset, Views
from i2m_lib.geometry.surfaces import Surface
from i2m_lib.learning.trainer import Budget
from i2m_lib.reconstruction.reconstructor import Reconstruction, Reconstructor

# What a method may know of the object beside its training.
TOLD = ("the image", "the image and the category", "the category", "the true shape")


class Method(Protocol):
    """`name` in tables; `told`, one of TOLD; `budget` that it was trained on."""

    name: str
    told: str
    budget: Budget

    def answer(self, views: Views) -> list[Surface]:
        """A surface V (n, 3), F (m, 3) in the canonical frame for each of the views."""


@dataclass(frozen=True)
class ByModel:
    """A method that sees no image: shape(dataset, view) is its surface for the model of a row of `Dataset.views`. It is
    sent to worker processes, so the dataset is given as `located` says."""

    name: str
    told: str
    data: tuple[Path, str]
    shape: Callable[[Dataset, tuple], Surface]
    budget = Budget()

    def answer(self, views: Views) -> list[Surface]:
        """The surface for each view; images are not used."""
        return [self.shape(opened(*self.data), view) for view in views.rows.itertuples()]


class Network:
    """The network of a run; `search` as in `Reconstructor.load`. Methods share its answers to the last chunk."""

    def __init__(self, run: str | Path, device: str = "cpu", **search: int):
        self.reconstructor = Reconstructor.load(run, device, **search)
        self.budget, self._last = Budget.of(Path(run) / "training"), (None, [])

    def __call__(self, views: Views) -> list[Reconstruction]:
        if self._last[0] is not views:
            self._last = views, self.reconstructor.predict(views.images)
        return self._last[1]


class FromImage:
    """A method that makes surfaces of a network's answers to images."""

    told = "the image"

    def __init__(self, name: str, network: Network, surfaces: Callable[[list[Reconstruction]], list[Surface]]):
        self.name, self.network, self.surfaces, self.budget = name, network, surfaces, network.budget

    def answer(self, views: Views) -> list[Surface]:
        """The surface for each view."""
        return self.surfaces(self.network(views))


def methods_table(methods: list[Method]) -> pd.DataFrame:
    """A row a method: method, what it is told, and the views, steps, seconds and device of its training."""
    return pd.DataFrame([{"method": m.name, "told": m.told, **asdict(m.budget)} for m in methods])


def located(dataset: Dataset) -> tuple[Path, str]:
    """Path and digest of a dataset: what a worker process is sent instead of its tables."""
    return dataset.path, dataset.digest


@lru_cache(maxsize=1)
def opened(path: Path, digest: str) -> Dataset:
    """The dataset that is `located` there, read once a process."""
    return Dataset.open(path)


def surface_of(dataset: Dataset, model_id: str) -> Surface:
    """V (n, 3), F (m, 3) of a model."""
    mesh = dataset.mesh(model_id)
    return mesh.V, mesh.F
