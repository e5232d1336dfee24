"""How protocols place two meshes before comparing them: named rules of scale and alignment."""

from collections.abc import Callable

import numpy as np

from i2m_lib.geometry.surfaces import double_areas


def _unit_ball(V: np.ndarray, F: np.ndarray) -> float:
    area = double_areas(V, F)
    centroid = area @ V[F].mean(1) / area.sum()
    return 1 / np.linalg.norm(V - centroid, axis=1).max()


def _same_centre_and_radius(V: np.ndarray, truth: np.ndarray) -> np.ndarray:
    centre, goal = V.mean(0), truth.mean(0)
    radius, wanted = (np.sqrt(((X - c) ** 2).sum(1).mean()) for X, c in ((V, centre), (truth, goal)))
    return (V - centre) * wanted / radius + goal


# The name of a scale rule -> one factor for both meshes, from the ground truth V (n, 3), F (m, 3).
SCALES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "units as given: bounding-box diagonal = 1": lambda V, F: 1.0,
    "units as given: a cube of side 1 holds a shape of diagonal 1": lambda V, F: 1.0,
    "units as given (ShapeNet: bounding-box diagonal = 1) x 0.57": lambda V, F: 0.57,
    "ground-truth longest bounding-box edge = 1": lambda V, F: 1 / np.ptp(V, axis=0).max(),
    "ground-truth longest bounding-box edge = 10": lambda V, F: 10 / np.ptp(V, axis=0).max(),
    "ground truth in the unit ball around its centroid": _unit_ball,
}

# The name of an alignment rule -> the predicted vertices (n, 3), aligned to those of the ground truth (k, 3).
ALIGNMENTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "none": lambda V, truth: V,
    "centre and RMS radius of the vertices": _same_centre_and_radius,
}
