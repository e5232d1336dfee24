"""Protocols: what exactly is measured when a predicted mesh meets the ground truth.

    target = PROTOCOLS["canonical"].prepare(V, F, seed=0)  # the ground truth, indexed once
    target.score(V, F, seed=0)  # a prediction: {"chamfer_l1": ..., "f_1": ..., ...}
    target.floor(seed=0)  # what a perfect prediction scores
    print(target.protocol.card)

A protocol answers to every prediction: one that has no surface scores `target.worst()`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from i2m_lib.dataset.meshes import cross_products, double_areas, sample_surface

from .metrics import Nearest, OrientedPoints

# Far beyond any shape of diagonal 1, and far below where squared distances lose their meaning.
LARGEST_COORDINATE = 1e6
SMALLEST_AREA = 1e-12

# The scale rule's words -> the factor for ground-truth surface vertices (n, 3).
SCALES: dict[str, Callable[[np.ndarray], float]] = {
    "as given": lambda V: 1.0,
    "ground-truth longest bounding-box edge = 1": lambda V: 1 / np.ptp(V, axis=0).max(),
}


@dataclass(frozen=True)
class Protocol:
    """A named way to compare two meshes.

    `scale` names a rule of SCALES: one factor, from the ground truth, for both meshes.
    `f_thresholds` maps the metric's name to a distance and `dist_threshold` is a squared
    distance, both after scaling.
    """

    name: str
    frame: str
    scale: str
    n_samples: int
    f_thresholds: Mapping[str, float]
    dist_threshold: float
    source: str

    @property
    def card(self) -> str:
        """The metric card: everything a reader needs to compare a number with another one."""
        f_scores = ", ".join(f"{name} at {t:g}" for name, t in self.f_thresholds.items())
        lines = {
            "protocol": self.name,
            "frame": self.frame,
            "scale": self.scale,
            "samples": f"{self.n_samples:,} points, uniform by area, on each surface",
            "chamfer_l1": "distances, not squared; mean of the two directed means; factor 1",
            "chamfer_l2": "squared distances; sum of the two directed means; factor 1",
            "F-scores": f"distances, not squared; percent, 0 to 100; {f_scores}",
            "normal_consistency": "absolute dot products; mean of the two directed means; 0 to 1",
            "dist": f"shares of squared distances above {self.dist_threshold:g}; summed; 0 to 2",
            "no surface": "every distance is the ground truth's diagonal; F 0, normals 0, dist 2",
            "source": self.source,
        }
        return "\n".join(f"{key:<20}{text}" for key, text in lines.items())

    def prepare(self, V: np.ndarray, F: np.ndarray, seed: int) -> "PreparedTarget":
        """The ground truth V (n, 3), F (m, 3), sampled and indexed for many predictions.

        Raises:
            ValueError: the ground truth itself has no surface to compare with.
        """
        if reason := why_broken(V, F):
            raise ValueError(f"the ground truth cannot be scored against: {reason}")
        V = np.asarray(V, dtype=np.float64)
        surface = V[F].reshape(-1, 3)
        factor = float(SCALES[self.scale](surface))
        diagonal = factor * float(np.linalg.norm(np.ptp(surface, axis=0)))
        # Streams 0 and 1 of a seed: the ground truth, given as prediction, is sampled anew.
        points = _sample(factor * V, F, self.n_samples, np.random.default_rng([0, seed]))
        return PreparedTarget(self, V, F, factor, diagonal, points)


@dataclass(frozen=True)
class PreparedTarget:
    """A ground truth V (n, 3), F (m, 3) under a protocol.

    V is as given, `factor` scales it, `diagonal` (of the bounding box) and `points` are scaled.
    """

    protocol: Protocol
    V: np.ndarray
    F: np.ndarray
    factor: float
    diagonal: float
    points: OrientedPoints

    def score(self, V: np.ndarray, F: np.ndarray, seed: int, workers: int = 1) -> dict[str, float]:
        """Metric name -> value for the predicted mesh V (n, 3), F (m, 3) in the protocol's frame.

        chamfer_l1 and chamfer_l2 in the protocol's scale; F-scores in percent, 0..100;
        normal_consistency 0..1; dist 0..2. A prediction without a surface scores `worst()`.
        `workers` threads search: 1 where the caller already keeps all cores busy.
        """
        if why_broken(V, F):
            return self.worst()
        V = self.factor * np.asarray(V, dtype=np.float64)
        prediction = _sample(V, F, self.protocol.n_samples, np.random.default_rng([1, seed]))
        near = Nearest.between(prediction, self.points, workers)
        f_scores = {k: 100 * near.fscore(t) for k, t in self.protocol.f_thresholds.items()}
        return {
            "chamfer_l1": near.chamfer_l1(),
            "chamfer_l2": near.chamfer_l2(),
            **f_scores,
            "normal_consistency": near.normal_consistency(),
            "dist": near.dist(self.protocol.dist_threshold),
        }

    def floor(self, seed: int, workers: int = 1) -> dict[str, float]:
        """The score of the ground truth against a second sampling of itself: sampling noise."""
        return self.score(self.V, self.F, seed, workers)

    def worst(self) -> dict[str, float]:
        """The score of no surface at all: every distance is the ground truth's diagonal."""
        return {
            "chamfer_l1": self.diagonal,
            "chamfer_l2": 2 * self.diagonal**2,
            **dict.fromkeys(self.protocol.f_thresholds, 0.0),
            "normal_consistency": 0.0,
            "dist": 2.0,
        }


def _sample(V: np.ndarray, F: np.ndarray, n: int, rng: np.random.Generator) -> OrientedPoints:
    points, face = sample_surface(V, F, n, rng)
    normals = cross_products(V, F)[face]
    return OrientedPoints.of(points, normals / np.linalg.norm(normals, axis=1, keepdims=True))


def why_broken(V: np.ndarray, F: np.ndarray) -> str | None:
    """Why vertices V (n, 3) and faces F (m, 3) make no surface, as a clause, or None if they do."""
    V, F = np.asarray(V), np.asarray(F)
    if V.ndim != 2 or V.shape[1] != 3 or F.ndim != 2 or F.shape[1] != 3:
        return f"V {V.shape} and F {F.shape} are not (n, 3) and (m, 3)"
    if not len(V) or not len(F):
        return f"it is empty: {len(V)} vertices and {len(F)} faces"
    if not np.isfinite(V).all():
        return f"{int((~np.isfinite(V).all(1)).sum())} of {len(V)} vertices are NaN or infinite"
    if np.abs(V).max() > LARGEST_COORDINATE:
        return f"a coordinate is {np.abs(V).max():.3g}, beyond {LARGEST_COORDINATE:g}"
    if F.dtype.kind not in "iu":
        return f"face indices are {F.dtype}, not integers"
    if F.min() < 0 or F.max() >= len(V):
        return f"face indices run from {F.min()} to {F.max()}, but there are {len(V)} vertices"
    area = double_areas(V, F).sum() / 2
    if area <= SMALLEST_AREA:
        return f"its area is {area:.3g}, not above {SMALLEST_AREA:g}"
    return None


PROTOCOLS = {
    "canonical": Protocol(
        name="canonical",
        frame="canonical (+Y up, -Z front), as predicted, not aligned afterwards",
        scale="ground-truth longest bounding-box edge = 1",
        n_samples=100_000,
        f_thresholds={"f_0.5": 0.005, "f_1": 0.01, "f_2": 0.02, "f_5": 0.05, "f_10": 0.1},
        dist_threshold=1e-3,
        source="this study; dist and its threshold from the official code (synthetic images)",
    )
}
