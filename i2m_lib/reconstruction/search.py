"""Inference beyond the paper: several templates are refined against the mask, and the one that fits it best wins."""

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from i2m_lib.geometry.ffd import displace
from i2m_lib.geometry.surfaces import barycentric_samples
from i2m_lib.graph.template_graph import Template, TemplateGraph
from i2m_lib.learning.azimuth import mode
from i2m_lib.learning.networks import Image2Mesh

from .refinement import Candidates, mask_points, refine

N_SURFACE, MASK_SIZE = 512, 32  # surface samples, and pixels a side of the mask, that are compared
MIN_WEIGHT = 0.02  # smaller weights of neighbours are taken for 0


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
