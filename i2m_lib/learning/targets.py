"""What the network learns: soft template labels, deformations in each template's principal coordinates, weights.

Errors are measured on the template's surface, exactly and without samples in the training loop: the mean squared
distance between the surfaces under lattice displacements d and d' is (d - d')' G (d - d') with the Gram matrix G of the
template's basis over its surface. With G = L L' and the principal axes U of the training fits in that metric,
d = mean + L'^-1 U y, the error is |y - y'|^2, and a few numbers y explain nearly all of it.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.geometry.ffd import FREE, KERNEL_WIDTH, Lattice, displace, kernel_basis, symmetric_basis
from i2m_lib.graph.fits import Fits
from i2m_lib.graph.template_graph import Template, TemplateGraph


def deformation_space(template: Template, S: np.ndarray, d: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    """Principal deformations of a template, from fits d (n, 32, 3) to training shapes; S (s, 3) samples its surface.

    Returns mean (32, 3); axes (k, 32, 3), zero where there are fewer; the Gram matrix (E, E) of the residual fields of
    the neighbours; and a map (k, 96) that takes flattened d - mean to coordinates y.
    """
    M = symmetric_basis(Lattice.around(template.V).basis(S))
    G = M.mT @ M / len(S)
    L = np.linalg.cholesky(G + 1e-6 * np.trace(G, axis1=1, axis2=2)[:, None, None] / 32 * np.eye(32))
    mean = d.mean(0)
    metric = np.einsum("akl,nka->nal", L, d - mean).reshape(len(d), -1)  # L' per axis
    _, _, rows = np.linalg.svd(metric, full_matrices=False)
    U = np.zeros((k, metric.shape[1]))
    U[: min(k, len(rows))] = rows[:k]
    to_lattice = np.linalg.solve(L.mT, U.reshape(k, 3, 32).transpose(1, 2, 0))  # (3, 32, k)
    to_y = np.einsum("kal,abl->kba", U.reshape(k, 3, 32), L).reshape(k, -1)
    fields = displace(kernel_basis(S, template.centres, KERNEL_WIDTH)[None], template.c)
    flat = fields.reshape(len(template.c), len(S) * 3)
    return mean, to_lattice.transpose(2, 1, 0), flat @ flat.T / len(S), to_y


# Of y, where each template is the only shape it is fitted to: the square of a hundredth of the diagonal.
LEAST_VARIANCE = 1e-4


@dataclass(frozen=True)
class Targets:
    """Tensors for N shapes, T templates in all, at most W a category and at most E neighbours.

    slots (N, W): the templates of each shape's category, padded with 0; q (N, W): soft labels, 0 where padded.
    parts (N, W, 3, k) and origin (T, k): coordinates of a fit are y = parts.sum(2) - origin; parts has a row for each
    axis of space, so that a shape can be stretched. extent (N, 3) of the shape; weights (N, W, E), and weighted (N, W):
    where they are known; gram (T, E, E), means (T, 32, 3), axes (T, k, 32, 3) of the deformation spaces; variances of
    the training y and of the combined residuals.
    """

    slots: Tensor
    q: Tensor
    parts: Tensor
    origin: Tensor
    extent: Tensor
    weights: Tensor
    weighted: Tensor
    gram: Tensor
    means: Tensor
    axes: Tensor
    y_variance: float
    residual_variance: float

    def stretched(self, model: Tensor, stretch: Tensor) -> Tensor:
        """Coordinates y (b, W, k) of shapes model (b,) stretched by (b, 3) and scaled to diagonal 1 again: exact, as an
        affine map of the control points is the same map of the deformed template. Weights stay as they are, because the
        residuals they combine, a small part of the shape, cannot be stretched."""
        factors = unit_diagonal(stretch, self.extent[model])
        return torch.einsum("ba,bwak->bwk", factors, self.parts[model]) - self.origin[self.slots[model]]

    def to(self, device: torch.device | str) -> "Targets":
        return replace(self, **{name: x.to(device) for name, x in vars(self).items() if torch.is_tensor(x)})


def unit_diagonal(stretch: Tensor, extent: Tensor) -> Tensor:
    """Stretches (b, 3) along x, y and z, scaled such that shapes of extents (b, 3) get the diagonal 1."""
    return stretch / (stretch * extent).norm(dim=1, keepdim=True)


def models_of(dataset: Dataset) -> list[str]:
    """The training models, then those of validation: the order of targets."""
    return [model_id for split in ("train", "val") for model_id in dataset.select(split).model_id]


def make_targets(
    dataset: Dataset, graph: TemplateGraph, fits: dict[str, Fits], *, k: int, temperature: float
) -> Targets:
    """Targets of `models_of` the dataset, with k principal coordinates of each template and labels of `temperature`;
    spaces and variances come from training fits alone."""
    model_ids, train = models_of(dataset), dataset.select("train").model_id.tolist()
    row_of = {model_id: i for i, model_id in enumerate(model_ids)}
    n, n_templates = len(model_ids), len(graph.templates)
    width, n_edges = max(f.cost.shape[1] for f in fits.values()), graph.n_edges
    slots, weighted = np.zeros((n, width), np.int64), np.zeros((n, width), bool)
    q, y, weights = np.zeros((n, width)), np.zeros((n, width, k)), np.zeros((n, width, n_edges))
    parts, origin = np.zeros((n, width, 3, k)), np.zeros((n_templates, k))
    means, axes = np.zeros((n_templates, 32, 3)), np.zeros((n_templates, k, 32, 3))
    gram = np.zeros((n_templates, n_edges, n_edges))
    extent = np.array([np.ptp(dataset.mesh(model_id).V, axis=0) for model_id in model_ids]).reshape(-1, 3)

    first = 0
    for synset in graph.synsets:
        templates, fit = graph.of(synset), fits[synset]
        here = np.array([i for i, m in enumerate(fit.model_ids) if m in row_of], dtype=int)
        rows = np.array([row_of[m] for m in fit.model_ids[here]], dtype=int)
        is_train, count = np.isin(fit.model_ids, train), len(templates)
        slots[rows, :count] = first + np.arange(count)
        q[rows, :count] = soft_labels(fit.cost[here], temperature)
        weights[rows, :count, : fit.weights.shape[2]] = fit.weights[here]
        weighted[rows, :count] = fit.weighted[here]
        for t, template in enumerate(templates):
            S, d, E = dataset.mesh(template.model_id).S, fit.d[is_train, t].astype(np.float64), len(template.c)
            means[first + t], axes[first + t], gram[first + t, :E, :E], to_y = deformation_space(template, S, d, k)
            rest, by_axis = Lattice.around(template.V).points[FREE], to_y.reshape(k, 32, 3)
            parts[rows, t] = np.einsum("nba,kba->nak", fit.d[here, t] + rest, by_axis)
            origin[first + t] = np.einsum("ba,kba->k", means[first + t] + rest, by_axis)
            y[rows, t] = parts[rows, t].sum(1) - origin[first + t]
        first += count
    known = np.isin(model_ids, train)
    energy = np.einsum("nwe,nwef,nwf->nw", weights[known], gram[slots[known]], weights[known])
    arrays = {"q": q, "parts": parts, "origin": origin, "extent": extent, "weights": weights, "gram": gram}
    arrays |= {"means": means, "axes": axes}
    return Targets(
        slots=torch.from_numpy(slots),
        weighted=torch.from_numpy(weighted),
        **{name: torch.from_numpy(a).float() for name, a in arrays.items()},
        y_variance=max(float((q[..., None] * y**2)[known].sum() / known.sum()), LEAST_VARIANCE),
        residual_variance=float(energy[weighted[known]].mean()) or 1.0,  # 1 where no neighbour has a weight
    )


def soft_labels(cost: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(-cost / temperature) over the last axis; both in canonical units."""
    odds = np.exp(-(cost - cost.min(-1, keepdims=True)) / temperature)
    return odds / odds.sum(-1, keepdims=True)
