import dataclasses

import numpy as np
import pandas as pd
import pytest

from i2m_lib.evaluation.ladder import Judge, answer, score_ladder
from i2m_lib.published.published import PUBLISHED
from i2m_lib.scoring.protocols import PROTOCOLS
from i2m_lib.study.report import LADDER

PROTOCOL = dataclasses.replace(PROTOCOLS["canonical"], n_samples=2000, n_inside=500)
SEES = {"image_retrieval", "cluster_classifier", "template", "template_ffd", "image2mesh", "further"}


@pytest.fixture(scope="module")
def setting(dataset, tiny_run):
    return answer(dataset, tiny_run.folder, split="test", n_views=2, seed=0, workers=1)


def run(dataset, tiny_run, setting, workers):
    further = {"further": [(r.template.V, r.template.F) for r in setting.answers]}
    settings = {"protocol": PROTOCOL, "seed": 0, "others": further, "workers": workers}
    return score_ladder(dataset, tiny_run.folder, setting, **settings)


@pytest.fixture(scope="module")
def scores(dataset, tiny_run, setting):
    return run(dataset, tiny_run, setting, workers=1)


def test_every_method_answers_every_shape_and_view(dataset, setting, scores):
    assert set(scores.method) == {*LADDER, "further"} - PUBLISHED.keys()
    n = len(dataset.select("test"))
    assert len(setting.predictions) == len(setting.answers) == 2 * n
    for metric in ("chamfer_l1", "silhouette_iou", "silhouette_iou_held_out", "iou"):
        views = scores[scores.metric == metric].groupby("method").view.agg(["size", "min"])
        for method, row in views.iterrows():
            sees = method in SEES or metric.startswith("silhouette")
            assert (row["size"], row["min"]) == ((2 * n, 0) if sees else (n, -1)), (method, metric)


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
    assert masks.value.min() > 0.97  # drawn by another program than these silhouettes


def test_two_processes_score_what_one_does(dataset, tiny_run, setting, scores):
    pd.testing.assert_frame_equal(run(dataset, tiny_run, setting, workers=2), scores, rtol=1e-6)


def test_the_same_answer_is_scored_once(dataset):
    model_id = dataset.select("test").model_id[0]
    mesh = dataset.mesh(model_id)
    judge = Judge(PROTOCOL.prepare(mesh.V, mesh.F, 0), 0, dataset, model_id)
    once = judge.surface(mesh.V, mesh.F)
    assert judge.surface(mesh.V.copy(), mesh.F) is once
    assert judge.surface(mesh.V + 0.01, mesh.F) is not once
    assert len(judge.known) == 2
