import numpy as np
import pandas as pd
import pytest
import torch

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.evaluation.unseen import can_be_left_out, leave_each_out, unseen_summary


@pytest.fixture(scope="module")
def table(dataset, tiny_run, tmp_path_factory):
    folder, device = tmp_path_factory.mktemp("unseen"), torch.device("cpu")
    settings = {"device": device, "n_views": 2, "workers": 1}
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


def test_what_is_left_out_is_never_answered(dataset, table):
    names = dict(zip(dataset.models.synset, dataset.models.category, strict=True))
    assert (table.predicted != table.left_out.map(names)).all()
    assert (table.unseen == (table.synset == table.left_out)).all()
    assert len(table) == 2 * 2 * len(dataset.select("test"))
    assert table[["chamfer_l1", "retrieval", "doubt"]].notna().all(axis=None)


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
