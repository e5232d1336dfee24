"""The codes of all training views, which retrieval and doubt compare an image with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from i2m_lib.artefacts import Key, keep, require
from i2m_lib.dataset.dataset import Dataset, load_images
from i2m_lib.files import save_npz

from .reconstructor import BATCH, Reconstruction, Reconstructor

VERSION = 1  # Raise it when results change.
BLOCK = 65_536  # training views that are compared at once


@dataclass(frozen=True)
class Memory:
    """Codes z (n, n_code), of length 1, of all training views, and the model_ids (n,) that they show."""

    codes: Tensor
    model_ids: np.ndarray

    @classmethod
    def of(cls, reconstructor: Reconstructor, dataset: Dataset) -> "Memory":
        """The codes of a dataset's training views, 1,024 of which are read at a time."""
        views = dataset.true_views[dataset.true_views.model_id.isin(dataset.select("train").model_id)]
        parts = np.array_split(views["index"].to_numpy(), len(views) // 1024 + 1)
        images = (part for rows in parts for part in load_images(dataset, rows).split(BATCH))
        z = torch.cat([reconstructor.outputs(part)["z"] for part in images])
        return cls(normalize(z, dim=1), views.model_id.to_numpy(str))

    @classmethod
    def kept(cls, run: str | Path, reconstructor: Reconstructor, dataset: Dataset) -> "Memory":
        """`run`/memory.npz, made anew if it is of another model or dataset."""

        def make() -> None:
            memory = cls.of(reconstructor, dataset)
            save_npz(path, codes=memory.codes.numpy(), model_ids=memory.model_ids)

        path = Path(run) / "memory.npz"
        keep(path, _key(reconstructor, dataset), make)
        return cls.load(run, reconstructor, dataset)

    @classmethod
    def load(cls, run: str | Path, reconstructor: Reconstructor, dataset: Dataset) -> "Memory":
        """`run`/memory.npz. Raises StaleError if it is missing, or of another model or dataset."""
        path = Path(run) / "memory.npz"
        require(path, _key(reconstructor, dataset), "run 04_evaluation again")
        with np.load(path, allow_pickle=False) as file:
            return cls(torch.from_numpy(file["codes"]), file["model_ids"])

    def retrieve(self, codes: Tensor) -> list[str]:
        """For each code (b, n_code) the training model that has the view with the nearest code."""
        return self.model_ids[self._nearest(codes)[1].numpy()].tolist()

    def similarity(self, codes: Tensor) -> np.ndarray:
        """Cosine (b,) of each code (b, n_code) with the nearest training code."""
        return self._nearest(normalize(codes, dim=1))[0].numpy()

    def _nearest(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The largest product (b,) of each code with a training code, and the row (b,) of that training code."""
        best, at = torch.full((len(codes),), -torch.inf), torch.zeros(len(codes), dtype=torch.long)
        for start in range(0, len(self.codes), BLOCK):
            value, row = (codes @ self.codes[start : start + BLOCK].T).max(1)
            at = torch.where(value > best, row + start, at)
            best = torch.maximum(value, best)
        return best, at


def codes_of(answers: list[Reconstruction]) -> Tensor:
    """Image codes (b, n_code) of answers, of length 1."""
    return normalize(torch.from_numpy(np.array([r.z for r in answers])).float(), dim=1)


def _key(reconstructor: Reconstructor, dataset: Dataset) -> Key:
    return Key("memory", VERSION, inputs={"model": reconstructor.digest, "dataset": dataset.digest})
