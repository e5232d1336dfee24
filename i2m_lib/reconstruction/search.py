"""Inference beyond the paper: several templates are refined against the mask, and the one that fits it best wins.

A refinement moves a shape and its camera so that projected surface samples p fit the pixels m of the mask:

    E = mean_p min_m |p - m|^2 + mean_m min_p |m - p|^2, in the frames of the bounding boxes of p and of m
    minimise E / SPREAD^2 + |y - y0|^2 / y_spread^2 + |a - a0|^2 / a_spread^2 + |angles - angles0|^2 / ANGLE_SPREAD^2

and a term that keeps the diagonal's length within SIZE_SPREAD, since a mask does not show scale. The network's answer
(y0, a0, angles0) is a narrow prior: with wide spreads a wrong azimuth bends the shape, and validation got worse.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from i2m_lib.geometry.batched_nearest import offsets
from i2m_lib.geometry.ffd import displace
from i2m_lib.geometry.surfaces import barycentric_samples
from i2m_lib.graph.template_graph import Template, TemplateGraph
from i2m_lib.learning.azimuth import mode
from i2m_lib.learning.networks import Image2Mesh

N_SURFACE, MASK_SIZE = 512, 32  # surface samples, and pixels a side of the mask, that are compared
MIN_WEIGHT = 0.02  # smaller weights of neighbours are taken for 0
DISTANCE = 2.0  # of the camera: the middle of the dataset's range
SPREAD = 0.05  # of points about the mask, in longest sides of its box
Y_SPREAD, A_SPREAD, ANGLE_SPREAD, SIZE_SPREAD = 0.2, 0.2, 0.3, 0.02  # Y_SPREAD in root mean squares of the training y
RATE = 0.05  # of the steps, in spreads


def used_weights(template: Template, a: np.ndarray) -> np.ndarray:
    """Weights (E,) of a template's neighbours, from the network's padded output: small ones become 0."""
    return np.where(a > MIN_WEIGHT, a, 0.0)[: len(template.neighbours)]


def surface(template: Template, n_edges: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples S (n, 3) of a template, their basis M (3, n, 32) and its neighbours' residual fields R (n_edges, n, 3)
    there, padded with zeros. All are interpolated on the triangles, so samples move as the decoded mesh does."""
    face, w = barycentric_samples(template.V, template.F, N_SURFACE, np.random.default_rng(0))
    corners = template.F[face]
    R = np.zeros((n_edges, N_SURFACE, 3))
    fields = displace(template.K, template.c)
    R[: len(fields)] = np.einsum("nc,enca->ena", w, fields[:, corners])
    S, M = np.einsum("nc,nca->na", w, template.V[corners]), np.einsum("nc,ancb->anb", w, template.M[:, corners])
    return S, M, R


@dataclass(frozen=True)
class Candidates:
    """K templates for one image: the `surface` of each, mean (K, 32, 3) and axes (K, k, 32, 3) of deformations, and
    predicted y (K, k) and a (K, E)."""

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
    """Points (..., n, 3) projected as by `Camera` from angles (...), radians: framed (..., n, 2), u right, v down."""
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


class Search:
    """Tries the `top_k` most probable templates, each refined by `steps`."""

    def __init__(self, model: Image2Mesh, graph: TemplateGraph, top_k: int, steps: int):
        self.model, self.top_k, self.steps = model, min(top_k, len(graph.templates)), steps
        n_edges = model.sizes[2]
        self.surface = cache(lambda t: tuple(torch.from_numpy(x).float() for x in surface(graph.templates[t], n_edges)))

    def __call__(self, alpha: Tensor, p: Tensor, out: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Template (b,), y (b, k), a (b, E), and azimuth and elevation (b, 2) in radians, for cropped masks alpha
        (b, s, s), probabilities p (b, T) and the network's outputs."""
        small = adaptive_avg_pool2d(alpha[:, None], MASK_SIZE)[:, 0].cpu()
        camera = torch.stack([mode(out["azimuth"]), out["elevation"]], 1)
        parts = (x.float().cpu() for x in (p, out["y"], out["weights"], camera))
        found = [self._one(*one) for one in zip(small, *parts, strict=True)]
        return tuple(torch.stack(x) for x in zip(*found, strict=True))

    def _one(self, alpha: Tensor, p: Tensor, y: Tensor, a: Tensor, camera: Tensor) -> tuple[Tensor, ...]:
        likely = p.topk(self.top_k).indices
        surfaces = [torch.stack(x) for x in zip(*(self.surface(int(t)) for t in likely), strict=True)]
        spaces = [x.cpu()[likely] for x in (self.model.means, self.model.axes)]
        candidates = Candidates(*surfaces, *spaces, y[likely], torch.where(a > MIN_WEIGHT, a, 0.0)[likely])
        angles, scale = camera.expand(self.top_k, 2).unbind(1), float(self.model.y_scale)
        y, a, angles, energy = refine(candidates, mask_points(alpha), *angles, y_scale=scale, steps=self.steps)
        k = int((energy - p[likely].log()).argmin())
        return likely[k], y[k], a[k], angles[k]
