import subprocess
import sys

import numpy as np
import pytest
import torch

from i2m_lib.learning.losses import image2mesh_loss
from i2m_lib.learning.ours import Batches, Settings, load_model, train
from i2m_lib.learning.targets import deformation_space, make_targets, soft_labels
from i2m_lib.templates.ffd import Lattice, displace, symmetric_basis
from i2m_lib.templates.graph import TemplateGraph


@pytest.fixture(scope="module")
def targets(dataset, tiny_run):
    ids = dataset.select("train").model_id.tolist()
    return make_targets(dataset, tiny_run.graph, tiny_run.fits, model_ids=ids, k=6, temperature=1e-3)


def test_the_error_in_coordinates_is_the_error_on_the_surface(dataset, tiny_run):
    template = tiny_run.graph.templates[0]
    S = dataset.mesh(template.model_id).S
    d = np.random.default_rng(0).normal(size=(8, 32, 3)) * 0.1
    space, to_y = deformation_space(template, S, d, k=8)
    y = (d - space.mean).reshape(8, -1) @ to_y.T
    M = symmetric_basis(Lattice.around(template.V).basis(S))
    moved = displace(M, d)
    for i in range(1, 8):
        squared = ((moved[i] - moved[0]) ** 2).sum(1).mean()
        assert ((y[i] - y[0]) ** 2).sum() == pytest.approx(squared, rel=1e-4)
    np.testing.assert_allclose(displace(M, space.mean + np.einsum("nk,kba->nba", y, space.axes)), moved, atol=1e-6)


def test_fewer_axes_keep_the_largest_part(dataset, tiny_run):
    template = tiny_run.graph.templates[0]
    S = dataset.mesh(template.model_id).S
    d = np.random.default_rng(0).normal(size=(8, 32, 3))
    energies = []
    for k in (1, 3, 8):
        space, to_y = deformation_space(template, S, d, k)
        energies.append((((d - space.mean).reshape(8, -1) @ to_y.T) ** 2).sum())
    assert energies[0] < energies[1] < energies[2]
    assert energies[0] > energies[2] / 8


def test_soft_labels_prefer_the_cheap():
    q = soft_labels(np.array([[0.010, 0.011, 0.5]]), 1e-3)
    np.testing.assert_allclose(q.sum(), 1)
    assert q[0, 0] / q[0, 1] == pytest.approx(np.e)
    assert q[0, 2] == pytest.approx(0, abs=1e-12)


def exact_answer(targets, model):
    """What a perfect network would say of these models."""
    b, (T, E) = len(model), targets.gram.shape[:2]
    rows = torch.arange(b)[:, None]
    out = {"logits": torch.full((b, T), -50.0), "y": torch.zeros(b, T, targets.y.shape[2])}
    out |= {"weights": torch.zeros(b, T, E), "camera": torch.tensor([[0.0, 1.0, 0.0]]).repeat(b, 1)}
    out["logits"][rows, targets.slots[model]] = targets.q[model].clamp(min=1e-30).log()
    out["y"][rows, targets.slots[model]] = targets.y[model]
    out["weights"][rows, targets.slots[model]] = targets.weights[model]
    return out


def test_the_exact_answer_leaves_only_the_entropy_of_the_labels(targets):
    model = torch.arange(len(targets.q))
    batch = {"model": model, "azimuth": torch.zeros(len(model)), "elevation": torch.zeros(len(model))}
    terms = image2mesh_loss(exact_answer(targets, model), batch, targets)
    q = targets.q
    entropy = -(q * q.clamp(min=1e-30).log()).sum(1).mean() / np.log(len(targets.means))
    assert float(terms["template"]) == pytest.approx(float(entropy), abs=1e-5)
    assert [float(terms[k]) for k in ("deformation", "weights", "camera")] == pytest.approx([0, 0, 0], abs=1e-9)


def test_labels_stay_within_the_category(dataset, tiny_run, targets):
    torch.testing.assert_close(targets.q.sum(1), torch.ones(len(targets.q)))
    synset = dataset.models.set_index("model_id").synset
    for i, model_id in enumerate(dataset.select("train").model_id):
        chosen = targets.slots[i][targets.q[i] > 0].tolist()
        assert {tiny_run.graph.templates[t].synset for t in chosen} == {synset[model_id]}


def test_batches_repeat_by_epoch_and_vary_between_epochs(tiny_run):
    views, settings = tiny_run.views, Settings(epochs=1, batch_size=4, lr=1e-3, size=32)
    first, again, next_one = (
        torch.cat([b["image"] for b in Batches(views, settings, torch.device("cpu"), epoch)]) for epoch in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, next_one)


def test_the_model_survives_its_file(tiny_run):
    loaded, settings = load_model(tiny_run.folder, tiny_run.graph)
    assert settings == tiny_run.settings
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        a, b = tiny_run.model.eval()(image), loaded(image)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=0.05, rtol=0.05)


def test_a_finished_training_is_loaded_not_repeated(dataset, tiny_run):
    history = train(
        dataset,
        tiny_run.graph,
        tiny_run.fits,
        tiny_run.folder,
        tiny_run.settings,
        device=torch.device("cpu"),
        callbacks=[lambda rows: pytest.fail("trained again")],
    )[1]
    assert len(history) == tiny_run.settings.epochs


def test_other_templates_are_refused(tiny_run, tmp_path):
    other = TemplateGraph(tiny_run.graph.templates[::-1], tiny_run.graph.edges)
    with pytest.raises(ValueError, match="other templates"):
        load_model(tiny_run.folder, other)
    with pytest.raises(FileNotFoundError, match="run 03_training first"):
        load_model(tmp_path, tiny_run.graph)


def test_training_needs_neither_vtk_nor_trimesh_nor_scipy():
    blocked = "import sys; sys.modules.update(dict.fromkeys(['vtkmodules', 'pyvista', 'trimesh', 'scipy', 'k3d']));"
    code = blocked + "import i2m_lib.learning.ours, i2m_lib.templates.fits"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
