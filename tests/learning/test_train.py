import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from i2m_lib.artefacts import StaleError, key_of, read_key, record
from i2m_lib.dataset.dataset import Dataset
from i2m_lib.geometry.ffd import FREE, Lattice, displace, symmetric_basis
from i2m_lib.graph.build_graph import build_graph
from i2m_lib.graph.fits import Fits
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.learning.__main__ import main
from i2m_lib.learning.azimuth import soft_bins
from i2m_lib.learning.losses import IMPORTANCE, TERMS, image2mesh_loss
from i2m_lib.learning.settings import Settings, read_description
from i2m_lib.learning.targets import deformation_space, make_targets, models_of, soft_labels
from i2m_lib.learning.train import VERSION, categories_of, load_model, new_model, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def targets(dataset, tiny_run):
    return make_targets(dataset, tiny_run.graph, tiny_run.fits, k=6, temperature=1e-3)


def test_the_error_in_coordinates_is_the_error_on_the_surface(dataset, tiny_run):
    template = tiny_run.graph.templates[0]
    S = dataset.mesh(template.model_id).S
    d = np.random.default_rng(0).normal(size=(8, 32, 3)) * 0.1
    mean, axes, _, to_y = deformation_space(template, S, d, k=8)
    y = (d - mean).reshape(8, -1) @ to_y.T
    M = symmetric_basis(Lattice.around(template.V).basis(S))
    moved = displace(M, d)
    for i in range(1, 8):
        squared = ((moved[i] - moved[0]) ** 2).sum(1).mean()
        assert ((y[i] - y[0]) ** 2).sum() == pytest.approx(squared, rel=1e-4)
    np.testing.assert_allclose(displace(M, mean + np.einsum("nk,kba->nba", y, axes)), moved, atol=1e-6)


def test_fewer_axes_keep_the_largest_part(dataset, tiny_run):
    template = tiny_run.graph.templates[0]
    S = dataset.mesh(template.model_id).S
    d = np.random.default_rng(0).normal(size=(8, 32, 3))
    energies = []
    for k in (1, 3, 8):
        mean, _, _, to_y = deformation_space(template, S, d, k)
        energies.append((((d - mean).reshape(8, -1) @ to_y.T) ** 2).sum())
    assert energies[0] < energies[1] < energies[2]
    assert energies[0] > energies[2] / 8


def test_soft_labels_prefer_the_cheap():
    q = soft_labels(np.array([[0.010, 0.011, 0.5]]), 1e-3)
    np.testing.assert_allclose(q.sum(), 1)
    assert q[0, 0] / q[0, 1] == pytest.approx(np.e)
    assert q[0, 2] == pytest.approx(0, abs=1e-12)


def test_targets_of_stretched_shapes_are_those_of_the_stretched_surface(dataset, tiny_run, targets):
    ids = models_of(dataset)
    model, stretch = torch.arange(len(ids)), torch.exp(0.3 * torch.randn(len(ids), 3))
    stretched = targets.stretched(model, stretch)
    template, fits = tiny_run.graph.templates[0], tiny_run.fits[tiny_run.graph.synsets[0]]
    is_train = np.isin(fits.model_ids, dataset.select("train").model_id)
    d = fits.d[is_train, 0].astype(float)
    mean, _, _, to_y = deformation_space(template, dataset.mesh(template.model_id).S, d, k=6)
    rest = Lattice.around(template.V).points[FREE]
    for d_i, model_id in zip(d, fits.model_ids[is_train], strict=True):
        i = ids.index(model_id)
        factors = stretch[i].double().numpy()
        factors = factors / np.linalg.norm(np.ptp(dataset.mesh(model_id).V, axis=0) * factors)
        moved = factors * (rest + d_i) - rest
        np.testing.assert_allclose(template.decode(moved), factors * template.decode(d_i), atol=1e-6)
        np.testing.assert_allclose(stretched[i, 0], to_y @ (moved - mean).ravel(), atol=1e-5)


def exact_answer(targets, model):
    """What a perfect network would say of these models."""
    b, (T, E) = len(model), targets.gram.shape[:2]
    rows = torch.arange(b)[:, None]
    out = {"logits": torch.full((b, T), -50.0), "y": torch.zeros(b, T, targets.axes.shape[1])}
    out |= {"weights": torch.zeros(b, T, E), "azimuth": soft_bins(torch.zeros(b)).log(), "elevation": torch.zeros(b)}
    out["logits"][rows, targets.slots[model]] = targets.q[model].clamp(min=1e-30).log()
    out["y"][rows, targets.slots[model]] = targets.stretched(model, torch.ones(b, 3))
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


def test_labels_stay_within_the_category(dataset, tiny_run, targets):
    torch.testing.assert_close(targets.q.sum(1), torch.ones(len(targets.q)))
    synset = dataset.models.set_index("model_id").synset
    for i, model_id in enumerate(models_of(dataset)):
        chosen = targets.slots[i][targets.q[i] > 0].tolist()
        assert {tiny_run.graph.templates[t].synset for t in chosen} == {synset[model_id]}


def test_an_untrained_network_combines_nothing_and_looks_level(targets):
    settings = Settings(1, 2, 1e-3, backbone="mobilenetv3_small_100", n_axes=6)
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


def never(trainer):
    pytest.fail("trained again")


def test_a_finished_training_is_loaded_not_repeated(dataset, tiny_run):
    arguments = (dataset, tiny_run.graph, tiny_run.fits, tiny_run.folder, tiny_run.settings)
    history = train(*arguments, device=CPU, callbacks=[never])[1]
    assert len(history) == tiny_run.settings.epochs
    assert pd.read_parquet(tiny_run.folder / "history.parquet").equals(history)


def small(graph):
    """The graph with other shapes under the same names."""
    return TemplateGraph([replace(t, V=0.9 * t.V) for t in graph.templates], graph.edges)


@pytest.fixture
def trained(dataset, tiny_run, tmp_path, caplog):
    """A function that trains in a copy of the tiny run, and returns its model and what was logged."""
    shutil.copytree(tiny_run.folder, tmp_path, dirs_exist_ok=True)
    caplog.set_level("INFO", "i2m_lib")

    def again(data=dataset, graph=tiny_run.graph, fits=tiny_run.fits, settings=tiny_run.settings):
        caplog.clear()
        model = train(data, graph, fits, tmp_path, settings, device=CPU)[0]
        return model.state_dict(), caplog.text

    return again


def test_another_graph_is_trained_on_anew(tiny_run, tmp_path, trained):
    model, told = trained(graph=small(tiny_run.graph))
    assert "its graph is another" in told and "epoch 1/1" in told
    assert not torch.equal(model["axes"], tiny_run.model.axes)
    load_model(tmp_path, small(tiny_run.graph))
    with pytest.raises(StaleError, match="another template graph"):
        load_model(tmp_path, tiny_run.graph)
    assert "its graph is another" in trained()[1]


def test_other_fits_data_settings_or_versions_are_trained_on_anew(dataset, tiny_run, trained, tmp_path, monkeypatch):
    assert "epoch" not in trained()[1].replace("resumed after epoch", "")
    fits = {s: replace(fit, cost=fit.cost * 2) for s, fit in tiny_run.fits.items()}
    assert "its fits is another" in trained(fits=fits)[1]
    assert "seed is 0, not 1" in trained(settings=replace(tiny_run.settings, seed=1))[1]
    trained()
    other = shutil.copytree(dataset.path, tmp_path / "dataset")
    record(other, replace(read_key(other), version=7))
    assert "its dataset is another" in trained(Dataset.open(other))[1]
    trained()
    monkeypatch.setattr("i2m_lib.learning.train.VERSION", VERSION + 1)
    assert f"version is {VERSION}, not {VERSION + 1}" in trained()[1]


def test_a_model_older_than_a_training_that_was_begun_is_refused(tiny_run, tmp_path, trained):
    def kill(trainer):
        raise KeyboardInterrupt

    settings = replace(tiny_run.settings, seed=1)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_run.views.dataset, tiny_run.graph, tiny_run.fits, tmp_path, settings, device=CPU, callbacks=[kill])
    with pytest.raises(StaleError, match="run 03_training to its end"):
        load_model(tmp_path, tiny_run.graph)
    trained(settings=settings)
    assert load_model(tmp_path, tiny_run.graph)[1] == settings


def test_other_templates_are_refused(tiny_run, tmp_path):
    other = TemplateGraph(tiny_run.graph.templates[::-1], tiny_run.graph.edges)
    with pytest.raises(StaleError, match="another template graph"):
        load_model(tiny_run.folder, other)
    with pytest.raises(FileNotFoundError, match="run 03_training first"):
        load_model(tmp_path, tiny_run.graph)


def test_model_json_tells_what_the_model_was_made_of(dataset, tiny_run):
    content, settings = read_description(tiny_run.folder, tiny_run.graph)
    assert content["key"] == key_of(tiny_run.folder / "training")
    assert content["inputs"]["graph"] == tiny_run.graph.digest
    assert settings == tiny_run.settings
    assert categories_of(tiny_run.folder) == {"03001627": "chair", "04379243": "table"}


def test_training_needs_neither_vtk_nor_trimesh():
    blocked = "import sys; sys.modules.update(dict.fromkeys(['vtkmodules', 'pyvista', 'trimesh', 'k3d']));"
    code = blocked + "import i2m_lib.learning.__main__, i2m_lib.graph.fits"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_trains_with_settings_by_name_and_the_library_finds_it_done(dataset, tiny_run, tmp_path):
    tiny_run.graph.save(tmp_path / "graph")
    for synset, fits in tiny_run.fits.items():
        fits.save(tmp_path / "fits" / f"{synset}.npz")
    settings = {
        "epochs": 1,
        "batch_size": 8,
        "lr": 1e-3,
        "backbone": "mobilenetv3_small_100",
        "size": 64,
    }
    main(
        str(dataset.path),
        str(tmp_path),
        *(f"{name}={value}" for name, value in settings.items()),
        'without=["azimuth"]',
    )
    graph, fits = TemplateGraph.load(tmp_path / "graph"), Fits.load_all(tmp_path / "fits")
    settings = replace(tiny_run.settings, without=("azimuth",))
    train(dataset, graph, fits, tmp_path, settings, device=CPU, callbacks=[never])
    with pytest.raises(ValueError, match="no setting is called epoch"):
        main(str(dataset.path), str(tmp_path), "epoch=1")


def test_stretching_leaves_out_only_what_residuals_would_stretch(tiny_run):
    template, rng = tiny_run.graph.templates[0], np.random.default_rng(0)
    factors, d, a = np.array([0.9, 1.2, 1.0]), 0.05 * rng.normal(size=(32, 3)), rng.random(len(template.neighbours))
    rest = Lattice.around(template.V).points[FREE]
    off = factors * template.decode(d, a) - template.decode(factors * (rest + d) - rest, a)
    residual = np.tensordot(a, displace(template.K, template.c), axes=1)
    np.testing.assert_allclose(off, (factors - 1) * residual, atol=1e-9)


def test_one_template_of_one_category_can_be_learnt(dataset, tmp_path):
    """It has no neighbour, its labels no entropy, and its fits to itself no variance."""
    first = dataset.models.synset[0]
    spare = dataset.models[(dataset.models.synset != first) | (dataset.models.model_id == "03001627model1")].model_id
    tables = [t[~t.model_id.isin(spare)].reset_index(drop=True) for t in (dataset.manifest, dataset.views)]
    small = Dataset(dataset.path, *tables)
    graph, fits = build_graph(small, n_templates=1, seed=0, workers=1)
    graph.save(tmp_path / "graph")
    assert (
        len(graph.templates) == 1
        and graph.edges.empty
        and TemplateGraph.load(tmp_path / "graph").digest == graph.digest
    )
    settings = Settings(epochs=1, batch_size=4, lr=1e-3, backbone="mobilenetv3_small_100", size=64)
    _, history = train(small, graph, fits, tmp_path, settings, device=CPU)
    assert np.isfinite(history).all(axis=None)
    load_model(tmp_path, graph)
