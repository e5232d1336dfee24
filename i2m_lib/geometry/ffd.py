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
# K = 64 control points, 4 along each axis, x slowest and z fastest; the free ones, with x < 0, and their mirror images.
INDEX = np.arange(64).reshape(4, 4, 4)
FREE, MIRROR = INDEX[:2].ravel(), INDEX[::-1][:2].ravel()
Array = np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Lattice:
    """A box of control points: corner `origin` (..., 3), edges `extent` (..., 3). Leading dimensions are a batch."""

    origin: Array
    extent: Array

    @classmethod
    def around(cls, V: Array) -> "Lattice":
        """The lattice on the bounding box of V (..., n, 3)."""
        low, high = _of(V).amin(V, -2), _of(V).amax(V, -2)
        return cls(low, high - low)

    @property
    def points(self) -> Array:
        """Control points at rest, P (..., K, 3)."""
        unit = np.linspace(0, 1, 4)[np.stack(np.unravel_index(INDEX.ravel(), INDEX.shape), -1)]
        if torch.is_tensor(self.origin):
            unit = torch.as_tensor(unit, dtype=self.origin.dtype, device=self.origin.device)
        return self.origin[..., None, :] + unit * self.extent[..., None, :]

    def basis(self, X: Array) -> Array:
        """Bernstein basis B (..., n, K) at points X (..., n, 3).

        Rows sum to 1 and B @ points = X (linear precision), also where an axis is flat: there every point has
        coordinate 0, since all control points of that axis coincide.
        """
        extent = _of(X).where(self.extent > 0, self.extent, _of(X).ones_like(self.extent))
        b = bernstein((X - self.origin[..., None, :]) / extent[..., None, :], 3)
        product = b[..., 0, :, None, None] * b[..., 1, None, :, None] * b[..., 2, None, None, :]
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


def symmetric_basis(B: Array) -> Array:
    """B Phi, axis by axis: B (..., n, K) to M (..., 3, n, K/2) with (B Phi d)[..., a] = M[..., a, :, :] @ d[..., a];
    of the identity, Phi itself."""
    odd, even = B[..., FREE] - B[..., MIRROR], B[..., FREE] + B[..., MIRROR]
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


def bending_energy() -> np.ndarray:
    """R (3, K/2, K/2): d[:, a]' R[a] d[:, a] is the mean squared second difference of the lattice along axis a's
    coordinate, straight and mixed. Zero for affine maps, so that proportions are free and only bending costs."""
    unit = np.eye(INDEX.size).reshape(*INDEX.shape, -1)
    seconds = [np.diff(np.diff(unit, axis=a), axis=b) for a in range(3) for b in range(a, 3)]
    M = symmetric_basis(np.concatenate([x.reshape(-1, INDEX.size) for x in seconds]))
    return M.mT @ M / INDEX.size


BENDING = bending_energy()
