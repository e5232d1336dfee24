"""Free-form deformation (Sederberg and Parry, 1986) on a lattice of control points, with left-right symmetry.

A mesh inside a lattice is V = B P: B (n, K) are tensor products of Bernstein polynomials, P (K, 3) the control
points. Moving the points by dP deforms the mesh: V' = B (P + dP) = V + B dP. The symmetric lattice has half as
many free points: d (K/2, 3) are displacements of the points left of the mirror plane, and dP = Phi d moves the
others as their mirror images. Because symmetry mixes no axes, B Phi splits into three small matrices M (3, n, K/2),
one an axis, and `displace(M, d)` is all that fitting, learning and decoding need.

Functions take arrays of numpy or tensors of torch, on any device and with gradients, and return the same kind.
"""

from dataclasses import dataclass
from math import comb

import numpy as np
import torch

KERNEL_WIDTH = 0.08  # of the bounding-box diagonal: the finest detail a residual may follow
Array = np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Lattice:
    """A box of control points: corner `origin` (..., 3), edges `extent` (..., 3), `shape` points along x, y, z.
    Leading dimensions are a batch of lattices."""

    origin: Array
    extent: Array
    shape: tuple[int, int, int] = (4, 4, 4)

    @classmethod
    def around(cls, V: Array, shape: tuple[int, int, int] = (4, 4, 4)) -> "Lattice":
        """The lattice on the bounding box of V (..., n, 3)."""
        low, high = _of(V).amin(V, -2), _of(V).amax(V, -2)
        return cls(low, high - low, shape)

    @property
    def points(self) -> Array:
        """Control points at rest, P (..., K, 3), x slowest and z fastest."""
        unit = np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in self.shape), indexing="ij"), -1).reshape(-1, 3)
        if torch.is_tensor(self.origin):
            unit = torch.as_tensor(unit, dtype=self.origin.dtype, device=self.origin.device)
        return self.origin[..., None, :] + unit * self.extent[..., None, :]

    def basis(self, X: Array) -> Array:
        """Bernstein basis B (..., n, K) at points X (..., n, 3).

        Rows sum to 1 and B @ points = X (linear precision), also where an axis is flat: there every point has
        coordinate 0, since all control points of that axis coincide.
        """
        extent = _of(X).where(self.extent > 0, self.extent, _of(X).ones_like(self.extent))
        t = (X - self.origin[..., None, :]) / extent[..., None, :]
        bx, by, bz = (bernstein(t[..., a], n - 1) for a, n in enumerate(self.shape))
        product = bx[..., :, None, None] * by[..., None, :, None] * bz[..., None, None, :]
        return product.reshape(*X.shape[:-1], -1)


def _of(X: Array):
    """The library of an array."""
    return torch if torch.is_tensor(X) else np


def bernstein(t: Array, degree: int) -> Array:
    """Bernstein polynomials b_i(t) = C(degree, i) (1 - t)^(degree - i) t^i of t (...), shape (..., degree + 1)."""
    powers, rests = [_of(t).ones_like(t)], [_of(t).ones_like(t)]
    for _ in range(degree):
        powers.append(powers[-1] * t)
        rests.append(rests[-1] * (1 - t))
    return _of(t).stack([comb(degree, i) * rests[degree - i] * powers[i] for i in range(degree + 1)], -1)


def free_points(shape: tuple[int, int, int] = (4, 4, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Indices (K/2,) of the free control points (x < 0) and of their mirror images. Raises ValueError if shape[0] is
    odd, so that the middle layer would be its own mirror image."""
    if shape[0] % 2:
        raise ValueError(f"a symmetric lattice needs an even number of points along x, not {shape[0]}")
    index = np.arange(np.prod(shape)).reshape(shape)
    half = shape[0] // 2
    return index[:half].ravel(), index[::-1][:half].ravel()


def symmetric_basis(B: Array, shape: tuple[int, int, int] = (4, 4, 4)) -> Array:
    """B Phi, axis by axis: B (..., n, K) to M (..., 3, n, K/2) with (B Phi d)[..., a] = M[..., a, :, :] @ d[..., a];
    of the identity, Phi itself."""
    free, mirror = free_points(shape)
    odd, even = B[..., free] - B[..., mirror], B[..., free] + B[..., mirror]
    return _of(B).stack([odd, even, even], -3)


def displace(M: Array, d: Array) -> Array:
    """Displacements (..., n, 3) of n points with basis M (..., 3, n, k) under d (..., k, 3)."""
    return (M @ d.mT[..., None])[..., 0].mT


def kernel_basis(X: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    """Gaussian kernels exp(-|x - c|^2 / (2 width^2)) of points X (n, 3) about centres (k, 3), shape (n, k): smooth
    fields for what a lattice cannot express. They depend on place, not on edges, so that the loose parts of a CAD model
    move together."""
    squared = (X**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * X @ centres.T
    return np.exp(-squared / (2 * width**2))


def bending_energy(shape: tuple[int, int, int] = (4, 4, 4)) -> np.ndarray:
    """R (3, K/2, K/2): d[:, a]' R[a] d[:, a] is the mean squared second difference of the lattice along axis a's
    coordinate, straight and mixed. Zero for affine maps, so that proportions are free and only bending costs."""
    unit = np.eye(np.prod(shape)).reshape(*shape, -1)
    seconds = [np.diff(np.diff(unit, axis=a), axis=b) for a in range(3) for b in range(a, 3)]
    B = np.concatenate([x.reshape(-1, unit.shape[-1]) for x in seconds])
    M = symmetric_basis(B, shape)
    return M.mT @ M / unit.shape[-1]


BENDING = bending_energy()
