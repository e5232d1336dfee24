import numpy as np
import pytest

from i2m_lib.evaluation.oracle_methods import fitted_template, graph_at, nearest_shape, nearest_template, true_shape
from i2m_lib.evaluation.recognition import Shapes
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.surfaces import sample_surface


@pytest.fixture(scope="module")
def graph(tiny_run):
    return tiny_run.folder / "graph", tiny_run.graph.digest


def distance(dataset, view, surface):
    points = sample_surface(*surface, 500, np.random.default_rng(0))[0]
    return chamfer(points, Target.of(dataset.mesh(view.model_id).S))


def test_the_nearest_shape_of_a_training_shape_is_itself(dataset):
    shapes = Shapes.of(dataset)
    for view in dataset.select("train").itertuples():
        np.testing.assert_array_equal(nearest_shape(dataset, view, shapes)[0], dataset.mesh(view.model_id).V)


def test_the_oracles_stand_in_order(dataset, graph):
    for view in dataset.select("test").itertuples():
        found = [
            distance(dataset, view, surface)
            for surface in (
                true_shape(dataset, view),
                fitted_template(dataset, view, graph, seed=0),
                nearest_template(dataset, view, graph, seed=0),
            )
        ]
        assert found == sorted(found)


def test_the_nearest_template_is_one_of_the_category(dataset, graph, tiny_run):
    view = next(dataset.select("test").itertuples())
    V, _ = nearest_template(dataset, view, graph, seed=0)
    distances = [distance(dataset, view, (t.V, t.F)) for t in tiny_run.graph.of(view.synset)]
    np.testing.assert_array_equal(V, graph_at(*graph).of(view.synset)[int(np.argmin(distances))].V)


def test_another_graph_in_the_same_folder_is_read_anew(tiny_run, tmp_path):
    first, second = tiny_run.graph, tiny_run.graph.without(tiny_run.graph.synsets[0])
    for graph in (first, second):
        graph.save(tmp_path)
        for path in tmp_path.glob("*.npz"):
            if path.stem not in graph.synsets:
                path.unlink()
        assert graph_at(tmp_path, graph.digest).synsets == graph.synsets
