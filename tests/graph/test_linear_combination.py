import numpy as np
from scipy.optimize import minimize

from i2m_lib.geometry.ffd import BENDING, displace
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.registration import MAX_FLIPPED, RIDGE, fit_ffd, fit_residual, flipped_faces
from i2m_lib.graph.correspondence import source_of
from i2m_lib.graph.linear_combination import (
    SOFTEST,
    SPARSITY,
    _solve_together,
    fit_together,
    fit_weights,
    sparse_combination,
)


def test_the_sparse_combination_is_the_constrained_minimum():
    rng = np.random.default_rng(0)
    Y, wanted = rng.normal(size=(5, 40)), rng.normal(size=40)
    gram, products, price = Y @ Y.T, Y @ wanted, 2.0
    a = sparse_combination(gram, products, price)
    slow = minimize(lambda x: x @ gram @ x / 2 - products @ x + price * x.sum(), np.ones(5), bounds=[(0, None)] * 5)
    np.testing.assert_allclose(a, slow.x, atol=1e-4)
    gradient = gram @ a - products + price
    assert (gradient > -1e-6).all()  # no neighbour left out would help,
    np.testing.assert_allclose(gradient[a > 0], 0, atol=1e-6)  # and those let in are balanced


def test_a_price_above_every_gain_leaves_all_out():
    assert not sparse_combination(np.eye(3), np.array([0.1, 0.2, 0.3]), 1.0).any()


def test_weights_never_lead_away_from_the_target(dataset, built):
    for t in built[0].templates:
        source = source_of(t, 0)
        for model_id in dataset.select("test", t.synset).model_id:
            target = Target.of(dataset.mesh(model_id).S)
            d = fit_ffd(source, target)
            a = fit_weights(t, source, d, target)
            assert (a >= 0).all()
            assert chamfer(source.A @ t.decode(d, a), target) <= chamfer(source.A @ t.decode(d), target) + 1e-12


def test_lattice_and_weights_together_are_a_stationary_point(built):
    """Of the problem they solve: its gradient vanishes along d, and along a it is zero or points outward."""
    t, rng = built[0].templates[0], np.random.default_rng(0)
    source = source_of(t, 0)
    fields, w = displace(source.KS, t.c), rng.random(len(source.S)) / len(source.S)
    wanted = displace(source.MS, 0.1 * rng.normal(size=(32, 3))) + fields[0] + 0.01 * rng.normal(size=source.S.shape)

    def value(d, a):
        rest = displace(source.MS, d) + np.tensordot(a, fields, axes=1) - wanted
        bent = sum(d[:, k] @ (BENDING[k] + RIDGE * np.eye(32)) @ d[:, k] for k in range(3))
        return (w[:, None] * rest**2).sum() / 2 + SOFTEST * bent / 2 + SPARSITY * a.sum()

    d, a = _solve_together(source, fields, w, wanted)
    assert a[0] > 0.5
    for _ in range(50):
        other = np.maximum(a + 1e-2 * rng.normal(size=a.shape), 0)
        assert value(d + 1e-2 * rng.normal(size=d.shape), other) > value(d, a)


def test_fitting_together_never_leads_away_nor_folds(dataset, built):
    for t in built[0].templates:
        source = source_of(t, 0)
        for model_id in dataset.select("test", t.synset).model_id:
            target = Target.of(dataset.mesh(model_id).S)
            d = fit_ffd(source, target)
            V = t.decode(*fit_together(t, source, d, target))
            assert chamfer(source.A @ V, target) <= chamfer(source.A @ t.decode(d), target) + 1e-9
            assert flipped_faces(t.V, V, t.F) <= max(MAX_FLIPPED, flipped_faces(t.V, t.decode(d), t.F))


def test_a_weight_costs_its_price_against_half_of_the_mean_square(built):
    """At the weights found the gradient of what the docstring states is zero, or positive where a weight is zero."""
    n_used = 0
    for t in built[0].templates:
        source, d = source_of(t, 0), np.zeros((32, 3))
        fields = displace(source.KS, t.c)
        target = Target.of(source.S + 0.7 * fields[0])
        a, wanted = fit_weights(t, source, d, target), displace(source.KS, fit_residual(source, d, target))
        left = np.tensordot(a, fields, axes=1) - wanted
        gradient = (fields * left).sum(2).mean(1) + SPARSITY
        if a.any():
            np.testing.assert_allclose(gradient[a > 0], 0, atol=1e-2 * SPARSITY)
            assert (gradient > -1e-2 * SPARSITY).all()
            n_used += 1
    assert n_used
