"""Protocols: what exactly is measured when a predicted mesh is compared with the ground truth.

    target = PROTOCOLS["canonical"].prepare(V, F, seed=0)  # the ground truth, indexed once
    target.score(V, F, seed=0)  # a prediction: {"chamfer_l1": ..., "f_1": ..., ...}
    target.floor(seed=0)  # what a perfect prediction scores
    print(target.protocol.card)

Every prediction has a score: one that has no surface gets `target.worst()`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from i2m_lib.geometry.nearest import chamfer_l1, chamfer_l2, dist, fscore
from i2m_lib.geometry.solids import Solid, as_solid, volumetric_iou
from i2m_lib.geometry.surfaces import cross_products, sample_surface, used, why_broken

from .metrics import OrientedPoints, between, point_to_surface
from .placement import ALIGNMENTS, SCALES

CHAMFERS = {"chamfer_l1": chamfer_l1, "chamfer_l2": chamfer_l2}
# What a card says of each kind of metric with parameter x; F-scores share one line.
WORDS = {
    "chamfer_l1": "distances, not squared; mean of the two directed means; factor {x:g}",
    "chamfer_l2": "squared distances; sum of the two directed means; factor {x:g}",
    "normal": "absolute dot products; mean of the two directed means; 0 to 1",
    "iou": "volumes, at {n:,} points uniform in the box around both; inside is where the winding number is not 0 "
    "or, of a mesh with gaps, where most of six rays leave it; none where other rays change over 3 % of it; 0 to 1",
    "dist": "shares of squared distances above {x:g}; summed; 0 to 2",
}


@dataclass(frozen=True)
class Protocol:
    """A named way to compare two meshes.

    `scale` names a rule of SCALES: one factor, from the ground truth, for both meshes; `alignment` one of ALIGNMENTS,
    which moves the prediction first. Compared are `n_samples` of each surface or, if that is 0, the vertices of each
    mesh with the surface of the other. `metrics` maps each metric's name to its parameter: that of f_... is a distance
    and that of dist... a squared distance, both after scaling; others are multiplied by it. `n_inside` points decide
    the volumetric IoU.
    """

    name: str
    frame: str
    scale: str
    metrics: Mapping[str, float]
    source: str
    alignment: str = "none"
    n_samples: int = 0
    n_inside: int = 100_000

    @property
    def card(self) -> str:
        """The metric card: everything a reader needs to compare a number with another one."""
        lines = {"protocol": self.name, "frame": self.frame, "scale": self.scale, "alignment": self.alignment}
        samples = f"{self.n_samples:,} points, uniform by area, on each surface"
        lines["samples"] = samples if self.n_samples else "the vertices of each mesh, against the other's surface"
        f_scores = ", ".join(f"{name} at {t:.4g}" for name, t in self.metrics.items() if _kind(name) == "f")
        for name, x in self.metrics.items():
            if _kind(name) == "f":
                lines["F-scores"] = f"distances, not squared; percent, 0 to 100; {f_scores}"
            else:
                lines[name] = WORDS[_kind(name)].format(x=x, n=self.n_inside)
        lines["no surface"] = "every distance is the ground truth's diagonal; F, normals and IoU 0, dist 2"
        lines["source"] = self.source
        return "\n".join(f"{key:<20}{text}" for key, text in lines.items())

    def prepare(self, V: np.ndarray, F: np.ndarray, seed: int) -> "PreparedTarget":
        """The ground truth V (n, 3), F (m, 3), sampled and indexed for many predictions. Raises ValueError if it has no
        surface to compare with."""
        if reason := why_broken(V, F):
            raise ValueError(f"the ground truth cannot be scored against: {reason}")
        V, F = used(V, F)
        factor = float(SCALES[self.scale](V, F))
        # Streams 0 and 1 of a seed: the ground truth, given as prediction, is sampled anew.
        points = _sample(factor * V, F, self.n_samples, [0, seed]) if self.n_samples else None
        return PreparedTarget(self, V, F, factor, points)


@dataclass(frozen=True)
class PreparedTarget:
    """A ground truth V (n, 3), F (m, 3), as given, under a protocol; `factor` scales it, `points` are scaled."""

    protocol: Protocol
    V: np.ndarray
    F: np.ndarray
    factor: float
    points: OrientedPoints | None

    @cached_property
    def solid(self) -> Solid | None:
        """The inside of the scaled ground truth, or None."""
        return as_solid(self.factor * self.V, self.F)

    def score(self, V: np.ndarray, F: np.ndarray, seed: int) -> dict[str, float]:
        """Metric name -> value for the predicted mesh V (n, 3), F (m, 3) in the protocol's frame.

        Values are as the protocol's card says; iou is NaN where one of the meshes has no inside (`geometry.solids`). A
        prediction without a surface scores `worst()`.
        """
        if why_broken(V, F):
            return self.worst()
        p, truth, (V, F) = self.protocol, self.factor * self.V, used(V, F)
        V = self.factor * ALIGNMENTS[p.alignment](V, self.V)
        if self.points:
            d, consistency = between(_sample(V, F, p.n_samples, [1, seed]), self.points)
        else:
            d, consistency = (point_to_surface(V, truth, self.F), point_to_surface(truth, V, F)), np.nan

        def measure(name: str, x: float) -> float:
            match _kind(name):
                case "f":
                    return 100 * fscore(*d, x)
                case "dist":
                    return dist(*d, x)
                case "normal":
                    return x * consistency
                case "iou":
                    rng = np.random.default_rng([2, seed])
                    return x * volumetric_iou(self.solid and as_solid(V, F), self.solid, p.n_inside, rng)
            return x * CHAMFERS[name](*d)

        return {name: measure(name, x) for name, x in p.metrics.items()}

    def floor(self, seed: int) -> dict[str, float]:
        """The score of the ground truth against a second sampling of itself: sampling noise."""
        return self.score(self.V, self.F, seed)

    def worst(self) -> dict[str, float]:
        """The score of no surface at all: every distance is the diagonal of the scaled ground truth's bounding box."""
        diagonal = self.factor * float(np.linalg.norm(np.ptp(self.V, axis=0)))
        worst = {"chamfer_l1": diagonal, "chamfer_l2": 2 * diagonal**2, "iou": 0.0 if self.solid else np.nan}
        metrics = self.protocol.metrics
        scores = {name: x * worst[name] for name, x in metrics.items() if name in worst}
        return {name: scores.get(name, 2.0 if _kind(name) == "dist" else 0.0) for name in metrics}


def _kind(metric: str) -> str:
    """chamfer_l1, chamfer_l2, f, normal, iou or dist."""
    return metric if metric in CHAMFERS else metric.split("_")[0]


def _sample(V: np.ndarray, F: np.ndarray, n: int, seed: list[int]) -> OrientedPoints:
    points, face = sample_surface(V, F, n, np.random.default_rng(seed))
    normals = cross_products(V, F)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)
    return OrientedPoints.of(points, normals[face])


CANONICAL_FRAME, ANY_FRAME = "canonical (+Y up, -Z front), as predicted", "any that both meshes share"
_ALL = (
    Protocol(
        name="canonical",
        frame=CANONICAL_FRAME,
        scale="ground-truth longest bounding-box edge = 1",
        n_samples=100_000,
        metrics={"chamfer_l1": 1, "chamfer_l2": 1, "f_0.5": 0.005, "f_1": 0.01, "f_2": 0.02, "f_5": 0.05, "f_10": 0.1}
        | {"normal_consistency": 1, "iou": 1, "dist": 1e-3},
        source="this study; dist and its threshold from the official code (synthetic images)",
    ),
    Protocol(
        name="occnet",
        frame=CANONICAL_FRAME,
        scale="ground-truth longest bounding-box edge = 1",
        n_samples=100_000,
        metrics={"chamfer_l1": 10, "normal_consistency": 1, "iou": 1},
        source="occupancy_networks; Chamfer-L1 x10 as its paper reports",
    ),
    Protocol(
        name="pixel2mesh",
        frame="camera; distances do not depend on it, so any frame that both meshes share",
        scale="units as given (ShapeNet: bounding-box diagonal = 1) x 0.57",
        n_samples=10_000,
        metrics={"chamfer_l2": 1, "f_tau": 1e-2, "f_2tau": 2**0.5 * 1e-2},
        source="Pixel2Mesh, Mesh R-CNN --eval-p2m; squared thresholds 1e-4 and 2e-4",
    ),
    Protocol(
        name="meshrcnn",
        frame=ANY_FRAME,
        scale="ground-truth longest bounding-box edge = 10",
        n_samples=10_000,
        metrics={"chamfer_l2": 1, "f_0.1": 0.1, "f_0.3": 0.3, "f_0.5": 0.5, "normal_consistency": 1},
        source="Mesh R-CNN; its thresholds are lengths here, not percent",
    ),
    Protocol(
        name="atlasnet",
        frame=ANY_FRAME,
        scale="ground truth in the unit ball around its centroid",
        n_samples=2_500,
        metrics={"chamfer_l2": 1000, "f_0.001": 1e-3**0.5},
        source="AtlasNet; squared distances below 0.001",
    ),
    Protocol(
        name="what3d",
        frame="viewer; distances do not depend on it, so any frame that both meshes share",
        scale="units as given: a cube of side 1 holds a shape of diagonal 1",
        n_samples=10_000,
        metrics={"f_1": 0.01, "f_2": 0.02, "f_5": 0.05, "f_10": 0.1, "f_20": 0.2},
        source="Tatarchenko et al. 2019; percent of the cube's side",
    ),
    Protocol(
        name="image2mesh",
        frame=CANONICAL_FRAME,
        scale="units as given: bounding-box diagonal = 1",
        alignment="centre and RMS radius of the vertices",
        metrics={"chamfer_l2": 1, "dist": 1e-3, "dist_real": 0.1},
        source="official code, but aligned by centre and RMS radius where it uses hand-made anchors",
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}
