"""Free-form deformation (Sederberg and Parry, 1986) on a lattice of control points, with left-right symmetry.

A mesh inside a lattice is V = B P: B (n, K) are tensor products of Bernstein polynomials, P (K, 3) the control
points. Moving the points by dP deforms the mesh: V' = B (P + dP) = V + B dP. The symmetric lattice has half as
many free points: d (K/2, 3) are displacements of the points left of the mirror plane, and dP = Phi d moves the
others as their mirror images. Because symmetry mixes no axes, B Phi splits into three small matrices M (3, n, K/2),
one an axis, and `displace(M, d)` is all that fitting, learning and decoding need.
"""

from dataclasses import dataclass
from math import comb

import numpy as np

KERNEL_WIDTH = 0.08  # of the bounding-box diagonal: the finest detail a residual may follow


@dataclass(frozen=True)
class Lattice:
    """A box of control points: corner `origin` (3,), edges `extent` (3,), `shape` points along x, y, z."""

    origin: np.ndarray
    extent: np.ndarray
    shape: tuple[int, int, int] = (4, 4, 4)

    @classmethod
    def around(cls, V: np.ndarray, shape: tuple[int, int, int] = (4, 4, 4)) -> "Lattice":
        """The lattice on the bounding box of V (n, 3)."""
        return cls(V.min(0), np.ptp(V, axis=0), shape)

    @property
    def points(self) -> np.ndarray:
        """Control points at rest, P (K, 3), x slowest and z fastest."""
        steps = [np.linspace(0, 1, n) for n in self.shape]
        return self.origin + np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3) * self.extent

    def basis(self, X: np.ndarray) -> np.ndarray:
        """Bernstein basis B (n, K) at points X (n, 3).

        Rows sum to 1 and B @ points = X (linear precision), also where an axis is flat: there every point has
        coordinate 0, since all control points of that axis coincide.
        """
        extent = np.where(self.extent > 0, self.extent, 1.0)
        t = (np.asarray(X, dtype=np.float64) - self.origin) / extent
        bx, by, bz = (bernstein(t[:, a], n - 1) for a, n in enumerate(self.shape))
        return np.einsum("ni,nj,nk->nijk", bx, by, bz).reshape(len(t), -1)


def bernstein(t: np.ndarray, degree: int) -> np.ndarray:
    """Bernstein polynomials b_i(t) = C(degree, i) (1 - t)^(degree - i) t^i, shape (n, degree + 1)."""
    i = np.arange(degree + 1)
    choose = np.array([comb(degree, k) for k in i], dtype=np.float64)
    return choose * (1 - t[:, None]) ** (degree - i) * t[:, None] ** i


def free_points(shape: tuple[int, int, int] = (4, 4, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Indices (K/2,) of the free control points (x < 0) and of their mirror images, for an even shape[0].

    Raises:
        ValueError: shape[0] is odd, so that the middle layer would be its own mirror image.
    """
    if shape[0] % 2:
        raise ValueError(f"a symmetric lattice needs an even number of points along x, not {shape[0]}")
    index = np.arange(np.prod(shape)).reshape(shape)
    half = shape[0] // 2
    return index[:half].ravel(), index[::-1][:half].ravel()


def symmetry(shape: tuple[int, int, int] = (4, 4, 4)) -> np.ndarray:
    """Phi (3K, 3K/2): free displacements d (K/2, 3) to all displacements dP (K, 3), both flattened by rows."""
    free, mirror = free_points(shape)
    Phi = np.zeros((np.prod(shape), 3, len(free), 3))
    for a, sign in enumerate((-1.0, 1.0, 1.0)):
        Phi[free, a, np.arange(len(free)), a] = 1.0
        Phi[mirror, a, np.arange(len(free)), a] = sign
    return Phi.reshape(3 * np.prod(shape), -1)


def symmetric_basis(B: np.ndarray, shape: tuple[int, int, int] = (4, 4, 4)) -> np.ndarray:
    """B Phi, axis by axis: M (3, n, K/2) with (B Phi d)[:, a] = M[a] @ d[:, a]."""
    free, mirror = free_points(shape)
    odd, even = B[:, free] - B[:, mirror], B[:, free] + B[:, mirror]
    return np.stack([odd, even, even])


def displace(M, d):
    """Displacements (..., n, 3) of n points with basis M (..., 3, n, k) under d (..., k, 3); numpy or torch."""
    return (M @ d.mT[..., None])[..., 0].mT


def kernel_basis(X: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    """Gaussian kernels exp(-|x - c|^2 / (2 width^2)) of points X (n, 3) about centres (k, 3), shape (n, k).

    Smooth fields for what a lattice cannot express: they are defined in space, not on edges, so that the
    loose parts of a CAD model move together.
    """
    squared = ((X[:, None] - centres) ** 2).sum(-1)
    return np.exp(-squared / (2 * width**2))
