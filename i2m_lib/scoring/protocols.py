"""Protocols: what exactly is measured when a predicted mesh meets the ground truth.

    target = PROTOCOLS["canonical"].prepare(V, F, seed=0)  # the ground truth, indexed once
    target.score(V, F, seed=0)  # a prediction: {"chamfer_l1": ..., "f_1": ..., ...}
    target.floor(seed=0)  # what a perfect prediction scores
    print(target.protocol.card)

A protocol answers to every prediction: one that has no surface scores `target.worst()`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from i2m_lib.geometry.surfaces import Surface, cross_products, sample_surface, used, why_broken
from i2m_lib.geometry.winding import as_solid, volumetric_iou

from .metrics import Nearest, OrientedPoints
from .placement import ALIGNMENTS, SCALES

CHAMFERS = {
    "chamfer_l1": "distances, not squared; mean of the two directed means; factor {:g}",
    "chamfer_l2": "squared distances; sum of the two directed means; factor {:g}",
}
IOU = (
    "volumes, at {:,} points uniform in the box around both; inside is where the winding number is not 0; "
    "none where a mesh is no solid; 0 to 1"
)


@dataclass(frozen=True)
class Protocol:
    """A named way to compare two meshes.

    `scale` names a rule of SCALES: one factor, from the ground truth, for both meshes; `alignment` one of ALIGNMENTS:
    how the prediction is moved before. Compared are `n_samples` of each surface or, if that is 0, the vertices of each
    mesh with the surface of the other. `chamfers` maps chamfer_l1 or chamfer_l2 to the factor it is multiplied by,
    `f_thresholds` and `dist_thresholds` a metric's name to a distance and a squared distance after scaling. `n_inside`
    points decide the volumetric IoU; 0 for none.
    """

    name: str
    frame: str
    scale: str
    n_samples: int
    chamfers: Mapping[str, float]
    source: str
    alignment: str = "none"
    f_thresholds: Mapping[str, float] = field(default_factory=dict)
    dist_thresholds: Mapping[str, float] = field(default_factory=dict)
    normals: bool = False
    n_inside: int = 0

    @property
    def card(self) -> str:
        """The metric card: everything a reader needs to compare a number with another one."""
        samples = f"{self.n_samples:,} points, uniform by area, on each surface"
        lines = {
            "protocol": self.name,
            "frame": self.frame,
            "scale": self.scale,
            "alignment": self.alignment,
            "samples": samples if self.n_samples else "the vertices of each mesh, against the other's surface",
        } | {name: CHAMFERS[name].format(factor) for name, factor in self.chamfers.items()}
        if self.f_thresholds:
            f_scores = ", ".join(f"{name} at {t:.4g}" for name, t in self.f_thresholds.items())
            lines["F-scores"] = f"distances, not squared; percent, 0 to 100; {f_scores}"
        if self.normals:
            lines["normal_consistency"] = "absolute dot products; mean of the two directed means; 0 to 1"
        if self.n_inside:
            lines["iou"] = IOU.format(self.n_inside)
        for name, t in self.dist_thresholds.items():
            lines[name] = f"shares of squared distances above {t:g}; summed; 0 to 2"
        lines["no surface"] = "every distance is the ground truth's diagonal; F, normals and IoU 0, dist 2"
        lines["source"] = self.source
        return "\n".join(f"{key:<20}{text}" for key, text in lines.items())

    def prepare(self, V: np.ndarray, F: np.ndarray, seed: int) -> "PreparedTarget":
        """The ground truth V (n, 3), F (m, 3), sampled and indexed for many predictions.

        Raises:
            ValueError: the ground truth itself has no surface to compare with.
        """
        if reason := why_broken(V, F):
            raise ValueError(f"the ground truth cannot be scored against: {reason}")
        V, F = used(V, F)
        factor = float(SCALES[self.scale](V, F))
        diagonal = factor * float(np.linalg.norm(np.ptp(V, axis=0)))
        # Streams 0 and 1 of a seed: the ground truth, given as prediction, is sampled anew.
        points = _sample(factor * V, F, self.n_samples, [0, seed]) if self.n_samples else None
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
    points: OrientedPoints | None

    @cached_property
    def solid(self) -> Surface | None:
        """The solid that the scaled ground truth bounds, or None."""
        return as_solid(self.factor * self.V, self.F)

    def score(self, V: np.ndarray, F: np.ndarray, seed: int) -> dict[str, float]:
        """Metric name -> value for the predicted mesh V (n, 3), F (m, 3) in the protocol's frame.

        Values are as the protocol's card says; iou is NaN where one of the meshes is no solid. A prediction without a
        surface scores `worst()`.
        """
        if why_broken(V, F):
            return self.worst()
        V, F = used(V, F)
        V = self.factor * ALIGNMENTS[self.protocol.alignment](V, self.V)
        near = self.near(V, F, seed)
        p = self.protocol
        scores = {name: factor * getattr(near, name)() for name, factor in p.chamfers.items()}
        scores |= {name: 100 * near.fscore(t) for name, t in p.f_thresholds.items()}
        if p.normals:
            scores["normal_consistency"] = near.normal_consistency()
        if p.n_inside:
            rng = np.random.default_rng([2, seed])
            scores["iou"] = volumetric_iou(self.solid and as_solid(V, F), self.solid, p.n_inside, rng)
        return scores | {name: near.dist(t) for name, t in p.dist_thresholds.items()}

    def near(self, V: np.ndarray, F: np.ndarray, seed: int) -> Nearest:
        """Nearest neighbours of a prediction that is aligned and scaled already."""
        if self.points is None:
            return Nearest.of_vertices((V, F), (self.factor * self.V, self.F))
        return Nearest.between(_sample(V, F, self.protocol.n_samples, [1, seed]), self.points)

    def floor(self, seed: int) -> dict[str, float]:
        """The score of the ground truth against a second sampling of itself: sampling noise."""
        return self.score(self.V, self.F, seed)

    def worst(self) -> dict[str, float]:
        """The score of no surface at all: every distance is the ground truth's diagonal."""
        p = self.protocol
        worst = {"chamfer_l1": self.diagonal, "chamfer_l2": 2 * self.diagonal**2}
        scores = {name: factor * worst[name] for name, factor in p.chamfers.items()}
        scores |= dict.fromkeys(p.f_thresholds, 0.0)
        if p.normals:
            scores["normal_consistency"] = 0.0
        if p.n_inside:
            scores["iou"] = 0.0 if self.solid else np.nan
        return scores | dict.fromkeys(p.dist_thresholds, 2.0)


def _sample(V: np.ndarray, F: np.ndarray, n: int, seed: list[int]) -> OrientedPoints:
    points, face = sample_surface(V, F, n, np.random.default_rng(seed))
    normals = cross_products(V, F)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)
    return OrientedPoints.of(points, normals[face])


CANONICAL_FRAME = "canonical (+Y up, -Z front), as predicted"
PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            name="canonical",
            frame=CANONICAL_FRAME,
            scale="ground-truth longest bounding-box edge = 1",
            n_samples=100_000,
            chamfers={"chamfer_l1": 1, "chamfer_l2": 1},
            f_thresholds={"f_0.5": 0.005, "f_1": 0.01, "f_2": 0.02, "f_5": 0.05, "f_10": 0.1},
            normals=True,
            n_inside=100_000,
            dist_thresholds={"dist": 1e-3},
            source="this study; dist and its threshold from the official code (synthetic images)",
        ),
        Protocol(
            name="occnet",
            frame=CANONICAL_FRAME,
            scale="ground-truth longest bounding-box edge = 1",
            n_samples=100_000,
            chamfers={"chamfer_l1": 10},
            normals=True,
            n_inside=100_000,
            source="occupancy_networks; Chamfer-L1 x10 as its paper reports",
        ),
        Protocol(
            name="pixel2mesh",
            frame="camera; distances do not depend on it, so any frame that both meshes share",
            scale="units as given (ShapeNet: bounding-box diagonal = 1) x 0.57",
            n_samples=10_000,
            chamfers={"chamfer_l2": 1},
            f_thresholds={"f_tau": 1e-2, "f_2tau": 2**0.5 * 1e-2},
            source="Pixel2Mesh, Mesh R-CNN --eval-p2m; squared thresholds 1e-4 and 2e-4",
        ),
        Protocol(
            name="meshrcnn",
            frame="any that both meshes share",
            scale="ground-truth longest bounding-box edge = 10",
            n_samples=10_000,
            chamfers={"chamfer_l2": 1},
            f_thresholds={"f_0.1": 0.1, "f_0.3": 0.3, "f_0.5": 0.5},
            normals=True,
            source="Mesh R-CNN; its thresholds are lengths here, not percent",
        ),
        Protocol(
            name="atlasnet",
            frame="any that both meshes share",
            scale="ground truth in the unit ball around its centroid",
            n_samples=2_500,
            chamfers={"chamfer_l2": 1000},
            f_thresholds={"f_0.001": 1e-3**0.5},
            source="AtlasNet; squared distances below 0.001",
        ),
        Protocol(
            name="what3d",
            frame="viewer; distances do not depend on it, so any frame that both meshes share",
            scale="units as given: a cube of side 1 holds a shape of diagonal 1",
            n_samples=10_000,
            chamfers={},
            f_thresholds={"f_1": 0.01, "f_2": 0.02, "f_5": 0.05, "f_10": 0.1, "f_20": 0.2},
            source="Tatarchenko et al. 2019; percent of the cube's side",
        ),
        Protocol(
            name="image2mesh",
            frame=CANONICAL_FRAME,
            scale="units as given: bounding-box diagonal = 1",
            alignment="centre and RMS radius of the vertices",
            n_samples=0,
            chamfers={"chamfer_l2": 1},
            dist_thresholds={"dist": 1e-3, "dist_real": 0.1},
            source="official code, but aligned by centre and RMS radius where it uses hand-made anchors",
        ),
    )
}
