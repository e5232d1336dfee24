import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from i2m_lib.geometry.ffd import Lattice, displace, free_points, symmetric_basis
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.learning import distributed
from i2m_lib.learning.azimuth import soft_bins
from i2m_lib.learning.batches import Batches, balanced
from i2m_lib.learning.losses import IMPORTANCE, TERMS, image2mesh_loss
from i2m_lib.learning.networks import trunk
from i2m_lib.learning.settings import Settings
from i2m_lib.learning.targets import deformation_space, make_targets, soft_labels
from i2m_lib.learning.train import load_model, new_model, train


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


def test_targets_of_stretched_shapes_are_those_of_the_stretched_surface(dataset, tiny_run, targets):
    ids = dataset.select("train").model_id.tolist()
    model, stretch = torch.arange(len(ids)), torch.exp(0.3 * torch.randn(len(ids), 3))
    torch.testing.assert_close(targets.stretched(model, torch.ones(len(ids), 3)), targets.y, atol=1e-5, rtol=0)
    stretched = targets.stretched(model, stretch)
    template, fits = tiny_run.graph.templates[0], tiny_run.fits[tiny_run.graph.synsets[0]]
    is_train = np.isin(fits.model_ids, ids)
    d = fits.d[is_train, 0].astype(float)
    space, to_y = deformation_space(template, dataset.mesh(template.model_id).S, d, k=6)
    rest = Lattice.around(template.V).points[free_points()[0]]
    for d_i, model_id in zip(d, fits.model_ids[is_train], strict=True):
        i = ids.index(model_id)
        factors = stretch[i].double().numpy()
        factors = factors / np.linalg.norm(np.ptp(dataset.mesh(model_id).V, axis=0) * factors)
        moved = factors * (rest + d_i) - rest
        np.testing.assert_allclose(template.decode(moved), factors * template.decode(d_i), atol=1e-6)
        np.testing.assert_allclose(stretched[i, 0], to_y @ (moved - space.mean).ravel(), atol=1e-5)


def exact_answer(targets, model):
    """What a perfect network would say of these models."""
    b, (T, E) = len(model), targets.gram.shape[:2]
    rows = torch.arange(b)[:, None]
    out = {"logits": torch.full((b, T), -50.0), "y": torch.zeros(b, T, targets.y.shape[2])}
    out |= {"weights": torch.zeros(b, T, E), "azimuth": soft_bins(torch.zeros(b)).log(), "elevation": torch.zeros(b)}
    out["logits"][rows, targets.slots[model]] = targets.q[model].clamp(min=1e-30).log()
    out["y"][rows, targets.slots[model]] = targets.y[model]
    out["weights"][rows, targets.slots[model]] = targets.weights[model]
    return out


def test_the_exact_answer_leaves_only_the_entropy_of_the_labels(targets):
    model = torch.arange(len(targets.q))
    batch = {"model": model, "azimuth": torch.zeros(len(model)), "elevation": torch.zeros(len(model))}
    batch["stretch"] = torch.ones(len(model), 3)
    terms = image2mesh_loss(exact_answer(targets, model), batch, targets)
    q = targets.q
    entropy = -(q * q.clamp(min=1e-30).log()).sum(1).mean() / np.log(len(targets.means))
    assert float(terms["template"]) == pytest.approx(float(entropy), abs=1e-5)
    assert [float(terms[k]) for k in TERMS[1:]] == pytest.approx([0, 0, 0, 0], abs=1e-6)


def test_rows_of_targets_are_those_shapes(targets):
    some, stretch = targets.rows(slice(1, 3)), torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.2, 0.8]])
    first, second = torch.arange(1, 3), torch.arange(2)
    for name in ("slots", "q", "y", "weights", "weighted"):
        torch.testing.assert_close(getattr(some, name), getattr(targets, name)[first])
    torch.testing.assert_close(some.stretched(second, stretch), targets.stretched(first, stretch))
    torch.testing.assert_close(some.stretched(second, torch.ones(2, 3)), some.y)


def test_labels_stay_within_the_category(dataset, tiny_run, targets):
    torch.testing.assert_close(targets.q.sum(1), torch.ones(len(targets.q)))
    synset = dataset.models.set_index("model_id").synset
    for i, model_id in enumerate(dataset.select("train").model_id):
        chosen = targets.slots[i][targets.q[i] > 0].tolist()
        assert {tiny_run.graph.templates[t].synset for t in chosen} == {synset[model_id]}


def batches(views, epoch, batch_size=4):
    return Batches(views, Settings(1, batch_size, 1e-3, size=32), torch.device("cpu"), epoch)


def test_batches_repeat_by_epoch_and_vary_between_epochs(tiny_run):
    first, again, later = (torch.cat([b["image"] for b in batches(tiny_run.views, epoch)]) for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_a_batch_is_the_same_whichever_came_before(tiny_run):
    expected = [b["image"] for b in batches(tiny_run.views, 3)]
    jumping = batches(tiny_run.views, 3)
    for i in (2, 0, 1, 3):
        assert torch.equal(jumping[i]["image"], expected[i])
    with pytest.raises(IndexError):
        jumping[len(expected)]


@pytest.mark.parametrize("epoch", [0, None])
def test_shares_of_processes_make_up_the_batch(tiny_run, monkeypatch, epoch):
    whole = batches(tiny_run.views, epoch)[1]
    parts = []
    for rank in range(2):
        monkeypatch.setattr("i2m_lib.learning.batches.share", lambda rank=rank: distributed.Share(rank, 2))
        parts.append(batches(tiny_run.views, epoch)[1])
    for name, value in whole.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), value)
    with pytest.raises(ValueError, match="a batch of 3 cannot be divided among 2 processes"):
        batches(tiny_run.views, epoch, batch_size=3)


def test_validation_sees_every_view_once_in_order(tiny_run):
    found = list(batches(tiny_run.views, None, batch_size=3))
    assert torch.cat([b["model"] for b in found]).tolist() == tiny_run.views.model.tolist()
    assert len(found[-1]["model"]) == len(tiny_run.views) % 3 or 3


def test_categories_are_drawn_equally_often(tiny_run):
    synsets = tiny_run.views.dataset.models.set_index("model_id").synset.loc[tiny_run.views.model_ids]
    weight = balanced(tiny_run.views)
    shares = [float(weight[torch.tensor((synsets == s).to_numpy())[tiny_run.views.model]].sum()) for s in set(synsets)]
    assert shares == pytest.approx([1.0] * len(shares))


@pytest.mark.parametrize(("backbone", "node"), [("resnet18", "layer4"), ("mobilenet_v3_small", "features")])
def test_a_backbone_is_cut_at_its_last_map(backbone, node):
    image = torch.rand(1, 3, 64, 64)
    torch.manual_seed(0)
    named = trunk(backbone, node).eval()
    torch.manual_seed(0)
    found = trunk(backbone).eval()
    torch.testing.assert_close(found(image)["map"], named(image)["map"])


def test_weights_that_cannot_be_had_are_named(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(ValueError, match=r"resnet18 could not be fetched \(no route to host\): place resnet18.*pth in"):
        trunk("resnet18", weights="DEFAULT")
    with pytest.raises(ValueError, match="has no weights 'V9': give one of IMAGENET1K_V1"):
        trunk("resnet18", weights="V9")
    with pytest.raises(ValueError, match="Unknown model resnet9"):
        trunk("resnet9")


def test_an_untrained_network_combines_nothing_and_looks_level(targets):
    settings = Settings(1, 2, 1e-3, backbone="mobilenet_v3_small", node="features", n_axes=6)
    out = new_model(settings, targets).eval()(torch.rand(2, 3, 64, 64))
    assert not out["weights"].any() and not out["elevation"].any()
    assert out["logits"].any() and out["y"].any() and out["azimuth"].any()


def test_terms_of_the_loss_can_be_left_out():
    assert Settings(1, 1, 1.0, without=("azimuth",)).importance() == IMPORTANCE | {"azimuth": 0.0}
    with pytest.raises(ValueError, match="no term colour: leave out some of template"):
        Settings(1, 1, 1.0, without=("colour",)).importance()
    with pytest.raises(ValueError, match="no setting is called epoch"):
        Settings.of({"epoch": 3})


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
        callbacks=[lambda trainer: pytest.fail("trained again")],
    )[1]
    assert len(history) == tiny_run.settings.epochs
    assert pd.read_parquet(tiny_run.folder / "history.parquet").equals(history)


def test_other_templates_are_refused(tiny_run, tmp_path):
    other = TemplateGraph(tiny_run.graph.templates[::-1], tiny_run.graph.edges)
    with pytest.raises(ValueError, match="other templates"):
        load_model(tiny_run.folder, other)
    with pytest.raises(FileNotFoundError, match="run 03_training first"):
        load_model(tmp_path, tiny_run.graph)


def test_training_needs_neither_vtk_nor_trimesh_nor_scipy():
    blocked = "import sys; sys.modules.update(dict.fromkeys(['vtkmodules', 'pyvista', 'trimesh', 'scipy', 'k3d']));"
    code = blocked + "import i2m_lib.learning.__main__, i2m_lib.graph.fits"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
