import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.evaluation.distances import Distances
from i2m_lib.evaluation.method import surface_of
from i2m_lib.evaluation.unseen import as_long, can_be_left_out, leave_each_out, unseen_summary
from i2m_lib.learning.settings import read_description
from i2m_lib.learning.trainer import Budget


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("unseen")


@pytest.fixture(scope="module")
def table(dataset, tiny_run, folder):
    settings = {"device": torch.device("cpu"), "n_views": 2, "workers": 1}
    return leave_each_out(dataset, tiny_run.graph, tiny_run.fits, folder, tiny_run.settings, **settings)


def test_a_dataset_without_a_category_keeps_the_rest(dataset):
    first, second = sorted(dataset.models.synset.unique())
    rest = dataset.without(first)
    assert set(rest.models.synset) == set(rest.views.synset) == {second}
    pd.testing.assert_frame_equal(rest.select("test"), dataset.select("test", second))
    index = rest.views["index"].iloc[0]
    np.testing.assert_array_equal(rest.image(index), dataset.image(index))


def test_a_graph_without_a_category_keeps_the_order_of_the_rest(tiny_run):
    first, second = tiny_run.graph.synsets
    rest = tiny_run.graph.without(first)
    assert rest.synsets == [second]
    assert rest.templates == tiny_run.graph.of(second)
    assert set(rest.edges.synset) == {second}


def test_networks_train_for_as_many_steps_as_the_one_they_are_compared_with(dataset, tiny_run, folder, table):
    """The tiny run takes 2 steps in its epoch; without a category an epoch has 1, so there are 2 epochs."""
    for synset in tiny_run.graph.synsets:
        assert Budget.of(folder / synset).steps == Budget.of(tiny_run.folder / "training").steps == 2
        assert read_description(folder / synset)[1] == dataclasses.replace(tiny_run.settings, epochs=2)


def test_epochs_are_rounded_up_to_at_least_as_many_steps(dataset, tiny_run):
    part = dataset.without(tiny_run.graph.synsets[0])  # 8 of 16 views
    for size, epochs, expected in ((8, 5, 10), (5, 5, 10), (6, 5, 8), (16, 5, 5)):  # steps 2:1, 4:2, 3:2, 1:1
        settings = dataclasses.replace(tiny_run.settings, epochs=epochs, batch_size=size)
        assert as_long(settings, dataset, part).epochs == expected
    assert as_long(settings, dataset, dataset) == settings


def test_what_is_left_out_is_never_answered(dataset, table):
    names = dict(zip(dataset.models.synset, dataset.models.category, strict=True))
    assert (table.predicted != table.left_out.map(names)).all()
    assert (table.unseen == (table.synset == table.left_out)).all()
    assert len(table) == 2 * 2 * len(dataset.select("test"))


def test_retrieval_is_the_distance_to_a_training_shape_of_another_category(dataset, table):
    for synset, rows in table[table.unseen].groupby("left_out"):
        known, distances = dataset.without(synset).select("train").model_id, Distances(dataset)
        for model_id, views in rows.groupby("model_id"):
            each = distances.of_all([surface_of(dataset, m) for m in known], [model_id] * len(known), 1)
            assert all(np.isclose(each, value).any() for value in views.retrieval)


def test_the_summary_compares_the_category_left_out_with_the_rest(table):
    full = table[table.unseen].assign(chamfer_l1=0.25)
    full = pd.concat([full, table[~table.unseen].assign(chamfer_l1=np.nan)]).drop_duplicates(["model_id", "view"])
    known = table.assign(doubt=table.unseen.astype(float), entropy=1.0)
    summary = unseen_summary(known, full, n_boot=50, seed=0)
    assert len(summary) == table.left_out.nunique()
    assert (summary.full == 0.25).all()
    assert (summary[["auroc", "low", "high"]] == 1).all(axis=None)
    assert (summary.entropy == 0.5).all()


def test_one_category_cannot_be_left_out(dataset, tiny_run, tmp_path):
    first = tiny_run.graph.synsets[0]
    alone, graph = dataset.without(first), tiny_run.graph.without(first)
    with pytest.raises(ValueError, match="no category can be left out"):
        leave_each_out(alone, graph, tiny_run.fits, tmp_path, tiny_run.settings, device=torch.device("cpu"))


def test_a_category_is_left_out_only_if_it_is_tested_and_others_remain(dataset):
    first, second = sorted(dataset.models.synset.unique())
    assert can_be_left_out(dataset) == [first, second]

    def without(split: str):
        gone = (dataset.manifest.synset == second) & (dataset.manifest.split == split)
        return Dataset(dataset.path, dataset.manifest[~gone], dataset.views)

    assert can_be_left_out(without("test")) == [first]  # the second has nothing to be tested on
    assert can_be_left_out(without("train")) == can_be_left_out(without("val")) == [second]  # the first is needed
