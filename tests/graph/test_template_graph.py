from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from i2m_lib.geometry.ffd import BENDING, displace
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.registration import MAX_FLIPPED, MAX_TURNED, RIDGE, fit_ffd, flipped_faces
from i2m_lib.graph.build_graph import _register, build_graph
from i2m_lib.graph.correspondence import source_of
from i2m_lib.graph.fits import Fits
from i2m_lib.graph.linear_combination import (
    SOFTEST,
    SPARSITY,
    _solve_together,
    fit_together,
    fit_weights,
    sparse_combination,
)
from i2m_lib.graph.oracles import ceiling, representation_ladder, worst_represented
from i2m_lib.graph.template_graph import TemplateGraph


@pytest.fixture(scope="module")
def built(dataset):
    return build_graph(dataset, n_templates=3, seed=0, workers=1)


def test_only_training_shapes_become_templates_and_all_are_connected(dataset, built):
    graph, fits = built
    train = set(dataset.select("train").model_id)
    assert {t.model_id for t in graph.templates} <= train
    for synset in graph.synsets:
        templates = graph.of(synset)
        assert all(len(t.neighbours) == min(3, len(templates) - 1) for t in templates)
        assert set(fits[synset].model_ids) == set(dataset.select(synset=synset).query("split != 'test'").model_id)


def test_two_processes_build_what_one_does(dataset, built):
    graph, fits = build_graph(dataset, n_templates=3, seed=0, workers=2)
    for a, b in zip(graph.templates, built[0].templates, strict=True):
        np.testing.assert_allclose(a.c, b.c, atol=1e-6)  # BLAS may sum in another order
    for synset in fits:
        np.testing.assert_allclose(fits[synset].d, built[1][synset].d, atol=1e-6)


def test_correspondences_lie_on_the_neighbour(dataset, built):
    for t in built[0].templates:
        for j, neighbour in enumerate(t.neighbours):
            target = Target.of(dataset.mesh(neighbour).S)
            distance = chamfer(t.correspondence(j), target)
            assert t.correspondence(j).shape == t.V.shape
            assert distance < chamfer(t.V, target) + 0.005


def test_no_edge_turns_over_or_collapses_more_faces_than_the_bound(built):
    graph, fits = built
    assert (graph.edges[["flipped", "collapsed"]] <= MAX_FLIPPED).all(axis=None)
    assert all((fit.turned <= MAX_TURNED).all() for fit in fits.values())


def test_a_killed_build_goes_on_from_its_parts(dataset, built, tmp_path, monkeypatch):
    def build():
        return build_graph(dataset, n_templates=3, seed=0, workers=1, parts=tmp_path)

    build()
    parts = sorted(p for p in tmp_path.rglob("*.npz"))
    parts[0].unlink()  # as if killed before this one
    calls = []
    monkeypatch.setattr("i2m_lib.graph.build_graph._register", lambda *a, f=_register: calls.append(1) or f(*a))
    graph, fits = build()
    assert sorted(p for p in tmp_path.rglob("*.npz")) == parts
    assert len(calls) <= 1
    for synset in fits:
        np.testing.assert_array_equal(fits[synset].d, built[1][synset].d)
    pd.testing.assert_frame_equal(graph.edges, built[0].edges)


def test_listed_templates_are_taken_and_held_out_ones_refused(dataset):
    train, test = (dataset.select(s).model_id.tolist() for s in ("train", "test"))
    graph, _ = build_graph(dataset, n_templates=2, seed=0, workers=1, template_ids=[train[0], "unknown"])
    assert [t.model_id for t in graph.of(graph.synsets[0])] == [train[0]]
    assert len(graph.of(graph.synsets[1])) == 2  # no template of this category is listed
    with pytest.raises(ValueError, match="is in the split test"):
        build_graph(dataset, n_templates=2, seed=0, workers=1, template_ids=test[:1])
    with pytest.raises(ValueError, match="not by 'best'"):
        build_graph(dataset, n_templates=2, seed=0, workers=1, choice="best")


def test_components_and_in_degrees(built):
    base = built[0].templates[0]
    edges = {"a": "b", "b": "a", "c": "d", "d": "", "e": "d"}
    chain = TemplateGraph(
        [replace(base, model_id=i, neighbours=tuple(j), d=base.d[:0], c=base.c[:0]) for i, j in edges.items()], None
    )
    assert chain.components(base.synset).tolist() == [0, 0, 1, 1, 1]
    assert chain.in_degrees(base.synset).tolist() == [1, 1, 0, 2, 0]


def test_the_graph_survives_its_file(built, tmp_path):
    graph = built[0]
    graph.save(tmp_path)
    loaded = TemplateGraph.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.edges, graph.edges)
    for a, b in zip(loaded.templates, graph.templates, strict=True):
        assert (a.synset, a.model_id, a.neighbours) == (b.synset, b.model_id, b.neighbours)
        np.testing.assert_array_equal(a.F, b.F)
        np.testing.assert_allclose(a.correspondence(0), b.correspondence(0), atol=2e-3)


def test_fits_survive_their_file(built, tmp_path):
    for synset, fit in built[1].items():
        fit.save(tmp_path / f"{synset}.npz")
    for synset, fit in Fits.load_all(tmp_path).items():
        for name, array in vars(fit).items():
            np.testing.assert_array_equal(array, getattr(built[1][synset], name))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run 02_template_graph first"):
        TemplateGraph.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="run 02_template_graph first"):
        Fits.load_all(tmp_path)


def test_a_newer_file_is_refused(built, tmp_path):
    built[0].save(tmp_path)
    path = next(tmp_path.glob("*.npz"))
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "version": np.array(99)})
    with pytest.raises(ValueError, match="has version 99"):
        TemplateGraph.load(tmp_path)


def test_decoding_nothing_is_the_template(built):
    t = built[0].templates[0]
    np.testing.assert_array_equal(t.decode(), t.V)
    np.testing.assert_allclose(t.decode(np.zeros((32, 3)), np.zeros(len(t.neighbours))), t.V, atol=1e-15)


def test_any_point_moves_as_a_vertex_there_does(built):
    rng = np.random.default_rng(0)
    for t in built[0].templates:
        d, a = 0.05 * rng.normal(size=(32, 3)), rng.random(len(t.neighbours))
        np.testing.assert_allclose(t.deform(t.V, d, a), t.decode(d, a), atol=1e-12)


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
        source = source_of(t, np.random.default_rng(0))
        for model_id in dataset.select("test", t.synset).model_id:
            target = Target.of(dataset.mesh(model_id).S)
            d = fit_ffd(source, target)
            a = fit_weights(t, source, d, target)
            assert (a >= 0).all()
            assert chamfer(source.A @ t.decode(d, a), target) <= chamfer(source.A @ t.decode(d), target) + 1e-12


def test_a_source_of_other_samples_speaks_of_the_same_kernels(built):
    """The regression: weights were wrong wherever a template was sampled in another way than its neighbours' fits."""
    t = built[0].templates[0]
    target = Target.of(t.correspondence(0)[t.F].mean(1))
    for seed in (1, 2):
        source = source_of(t, np.random.default_rng(seed), 700)
        np.testing.assert_array_equal(source.centres, t.centres)
        np.testing.assert_allclose(displace(source.K, t.c[0]), displace(t.K, t.c[0]), atol=1e-12)
        assert chamfer(source.A @ t.correspondence(0), target) < 0.1


def test_lattice_and_weights_together_are_a_stationary_point(built):
    """Of the problem they solve: its gradient vanishes along d, and along a it is zero or points outward."""
    t, rng = built[0].templates[0], np.random.default_rng(0)
    source = source_of(t, rng)
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
        source = source_of(t, np.random.default_rng(0))
        for model_id in dataset.select("test", t.synset).model_id:
            target = Target.of(dataset.mesh(model_id).S)
            d = fit_ffd(source, target)
            V = t.decode(*fit_together(t, source, d, target))
            assert chamfer(source.A @ V, target) <= chamfer(source.A @ t.decode(d), target) + 1e-9
            assert flipped_faces(t.V, V, t.F) <= max(MAX_FLIPPED, flipped_faces(t.V, t.decode(d), t.F))


def test_the_worst_shapes_come_first_with_a_reason(dataset, built):
    ladder = representation_ladder(dataset, built[0], split="test", seed=0, n_samples=500, workers=1)
    table, surfaces = worst_represented(dataset, built[0], ladder, 2, seed=0)
    values = ladder[ladder.method == "oracle_ffd"].set_index("model_id").value
    assert table.value.tolist() == values[table.model_id].tolist()
    assert table.reason.str.contains("parts").all()
    assert len(surfaces) == len(table) == 2


def test_each_step_of_the_ladder_helps(dataset, built):
    ladder = representation_ladder(dataset, built[0], split="test", seed=0, workers=1)
    assert not ladder.duplicated(["method", "model_id"]).any()
    means = ladder.groupby("method").value.mean()
    assert means.floor < means.oracle_ffd <= means.oracle_lattice * 1.05
    assert means.oracle_lattice < means.oracle_template
    assert means.oracle_residual < means.oracle_template


def test_more_templates_never_represent_less(dataset):
    synset = dataset.models.synset[0]
    table = ceiling(dataset, synset, sizes=(1, 2, 9), choices=("coverage", "random"), split="test", seed=0, workers=1)
    assert set(table.n_templates) == {1, 2}  # there are two training shapes
    means = table.groupby(["choice", "n_templates"]).value.mean().unstack()
    assert (means[2] <= means[1]).all()
    assert means[2].nunique() == 1  # with all of them it does not matter how they were chosen
