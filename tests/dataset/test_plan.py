from dataclasses import fields

import numpy as np
import pytest

from i2m_lib.dataset import plan
from i2m_lib.dataset.build import build_dataset
from i2m_lib.dataset.model import Recipe


def test_the_plan_is_measured_on_models_like_shapenets(dataset, monkeypatch):
    made, meshes = [], {}

    def build(*args, **how):
        made.append(build_dataset(*args, **how))
        meshes.update({model_id: made[0].mesh(model_id) for model_id in made[0].models.model_id})
        assert all(made[0].parameters[field.name] == dataset.parameters[field.name] for field in fields(Recipe))
        return made[0]

    monkeypatch.setattr(plan, "build_dataset", build)
    cost, models = plan.shapenet_cost(dataset, 3), made[0].manifest
    assert len(cost) == len(models) == len(meshes) == 3
    assert (cost[["mesh_seconds", "view_seconds"]] > 0).all(axis=None)
    assert cost.bytes[0] > dataset.images[0].nbytes * dataset.parameters["n_views"]
    assert (models.split == "train").all()
    assert models.n_faces.between(plan.N_FACES - 2, plan.N_FACES).all()
    assert (models.n_duplicate_faces == models.n_faces).all()
    assert (models[["n_missing_materials", "n_missing_textures", "n_broken_textures"]] == 0).all(axis=None)
    for model_id, mesh in meshes.items():
        assert len(np.unique(mesh.C, axis=0)) > 100  # of the textures
        assert mesh.V.max(0) == pytest.approx(dataset.mesh(model_id).V.max(0), abs=1e-6)
