import numpy as np

from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.surfaces import sample_surface
from i2m_lib.graph.correspondence import prepare
from i2m_lib.graph.oracles import ceiling, oracle_fit, oracle_template, representation_ladder, worst_represented


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
