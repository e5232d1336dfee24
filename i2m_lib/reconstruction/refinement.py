"""Refines a decoded shape and its camera so that the projected shape fits the mask; differentiable, no renderer.

Samples of the template's surface are decoded and projected. They and the mask's pixels are each moved to the frame of
their own bounding box (centre 0, longest side 1), so the crop's position and scale do not matter. Their squared
Chamfer distance is

    E = mean_p min_m |p - m|^2 + mean_m min_p |m - p|^2

The first term moves points that lie outside the mask, the second covers pixels that no point is near. Minimised is

    E / SPREAD^2 + |y - y0|^2 / y_spread^2 + |a - a0|^2 / a_spread^2 + |angles - angles0|^2 / ANGLE_SPREAD^2

and a term that keeps the diagonal's length within SIZE_SPREAD, since a mask does not show scale. The network's answer
is a narrow prior: with wide spreads, a wrong azimuth bends the shape, and validation got worse.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from i2m_lib.geometry.batched_nearest import offsets
from i2m_lib.geometry.ffd import displace

DISTANCE = 2.0  # of the camera: the middle of the dataset's range
SPREAD = 0.05  # of points about the mask, in longest sides of its box
Y_SPREAD, A_SPREAD, ANGLE_SPREAD, SIZE_SPREAD = 0.2, 0.2, 0.3, 0.02  # Y_SPREAD in root mean squares of the training y
RATE = 0.05  # of the steps, in spreads


@dataclass(frozen=True)
class Candidates:
    """K templates for one image: samples S (K, n, 3) of their surfaces, symmetric basis M (K, 3, n, 32) and neighbours'
    residual fields R (K, E, n, 3) there; mean (K, 32, 3) and axes (K, k, 32, 3) of deformations; predicted y (K, k)
    and a (K, E)."""

    S: Tensor
    M: Tensor
    R: Tensor
    mean: Tensor
    axes: Tensor
    y: Tensor
    a: Tensor

    def decode(self, y: Tensor, a: Tensor) -> Tensor:
        """Samples (K, n, 3) under y (K, k) and a (K, E)."""
        d = self.mean + torch.einsum("ck,ckba->cba", y, self.axes)
        return self.S + displace(self.M, d) + torch.einsum("ce,cena->cna", a, self.R)


def project(points: Tensor, azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Points (..., n, 3) projected as by `Camera` from azimuth and elevation (...), radians: (..., n, 2), u right and
    v down, in the frame of their bounding box."""
    ca, sa, ce, se = azimuth.cos(), azimuth.sin(), elevation.cos(), elevation.sin()
    zero = torch.zeros_like(ca)
    rows = [[-ca, zero, -sa], [se * sa, -ce, -se * ca], [-ce * sa, -se, ce * ca]]
    rotation = torch.stack([torch.stack(row, -1) for row in rows], -2)
    x = points @ rotation.mT
    return framed(x[..., :2] / (x[..., 2:] + DISTANCE))


def size(points: Tensor) -> Tensor:
    """Diagonal (...) of the bounding box of points (..., n, 3)."""
    return (points.amax(-2) - points.amin(-2)).norm(dim=-1)


def framed(uv: Tensor) -> Tensor:
    """Points (..., n, 2) moved and scaled: their box's centre is 0 and its longest side 1."""
    low, high = uv.amin(-2, keepdim=True), uv.amax(-2, keepdim=True)
    return (uv - (low + high) / 2) / (high - low).amax(-1, keepdim=True).clamp(min=1e-6)


def mask_points(alpha: Tensor) -> Tensor:
    """Centres (m, 2) of the occupied pixels of a mask (h, w) in the frame of their box; of an empty mask, all."""
    occupied = alpha > 0.5
    v, u = torch.nonzero(occupied if occupied.any() else torch.ones_like(occupied), as_tuple=True)
    return framed(torch.stack([u, v], -1).to(alpha.dtype))


def disagreement(uv: Tensor, mask: Tensor) -> Tensor:
    """E (...) between projected points (..., n, 2) and mask points (m, 2)."""
    to_mask, to_points = offsets(uv, mask)
    return to_mask.square().sum(-1).mean(-1) + to_points.square().sum(-1).mean(-1)


def refine(
    candidates: Candidates, mask: Tensor, azimuth: Tensor, elevation: Tensor, *, y_scale: float, steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Refines K candidates, seen from azimuth and elevation (K,), against mask points (m, 2), by `steps` of Adam.
    Returns y (K, k), a (K, E) >= 0, angles (K, 2) and the minimised sum (K,)."""
    before = size(candidates.decode(candidates.y, candidates.a))
    start = [candidates.y, candidates.a, torch.stack([azimuth, elevation], 1)]
    spreads = [Y_SPREAD * y_scale, A_SPREAD, ANGLE_SPREAD]
    moves = [torch.zeros_like(x, requires_grad=True) for x in start]
    optimizer = torch.optim.Adam(moves, lr=RATE)

    def objective() -> tuple[Tensor, list[Tensor]]:
        y, a, angles = (x + spread * move for x, spread, move in zip(start, spreads, moves, strict=True))
        a = a.clamp(min=0)
        points = candidates.decode(y, a)
        uv = project(points, angles[:, 0], angles[:, 1])
        prior = sum(move.square().sum(1) for move in moves) + ((size(points) / before - 1) / SIZE_SPREAD).square()
        return disagreement(uv, mask) / SPREAD**2 + prior, [y, a, angles]

    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            objective()[0].sum().backward()
            optimizer.step()
    with torch.no_grad():
        energy, found = objective()
    return *found, energy
