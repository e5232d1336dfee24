import numpy as np
import pytest
import torch

from i2m_lib.dataset.render import Camera
from i2m_lib.geometry.ffd import Lattice, displace, symmetric_basis
from i2m_lib.geometry.surfaces import barycentric_samples
from i2m_lib.reconstruction import search as module
from i2m_lib.reconstruction.search import (
    DISTANCE,
    Candidates,
    disagreement,
    framed,
    mask_points,
    project,
    refine,
    size,
    surface,
    used_weights,
)


def sofa(n=400):
    """Samples (n, 3) of an L-shaped solid, as unlike from its sides as a sofa."""
    rng = np.random.default_rng(0)
    seat = rng.uniform([-0.4, -0.2, -0.2], [0.4, 0, 0.2], (n // 2, 3))
    back = rng.uniform([-0.4, 0, 0.1], [0.4, 0.3, 0.2], (n - n // 2, 3))
    return np.concatenate([seat, back])


def test_projection_is_the_cameras():
    S = sofa()
    camera = Camera(azimuth=35, elevation=20, distance=DISTANCE, focal=1.3)
    angles = torch.tensor([35.0, 20.0]).deg2rad()
    seen = project(torch.from_numpy(S).float(), *angles)
    torch.testing.assert_close(seen, framed(torch.from_numpy(camera.project(S)).float()), atol=1e-5, rtol=0)


def test_the_mask_has_its_own_frame():
    mask = torch.zeros(20, 30)
    mask[5:10, 8:18] = 1
    points = mask_points(mask)
    assert points.shape == (50, 2)
    torch.testing.assert_close(points.amax(0) - points.amin(0), torch.tensor([1.0, 4 / 9]))
    assert mask_points(torch.zeros(4, 4)).shape == (16, 2)


def test_disagreement_is_the_chamfer_distance():
    rng = torch.Generator().manual_seed(0)
    uv, mask = torch.rand(3, 40, 2, generator=rng), torch.rand(25, 2, generator=rng)
    squared = (uv[:, :, None] - mask).square().sum(-1)
    expected = squared.amin(2).mean(1) + squared.amin(1).mean(1)
    torch.testing.assert_close(disagreement(uv, mask), expected)


def candidate(y, k=4, S=None):
    S = sofa() if S is None else S
    M = symmetric_basis(Lattice.around(S).basis(S))
    axes = np.zeros((k, 32, 3))
    rest = Lattice.around(S).points[:32]
    for i in range(3):  # width, height and depth
        axes[i, :, i] = rest[:, i]
    arrays = {"S": S, "M": M, "R": np.zeros((1, len(S), 3)), "mean": np.zeros((32, 3)), "axes": axes}
    tensors = {name: torch.from_numpy(x).float()[None] for name, x in arrays.items()}
    return Candidates(**tensors, y=y, a=torch.zeros(1, 1))


def view(y, azimuth=0.6, elevation=0.3):
    truth = candidate(torch.tensor([y]))
    return project(truth.decode(truth.y, truth.a), torch.tensor([azimuth]), torch.tensor([elevation]))[0]


def test_refinement_finds_proportions_that_the_mask_shows(monkeypatch):
    """Where little is expected of the prior."""
    monkeypatch.setattr(module, "SPREAD", 0.01)
    mask = view([0.0, 0.3, 0.0, 0.0])
    start = candidate(torch.zeros(1, 4))
    angles = torch.tensor([0.6]), torch.tensor([0.3])
    before = refine(start, mask, *angles, y_scale=0.75, steps=0)
    after = refine(start, mask, *angles, y_scale=0.75, steps=40)
    assert torch.equal(before[0], start.y)
    assert float(after[3]) < 0.5 * float(before[3])
    width, height, depth, _ = (1 + after[0][0]).tolist()
    assert height / width == pytest.approx(1.3, abs=0.1)
    assert depth / width == pytest.approx(1, abs=0.1)
    sizes = [size(start.decode(y, start.a)) for y in (before[0], after[0])]
    assert float(sizes[1] / sizes[0]) == pytest.approx(1, abs=0.03)


def test_refinement_turns_the_camera_towards_the_view():
    mask = view([0.0, 0, 0, 0], azimuth=0.6)
    off = torch.tensor([0.8]), torch.tensor([0.3])
    angles = refine(candidate(torch.zeros(1, 4)), mask, *off, y_scale=0.01, steps=40)[2]
    assert abs(float(angles[0, 0]) - 0.6) < 0.15


def test_refinement_leaves_a_perfect_answer_almost_alone():
    mask = view([0.0, 0, 0, 0])
    y = refine(candidate(torch.zeros(1, 4)), mask, torch.tensor([0.6]), torch.tensor([0.3]), y_scale=0.3, steps=20)[0]
    assert float(y.abs().max()) < 0.03


def test_surface_samples_follow_the_decoded_mesh(tiny_run):
    """S, M and R at samples say where the samples of the decoded mesh lie."""
    template = tiny_run.graph.templates[0]
    S, M, R = surface(template, n_edges=len(template.neighbours) + 1)
    assert not R[-1].any()
    rng = np.random.default_rng(0)
    d, a = rng.normal(0, 0.05, (32, 3)), rng.random(len(template.neighbours))
    moved = S + displace(M, d) + np.tensordot(a, R[: len(a)], axes=1)
    face, w = barycentric_samples(template.V, template.F, len(S), np.random.default_rng(0))
    expected = np.einsum("nc,nca->na", w, template.decode(d, a)[template.F[face]])
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_small_and_padded_weights_are_not_used(tiny_run):
    template = tiny_run.graph.templates[0]
    n = len(template.neighbours)
    a = np.array([0.5, 0.01, 0.03, -1.0] * n)
    np.testing.assert_array_equal(used_weights(template, a), np.array([0.5, 0, 0.03, 0] * n)[:n])
