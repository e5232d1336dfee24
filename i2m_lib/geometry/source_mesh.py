"""Surfaces made ready for registration: samples, trees and bases, computed once a mesh.

Samples are fixed in barycentric coordinates, so that a fit is of the deformed mesh as it will be, flat triangles and
all, and never of its raw vertices.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from .ffd import KERNEL_WIDTH, Lattice, kernel_basis, symmetric_basis
from .surfaces import barycentric_samples, cross_products

N_SAMPLES = 1024
N_KERNELS = 192
N_WATCHED = 768
SMALLEST_AREA = 1e-12  # twice a face's, in squared canonical units


@dataclass(frozen=True)
class Source:
    """A mesh ready to be deformed: s surface samples S = A V, and two bases, at vertices and at samples.

    A (s, n) sparse barycentric weights; M (3, n, 32) symmetric lattice basis, MS = A M; centres (k, 3) of the
    kernels, K (1, n, k) their values, KS = A K; gram (k, k) their values at one another. Two edges, of unit length,
    of each of q watched faces are E V (2q, 3), and the bases move them by ME (3, 2q, 32) and KE (1, 2q, k).
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
        cls,
        V: np.ndarray,
        F: np.ndarray,
        *,
        rng: np.random.Generator,
        n_samples: int = N_SAMPLES,
        centres: np.ndarray | None = None,
    ) -> "Source":
        """Prepares V (n, 3), F (m, 3); `centres` are farthest points of the samples unless they are given. Raises
        ValueError if the surface has no area."""
        A = sampling_matrix(V, F, n_samples, rng)
        E = edge_matrix(V, F, N_WATCHED, rng)
        S = A @ V
        M = symmetric_basis(Lattice.around(V).basis(V))
        centres = farthest_points(S, N_KERNELS) if centres is None else centres
        K = kernel_basis(V, centres, KERNEL_WIDTH)
        gram = kernel_basis(centres, centres, KERNEL_WIDTH)
        MS, ME = (np.stack([X @ m for m in M]) for X in (A, E))
        return cls(V, F, A, S, M, MS, centres, K[None], (A @ K)[None], gram, E, ME, (E @ K)[None])


def sampling_matrix(V: np.ndarray, F: np.ndarray, n: int, rng: np.random.Generator) -> sp.csr_matrix:
    """A (n, len(V)): A @ V are n samples uniform on the surface, and A @ V' the same places once V has moved."""
    face, weights = barycentric_samples(V, F, n, rng)
    rows = np.repeat(np.arange(n), 3)
    return sp.csr_matrix((weights.ravel(), (rows, F[face].ravel())), shape=(n, len(V)))


def edge_matrix(V: np.ndarray, F: np.ndarray, q: int, rng: np.random.Generator) -> sp.csr_matrix:
    """E (2q, len(V)): E @ V are two edges of each of at most q random faces, divided by their lengths at rest.
    Faces without area are left out."""
    proper = np.flatnonzero(np.linalg.norm(cross_products(V, F), axis=1) > SMALLEST_AREA)
    faces = F[rng.permutation(proper)[:q]]
    ends = np.stack([faces[:, 1], faces[:, 2]], axis=1).ravel()
    starts = np.repeat(faces[:, 0], 2)
    length = np.linalg.norm(V[ends] - V[starts], axis=1)
    rows = np.arange(len(ends))
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
