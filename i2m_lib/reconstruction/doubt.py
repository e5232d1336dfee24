"""Does the network know when it is wrong? Three signs of doubt that need no ground truth, and a mean of their ranks.

    entropy        of the template probabilities, divided by that of equal ones        0 .. 1
    strangeness    1 - cosine of the image code with the nearest training code         0 .. 2
    disagreement   1 - IoU of the mask and the answer seen by the predicted camera     0 .. 1

Distance and focal length are not predicted, so the silhouette is first scaled and shifted to the mask's extent. How
much each sign counts is chosen on validation, for each network anew, and kept with it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scipy.stats import rankdata

from i2m_lib.artefacts import Key, require
from i2m_lib.dataset.dataset import Dataset
from i2m_lib.files import save_json
from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import START, aligned, reduced, silhouette_iou

from .memory import Memory, codes_of
from .reconstructor import Reconstruction, Reconstructor

VERSION = 1  # Raise it when results change.
SIGNS = ["entropy", "strangeness", "disagreement"]
MOST = 3  # the largest weight of a sign
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
    """Compares signs of doubt with `reference`, the signs of views that are like those of training; `weights` say how
    much each sign counts."""

    reference: pd.DataFrame
    weights: tuple[int, ...]

    @classmethod
    def chosen(cls, validation: pd.DataFrame) -> "Doubt":
        """The reference is a table of validation views, with the signs and chamfer_l1; of all whole weights up to MOST,
        those are chosen whose doubt has the highest rank correlation with chamfer_l1 there."""
        ranks = Doubt(validation[SIGNS], (1,) * len(SIGNS)).ranks(validation)
        error = rankdata(validation.chamfer_l1)
        weights = [w for w in product(range(MOST + 1), repeat=len(SIGNS)) if gcd(*w) == 1]
        agreement = [np.corrcoef(rankdata(ranks @ w), error)[0, 1] for w in weights]
        return cls(validation[SIGNS], weights[int(np.argmax(agreement))])

    @classmethod
    def load(cls, run: str | Path, reconstructor: Reconstructor, dataset: Dataset) -> "Doubt":
        """`run`/doubt.json. Raises StaleError if it is missing, or of another model or dataset."""
        require(doubt_file(run), doubt_key(reconstructor, dataset), "run 05_robustness again")
        content = json.loads(doubt_file(run).read_text())
        return cls(pd.DataFrame(content["reference"]), tuple(content["weights"]))

    def save(self, run: str | Path) -> None:
        """Writes `run`/doubt.json."""
        save_json(doubt_file(run), {"weights": self.weights, "reference": self.reference.to_dict("list")})

    def ranks(self, signs: pd.DataFrame) -> np.ndarray:
        """The share (n, 3) of the reference with a smaller sign, in 0..1."""
        columns = []
        for name in SIGNS:
            known = np.sort(self.reference[name])
            below, upto = (np.searchsorted(known, signs[name], side) for side in ("left", "right"))
            columns.append((below + upto) / 2 / len(known))
        return np.stack(columns, 1)

    def __call__(self, signs: pd.DataFrame) -> np.ndarray:
        """Doubt (n,) in 0..1: the mean of `ranks` with `weights`. Views like those of the reference have a mean doubt
        of 0.5."""
        return np.average(self.ranks(signs), axis=1, weights=self.weights)


def doubt_file(run: str | Path) -> Path:
    return Path(run) / "doubt.json"


def doubt_key(reconstructor: Reconstructor, dataset: Dataset) -> Key:
    """What doubt depends on."""
    return Key("doubt", VERSION, inputs={"model": reconstructor.digest, "dataset": dataset.digest})


def masks_of(images: torch.Tensor) -> np.ndarray:
    """Masks (b, h, w) bool of images (b, 4, h, w) uint8."""
    return images[:, 3].numpy() > 127
