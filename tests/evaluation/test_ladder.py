import dataclasses

import numpy as np
import pandas as pd
import pytest

from i2m_lib.artefacts import read_key
from i2m_lib.dataset.dataset import chunks
from i2m_lib.evaluation import ladder, paper_split
from i2m_lib.evaluation.ladder import PUBLISHED, RUNGS, kept_scores, ladder_methods, once, rung, score_ladder
from i2m_lib.evaluation.method import Answering, Network, from_image
from i2m_lib.scoring.protocols import PROTOCOLS
from i2m_lib.study.report import LADDER

PROTOCOL = dataclasses.replace(PROTOCOLS["canonical"], n_samples=2000, n_inside=500)
HOW = {"split": "test", "n_views": 2, "protocol": PROTOCOL, "seed": 0}


@pytest.fixture(scope="module")
def methods(dataset, tiny_run):
    found = ladder_methods(dataset, tiny_run.folder, seed=0, workers=1)
    network = Network(tiny_run.folder)
    return [*found, from_image("further", network, lambda answers: [(r.template.V, r.F) for r in answers])]


@pytest.fixture(scope="module")
def scores(dataset, methods):
    return score_ladder(dataset, methods, **HOW, workers=1)


def test_every_method_answers_every_shape_and_view(dataset, methods, scores):
    assert set(scores.method) == {*LADDER, "further"} - {*PUBLISHED, paper_split.NAME}
    n = len(dataset.select("test"))
    sees = {m.name for m in methods if m.told == "the image"}
    for metric in ("chamfer_l1", "silhouette_iou", "silhouette_iou_held_out", "iou"):
        views = scores[scores.metric == metric].groupby("method").view.agg(["size", "min"])
        for method, row in views.iterrows():
            by_view = method in sees or metric.startswith("silhouette")
            assert (row["size"], row["min"]) == ((2 * n, 0) if by_view else (n, -1)), (method, metric)


def test_a_further_method_is_scored_as_the_same_answers_are(scores):
    wide = scores.pivot_table("value", ["model_id", "view", "metric"], "method")[["further", "template"]].dropna()
    assert len(wide) > 20
    np.testing.assert_array_equal(wide.further, wide.template)


def test_the_floor_is_below_everything(scores):
    means = scores.query("metric == 'chamfer_l1'").groupby("method").value.mean()
    assert means.floor < means.drop("floor").min()
    assert means.oracle_ffd < means.oracle_template
    assert means.oracle_nearest <= means.random_shape


def test_the_truth_fills_its_masks(scores):
    masks = scores[scores.metric.str.startswith("silhouette") & (scores.method == "floor")]
    assert masks.value.min() > 0.97  # the masks are drawn by another program than these silhouettes


def test_two_processes_give_the_same_scores(dataset, methods, scores):
    pd.testing.assert_frame_equal(score_ladder(dataset, methods, **HOW, workers=2), scores, rtol=1e-6)


def test_scores_do_not_depend_on_the_size_of_chunks(dataset, methods, monkeypatch):
    seen = []

    def grown(views):
        seen.append(len(views))
        meshes = [dataset.mesh(m) for m in views.rows.model_id]
        return [(mesh.V * (1 + i / 100), mesh.F) for mesh, i in zip(meshes, views.rows["index"], strict=True)]

    both = [methods[0], Answering("mine", "the image", grown)]
    whole = score_ladder(dataset, both, **HOW, workers=1)
    monkeypatch.setattr(ladder, "chunks", lambda data, rows: chunks(data, rows, 1))
    pd.testing.assert_frame_equal(score_ladder(dataset, both, **HOW, workers=1), whole)
    n = len(dataset.select("test"))
    assert seen == [2 * n, *[2] * n]  # no more than the views of a model at a time


def test_scores_are_made_anew_for_another_key_alone(dataset, tiny_run, methods, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(ladder, "inputs_of", lambda data, run: {"model": model})
    table = pd.DataFrame({"value": [1.0]})
    monkeypatch.setattr(ladder, "score_ladder", lambda *_, **how: calls.append(how) or table)
    model = "first"
    for _ in range(2):
        pd.testing.assert_frame_equal(kept_scores(tmp_path, dataset, methods, **HOW), table)
    assert len(calls) == 1
    kept_scores(tmp_path, dataset, methods, **HOW | {"n_views": 1})
    kept_scores(tmp_path, dataset, methods[:3], **HOW | {"n_views": 1})
    kept_scores(tmp_path, dataset, methods[:3], **HOW | {"n_views": 1, "protocol": PROTOCOLS["canonical"]})
    assert len(calls) == 4
    model = "second"
    kept_scores(tmp_path, dataset, methods[:3], **HOW | {"n_views": 1, "protocol": PROTOCOLS["canonical"]})
    assert len(calls) == 5
    assert read_key(tmp_path / "scores.parquet").inputs == {"model": "second"}


def test_rungs_are_steps_of_one_reconstruction(dataset, tiny_run):
    network = Network(tiny_run.folder)
    views = next(chunks(dataset, dataset.first_views(dataset.select("test"), 1)))
    found = {name: rung(name, network).answer(views) for name in RUNGS}
    for i, r in enumerate(network(views)):
        np.testing.assert_array_equal(found["template"][i][0], r.template.V)
        np.testing.assert_array_equal(found["template_ffd"][i][0], r.template.decode(r.d))
        np.testing.assert_array_equal(found["image2mesh"][i][0], r.V)


def test_the_same_answer_is_scored_once():
    calls = []
    total = once(lambda V, view: calls.append(view) or V.sum() + view)
    assert total(np.ones(3), 1) == total(np.ones(3), 1) == 4
    assert calls == [1]
    assert total(np.ones(3), 2) == 5
    assert total(np.zeros(3), 1) == 1
    assert calls == [1, 2, 1]
