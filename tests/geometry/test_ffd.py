import numpy as np
import pytest
import torch

from i2m_lib.geometry.ffd import Lattice, bernstein, displace, free_points, kernel_basis, symmetric_basis


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def V(rng):
    return rng.uniform([-0.5, -0.3, -0.2], [0.5, 0.3, 0.2], (50, 3))


def slow_basis(V, lattice):
    """A triple loop over control points: the definition."""
    binomial = {3: (1, 3, 3, 1), 1: (1, 1), 4: (1, 4, 6, 4, 1)}

    def b(i, n, t):
        return binomial[n][i] * (1 - t) ** (n - i) * t**i

    nx, ny, nz = (n - 1 for n in lattice.shape)
    rows = []
    for s, t, u in (V - lattice.origin) / lattice.extent:
        values = range(nx + 1), range(ny + 1), range(nz + 1)
        rows.append([b(i, nx, s) * b(j, ny, t) * b(k, nz, u) for i in values[0] for j in values[1] for k in values[2]])
    return np.array(rows)


@pytest.mark.parametrize("shape", [(4, 4, 4), (2, 4, 5)])
def test_basis_is_the_triple_loop(V, shape):
    lattice = Lattice.around(V, shape)
    np.testing.assert_allclose(lattice.basis(V), slow_basis(V, lattice), atol=1e-12)


def test_bernstein_polynomials_sum_to_one(rng):
    np.testing.assert_allclose(bernstein(rng.uniform(-1, 2, 20), 5).sum(1), 1, atol=1e-10)


def test_linear_precision(V):
    lattice = Lattice.around(V)
    B = lattice.basis(V)
    np.testing.assert_allclose(B.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(B @ lattice.points, V, atol=1e-12)


def test_an_affine_map_of_the_lattice_is_that_map_of_the_mesh(V, rng):
    lattice, A, t = Lattice.around(V), rng.normal(size=(3, 3)), rng.normal(size=3)
    np.testing.assert_allclose(lattice.basis(V) @ (lattice.points @ A.T + t), V @ A.T + t, atol=1e-12)


def test_a_flat_axis_stays_finite_and_precise(V):
    V[:, 1] = 0.25
    lattice = Lattice.around(V)
    np.testing.assert_allclose(lattice.basis(V) @ lattice.points, V, atol=1e-12)


def slow_symmetry(shape: tuple[int, int, int] = (4, 4, 4)) -> np.ndarray:
    """Phi (3K, 3K/2): free displacements d (K/2, 3) to all displacements dP (K, 3), both flattened by rows."""
    free, mirror = free_points(shape)
    Phi = np.zeros((np.prod(shape), 3, len(free), 3))
    for a, sign in enumerate((-1.0, 1.0, 1.0)):
        Phi[free, a, np.arange(len(free)), a] = 1.0
        Phi[mirror, a, np.arange(len(free)), a] = sign
    return Phi.reshape(3 * np.prod(shape), -1)


def test_phi_has_half_the_numbers_and_full_rank():
    Phi = slow_symmetry()
    assert Phi.shape == (192, 96)
    assert np.linalg.matrix_rank(Phi) == 96


def test_the_reduced_basis_is_basis_times_phi(V, rng):
    B, d = Lattice.around(V).basis(V), rng.normal(size=(32, 3))
    slow = B @ (slow_symmetry() @ d.ravel()).reshape(64, 3)
    np.testing.assert_allclose(displace(symmetric_basis(B), d), slow, atol=1e-12)
    Phi = symmetric_basis(np.eye(64))
    np.testing.assert_array_equal(displace(Phi, d).ravel(), slow_symmetry() @ d.ravel())


def test_symmetric_displacements_keep_a_symmetric_mesh_symmetric(V, rng):
    V = np.concatenate([V, V * [-1, 1, 1]])
    M = symmetric_basis(Lattice.around(V).basis(V))
    moved = V + displace(M, rng.normal(size=(32, 3)))
    np.testing.assert_allclose(moved[len(V) // 2 :], moved[: len(V) // 2] * [-1, 1, 1], atol=1e-12)


def test_an_odd_lattice_has_no_mirror_pairs():
    with pytest.raises(ValueError, match="even number of points along x, not 3"):
        free_points((3, 4, 4))


def test_torch_and_numpy_displace_alike_in_batches(V, rng):
    M, d = symmetric_basis(Lattice.around(V).basis(V)), rng.normal(size=(5, 2, 32, 3))
    batched = displace(torch.from_numpy(M), torch.from_numpy(d)).numpy()
    assert batched.shape == (5, 2, len(V), 3)
    np.testing.assert_allclose(batched[3, 1], displace(M, d[3, 1]), atol=1e-12)
    np.testing.assert_allclose(displace(M, d), batched, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 4, 4), (2, 4, 5)])
def test_batches_of_torch_bases_are_those_of_numpy_one_by_one(rng, shape):
    V = rng.uniform(-0.5, 0.5, (2, 3, 20, 3))
    V[1, 2, :, 0] = 0.1  # one of them is flat
    lattice = Lattice.around(torch.from_numpy(V), shape)
    B, M = lattice.basis(torch.from_numpy(V)), symmetric_basis(lattice.basis(torch.from_numpy(V)), shape)
    assert B.shape == (2, 3, 20, np.prod(shape))
    torch.testing.assert_close(B @ lattice.points, torch.from_numpy(V), atol=1e-12, rtol=0)
    for i in np.ndindex(2, 3):
        alone = Lattice.around(V[i], shape).basis(V[i])
        np.testing.assert_allclose(B[i], alone, atol=1e-12)
        np.testing.assert_allclose(M[i], symmetric_basis(alone, shape), atol=1e-12)


def test_deformed_points_have_exact_gradients(V):
    """By the points themselves, on the box's faces too where powers of zero occur, and by the control points."""
    lattice = Lattice.around(torch.from_numpy(V), (2, 3, 4))
    X, P = torch.from_numpy(V[:6]).requires_grad_(), lattice.points.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda X, P: lattice.basis(X) @ P, (X, P))
    corner = lattice.origin[None].clone().requires_grad_()
    lattice.basis(corner).square().sum().backward()
    assert corner.grad.isfinite().all()


def test_single_precision_stays_single(V):
    X = torch.from_numpy(V).float()
    B = Lattice.around(X).basis(X)
    assert B.dtype == torch.float32
    torch.testing.assert_close(B @ Lattice.around(X).points, X, atol=1e-6, rtol=0)


def test_kernels_are_one_at_their_centres_and_fall_off(V):
    K = kernel_basis(V, V[:4], 0.1)
    np.testing.assert_allclose(np.diag(K[:4]), 1)
    distance = np.linalg.norm(V[:, None] - V[:4], axis=2)
    np.testing.assert_allclose(K, np.exp(-((distance / 0.1) ** 2) / 2))
