"""One protocol for every method of the ladder: ours and its rungs, recognition, oracles, published ones, a user's own.

A baseline of one's own is a class with three attributes and one function:

    class FirstChair:
        name, told, budget = "first_chair", "the image", Budget()

        def __init__(self, dataset: Dataset):
            self.mesh = dataset.mesh(dataset.select("train").model_id[0])

        def answer(self, views: Views) -> list[Surface]:
            return [(self.mesh.V, self.mesh.F)] * len(views)

    scores = score_ladder(dataset, [*methods, FirstChair(dataset)], split="test", n_views=1, ...)
"""

from typing import Protocol

from i2m_lib.dataset.dataset import Views
from i2m_lib.geometry.surfaces import Surface
from i2m_lib.learning.trainer import Budget

# What a method may know of the object beside its training; one that sees no image answers all views of a model alike.
TOLD = ("the image", "the image and the category", "the category", "the true shape")


class Method(Protocol):
    """`name` in tables; `told`, one of TOLD; `budget` that it was trained on."""

    name: str
    told: str
    budget: Budget

    def answer(self, views: Views) -> list[Surface]:
        """A surface V (n, 3), F (m, 3) in the canonical frame for each of the views."""


def sees_image(method: Method) -> bool:
    """Whether the method is given the image."""
    return method.told.startswith("the image")
