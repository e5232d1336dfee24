"""The linear combination V = V_i + M d + sum_j a_j (K c_ij): sparse weights a_j >= 0 of the neighbours' residuals.

`fit_weights` finds a for a lattice d that stays; `fit_together` moves both.
"""

import numpy as np
from scipy.optimize import nnls

from i2m_lib.geometry.ffd import BENDING, displace
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.registration import MAX_FLIPPED, RIDGE, correspond, fit_residual, flipped_faces
from i2m_lib.geometry.source_mesh import Source

from .template_graph import Template

# Price of one unit of weight, against half of a mean square in canonical units: a neighbour stays out if the mean
# product of its residual with what is left to express is below it.
SPARSITY = 1e-6
N_TOGETHER, SOFTEST = 8, 1e-6


def fit_together(template: Template, source: Source, d: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """d (32, 3) and a (E,) >= 0 that come nearest to the target when both may move, from displacements d alone.

    Nearest neighbours are found anew between solves, so that the weights lead the lattice to other correspondences:
    weights fitted to a lattice that stays gain half as much. The step is shortened while it turns over more faces than
    a registration may. The answer is d alone if that fails, or if the step ends farther in Chamfer-L1.
    """
    fields = displace(source.KS, template.c)
    best, a = d, np.zeros(len(template.neighbours))
    start = moved = source.S + displace(source.MS, d)
    for _ in range(N_TOGETHER if len(a) else 0):
        w, goal = correspond(moved, target)
        best, a = _solve_together(source, fields, w / len(w), goal / w[:, None] - source.S)
        moved = source.S + displace(source.MS, best) + np.tensordot(a, fields, axes=1)
    if chamfer(moved, target) < chamfer(start, target):
        for share in (1, 0.5, 0.25):
            mixed = d + share * (best - d)
            if flipped_faces(template.V, template.decode(mixed, share * a), template.F) <= MAX_FLIPPED:
                return mixed, share * a
    return d, np.zeros(len(a))


def _solve_together(source: Source, fields: np.ndarray, w: np.ndarray, wanted: np.ndarray):
    """d and a that minimise half of sum w |M d + sum_j a_j field_j - wanted|^2 over the samples (s, 3), plus half the
    bending of d and SPARSITY sum a. d is linear in a: eliminating it leaves a non-negative lasso."""
    root = np.sqrt(w)[:, None]
    M, y = root * source.MS, (root * wanted).T[..., None]
    columns = (root * fields).transpose(2, 1, 0)
    normal = M.mT @ M + SOFTEST * (BENDING + RIDGE * np.eye(M.shape[-1]))
    both = np.concatenate([columns, y], axis=-1)
    rest = both - M @ np.linalg.solve(normal, M.mT @ both)
    products = (columns.mT @ rest).sum(0)
    a = sparse_combination(products[:, :-1], products[:, -1], SPARSITY)
    return np.linalg.solve(normal, M.mT @ (y - (columns @ a)[..., None]))[..., 0].T, a


def fit_weights(template: Template, source: Source, d: np.ndarray, target: Target) -> np.ndarray:
    """Sparse weights a (E,) >= 0 that express the free residual c from template to target by its neighbours'.

    Minimises half the mean of |K c - sum_j a_j K c_j|^2 over the samples + SPARSITY sum a; `source` is from
    `source_of`. All are zero if the combination ends farther from the target, in Chamfer-L1, than the lattice alone.
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

    With gram = L L', completing the square leaves |L' a - L^-1 (products - price)|^2: non-negative least squares.
    """
    jitter = 1e-9 * np.trace(gram) / len(gram) + 1e-15
    L = np.linalg.cholesky(gram + jitter * np.eye(len(gram)))
    return nnls(L.T, np.linalg.solve(L, products - price))[0]
