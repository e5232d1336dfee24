import numpy as np
import pytest
import torch

from i2m_lib.geometry.ffd import (
    FREE,
    MIRROR,
    Lattice,
    bending_energy,
    bernstein,
    displace,
    kernel_basis,
    symmetric_basis,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def V(rng):
    return rng.uniform([-0.5, -0.3, -0.2], [0.5, 0.3, 0.2], (50, 3))


def slow_basis(V, lattice):
    """A triple loop over control points: the definition."""

    def b(i, t):
        return (1, 3, 3, 1)[i] * (1 - t) ** (3 - i) * t**i

    places = [(i, j, k) for i in range(4) for j in range(4) for k in range(4)]
    return np.array(
        [[b(i, s) * b(j, t) * b(k, u) for i, j, k in places] for s, t, u in (V - lattice.origin) / lattice.extent]
    )


def test_basis_is_the_triple_loop(V):
    lattice = Lattice.around(V)
    np.testing.assert_allclose(lattice.basis(V), slow_basis(V, lattice), atol=1e-12)


def test_control_points_are_a_grid_mirrored_at_its_middle():
    P = Lattice(np.zeros(3), np.array([3.0, 6.0, 9.0])).points
    np.testing.assert_array_equal(P, [(i, 2 * j, 3 * k) for i in range(4) for j in range(4) for k in range(4)])
    np.testing.assert_array_equal(P[MIRROR], [3, 0, 0] + P[FREE] * [-1, 1, 1])
    assert (P[FREE, 0] < 1.5).all()


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


def slow_symmetry():
    """Phi (192, 96): free displacements d (32, 3) to all displacements dP (64, 3), both flattened by rows."""
    Phi = np.zeros((64, 3, 32, 3))
    for a, sign in enumerate((-1.0, 1.0, 1.0)):
        Phi[FREE, a, np.arange(32), a] = 1.0
        Phi[MIRROR, a, np.arange(32), a] = sign
    return Phi.reshape(192, 96)


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


def test_torch_and_numpy_displace_alike_in_batches(V, rng):
    M, d = symmetric_basis(Lattice.around(V).basis(V)), rng.normal(size=(5, 2, 32, 3))
    batched = displace(torch.from_numpy(M), torch.from_numpy(d)).numpy()
    assert batched.shape == (5, 2, len(V), 3)
    np.testing.assert_allclose(batched[3, 1], displace(M, d[3, 1]), atol=1e-12)
    np.testing.assert_allclose(displace(M, d), batched, atol=1e-12)


def test_batches_of_torch_bases_are_those_of_numpy_one_by_one(rng):
    V = rng.uniform(-0.5, 0.5, (2, 3, 20, 3))
    V[1, 2, :, 0] = 0.1  # one of them is flat
    lattice = Lattice.around(torch.from_numpy(V))
    B, M = lattice.basis(torch.from_numpy(V)), symmetric_basis(lattice.basis(torch.from_numpy(V)))
    assert B.shape == (2, 3, 20, 64)
    torch.testing.assert_close(B @ lattice.points, torch.from_numpy(V), atol=1e-12, rtol=0)
    for i in np.ndindex(2, 3):
        alone = Lattice.around(V[i]).basis(V[i])
        np.testing.assert_allclose(B[i], alone, atol=1e-12)
        np.testing.assert_allclose(M[i], symmetric_basis(alone), atol=1e-12)


def test_deformed_points_have_exact_gradients(V):
    """By the points themselves, on the box's faces too where powers of zero occur, and by the control points."""
    lattice = Lattice.around(torch.from_numpy(V))
    X, P = torch.from_numpy(V[:6]).requires_grad_(), lattice.points.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda X, P: lattice.basis(X) @ P, (X, P))
    corner = lattice.origin[None].clone().requires_grad_()
    lattice.basis(corner).square().sum().backward()
    # There one weight is 1 and the others 0; its slope along each axis is -3, so that of its square is -6.
    torch.testing.assert_close(corner.grad[0], -6 / lattice.extent)


def test_only_bending_costs_energy():
    """Affine maps are free; where a plane of control points moves by h, the second differences of (0, h, 0, 0) across
    it are -2h and h."""
    R, grid = bending_energy(), Lattice(np.zeros(3), np.array([3.0, 3.0, 3.0])).points[FREE]
    assert (np.linalg.eigvalsh(R) > -1e-12).all()
    for d in (grid[:, 1:2] + 0 * grid, grid[:, 2:3] - 1.5 * np.ones((1, 3)), np.ones((32, 3))):
        free = d * [0, 1, 1]  # symmetry lets nothing shift along x
        assert sum(free[:, a] @ R[a] @ free[:, a] for a in range(3)) == pytest.approx(0, abs=1e-12)
    bent = np.where(grid[:, 1:2] == 1, 0.5, 0.0) * [0, 0, 1]
    # Of 64 numbers, 16 rows along y have (1, -2) x 0.5; mixed differences along x and z vanish.
    assert bent[:, 2] @ R[2] @ bent[:, 2] == pytest.approx(16 * (0.5**2 + 1.0**2) / 64)


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
