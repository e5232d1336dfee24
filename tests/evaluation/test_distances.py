import numpy as np

from i2m_lib.evaluation.distances import Distances


def test_the_distance_of_a_model_to_itself_is_sampling_noise(dataset):
    model_id = dataset.models.model_id[0]
    mesh = dataset.mesh(model_id)
    surfaces = [(mesh.V, mesh.F), (mesh.V + np.array([0.5, 0, 0]), mesh.F)]
    near, far = Distances(dataset).of_all(surfaces, [model_id] * 2, 1)
    assert near < 0.04  # 500 samples
    assert far > 0.1


def test_distances_are_in_longest_edges(dataset):
    """A shape moved far away is as far as it was moved, in units of the true shape's longest edge."""
    model_id = dataset.models.model_id[0]
    mesh = dataset.mesh(model_id)
    (far,) = Distances(dataset).of_all([(mesh.V + np.array([100.0, 0, 0]), mesh.F)], [model_id], 1)
    np.testing.assert_allclose(far, 100 / np.ptp(mesh.V, axis=0).max(), rtol=0.01)


def test_the_mean_weighs_categories_equally_and_order_does_not_matter(dataset):
    models = dataset.models.iloc[[0, -1, 1, 2]].reset_index(drop=True)
    surfaces = [(dataset.mesh(m).V + 0.1 * i, dataset.mesh(m).F) for i, m in enumerate(models.model_id)]
    values = Distances(dataset, 1).of_all(surfaces, models.model_id.tolist(), 1)
    one_by_one = [Distances(dataset, 1).of_all([s], [m], 1)[0] for s, m in zip(surfaces, models.model_id, strict=True)]
    np.testing.assert_array_equal(values, one_by_one)
    mean = Distances(dataset, 1).mean(surfaces, models)
    np.testing.assert_allclose(mean, (values[[0, 2, 3]].mean() + values[1]) / 2)
