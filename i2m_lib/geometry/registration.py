"""Registration without landmarks: one mesh deformed onto the surface of another.

Both steps alternate between nearest neighbours, in both directions, and a ridge solve in a fixed basis: first the
symmetric lattice (`fit_ffd`), then Gaussian kernels for the smooth remainder (`fit_residual`). What depends on the
source mesh alone is computed once, in `Source`.

A least-squares lattice folds where that brings samples nearer. So a sample of the faces is watched: one that is about
to turn over or to collapse is held, from then on, to the plain stretch from bounding box to bounding box, by a few
more rows of the ridge solve, with increasing weight until hardly any is turned. The stretch itself turns none.
"""

from dataclasses import dataclass

import numpy as np

from .ffd import BENDING, FREE, Lattice, displace
from .nearest import Target, chamfer
from .source_mesh import Source, spanned
from .surfaces import SMALLEST_AREA, cross_products, double_areas

# Stiff to soft: early correspondences are wrong in detail, and a stiff lattice only follows their common part.
FFD_STIFFNESS = np.geomspace(1e-1, 1e-3, 10)
RESIDUAL_STIFFNESS = np.geomspace(1e-2, 1e-3, 3)
RIDGE = 1e-4
# A face with less than LEAST of its stretched area, seen along its normal at rest, is held with weight HOLD, which
# grows until at most MAX_TURNED of the watched faces are turned. MAX_FLIPPED is a share of all faces.
LEAST, HOLD, MAX_TURNED, N_HARDER = 0.1, 1e-2, 0.006, 8
MAX_FLIPPED = 0.01


def fit_ffd(
    source: Source, target: Target, stiffness: np.ndarray = FFD_STIFFNESS, start: np.ndarray | None = None
) -> np.ndarray:
    """Free lattice displacements d (32, 3) that move the source onto the target and turn over at most MAX_TURNED of its
    watched faces.

    Starts from displacements `start` (32, 3) if they are given, otherwise from the source stretched to the target's
    bounding box: what differs most between two models of a category is their proportions.
    """
    step = _Step(source.S, source.MS, BENDING, source.E @ source.V, source.ME, source.normals)
    stretch = stretch_of(source, target.points)
    first = source.S + displace(source.MS, stretch if start is None else start)
    return _alternate(step, stretch, first, step.edges + displace(source.ME, stretch), target, stiffness)


def stretch_of(source: Source, points: np.ndarray) -> np.ndarray:
    """d (32, 3) that moves the source's bounding box to that of points (m, 3), except for a shift along x, which
    symmetry forbids. A lattice expresses affine maps exactly."""
    lattice = Lattice.around(source.V)
    factor = np.ptp(points, axis=0) / np.where(lattice.extent > 0, lattice.extent, 1)
    centre = lattice.origin + lattice.extent / 2
    shift = (points.min(0) + points.max(0)) / 2 - centre
    return (lattice.points[FREE] - centre) * (factor - 1) + shift * [0, 1, 1]


def fit_residual(source: Source, d: np.ndarray, target: Target) -> np.ndarray:
    """Kernel coefficients c (k, 3) of the smooth field that lattice displacements d (32, 3) do not express."""
    rest, edges = source.S + displace(source.MS, d), source.E @ source.V + displace(source.ME, d)
    step = _Step(rest, source.KS, source.gram[None], edges, source.KE, source.normals)
    return _alternate(step, np.zeros((len(source.centres), 3)), rest, edges, target, RESIDUAL_STIFFNESS)


@dataclass(frozen=True)
class Registration:
    """The source in the target's shape, V (n, 3): its lattice part d (32, 3) and residual c (k, 3), and the shares of
    its faces that turned over and that collapsed (`flipped_faces`, `collapsed_faces`)."""

    d: np.ndarray
    c: np.ndarray
    V: np.ndarray
    flipped: float
    collapsed: float


def register(source: Source, target: Target, d: np.ndarray | None = None) -> Registration:
    """The source deformed onto the target; d (32, 3) is the lattice part if it is known already.

    A result that turns over or collapses too many of all its faces is replaced by that without residual and, if that
    does as well, by the plain stretch.
    """
    d = fit_ffd(source, target) if d is None else d
    c = fit_residual(source, d, target)
    for attempt in ((d, c), (d, 0 * c), (stretch_of(source, target.points), 0 * c)):
        V = source.V + displace(source.M, attempt[0]) + displace(source.K, attempt[1])
        flipped, collapsed = flipped_faces(source.V, V, source.F), collapsed_faces(source.V, V, source.F)
        if max(flipped, collapsed) <= MAX_FLIPPED:
            break
    return Registration(*attempt, V, flipped, collapsed)


@dataclass(frozen=True)
class _Step:
    """What moves: samples rest (s, 3) + basis x and edges (2q, 3) + edge_basis x, at a cost of x' energy x; normals
    (q, 3) of the watched faces of the source."""

    rest: np.ndarray
    basis: np.ndarray
    energy: np.ndarray
    edges: np.ndarray
    edge_basis: np.ndarray
    normals: np.ndarray

    def uprightness(self, x: np.ndarray, safe: np.ndarray) -> np.ndarray:
        """(q,) area of each watched face, seen along its normal at rest, as a share of that spanned by its safe edges
        (2q, 3); negative where it has turned over."""
        seen = (spanned(self.edges + displace(self.edge_basis, x)) * self.normals).sum(1)
        return seen / np.abs((spanned(safe) * self.normals).sum(1))

    def solve(self, normal: np.ndarray, right: np.ndarray, hold: np.ndarray, safe: np.ndarray) -> np.ndarray:
        """x of normal x = right, with the edges of held faces added, each weighted by its hold (q,)."""
        rows = np.flatnonzero(np.repeat(hold, 2))
        if len(rows):
            basis, w = self.edge_basis[:, rows], np.repeat(hold, 2)[rows, None] / len(hold)
            normal = normal + basis.mT @ (w * basis)
            right = right + basis.mT @ (w * (safe - self.edges)[rows]).T[..., None]
        return np.linalg.solve(normal, right)[..., 0].T


def _alternate(step: _Step, fallback, start, safe, target: Target, stiffness: np.ndarray) -> np.ndarray:
    """x (k, 3) that minimises sum w |rest + basis x - goal|^2 + stiffness x' energy x, goals renewed each time, the
    first by samples start (s, 3); held faces keep their edges near the safe ones (2q, 3), which x = fallback gives."""
    moved, hold = start, np.zeros(len(safe) // 2)
    for i, weight in enumerate(stiffness):
        fine = 1 if 2 * i >= len(stiffness) - 1 else 2
        basis, rest = step.basis[:, ::fine], step.rest[::fine]
        w, goal = correspond(moved[::fine], target if fine == 1 else target.coarse)
        energy = weight * (step.energy + RIDGE * np.eye(basis.shape[-1]))
        normal = basis.mT @ (w[:, None] * basis) / len(rest) + energy
        right = basis.mT @ (goal - w[:, None] * rest).T[..., None] / len(rest)
        x = step.solve(normal, right, hold, safe)
        hold += HOLD * (step.uprightness(x, safe) < LEAST)
        moved = step.rest + displace(step.basis, x)
    for _ in range(N_HARDER):
        upright = step.uprightness(x, safe)
        if (upright < 0).mean() <= MAX_TURNED:
            return x
        hold = 4 * hold + HOLD * (upright < LEAST)
        x = step.solve(normal, right, hold, safe)
    return fallback


def correspond(points: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Weight w (s,) and weighted goal (s, 3) of each source sample: its nearest target sample, and every target sample
    whose nearest source sample it is, both directions counting alike."""
    forward = target.points[target.tree.query(points)[1]]
    back = Target.of(points).tree.query(target.points)[1]
    s, share = len(points), len(points) / len(target.points)
    pulled = np.stack([np.bincount(back, axis, s) for axis in target.points.T], axis=1)
    return 1 + share * np.bincount(back, minlength=s), forward + share * pulled


def fit_cost(source: Source, d: np.ndarray, target: Target) -> float:
    """Chamfer-L1 between the source's samples under d and the target's samples."""
    return chamfer(source.S + displace(source.MS, d), target)


def flipped_faces(before: np.ndarray, after: np.ndarray, F: np.ndarray) -> float:
    """Share of faces whose normal turned by more than 90 degrees between V (n, 3) before and after."""
    return float(((cross_products(before, F) * cross_products(after, F)).sum(1) < 0).mean())


def collapsed_faces(before: np.ndarray, after: np.ndarray, F: np.ndarray) -> float:
    """Share of faces with less than a hundredth of the area that stretching V (n, 3) from its bounding box before to
    the one after would leave. Faces that have no area then are not counted."""
    extent = np.ptp(before, axis=0)
    stretched = double_areas(before * (np.ptp(after, axis=0) / np.where(extent > 0, extent, 1)), F)
    proper = stretched > SMALLEST_AREA
    return float((double_areas(after, F) < stretched / 100)[proper].mean()) if proper.any() else 0.0
