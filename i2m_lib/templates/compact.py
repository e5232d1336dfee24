"""Compact shapes: a mesh as a template, 96 lattice numbers and a few sparse weights."""

import numpy as np
from scipy.optimize import nnls

from .ffd import displace
from .graph import Template
from .registration import Source, Target, chamfer, fit_ffd, fit_residual

# Price of one unit of weight, in squared canonical units: below this gain a neighbour stays out.
SPARSITY = 1e-6


def encode(template: Template, source: Source, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Lattice displacements d (32, 3) and weights a (E,) that bring the template closest to the target.

    `source` is the template prepared for registration. The weights are dropped where they do not help.
    """
    d = fit_ffd(source, target)
    return d, fit_weights(template, source, d, target)


def fit_weights(template: Template, source: Source, d: np.ndarray, target: Target) -> np.ndarray:
    """Weights a (E,) >= 0, sparse: the free residual from template to target in terms of its neighbours'.

    Minimises |K c - sum_j a_j K c_j|^2 over the samples + SPARSITY sum a. All zero where the combination ends
    farther from the target, in Chamfer-L1, than the lattice alone.
    """
    n_neighbours = len(template.neighbours)
    if not n_neighbours:
        return np.zeros(0)
    wanted = displace(source.KS, fit_residual(source, d, target)).ravel()
    fields = displace(source.KS, template.c).reshape(n_neighbours, -1)
    a = sparse_combination(fields @ fields.T, fields @ wanted, SPARSITY * len(source.S))
    moved = source.S + displace(source.MS, d)
    if chamfer(moved + (a @ fields).reshape(-1, 3), target) >= chamfer(moved, target):
        return np.zeros(n_neighbours)
    return a


def sparse_combination(gram: np.ndarray, products: np.ndarray, price: float) -> np.ndarray:
    """The a (E,) >= 0 that minimises a' gram a / 2 - products' a + price sum a: a non-negative lasso.

    With gram = L L', completing the square leaves |L' a - L^-1 (products - price)|^2, which is plain
    non-negative least squares.
    """
    jitter = 1e-9 * np.trace(gram) / len(gram) + 1e-15
    L = np.linalg.cholesky(gram + jitter * np.eye(len(gram)))
    return nnls(L.T, np.linalg.solve(L, products - price))[0]
