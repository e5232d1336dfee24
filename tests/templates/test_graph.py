import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from i2m_lib.templates.build import build_graph
from i2m_lib.templates.compact import encode, fit_weights, sparse_combination
from i2m_lib.templates.fits import Fits
from i2m_lib.templates.graph import TemplateGraph
from i2m_lib.templates.registration import Source, Target, chamfer
from i2m_lib.templates.represent import representation_ladder


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
        source = Source.of(t.V, t.F, rng=np.random.default_rng(0))
        for model_id in dataset.select("test", t.synset).model_id:
            target = Target.of(dataset.mesh(model_id).S)
            d, a = encode(t, source, target)
            assert (a >= 0).all()
            assert chamfer(source.A @ t.decode(d, a), target) <= chamfer(source.A @ t.decode(d), target) + 1e-12
            np.testing.assert_array_equal(a, fit_weights(t, source, d, target))


def test_each_step_of_the_ladder_helps(dataset, built):
    ladder = representation_ladder(dataset, built[0], split="test", seed=0, workers=1)
    assert not ladder.duplicated(["method", "model_id"]).any()
    means = ladder.groupby("method").value.mean()
    assert means.floor < means.oracle_ffd <= means.oracle_lattice * 1.02
    assert means.oracle_lattice < means.oracle_template
