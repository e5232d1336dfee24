"""Registration without landmarks: one mesh deformed onto the surface of another.

Both steps alternate between nearest neighbours, in both directions, and a ridge solve in a fixed basis: first the
symmetric lattice (`fit_ffd`), then Gaussian kernels for the smooth remainder (`fit_residual`). What depends on the
source mesh alone is computed once, in `Source`. Samples are fixed in barycentric coordinates, so that a fit is of
the deformed mesh as it will be, flat triangles and all, and never of its raw vertices.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from i2m_lib.dataset.meshes import barycentric_samples

from .ffd import KERNEL_WIDTH, Lattice, displace, free_points, kernel_basis, symmetric_basis

N_SAMPLES = 1024
N_KERNELS = 192
# Stiff to soft: early correspondences are wrong in detail, and a stiff lattice only follows their common part.
FFD_STIFFNESS = np.geomspace(1e-1, 1e-3, 10)
RESIDUAL_STIFFNESS = np.geomspace(1e-2, 1e-3, 3)
RIDGE = 1e-4


@dataclass(frozen=True)
class Target:
    """Samples (m, 3) of the surface to reach, and their KD-tree."""

    points: np.ndarray
    tree: cKDTree

    @classmethod
    def of(cls, points: np.ndarray) -> "Target":
        return cls(points, cKDTree(points))


@dataclass(frozen=True)
class Source:
    """A mesh ready to be deformed: s surface samples S = A V, and two bases, at vertices and at samples.

    A (s, n) sparse barycentric weights; M (3, n, 32) symmetric lattice basis, MS = A M; centres (k, 3) of the
    kernels, K (1, n, k) their values, KS = A K; gram (k, k) their values at one another.
    """

    V: np.ndarray
    F: np.ndarray
    A: sp.csr_matrix
    S: np.ndarray
    M: np.ndarray
    MS: np.ndarray
    centres: np.ndarray
    K: np.ndarray
    KS: np.ndarray
    gram: np.ndarray

    @classmethod
    def of(cls, V: np.ndarray, F: np.ndarray, *, rng: np.random.Generator, n_samples: int = N_SAMPLES) -> "Source":
        """Prepares V (n, 3), F (m, 3). Raises ValueError if the surface has no area."""
        A = sampling_matrix(V, F, n_samples, rng)
        S = A @ V
        M = symmetric_basis(Lattice.around(V).basis(V))
        centres = farthest_points(S, N_KERNELS)
        K = kernel_basis(V, centres, KERNEL_WIDTH)
        gram = kernel_basis(centres, centres, KERNEL_WIDTH)
        return cls(V, F, A, S, M, np.stack([A @ m for m in M]), centres, K[None], (A @ K)[None], gram)


def sampling_matrix(V: np.ndarray, F: np.ndarray, n: int, rng: np.random.Generator) -> sp.csr_matrix:
    """A (n, len(V)): A @ V are n samples uniform on the surface, and A @ V' the same places once V has moved."""
    face, weights = barycentric_samples(V, F, n, rng)
    rows = np.repeat(np.arange(n), 3)
    return sp.csr_matrix((weights.ravel(), (rows, F[face].ravel())), shape=(n, len(V)))


def farthest_points(X: np.ndarray, k: int) -> np.ndarray:
    """At most k of the points X (n, 3), each farthest from those before it."""
    chosen, distance = [0], np.linalg.norm(X - X[0], axis=1)
    while len(chosen) < min(k, len(X)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(X - X[chosen[-1]], axis=1))
    return X[chosen]


def fit_ffd(source: Source, target: Target, stiffness: np.ndarray = FFD_STIFFNESS) -> np.ndarray:
    """Free lattice displacements d (32, 3) that carry the source onto the target.

    Starts from the source stretched to the target's bounding box: what differs most between two models of a
    category is their proportions.
    """
    low, extent = source.V.min(0), np.ptp(source.V, axis=0)
    start = (source.S - low) / np.where(extent > 0, extent, 1) * np.ptp(target.points, axis=0)
    start = start + target.points.min(0)
    return _alternate(start, source.S, source.MS, target, BENDING, stiffness)


def fit_residual(source: Source, d: np.ndarray, target: Target) -> np.ndarray:
    """Kernel coefficients c (k, 3) of the smooth field that the lattice displacements d (32, 3) leave over."""
    rest = source.S + displace(source.MS, d)
    return _alternate(rest, rest, source.KS, target, source.gram[None], RESIDUAL_STIFFNESS)


def _alternate(start, rest, basis, target, energy, stiffness):
    """x (k, 3) that minimises sum w |rest + basis x - goal|^2 + stiffness x' energy x, goals renewed each time."""
    s, k, moved = len(rest), basis.shape[-1], start
    transposed = basis.mT
    for weight in stiffness:
        w, goal = _correspond(moved, target)
        normal = transposed @ (w[:, None] * basis) / s + weight * energy + RIDGE * weight * np.eye(k)
        right = transposed @ (goal - w[:, None] * rest).T[..., None] / s
        x = np.linalg.solve(normal, right)[..., 0].T
        moved = rest + displace(basis, x)
    return x


def _correspond(points: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Weight w (s,) and weighted goal (s, 3) of each source sample: its nearest target sample, and every target
    sample that it is the nearest source sample of, both directions counting alike."""
    forward = target.points[target.tree.query(points)[1]]
    # Built for one query: balancing the tree would cost more than it saves.
    back = cKDTree(points, balanced_tree=False, compact_nodes=False).query(target.points)[1]
    s, share = len(points), len(points) / len(target.points)
    pulled = np.stack([np.bincount(back, axis, s) for axis in target.points.T], axis=1)
    return 1 + share * np.bincount(back, minlength=s), forward + share * pulled


def fit_cost(source: Source, d: np.ndarray, target: Target) -> float:
    """Chamfer-L1 between the source's samples under d and the target's samples."""
    return chamfer(source.S + displace(source.MS, d), target)


def chamfer(points: np.ndarray, target: Target) -> float:
    """Mean of the two directed mean distances between points (s, 3) and the target's samples."""
    forward = target.tree.query(points)[0].mean()
    back = cKDTree(points, balanced_tree=False, compact_nodes=False).query(target.points)[0].mean()
    return float((forward + back) / 2)


def flipped_faces(before: np.ndarray, after: np.ndarray, F: np.ndarray) -> float:
    """Share of faces whose normal turned by more than 90 degrees between V (n, 3) before and after."""
    normals = [np.cross(V[F[:, 1]] - V[F[:, 0]], V[F[:, 2]] - V[F[:, 0]]) for V in (before, after)]
    return float(((normals[0] * normals[1]).sum(1) < 0).mean())


def bending_energy(shape: tuple[int, int, int] = (4, 4, 4)) -> np.ndarray:
    """R (3, K/2, K/2): d[:, a]' R[a] d[:, a] is the mean squared second difference of the lattice along axis a's
    coordinate, straight and mixed. Zero for affine maps, so that proportions are free and only bending costs."""
    index = np.arange(np.prod(shape)).reshape(shape)
    rows = []
    for a in range(3):
        for b in range(a, 3):
            stencil = np.diff(np.eye(np.prod(shape))[index], axis=a)
            rows.append(np.diff(stencil, axis=b).reshape(-1, index.size))
    D = np.concatenate(rows)
    free, mirror = free_points(shape)
    odd, even = D[:, free] - D[:, mirror], D[:, free] + D[:, mirror]
    return np.stack([odd.T @ odd, even.T @ even, even.T @ even]) / index.size


BENDING = bending_energy()
