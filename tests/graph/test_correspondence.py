import numpy as np

from i2m_lib.geometry.ffd import displace
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.registration import fit_ffd
from i2m_lib.graph.correspondence import correspondences, prepare, source_of


def test_v_ij_is_v_i_moved_by_lattice_and_residual(dataset, built):
    i, j = built[0].templates[:2]
    source, targets = source_of(i, 0), [Target.of(dataset.mesh(m).S) for m in (i.model_id, j.model_id)]
    d = np.stack([fit_ffd(source, target) for target in targets])
    for r, target, lattice in zip(correspondences(source, targets, d), targets, d, strict=True):
        np.testing.assert_array_equal(r.d, lattice)
        np.testing.assert_allclose(r.V, i.V + displace(i.M, r.d) + displace(i.K, r.c), atol=1e-12)
        assert chamfer(source.A @ r.V, target) < chamfer(source.S, target) + 0.005


def test_correspondences_lie_on_the_neighbour(dataset, built):
    for t in built[0].templates:
        for j, neighbour in enumerate(t.neighbours):
            target = Target.of(dataset.mesh(neighbour).S)
            distance = chamfer(t.correspondence(j), target)
            assert t.correspondence(j).shape == t.V.shape
            assert distance < chamfer(t.V, target) + 0.005


def test_a_source_of_other_samples_has_the_same_kernels(built):
    """The regression: weights were wrong wherever a template was sampled in another way than its neighbours' fits."""
    t = built[0].templates[0]
    target = Target.of(t.correspondence(0)[t.F].mean(1))
    for seed in (1, 2):
        source = source_of(t, seed, 700)
        np.testing.assert_array_equal(source.centres, t.centres)
        np.testing.assert_allclose(displace(source.K, t.c[0]), displace(t.K, t.c[0]), atol=1e-12)
        assert chamfer(source.A @ t.correspondence(0), target) < 0.1


def test_a_template_is_prepared_once(built):
    t = built[0].templates[0]
    first, again = prepare([t], 0)[0], prepare([t], 0)[0]
    assert first is again
    assert prepare([t], 1)[0] is not first
    np.testing.assert_array_equal(first.S, source_of(t, 0).S)
