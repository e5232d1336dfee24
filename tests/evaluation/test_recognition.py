from functools import partial

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed

from i2m_lib.evaluation import recognition as module
from i2m_lib.evaluation.method import surface_of
from i2m_lib.evaluation.oracle_methods import nearest_shape
from i2m_lib.evaluation.recognition import Clusters, Shapes, classifier, cluster, mean_shape, pairwise, random_shape
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.reconstruction.memory import Memory


@pytest.fixture(scope="module")
def shapes(dataset):
    return Shapes.of(dataset)


def test_shapes_are_the_training_shapes(dataset, shapes):
    assert shapes.model_ids.tolist() == dataset.select("train").model_id.tolist()
    assert shapes.few.dtype == np.float32
    for model_id, few in zip(shapes.model_ids, shapes.few, strict=True):
        np.testing.assert_array_equal(few, dataset.mesh(model_id).S[:512])
        assert shapes.nearest(dataset.mesh(model_id).S)[0] == model_id


def test_shapes_that_cannot_be_near_are_passed_over_rightly():
    """By definition: the best five of all by few samples."""
    rng = np.random.default_rng(0)
    few = (rng.random((40, 512, 3)) * rng.random((40, 1, 3))).astype(np.float32)
    shapes = Shapes(np.arange(40).astype(str), np.repeat("a", 40), few)
    for S in rng.random((5, 1000, 3)) * rng.random((5, 1, 3)):
        best = np.argsort([chamfer(x.astype(float), Target.of(S[:512])) for x in few])[:5]
        assert shapes.nearest(S) == best.astype(str).tolist()


def test_processes_share_the_samples_of_the_shapes():
    few = np.zeros((1000, 512, 3), np.float32)
    task = partial(nearest_shape, shapes=Shapes(np.arange(1000).astype(str), np.repeat("a", 1000), few))
    assert all(Parallel(n_jobs=2)(delayed(_is_mapped)(task) for _ in range(2)))


def _is_mapped(task) -> bool:
    return isinstance(task.keywords["shapes"].few, np.memmap)


def test_pairwise_distances_are_chamfer(shapes):
    D = np.array([[chamfer(x, Target.of(y)) for x in shapes.few] for y in shapes.few])
    np.testing.assert_allclose(pairwise(shapes.few), D, atol=1e-6)


def test_clusters_are_those_of_k_medoids(shapes):
    D = pairwise(shapes.few)
    for k in (1, 2, 3, 100):
        medoids, clusters = cluster(D, k)
        assert len(medoids) == min(k, len(D))
        np.testing.assert_array_equal(clusters, D[medoids].argmin(0))
        np.testing.assert_array_equal(clusters[medoids], np.arange(len(medoids)))
    assert cluster(D, 1)[0] == D.sum(1).argmin()


def test_two_clusters_of_two_kinds_are_the_kinds():
    rng = np.random.default_rng(0)
    points = np.stack([rng.random((64, 3)) + shift for shift in (0, 0, 0, 5, 5)])
    _, clusters = cluster(pairwise(points), 2)
    assert len(set(clusters[:3])) == len(set(clusters[3:])) == 1
    assert clusters[0] != clusters[4]


def test_categories_are_clustered_by_themselves(dataset, shapes):
    sizes = dict.fromkeys(sorted(set(shapes.synsets.tolist())), 1)
    clusters = Clusters.of(shapes, sizes, seed=0, workers=1)
    assert clusters.medoids == list(clusters.mean_shapes.values())  # the medoid of the only cluster is that of all
    synset = dataset.models.set_index("model_id").synset
    for model_id, number in clusters.of_model.items():
        assert synset[clusters.medoids[number]] == synset[model_id]


def test_clusters_are_made_anew_for_another_key_alone(dataset, shapes, tmp_path, monkeypatch):
    sizes = dict.fromkeys(sorted(set(shapes.synsets.tolist())), 2)
    first = Clusters.kept(tmp_path, dataset, shapes, sizes, seed=0, workers=1)
    assert first == Clusters.load(tmp_path) == Clusters.of(shapes, sizes, seed=0, workers=1)
    made = Clusters(["a"], {"a": 0}, {})
    monkeypatch.setattr(Clusters, "of", lambda *_, **__: made)
    assert Clusters.kept(tmp_path, dataset, shapes, sizes, seed=0, workers=1) == first
    assert Clusters.kept(tmp_path, dataset, shapes, sizes, seed=1, workers=1) == made


@pytest.mark.parametrize("block", [65_536, 7])
def test_codes_are_classified_into_clusters(monkeypatch, block):
    """Three well separated clusters of codes, one of them with many more views than the others."""
    monkeypatch.setattr(module, "BLOCK", block)
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8)
    model_ids = np.repeat(["a", "b", "c"], [200, 10, 10])
    codes = centres[np.repeat([0, 1, 2], [200, 10, 10])] + 0.05 * rng.normal(size=(220, 8))
    memory = Memory(torch.nn.functional.normalize(torch.tensor(codes).float(), dim=1), model_ids)
    clusters = Clusters(["A", "B", "C"], {"a": 0, "b": 1, "c": 2}, {})
    query = torch.tensor(centres + 0.05 * rng.normal(size=(3, 8))).float()
    assert classifier(memory, clusters)(query) == ["A", "B", "C"]


def test_a_random_shape_is_drawn_by_seed_and_position(dataset):
    train = dataset.select("train")
    for i, view in enumerate(dataset.select("test").itertuples()):
        same = train[train.synset == view.synset].model_id.tolist()
        expected = surface_of(dataset, np.random.default_rng([3, i]).choice(same))
        np.testing.assert_array_equal(random_shape(dataset, view, seed=3)[0], expected[0])


def test_the_mean_shape_is_that_of_the_category(dataset):
    view = next(dataset.views.itertuples())
    model_id = dataset.select("train", view.synset).model_id[0]
    V, _ = mean_shape(dataset, view, mean_shapes={view.synset: model_id, "other": "none"})
    np.testing.assert_array_equal(V, dataset.mesh(model_id).V)
