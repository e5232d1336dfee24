"""Does the network know when it is wrong? Three signs of doubt that need no ground truth, and the mean of their ranks.

    entropy        of the template probabilities, divided by that of equal ones        0 .. 1
    strangeness    1 - cosine of the image code with the nearest training code         0 .. 2
    disagreement   1 - IoU of the mask and the answer seen by the predicted camera     0 .. 1

Distance and focal length are not predicted, so the silhouette is first scaled and shifted to the mask's extent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from i2m_lib.dataset.dataset import Dataset, views_of
from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import START, aligned, reduced, silhouette_iou

from .memory import Memory, codes_of
from .reconstructor import Reconstruction, Reconstructor

SIGNS = ["entropy", "strangeness", "disagreement"]
# On validation, strangeness predicts best both large errors and categories that were left out of training.
WEIGHTS = (1, 3, 1)
MASK_SIZE, CHUNK = 64, 32  # pixels at which silhouettes are compared; views in one task of a process


def signs_of_doubt(
    answers: list[Reconstruction], masks: Sequence[np.ndarray], memory: Memory, *, workers: int = -1
) -> pd.DataFrame:
    """The three signs, a row for each answer to an image with mask (s, s) bool."""
    p = np.array([r.probabilities for r in answers])
    entropy = -(p * np.log(np.maximum(p, np.finfo(float).tiny))).sum(1) / np.log(max(p.shape[1], 2))
    seen = [(r.V, r.F, r.azimuth, r.elevation, reduced(m, MASK_SIZE)) for r, m in zip(answers, masks, strict=True)]
    tasks = (delayed(_disagreements)(seen[i : i + CHUNK]) for i in range(0, len(seen), CHUNK))
    disagreement = [value for part in Parallel(n_jobs=workers)(tasks) for value in part]
    columns = entropy, 1 - memory.similarity(codes_of(answers)), disagreement
    return pd.DataFrame(dict(zip(SIGNS, columns, strict=True)))


def predicted_camera(V: np.ndarray, azimuth: float, elevation: float, mask: np.ndarray) -> Camera:
    """The camera of predicted angles, in degrees, in which vertices V (n, 3) have the extent of mask (s, s)."""
    return aligned(V, Camera(azimuth, elevation, START.distance, START.focal), mask)


def _disagreements(seen: list[tuple]) -> list[float]:
    return [
        1 - silhouette_iou(V, F, predicted_camera(V, azimuth, elevation, mask), mask) if mask.any() else 1.0
        for V, F, azimuth, elevation, mask in seen
    ]


@dataclass(frozen=True)
class Doubt:
    """Compares signs of doubt with `reference`, the signs of views that are like those of training."""

    reference: pd.DataFrame

    @classmethod
    def on_validation(
        cls, dataset: Dataset, reconstructor: Reconstructor, memory: Memory, *, n_views: int, workers: int = -1
    ) -> "Doubt":
        """The reference is `n_views` views of each validation model. Raises ValueError if there are none."""
        views, images = views_of(dataset, "val", n_views)
        if views.empty:
            raise ValueError(f"{dataset.path} has no validation models, which doubt is measured against.")
        return cls(signs_of_doubt(reconstructor.predict(images), masks_of(images), memory, workers=workers))

    def __call__(self, signs: pd.DataFrame) -> np.ndarray:
        """Doubt (n,) in 0..1: the share of the reference with smaller signs, averaged over the signs with `WEIGHTS`.
        Views like those of the reference have a mean doubt of 0.5."""
        ranks = []
        for name in SIGNS:
            known = np.sort(self.reference[name])
            below, upto = (np.searchsorted(known, signs[name], side) for side in ("left", "right"))
            ranks.append((below + upto) / 2 / len(known))
        return np.average(ranks, axis=0, weights=WEIGHTS)


def masks_of(images: torch.Tensor) -> np.ndarray:
    """Masks (b, h, w) bool of images (b, 4, h, w) uint8."""
    return images[:, 3].numpy() > 127
