from dataclasses import replace

import numpy as np
import pytest

from i2m_lib.geometry.ffd import displace
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.registration import fit_cost, fit_ffd
from i2m_lib.graph.correspondence import source_of
from i2m_lib.graph.fits import N_WEIGHTED, Fits, digest_of_fits, fit_shapes, fit_split, kept
from i2m_lib.graph.linear_combination import fit_weights


def test_fits_are_those_of_the_registration(dataset, built):
    graph, fits = built
    for synset, fit in fits.items():
        for k, t in enumerate(graph.of(synset)):
            source = source_of(t, 0)
            for model_id, d, cost in zip(fit.model_ids, fit.d[:, k], fit.cost[:, k], strict=True):
                target = Target.of(dataset.mesh(model_id).S)
                np.testing.assert_allclose(d, fit_ffd(source, target), atol=1e-6)
                assert cost == pytest.approx(fit_cost(source, d, target), rel=1e-5)


def test_lattices_that_are_given_are_priced_and_not_fitted(dataset):
    mesh = dataset.mesh(dataset.models.model_id[0])
    d = np.zeros((1, 32, 3))
    found = fit_shapes(mesh, mesh.S[None], 0, d=d)
    assert found["d"] is d
    assert found["cost"] == chamfer(source_of(mesh, 0).S, Target.of(mesh.S))


def test_weights_are_fitted_where_a_template_is_among_the_best(dataset, built):
    graph, fits = built
    for synset, fit in fits.items():
        best = np.argsort(fit.cost, 1)[:, :N_WEIGHTED]
        assert np.take_along_axis(fit.weighted, best, 1).all()
        assert not fit.weights[~fit.weighted].any()
        t = graph.of(synset)[0]
        source = source_of(t, 0)
        for model_id, d, a in zip(fit.model_ids, fit.d[:, 0], fit.weights[:, 0], strict=True):
            again = fit_weights(t, source, d, Target.of(dataset.mesh(model_id).S))
            np.testing.assert_allclose(displace(t.K, np.tensordot(a - again, t.c, axes=1)), 0, atol=1e-3)


def test_a_split_is_fitted_as_the_graph_fits_it(dataset, built):
    graph, fits = built
    found = fit_split(dataset, graph, "train", seed=0, workers=1)
    assert found.keys() == fits.keys()
    for synset, fit in found.items():
        rows = [fits[synset].model_ids.tolist().index(m) for m in fit.model_ids]
        for name in ("d", "cost", "weights", "weighted"):
            np.testing.assert_array_equal(getattr(fit, name), getattr(fits[synset], name)[rows])


def test_fits_survive_their_file(built, tmp_path):
    for synset, fit in built[1].items():
        fit.save(tmp_path / f"{synset}.npz")
    loaded = Fits.load_all(tmp_path)
    assert digest_of_fits(loaded) == digest_of_fits(built[1])
    for synset, fit in loaded.items():
        for name, array in vars(fit).items():
            np.testing.assert_array_equal(array, getattr(built[1][synset], name))


def test_the_digest_tells_other_fits(built):
    fits = built[1]
    digest, (first, second) = digest_of_fits(fits), sorted(fits)
    others = [{first: fits[first]}, {first: fits[second], second: fits[first]}]
    others += [
        fits | {first: replace(fits[first], **{name: fits[first].cost + 1})} for name in ("cost", "d", "weights")
    ]
    assert digest == digest_of_fits(dict(reversed(fits.items())))
    assert len({digest, *map(digest_of_fits, others)}) == 1 + len(others)


def test_missing_fits_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run 02_template_graph first"):
        Fits.load_all(tmp_path)


def test_what_was_found_is_kept(tmp_path):
    def find(n):
        calls.append(n)
        return {"x": np.full(3, n)}

    calls, path = [], tmp_path / "parts" / "a.npz"
    assert [kept(path, find, n)["x"].tolist() for n in (1, 2)] == [[1, 1, 1]] * 2
    assert kept(None, find, 3)["x"].tolist() == [3, 3, 3]
    assert calls == [1, 3]
