"""Meshes prepared for registration: samples and bases, computed once for each mesh.

Samples have fixed barycentric coordinates, so that registration moves the deformed mesh itself, which consists of flat
triangles whatever the deformation is.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from .ffd import KERNEL_WIDTH, Lattice, kernel_basis, symmetric_basis
from .surfaces import SMALLEST_AREA, barycentric_samples, double_areas

N_SAMPLES, N_KERNELS, N_WATCHED = 1024, 192, 768


@dataclass(frozen=True)
class Source:
    """A mesh V (n, 3), F (m, 3) with s samples S = A V of its surface, A (s, n) sparse barycentric weights.

    M (3, n, 32) is the symmetric lattice basis at its vertices, MS = A M that at the samples. K (1, n, k) is the kernel
    basis with `centres` (k, 3), KS = A K, and gram (k, k) its values at the centres. E V (2q, 3) are two edges, of unit
    length, of each of q watched faces; the bases move them by ME = E M and KE = E K.
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
    E: sp.csr_matrix
    ME: np.ndarray
    KE: np.ndarray

    @cached_property
    def normals(self) -> np.ndarray:
        """(q, 3) of the watched faces."""
        return spanned(self.E @ self.V)

    @classmethod
    def of(
        cls, V: np.ndarray, F: np.ndarray, *, rng: np.random.Generator, n_samples: int = N_SAMPLES, centres=None
    ) -> "Source":
        """Prepares V (n, 3), F (m, 3); `centres` (k, 3) are farthest points of the samples unless they are given.
        Raises ValueError if the surface has no area."""
        A, E = sampling_matrix(V, F, n_samples, rng), edge_matrix(V, F, N_WATCHED, rng)
        S, M = A @ V, symmetric_basis(Lattice.around(V).basis(V))
        centres = farthest_points(S, N_KERNELS) if centres is None else centres
        K, gram = (kernel_basis(X, centres, KERNEL_WIDTH) for X in (V, centres))
        MS, ME = (np.stack([X @ m for m in M]) for X in (A, E))
        return cls(V, F, A, S, M, MS, centres, K[None], (A @ K)[None], gram, E, ME, (E @ K)[None])


def sampling_matrix(V: np.ndarray, F: np.ndarray, n: int, rng: np.random.Generator) -> sp.csr_matrix:
    """A (n, len(V)): A @ V are n samples uniform on the surface, and A @ V' the same places once V has moved."""
    face, weights = barycentric_samples(V, F, n, rng)
    return sp.csr_matrix((weights.ravel(), (np.repeat(np.arange(n), 3), F[face].ravel())), shape=(n, len(V)))


def edge_matrix(V: np.ndarray, F: np.ndarray, q: int, rng: np.random.Generator) -> sp.csr_matrix:
    """E (2q, len(V)): E @ V are two edges of each of at most q random faces, divided by their lengths at rest. Faces
    without area are left out."""
    faces = F[rng.permutation(np.flatnonzero(double_areas(V, F) > SMALLEST_AREA))[:q]]
    ends, starts = faces[:, 1:].ravel(), np.repeat(faces[:, 0], 2)
    length, rows = np.linalg.norm(V[ends] - V[starts], axis=1), np.arange(len(ends))
    data, at = np.concatenate([1 / length, -1 / length]), (np.tile(rows, 2), np.concatenate([ends, starts]))
    return sp.csr_matrix((data, at), shape=(len(ends), len(V)))


def farthest_points(X: np.ndarray, k: int) -> np.ndarray:
    """At most k of the points X (n, 3), each farthest from those before it."""
    chosen, distance = [0], np.linalg.norm(X - X[0], axis=1)
    while len(chosen) < min(k, len(X)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(X - X[chosen[-1]], axis=1))
    return X[chosen]


def spanned(edges: np.ndarray) -> np.ndarray:
    """Cross products (q, 3) of pairs of edges (2q, 3)."""
    return np.cross(edges[::2], edges[1::2])
