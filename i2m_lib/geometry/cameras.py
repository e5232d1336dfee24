"""Pinhole cameras around the canonical frame. Needs numpy alone."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

OVERSAMPLING = 2  # a pixel is in a mask if at least half of its 2 x 2 places are covered
RADIUS = 0.5  # of the ball that holds every shape of diagonal 1


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. `azimuth` and `elevation` in degrees: azimuth 0 sees the front (-Z), +Y is up. The origin lies
    `distance` ahead, and `right` and `down` of the camera's axis: these are 0 where it looks at the origin. All in
    canonical units, except `focal` in image widths: u = 0.5 + focal * x / z."""

    azimuth: float
    elevation: float
    distance: float
    focal: float
    right: float = 0.0
    down: float = 0.0

    @classmethod
    def of(cls, view: Any) -> "Camera":
        """The camera of a row of a dataset's `views`, as `itertuples` gives it."""
        return cls(*(getattr(view, field.name) for field in fields(cls)))

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) world to camera; its rows are the camera's right, down and forward."""
        a, e = np.radians([self.azimuth, self.elevation])
        right = [-np.cos(a), 0.0, -np.sin(a)]
        down = [np.sin(e) * np.sin(a), -np.cos(e), -np.sin(e) * np.cos(a)]
        forward = [-np.cos(e) * np.sin(a), -np.sin(e), np.cos(e) * np.cos(a)]
        return np.array([right, down, forward])

    @property
    def target(self) -> np.ndarray:
        """(3,) the point of the axis that is nearest to the origin."""
        right, down, _ = self.rotation
        return -self.right * right - self.down * down

    @property
    def eye(self) -> np.ndarray:
        """(3,) the camera's place in the world."""
        return self.target - self.distance * self.rotation[2]

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3), in front of the camera -> image coordinates (..., 2), u right and v down, in [0, 1]
        inside the frame."""
        x = points @ self.rotation.T + [self.right, self.down, self.distance]
        return 0.5 + self.focal * x[..., :2] / x[..., 2:]


def sample_cameras(
    n: int,
    rng: np.random.Generator,
    V: np.ndarray,
    *,
    azimuth: tuple[float, float] = (0.0, 360.0),
    elevation: tuple[float, float] = (-5.0, 40.0),
    distance: tuple[float, float] = (1.6, 2.4),
    fill: tuple[float, float] = (0.75, 0.95),
    focal: tuple[float, float] | None = None,
) -> list[Camera]:
    """n cameras with uniform angles (degrees) and distances. The focal length is uniform in `focal` or, without that
    range, such that vertices V (k, 3) reach a uniform `fill` of the way from the image's centre to its border."""
    draws = rng.uniform(*np.transpose([azimuth, elevation, distance, focal or fill]), size=(n, 4))
    cameras = [Camera(a, e, d, f) for a, e, d, f in draws.tolist()]
    if focal:
        return cameras
    reach = [np.abs(replace(c, focal=1.0).project(V) - 0.5).max() for c in cameras]
    return [replace(c, focal=float(0.5 * c.focal / r)) for c, r in zip(cameras, reach, strict=True)]


def check_ranges(azimuth: tuple, elevation: tuple, distance: tuple, fill: tuple, focal: tuple | None) -> None:
    """Raises ValueError, with name and limits, for a range (low, high) that `sample_cameras` cannot draw from."""
    limits = {
        "azimuth": (azimuth, -360, 360),
        "elevation": (elevation, -90, 90),
        "distance": (distance, 1.01 * RADIUS, np.inf),  # outside the shape
        "fill": (fill, 1e-3, 1),
        "focal": (focal or (1, 1), 1e-3, np.inf),
    }
    for name, ((low, high), least, most) in limits.items():
        if not least <= low <= high <= most:
            raise ValueError(f"{name} = {low, high} is no range within {least} and {most}, low before high.")
