"""The codes of all training views: what retrieval answers from, and what doubt is measured against."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from i2m_lib.dataset.dataset import Dataset, load_images
from i2m_lib.files import save_npz

from .reconstructor import Reconstructor


@dataclass(frozen=True)
class Memory:
    """Codes z (n, n_code), of length 1, of all training views, and the model_ids (n,) that they show."""

    codes: torch.Tensor
    model_ids: np.ndarray

    @classmethod
    def of(cls, reconstructor: Reconstructor, dataset: Dataset) -> "Memory":
        views = dataset.true_views[dataset.true_views.model_id.isin(dataset.select("train").model_id)]
        parts = np.array_split(views["index"].to_numpy(), len(views) // 1024 + 1)
        codes = torch.cat([reconstructor.codes(load_images(dataset, rows)) for rows in parts])
        return cls(codes, views.model_id.to_numpy())

    def save(self, path: str | Path) -> None:
        save_npz(path, codes=self.codes.half().numpy(), model_ids=self.model_ids.astype(str))

    @classmethod
    def load(cls, path: str | Path) -> "Memory":
        """Raises FileNotFoundError if 04_evaluation has not saved it."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is not there: run 04_evaluation first.")
        with np.load(path, allow_pickle=False) as file:
            return cls(normalize(torch.from_numpy(file["codes"]).float(), dim=1), file["model_ids"])

    def retrieve(self, codes: torch.Tensor) -> list[str]:
        """For each code (b, n_code) the training model that has the view with the nearest code."""
        return self.model_ids[(codes @ self.codes.T).argmax(1).numpy()].tolist()

    def similarity(self, codes: torch.Tensor) -> np.ndarray:
        """Cosine (b,) of each code with the nearest training code."""
        return (normalize(codes, dim=1) @ self.codes.T).amax(1).numpy()
