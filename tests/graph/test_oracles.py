import numpy as np
import pandas as pd

from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.surfaces import sample_surface
from i2m_lib.graph.correspondence import prepare
from i2m_lib.graph.oracles import (
    ceiling,
    explained,
    oracle_fit,
    oracle_template,
    representation_ladder,
    residuals_explained,
    worst_represented,
)


def test_the_nearest_template_is_the_one_of_least_distance(dataset, built):
    templates = built[0].templates
    sources = prepare(templates, 0)
    for model_id in dataset.models.model_id:
        S = dataset.mesh(model_id).S
        costs = [chamfer(source.S, Target.of(S)) for source in sources]
        assert oracle_template(sources, S) == np.argmin(costs)


def test_a_deformed_template_is_answered_up_to_sampling_noise(built):
    templates = built[0].of(built[0].synsets[0])
    for t in templates:
        V = t.V * [0.7, 1.2, 1.1]
        S, truth, floor = (sample_surface(V, t.F, 4096, np.random.default_rng(k))[0] for k in range(3))
        k, d, a = oracle_fit(templates, prepare(templates, 0), S)
        answer = sample_surface(templates[k].decode(d, a), templates[k].F, 4096, np.random.default_rng(9))[0]
        assert chamfer(answer, Target.of(truth)) < 1.2 * chamfer(floor, Target.of(truth))
        assert chamfer(t.V, Target.of(truth)) > 2 * chamfer(floor, Target.of(truth))


def test_each_step_of_the_ladder_helps(dataset, built):
    ladder = representation_ladder(dataset, built[0], split="test", seed=0, workers=1)
    assert not ladder.duplicated(["method", "model_id"]).any()
    means = ladder.groupby("method").value.mean()
    assert means.floor < means.oracle_ffd <= means.oracle_lattice * 1.05
    assert means.oracle_lattice < means.oracle_template
    assert means.oracle_residual < means.oracle_template


def test_the_worst_shapes_come_first_with_a_reason(dataset, built):
    ladder = representation_ladder(dataset, built[0], split="test", seed=0, n_samples=500, workers=1)
    table, surfaces = worst_represented(dataset, built[0], ladder, 2, seed=0)
    values = ladder[ladder.method == "oracle_ffd"].set_index("model_id").value
    assert table.value.tolist() == values[table.model_id].tolist()
    assert table.reason.str.contains("parts").all()
    assert len(surfaces) == len(table) == 2


def test_more_templates_never_represent_less(dataset):
    synset = dataset.models.synset[0]
    table = ceiling(dataset, synset, sizes=(1, 2, 9), choices=("coverage", "random"), split="test", seed=0, workers=1)
    assert set(table.n_templates) == {1, 2}  # there are two training shapes
    means = table.groupby(["choice", "n_templates"]).value.mean().unstack()
    assert (means[2] <= means[1]).all()
    assert means[2].nunique() == 1  # with all of them it does not matter how they were chosen


def test_sizes_above_the_training_shapes_become_all_of_them(dataset):
    options = {"choices": ("coverage",), "split": "test", "seed": 0, "workers": 1}
    every, more = (ceiling(dataset, dataset.models.synset[0], sizes=sizes, **options) for sizes in ((2,), (12, 30)))
    pd.testing.assert_frame_equal(every, more)


def test_what_a_combination_explains_is_its_projection():
    a, b, c = np.eye(5)[:, :3].T
    columns, wanted = np.stack([a, b], 1), 2 * a - b + 2 * c
    assert np.isclose(explained(columns, wanted), 4 / 9)  # of a alone, as b would need a negative weight
    assert np.isclose(explained(columns, wanted, signed=True), 5 / 9)
    assert np.isclose(explained(np.stack([a, b, c], 1), wanted, signed=True), 1)
    assert explained(columns[:, :0], wanted) == explained(columns, 0 * wanted) == 0


def test_more_templates_and_freer_weights_explain_more_of_a_residual(dataset, built):
    graph, fits = built
    table = residuals_explained(dataset, graph, fits, split="val", seed=0, workers=1)
    assert set(table.model_id) == set(dataset.select("val").model_id)
    assert (table.left > 0).all()
    assert (table["neighbours"] <= table["all"] + 1e-9).all()
    for name in ("neighbours", "all"):
        assert (table[name] <= table[f"{name}, any sign"] + 1e-9).all()
    assert table["all, any sign"].between(0, 1).all()
