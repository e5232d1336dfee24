import dataclasses

import numpy as np
import pandas as pd
import pytest

from i2m_lib.evaluation.baselines import Shapes, evaluate
from i2m_lib.evaluation.protocols import PROTOCOLS
from i2m_lib.report import LADDER
from i2m_lib.templates.registration import Target, chamfer

PROTOCOL = dataclasses.replace(PROTOCOLS["canonical"], n_samples=2000)


@pytest.fixture(scope="module")
def shapes(dataset):
    return Shapes.of(dataset, dataset.models.model_id.tolist())


def run(dataset, tiny_run, workers):
    return evaluate(dataset, tiny_run.folder, protocol=PROTOCOL, split="test", n_views=2, seed=0, workers=workers)


@pytest.fixture(scope="module")
def scored(dataset, tiny_run):
    return run(dataset, tiny_run, workers=1)


def test_the_nearest_shape_to_a_shape_is_itself(dataset, shapes):
    for model_id in shapes.model_ids:
        assert shapes.nearest(dataset.mesh(model_id).S) == model_id


def test_the_medoid_is_nearest_to_all(shapes):
    few = [x[:512] for x in shapes.S]
    totals = [sum(chamfer(x, Target.of(y)) for y in few) for x in few]
    assert shapes.medoid() == shapes.model_ids[int(np.argmin(totals))]


def test_every_method_answers_every_shape_and_view(dataset, scored):
    scores, predictions = scored
    assert set(scores.method) == set(LADDER)
    n = len(dataset.select("test"))
    assert len(predictions) == 2 * n
    views = scores[scores.metric == "chamfer_l1"].groupby("method").view.agg(["size", "min"])
    for method, row in views.iterrows():
        sees = method in ("image_retrieval", "template", "template_ffd", "image2mesh")
        assert (row["size"], row["min"]) == ((2 * n, 0) if sees else (n, -1)), method


def test_the_floor_is_below_everything(scored):
    means = scored[0].query("metric == 'chamfer_l1'").groupby("method").value.mean()
    assert means.floor < means.drop("floor").min()
    assert means.oracle_ffd < means.oracle_template
    assert means.oracle_nearest <= means.random_shape


def test_two_processes_score_what_one_does(dataset, tiny_run, scored):
    both = run(dataset, tiny_run, workers=2)[0]
    pd.testing.assert_frame_equal(both, scored[0], rtol=1e-6)
