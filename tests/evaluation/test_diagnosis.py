import dataclasses

import numpy as np
import pandas as pd
import pytest

from i2m_lib.artefacts import StaleError, read_key
from i2m_lib.dataset.dataset import Views, views_of
from i2m_lib.evaluation import diagnosis as module
from i2m_lib.evaluation.diagnosis import (
    diagnose,
    judged,
    kept_diagnosis,
    read_diagnosis,
    reasons,
    template_choice,
    template_summary,
)
from i2m_lib.evaluation.distances import Distances
from i2m_lib.evaluation.swaps import swap_parts
from i2m_lib.graph.fits import fit_split
from i2m_lib.reconstruction.memory import Memory
from i2m_lib.reconstruction.reconstructor import Reconstructor


@pytest.fixture(scope="module")
def reconstructor(tiny_run):
    return Reconstructor.load(tiny_run.folder)


@pytest.fixture(scope="module")
def fits(dataset, tiny_run):
    return fit_split(dataset, tiny_run.graph, "test", seed=0, workers=1)


@pytest.fixture(scope="module")
def table(dataset, reconstructor, fits):
    memory = Memory.of(reconstructor, dataset)
    return diagnose(dataset, reconstructor, memory, fits, split="test", n_views=2, seed=0, workers=1)


def test_a_split_is_fitted_as_the_graph_fitted_it(dataset, tiny_run):
    again = fit_split(dataset, tiny_run.graph, "val", seed=0, workers=1)
    assert again.keys() == tiny_run.fits.keys()
    for synset, first in tiny_run.fits.items():
        rows = [first.model_ids.tolist().index(m) for m in again[synset].model_ids]
        for name in ("d", "cost", "weights"):
            wanted, found = getattr(first, name)[rows], getattr(again[synset], name)
            np.testing.assert_allclose(found, wanted, atol=2e-3, err_msg=name)
        np.testing.assert_array_equal(again[synset].weighted, first.weighted[rows])


def test_every_view_is_diagnosed(dataset, table):
    assert len(table) == 2 * len(dataset.select("test"))
    assert (table.category == table.model_id.map(dataset.models.set_index("model_id").category)).all()
    assert table.notna().all(axis=None)
    assert (table.floor < table.chamfer_l1).all()
    assert (table.groupby("model_id").floor.nunique() == 1).all()


def test_the_best_template_is_never_regretted(table, fits, reconstructor):
    assert (table.regret[table.template == table.best] == 0).all()
    right = table.predicted == table.category
    assert (table.regret[right] >= 0).all()
    for row in table.itertuples():
        ids = [t.model_id for t in reconstructor.graph.of(row.synset)]
        fit = fits[row.synset]
        costs = fit.cost[fit.model_ids.tolist().index(row.model_id)]
        assert row.best == ids[costs.argmin()]
    assert ((table["rank"] == 0) == (table.template == table.best)).all()


def test_the_summary_of_a_network_that_is_always_right(table, reconstructor):
    right = table.assign(template=table.best, rank=0, regret=0.0)
    summary = template_summary(right, reconstructor.graph).set_index("category")
    assert (summary[["top_1", "top_3", "top_5"]] == 1).all(axis=None)
    assert (summary.regret == 0).all()
    assert (summary.never_used == summary.never_best).all()
    assert summary.templates["all"] == len(reconstructor.graph.templates)
    assert (template_summary(table.assign(rank=3), reconstructor.graph)[["top_3", "top_5"]] == [0, 1]).all(axis=None)


def test_reasons_are_those_of_the_swaps(dataset, reconstructor, fits, table):
    swapped = swap_parts(dataset, reconstructor, fits, split="test", workers=1)
    assert reasons(table, swapped).index.tolist() == swapped.model_id.tolist()
    m = dataset.select("test").model_id.tolist()
    right = table.assign(predicted=table.category, floor=0.2)
    rows = [(m[0], 1.0, 0.9, 0.4, 0.8, 0.55), (m[1], 1.0, 0.9, 0.4, 0.8, 0.65)]
    columns = ["model_id", "as predicted", "template", "deformation", "weights", "all"]
    made = pd.DataFrame(rows, columns=columns)
    assert reasons(right, made).tolist() == ["wrong deformation", "beyond the representation"]
    assert reasons(right.assign(predicted="ship"), made).tolist() == ["wrong category"] * 2


def test_answers_are_judged_view_by_view(dataset, reconstructor):
    views = Views(*views_of(dataset, "test", 1))
    answers, distances = reconstructor.predict(views.images), Distances(dataset)
    found = judged(dataset, views, answers, Memory.of(reconstructor, dataset), distances, 1)
    assert found.model_id.tolist() == views.rows.model_id.tolist()
    assert found.predicted.tolist() == [r.category for r in answers]
    expected = distances.of_all([(r.V, r.F) for r in answers], found.model_id, 1)
    np.testing.assert_array_equal(found.chamfer_l1, expected)


def test_the_regret_of_a_template_of_another_category_is_fitted(dataset, reconstructor, fits):
    views, images = views_of(dataset, "test", 1)
    first, second = reconstructor.predict(images)
    swapped = [dataclasses.replace(second, template=first.template), first]
    for r, view in zip(swapped, views.itertuples(), strict=True):
        others = [t for t in reconstructor.graph.templates if t.synset != view.synset]
        table = template_choice(
            dataset, reconstructor.graph, fits, views, [dataclasses.replace(r, template=others[0])] * 2, 0
        )
        assert np.isfinite(table.regret).all()


def test_tables_are_made_anew_for_another_key_and_refused_for_another_model(
    dataset, tiny_run, reconstructor, fits, tmp_path, monkeypatch
):
    for part in ("graph", "model.safetensors", "model.json"):
        (tmp_path / part).symlink_to(tiny_run.folder / part)
    with pytest.raises(StaleError, match="run 04_evaluation again"):
        read_diagnosis(tmp_path, dataset)
    calls = []
    monkeypatch.setattr(module, "fit_split", lambda *_, **__: calls.append("fits") or fits)
    settings = {"n_views": 1, "seed": 0, "workers": 1}
    first, swapped = kept_diagnosis(tmp_path, dataset, reconstructor, **settings)
    again, swapped_again = kept_diagnosis(tmp_path, dataset, reconstructor, **settings)
    assert calls == ["fits"]  # once for both tables
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(swapped, swapped_again)
    pd.testing.assert_frame_equal(read_diagnosis(tmp_path, dataset), first)
    assert len(kept_diagnosis(tmp_path, dataset, reconstructor, **settings | {"n_views": 2})[0]) == 2 * len(first)
    assert read_key(tmp_path / "diagnosis.parquet").parameters == {"n_views": 2, "seed": 0}
    with pytest.raises(StaleError, match="its dataset is another"):
        read_diagnosis(tmp_path, dataset.without(tiny_run.graph.synsets[0]))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"another")
    with pytest.raises(StaleError, match=r"its model is another.*run 04_evaluation again"):
        read_diagnosis(tmp_path, dataset)
