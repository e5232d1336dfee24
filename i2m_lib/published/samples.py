"""Samples of the paper's generator, as training reads them; needs no renderer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from i2m_lib.geometry.surfaces import normalise
from i2m_lib.graph.template_graph import Template

TRAIN_SHARE = 0.7  # 3,500 of 5,000


@dataclass(frozen=True)
class Samples:
    """n samples of one category: images (n, s, s, 2) uint8, gray and mask; template c (n,), lattice displacements
    d (n, 32, 3), weights a (n, T), 0 or 1 for each template of the category. The first 70 % train."""

    images: np.ndarray
    c: np.ndarray
    d: np.ndarray
    a: np.ndarray

    @property
    def n_train(self) -> int:
        return int(TRAIN_SHARE * len(self.c))

    @classmethod
    def load(cls, path: str | Path) -> "Samples":
        with np.load(path, allow_pickle=False) as file:
            return cls(**file)


def neighbour_slots(templates: list[Template]) -> list[np.ndarray]:
    """For each template of a category, the indices (E,) of its neighbours among them."""
    slot = {t.model_id: i for i, t in enumerate(templates)}
    return [np.array([slot[j] for j in t.neighbours], dtype=int) for t in templates]


def combine(template: Template, d: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Vertices (n, 3) of the paper's linear combination under d (32, 3) and a (E,) in {0, 1}: the mean of the
    deformed template and of the chosen V_cj, in the canonical frame: centred, its bounding box's diagonal 1."""
    chosen = [template.correspondence(j) for j in np.flatnonzero(a)]
    return normalise(np.mean([template.decode(d), *chosen], axis=0))[0]
