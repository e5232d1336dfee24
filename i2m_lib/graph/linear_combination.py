"""Compact shapes: a mesh as a template, 96 lattice numbers and a few sparse weights."""

import numpy as np
from scipy.optimize import nnls

from i2m_lib.geometry.ffd import BENDING, displace
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.registration import MAX_FLIPPED, RIDGE, correspond, fit_ffd, fit_residual, flipped_faces
from i2m_lib.geometry.source_mesh import N_SAMPLES, Source
from i2m_lib.geometry.surfaces import sample_surface

from .template_graph import Template

# Price of one unit of weight, in squared canonical units: below this gain a neighbour stays out.
SPARSITY = 1e-6
N_TOGETHER, SOFTEST = 8, 1e-6


def encode(template: Template, V: np.ndarray, F: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lattice displacements d (32, 3) and weights a (E,) >= 0 that bring the template closest to a mesh V (n, 3),
    F (m, 3) in the canonical frame. `template.decode(d, a)` is the mesh again, as far as they can express it.

    A mesh with the template's own faces tells which vertex is which, and then the answer is exact: it satisfies
    decode(encode(decode(x))) = decode(x) to 1e-6. Any other mesh is known by samples of its surface; the samples
    and the fit are as good as a registration is.
    """
    rng = np.random.default_rng(seed)
    if len(V) == len(template.V) and np.array_equal(F, template.F):
        return fit_vertices(template, V)
    source = source_of(template, rng)
    target = Target.of(sample_surface(V, F, N_SAMPLES, rng)[0])
    return fit_together(template, source, fit_ffd(source, target), target)


def source_of(template: Template, rng: np.random.Generator, n_samples: int = N_SAMPLES) -> Source:
    """The template made ready for registration, with its own kernels, which its neighbours' residuals speak of."""
    return Source.of(template.V, template.F, rng=rng, n_samples=n_samples, centres=template.centres)


def fit_vertices(template: Template, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d (32, 3) and a (E,) >= 0 that minimise |decode(d, a) - V|^2 over the template's vertices (n, 3)."""
    wanted, n_neighbours = (V - template.V).T, len(template.neighbours)
    fields = displace(template.K, template.c).mT if n_neighbours else np.zeros((0, 3, len(V)))
    # What the lattice can express is taken from both sides, and the weights answer for the rest.
    bases = [_orthonormal(M) for M in template.M]
    rest = np.concatenate([y - Q @ (Q.T @ y) for Q, y in zip(bases, wanted, strict=True)])
    columns = [fields[:, a] - fields[:, a] @ Q @ Q.T for a, Q in enumerate(bases)]
    A = np.concatenate(columns, axis=1).T
    a = nnls(A, rest)[0] if n_neighbours else np.zeros(0)
    a[a > 0] = np.maximum(np.linalg.lstsq(A[:, a > 0], rest)[0], 0)
    left = wanted - np.tensordot(a, fields, axes=1)
    d = [np.linalg.lstsq(M, y, rcond=1e-10)[0] for M, y in zip(template.M, left, strict=True)]
    return np.stack(d, axis=1), a


def _orthonormal(M: np.ndarray) -> np.ndarray:
    """Orthonormal columns (n, r) that span those of M (n, k); a flat template's are fewer."""
    U, s, _ = np.linalg.svd(M, full_matrices=False)
    return U[:, s > 1e-10 * s[0]] if s[0] > 0 else U[:, :0]


def fit_together(template: Template, source: Source, d: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """d (32, 3) and a (E,) >= 0 that come nearest to the target when both may move, from displacements d alone.

    Nearest neighbours are found anew between solves, so that the weights lead the lattice to other correspondences;
    weights fitted to a lattice that stays gain half as much. It goes back towards its start as far as it takes to turn
    over no more faces than a registration may, and all the way where it ends farther, in Chamfer-L1.
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
    """d and a that minimise sum w |M d + sum_j a_j field_j - wanted|^2 over the samples (s, 3), plus the bending of d
    and the price of a. d is linear in a, so it is eliminated, and a non-negative lasso is left."""
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
    """Weights a (E,) >= 0, sparse: the free residual from template to target in terms of its neighbours'.

    `source` is that of `source_of`. Minimises |K c - sum_j a_j K c_j|^2 over the samples + SPARSITY sum a. All zero
    where the combination ends farther from the target, in Chamfer-L1, than the lattice alone.
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
