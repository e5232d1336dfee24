"""Closed-form fits of every shape from every template of its category: what training learns from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from i2m_lib.files import save_npz


@dataclass(frozen=True)
class Fits:
    """S training and validation shapes of a category, fitted from each of its T templates.

    model_ids (S,); d (S, T, 32, 3) lattice displacements; cost (S, T) Chamfer-L1 after the fit, canonical units;
    weights (S, T, E) of the templates' neighbours, padded with zeros; weighted (S, T) bool: whether they were fitted;
    turned (S, T) the share of the watched faces that the lattice turns over.
    """

    model_ids: np.ndarray
    d: np.ndarray
    cost: np.ndarray
    weights: np.ndarray
    weighted: np.ndarray
    turned: np.ndarray

    def save(self, path: str | Path) -> None:
        save_npz(path, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> "Fits":
        with np.load(path, allow_pickle=False) as file:
            return cls(**file)

    @classmethod
    def load_all(cls, folder: str | Path) -> dict[str, "Fits"]:
        """{synset: Fits} of a folder. Raises FileNotFoundError if it holds none."""
        paths = sorted(Path(folder).glob("*.npz"))
        if not paths:
            raise FileNotFoundError(f"{folder} holds no fits: run 02_template_graph first.")
        return {path.stem: cls.load(path) for path in paths}
