"""Does the network know when it is wrong? Three signs of doubt that need no ground truth, and a mean of their ranks.

    entropy        of the template probabilities, over that of equal ones             0 .. 1
    strangeness    1 - cosine of the image code with the nearest training code        0 .. 2
    disagreement   1 - IoU of the mask and the answer as the predicted camera sees it  0 .. 1

Distance and focal length are not predicted: the silhouette is brought to the mask's extent before both are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from torch.nn.functional import normalize

from i2m_lib.dataset.dataset import Dataset, views_of
from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import START, aligned, reduced, silhouette_iou

from .memory import Memory
from .reconstructor import Reconstruction, Reconstructor

SIGNS = ["entropy", "strangeness", "disagreement"]
# Of validation views, strangeness tells best both which err most and which are of a category that was left out.
WEIGHTS = (1, 3, 1)
MASK_SIZE, CHUNK = 64, 32  # pixels that silhouettes are compared at; views that a process is given at once


def signs_of_doubt(
    answers: list[Reconstruction], masks: Sequence[np.ndarray], memory: Memory, *, workers: int = -1
) -> pd.DataFrame:
    """The three signs, a row for each answer to an image with mask (s, s) bool."""
    p = np.array([r.probabilities for r in answers])
    entropy = -(p * np.log(np.maximum(p, np.finfo(float).tiny))).sum(1) / np.log(max(p.shape[1], 2))
    codes = normalize(torch.from_numpy(np.array([r.z for r in answers])).float(), dim=1)
    seen = [(r.V, r.F, r.azimuth, r.elevation, reduced(m, MASK_SIZE)) for r, m in zip(answers, masks, strict=True)]
    chunks = [seen[i : i + CHUNK] for i in range(0, len(seen), CHUNK)]
    parts = Parallel(n_jobs=workers)(delayed(_disagreements)(chunk) for chunk in chunks)
    disagreement = [value for part in parts for value in part]
    return pd.DataFrame(dict(zip(SIGNS, (entropy, 1 - memory.similarity(codes), disagreement), strict=True)))


def predicted_camera(V: np.ndarray, azimuth: float, elevation: float, mask: np.ndarray) -> Camera:
    """The camera of predicted angles, in degrees, that lets vertices (n, 3) reach as far as mask (s, s) does."""
    return aligned(V, Camera(azimuth, elevation, START.distance, START.focal), mask)


def _disagreements(seen: list[tuple]) -> list[float]:
    return [_disagreement(*one) for one in seen]


def _disagreement(V: np.ndarray, F: np.ndarray, azimuth: float, elevation: float, mask: np.ndarray) -> float:
    if not mask.any():
        return 1.0
    return 1 - silhouette_iou(V, F, predicted_camera(V, azimuth, elevation, mask), mask)


@dataclass(frozen=True)
class Doubt:
    """Compares signs of doubt with those (n, 3), sorted, of views that the network should be sure of."""

    reference: np.ndarray

    @classmethod
    def of(cls, signs: pd.DataFrame) -> "Doubt":
        return cls(np.sort(signs[SIGNS].to_numpy(), axis=0))

    @classmethod
    def on_validation(
        cls, dataset: Dataset, reconstructor: Reconstructor, memory: Memory, *, n_views: int, workers: int = -1
    ) -> "Doubt":
        """From `n_views` views of each validation model.

        Raises:
            ValueError: the dataset has no validation models.
        """
        views, images = views_of(dataset, "val", n_views)
        if views.empty:
            raise ValueError(f"{dataset.path} has no validation models, which doubt is measured against.")
        return cls.of(signs_of_doubt(reconstructor.predict(images), masks_of(images), memory, workers=workers))

    def __call__(self, signs: pd.DataFrame) -> np.ndarray:
        """(n,) in 0..1: the share of the reference that is surer, the mean of the three signs by `WEIGHTS`; 0.5 on
        average for views like those of the reference."""
        ranks = []
        for name, known in zip(SIGNS, self.reference.T, strict=True):
            below, upto = (np.searchsorted(known, signs[name], side) for side in ("left", "right"))
            ranks.append((below + upto) / 2 / len(known))
        return np.average(ranks, axis=0, weights=WEIGHTS)


def masks_of(images: torch.Tensor) -> np.ndarray:
    """(b, h, w) bool masks of images (b, 4, h, w) uint8."""
    return images[:, 3].numpy() > 127
