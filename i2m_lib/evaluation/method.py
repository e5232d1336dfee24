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
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

import pandas as pd

from i2m_lib.dataset.dataset import Dataset, Views
from i2m_lib.geometry.surfaces import Surface
from i2m_lib.learning.trainer import Budget
from i2m_lib.reconstruction.reconstructor import Reconstruction, Reconstructor


class Method(Protocol):
    """`name` in tables; `told` of the object: "the image", "the image and the category", "the category" or "the true
    shape"; `budget` that it was trained on."""

    name: str
    told: str
    budget: Budget

    def answer(self, views: Views) -> list[Surface]:
        """A surface V (n, 3), F (m, 3) in the canonical frame for each of the views."""


@dataclass(frozen=True)
class Answering:
    """A method by its parts; `answer` is a function."""

    name: str
    told: str
    answer: Callable[[Views], list[Surface]]
    budget: Budget = field(default_factory=Budget)


def by_model(name: str, told: str, dataset: Dataset, shape: Callable[..., Surface], **given) -> Answering:
    """A method that sees no image: shape(dataset, view, **given) is its surface for the model of a row of
    `Dataset.views`. It is sent to worker processes with every model, so it is given no dataset but where one lies."""
    return Answering(name, told, partial(_by_model, located(dataset), partial(shape, **given)))


def _by_model(data: tuple[Path, str], shape: Callable[..., Surface], views: Views) -> list[Surface]:
    return [shape(opened(*data), view) for view in views.rows.itertuples()]


class Network:
    """The network of a run; `search` as in `Reconstructor.load`. Methods share its answers to the last chunk."""

    def __init__(self, run: str | Path, device: str = "cpu", **search: int):
        self.reconstructor = Reconstructor.load(run, device, **search)
        self.budget, self._last = Budget.of(Path(run) / "training"), (None, [])

    def __call__(self, views: Views) -> list[Reconstruction]:
        if self._last[0] is not views:
            self._last = views, self.reconstructor.predict(views.images)
        return self._last[1]


def from_image(name: str, network: Network, surfaces: Callable[[list[Reconstruction]], list[Surface]]) -> Answering:
    """A method that makes surfaces of a network's answers to images."""
    return Answering(name, "the image", lambda views: surfaces(network(views)), network.budget)


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
