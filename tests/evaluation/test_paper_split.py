import dataclasses

import numpy as np
import pytest

from i2m_lib.artefacts import StaleError
from i2m_lib.evaluation import paper_split
from i2m_lib.evaluation.method import methods_table
from i2m_lib.evaluation.paper_split import NAME, kept_paper_split, summarise_paper_split, with_budgets
from i2m_lib.published.generator import generate, read_samples
from i2m_lib.published.paper import PaperMethod, train_paper
from i2m_lib.scoring.protocols import PROTOCOLS
from i2m_lib.scoring.statistics import COLUMNS

PROTOCOL = dataclasses.replace(PROTOCOLS["canonical"], n_samples=500, n_inside=100)
HOW = {"protocol": PROTOCOL, "seed": 0, "workers": 1}


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny_run.graph.save(folder / "graph")
    samples = generate(tiny_run.graph, folder / "samples", n=12, seed=0, workers=1)
    train_paper(samples, tiny_run.graph, folder / "paper", epochs=(1, 1, 1), batch_size=8, seed=0)
    return folder


@pytest.fixture(scope="module")
def scores(dataset, run):
    return kept_paper_split(run, dataset, **HOW)


def test_as_many_held_out_samples_are_scored_as_there_are_test_models(dataset, tiny_run, run, scores):
    assert set(COLUMNS) <= set(scores) and set(scores.method) == {NAME}
    samples = read_samples(run / "samples", tiny_run.graph)
    names = {f"{s}_{one.n_train + i}" for s, one in samples.items() for i in range(len(dataset.select("test", s)))}
    assert set(scores.model_id) == names


def test_the_true_parameters_score_as_the_floor_does(dataset, tiny_run, run, monkeypatch, scores):
    """The sample's own surface, answered to its image: the truth that is compared is the shape that was drawn."""
    samples = read_samples(run / "samples", tiny_run.graph)

    def known(self, images, synset):
        one = samples[synset]
        return [one.surface(self.graph.of(synset), one.n_train + i) for i in range(len(images))]

    monkeypatch.setattr(PaperMethod, "predict_samples", known)
    exact = paper_split.score_paper_split(run, dataset, **HOW)
    for (model_id,), rows in exact.groupby(["model_id"]):
        synset, i = model_id.split("_")
        V, F = samples[synset].surface(tiny_run.graph.of(synset), int(i))
        floor = PROTOCOL.prepare(V, F, 0).floor(0)
        assert rows.set_index("metric").value.to_dict() == pytest.approx(floor, nan_ok=True)
    means = (table.query("metric == 'chamfer_l1'").value.mean() for table in (exact, scores))
    assert next(means) < next(means)


def test_the_row_is_compared_with_nothing_and_has_the_budget_of_the_method(run, scores):
    method = PaperMethod.load(run)
    table = with_budgets(summarise_paper_split(scores, n_boot=10, seed=0), [method])
    row = table.query("metric == 'chamfer_l1' and group == 'category_mean'").iloc[0]
    assert (row.method, row.n_shapes) == (NAME, 2)
    assert row["mean"] == pytest.approx(scores.query("metric == 'chamfer_l1'").value.mean())
    assert np.isnan([row.difference, row.win_rate]).all()
    assert row.steps == methods_table([method]).steps[0] > 0


def test_networks_of_other_samples_are_refused(dataset, tiny_run, run, scores):
    kept_paper_split(run, dataset, **HOW)  # read, not made
    generate(tiny_run.graph, run / "samples", n=12, seed=1, workers=1)
    with pytest.raises(StaleError, match="trained on other samples: run 03_training again"):
        paper_split.score_paper_split(run, dataset, **HOW)
