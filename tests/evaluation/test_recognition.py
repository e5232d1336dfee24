import numpy as np
import pytest
import torch

from i2m_lib.evaluation.recognition import Clusters, Shapes, classifier
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.reconstruction.memory import Memory


@pytest.fixture(scope="module")
def shapes(dataset):
    return Shapes.of(dataset, dataset.models.model_id.tolist())


def test_the_nearest_shape_to_a_shape_is_itself(dataset, shapes):
    for model_id in shapes.model_ids:
        assert shapes.nearest(dataset.mesh(model_id).S) == model_id


def test_shapes_that_cannot_be_near_are_passed_over_rightly():
    """The definition: few samples with all shapes, then all samples with the best five."""
    rng = np.random.default_rng(0)
    shapes = Shapes(np.arange(40).astype(str), np.repeat("a", 40), rng.random((40, 1000, 3)) * rng.random((40, 1, 3)))
    for S in rng.random((5, 1000, 3)) * rng.random((5, 1, 3)):
        few, every = Target.of(S[:512]), Target.of(S)
        best = np.argsort([chamfer(x[:512], few) for x in shapes.S])[:5]
        assert shapes.nearest(S) == shapes.model_ids[min(best, key=lambda i: chamfer(shapes.S[i], every))]


def test_the_medoid_is_nearest_to_all(shapes):
    few = [x[:512] for x in shapes.S]
    D = np.array([[chamfer(x, Target.of(y)) for x in few] for y in few])
    np.testing.assert_allclose(shapes.distances, D, atol=1e-12)
    assert shapes.medoid() == shapes.model_ids[D.sum(1).argmin()]


def test_clusters_are_those_of_k_medoids(shapes):
    for k in (1, 2, 3, 100):
        medoids, cluster = shapes.cluster(k)
        assert len(medoids) == min(k, len(shapes.model_ids))
        np.testing.assert_array_equal(cluster, shapes.distances[medoids].argmin(0))
        np.testing.assert_array_equal(cluster[medoids], np.arange(len(medoids)))
    assert shapes.model_ids[shapes.cluster(1)[0][0]] == shapes.medoid()


def test_two_clusters_of_chairs_and_tables_are_chairs_and_tables():
    rng = np.random.default_rng(0)
    S = np.stack([rng.random((64, 3)) + shift for shift in (0, 0, 0, 5, 5)])
    _, cluster = Shapes(np.arange(5).astype(str), np.repeat("a", 5), S).cluster(2)
    assert len(set(cluster[:3])) == len(set(cluster[3:])) == 1
    assert cluster[0] != cluster[4]


def test_codes_are_classified_into_clusters():
    """Three well separated clusters of codes, one of them with many more views than the others."""
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8)
    model_ids = np.repeat(["a", "b", "c"], [200, 10, 10])
    codes = centres[np.repeat([0, 1, 2], [200, 10, 10])] + 0.05 * rng.normal(size=(220, 8))
    memory = Memory(torch.nn.functional.normalize(torch.tensor(codes).float(), dim=1), model_ids)
    clusters = Clusters(np.array(["A", "B", "C"]), {"a": 0, "b": 1, "c": 2})
    query = torch.tensor(centres + 0.05 * rng.normal(size=(3, 8))).float()
    assert classifier(memory, clusters)(query) == ["A", "B", "C"]
    assert memory.retrieve(query) == ["a", "b", "c"]
    assert (memory.similarity(memory.codes) > 0.9999).all()
    assert (memory.similarity(-memory.codes) < 0.5).all()
