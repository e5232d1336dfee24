from dataclasses import replace

import numpy as np
import pytest
import torch

from i2m_lib.geometry.ffd import Lattice
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.learning.selection import N_POINTS, validation_chamfer
from i2m_lib.learning.targets import models_of

CPU = torch.device("cpu")


def answers(model, template, move=(0, 0, 0)):
    """A batch of answers: templates whose control points are all moved alike."""
    dP = torch.tensor(move, dtype=torch.float32).expand(len(model), 64, 3)
    return torch.tensor(model), torch.tensor(template), dP


def expected(dataset, graph, model_id, template, move=(0, 0, 0)):
    mesh, S = dataset.mesh(model_id), dataset.mesh(graph.templates[template].model_id).S
    return chamfer(S[:N_POINTS] + move, Target.of(mesh.S[:N_POINTS])) / np.ptp(mesh.V, axis=0).max()


def test_an_answer_has_the_distance_of_its_samples(dataset, tiny_run):
    measure, ids, move = validation_chamfer(dataset, tiny_run.graph, CPU), models_of(dataset), (0.1, -0.2, 0.05)
    for model in range(len(dataset.select("train")), len(ids)):
        for template in range(len(tiny_run.graph.templates)):
            value = float(measure(*answers([model], [template], move)))
            assert value == pytest.approx(expected(dataset, tiny_run.graph, ids[model], template, move), rel=1e-4)


def test_the_mean_of_all_models_is_the_mean_over_categories(dataset, tiny_run):
    """Of two chairs and one table in validation, the table counts as much as both chairs."""
    models = dataset.manifest.sort_values(["synset", "model_id"]).reset_index(drop=True)
    split = models.split.where(models.index != models.index[models.split == "train"][0], "val")
    uneven = replace(dataset, manifest=models.assign(split=split))
    val, ids = uneven.select("val"), models_of(uneven)
    assert val.synset.value_counts().tolist() == [2, 1]
    model = [ids.index(m) for m in val.model_id]
    value = float(validation_chamfer(uneven, tiny_run.graph, CPU)(*answers(model, [0] * 3)))
    each = [expected(dataset, tiny_run.graph, m, 0) for m in val.model_id]
    assert value == pytest.approx(val.assign(each=each).groupby("synset").each.mean().mean(), rel=1e-4)


def test_control_points_that_scale_the_template_scale_its_samples(dataset, tiny_run):
    """dP = P doubles the template: the distance is that of its doubled samples."""
    template, ids = tiny_run.graph.templates[0], models_of(dataset)
    model = len(dataset.select("train"))
    dP = torch.from_numpy(Lattice.around(template.V).points).float()[None]
    value = validation_chamfer(dataset, tiny_run.graph, CPU)(torch.tensor([model]), torch.tensor([0]), dP)
    mesh, S = dataset.mesh(ids[model]), dataset.mesh(template.model_id).S[:N_POINTS]
    far = chamfer(2 * S, Target.of(mesh.S[:N_POINTS])) / np.ptp(mesh.V, axis=0).max()
    assert float(value) == pytest.approx(far, rel=1e-4)
