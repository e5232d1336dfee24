import dataclasses
import inspect
import textwrap
from functools import partial

import numpy as np
import pytest

from i2m_lib.dataset.dataset import Dataset, Views, chunks
from i2m_lib.evaluation import method as module
from i2m_lib.evaluation.ladder import ladder_methods, score_ladder
from i2m_lib.evaluation.method import Network, by_model, from_image, located, methods_table, opened, surface_of
from i2m_lib.geometry.surfaces import Surface
from i2m_lib.learning.trainer import Budget
from i2m_lib.scoring.protocols import PROTOCOLS
from i2m_lib.scoring.statistics import summarise
from i2m_lib.study.report import LADDER


@pytest.fixture(scope="module")
def views(dataset):
    return next(chunks(dataset, dataset.first_views(dataset.select("test"), 2)))


def test_the_example_of_the_module_runs(dataset, tiny_run):
    """The code in the docstring, as a user would copy it, with fewer samples."""
    small = {"canonical": dataclasses.replace(PROTOCOLS["canonical"], n_samples=500, n_inside=100)}
    names = {"dataset": dataset, "run": tiny_run.folder, "PROTOCOLS": small, "Budget": Budget, "Dataset": Dataset}
    names |= {"Views": Views, "Surface": Surface, "summarise": partial(summarise, n_boot=10)}
    names |= {f.__name__: partial(f, workers=1) for f in (ladder_methods, score_ladder)}
    example = inspect.getdoc(module).split("one function:\n")[1]
    exec(textwrap.dedent(example), names)
    scores = names["scores"]
    mine = scores[(scores.method == "first_shape") & (scores.metric == "chamfer_l1")]
    assert mine.model_id.tolist() == dataset.select("test").model_id.tolist()
    assert (mine.view == 0).all()


def test_methods_share_one_pass_of_the_network(tiny_run, views, monkeypatch):
    network, calls = Network(tiny_run.folder), []
    predict = network.reconstructor.predict
    monkeypatch.setattr(type(network.reconstructor), "predict", lambda self, x: calls.append(len(x)) or predict(x))
    method = from_image("mine", network, lambda answers: [(r.V, r.F) for r in answers])
    assert len(method.answer(views)) == len(network(views)) == len(views)
    assert calls == [len(views)]
    method.answer(dataclasses.replace(views))  # the same views, read again
    assert calls == [len(views)] * 2
    assert method.budget == network.budget != Budget()


def test_a_method_by_model_answers_all_views_of_a_model_alike(dataset, views):
    floor = by_model("mine", "the true shape", dataset, lambda data, view: surface_of(data, view.model_id))
    surfaces = floor.answer(views)
    assert floor.budget == Budget()
    assert len(surfaces) == len(views)
    for model_id, (V, F) in zip(views.rows.model_id, surfaces, strict=True):
        mesh = dataset.mesh(model_id)
        np.testing.assert_array_equal(V, mesh.V)
        np.testing.assert_array_equal(F, mesh.F)


def test_a_dataset_is_opened_once(dataset):
    assert opened(*located(dataset)) is opened(*located(dataset))
    assert opened(*located(dataset)).digest == dataset.digest


def test_the_table_of_methods_has_what_they_are_told_and_trained_on(dataset, tiny_run):
    table = methods_table(ladder_methods(dataset, tiny_run.folder, seed=0, workers=1)).set_index("method")
    assert table.told.to_dict().items() <= LADDER.items()
    assert (table.loc[["random_shape", "floor"], ["views", "steps", "seconds"]] == 0).all(axis=None)
    budget = Budget.of(tiny_run.folder / "training")
    assert table.loc["image2mesh"].tolist() == ["the image", *dataclasses.astuple(budget)]
    assert table.loc["image2mesh", "views"] == len(tiny_run.views)
