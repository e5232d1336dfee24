import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from i2m_lib.artefacts import StaleError
from i2m_lib.dataset.dataset import Views, chunks
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.surfaces import sample_surface
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.published.generator import VARIANCE, combine, draw, generate, gray_and_mask, neighbour_slots, surface_of
from i2m_lib.published.paper import (
    SIZE,
    VERSION,
    Networks,
    PaperMethod,
    Shapes,
    codes,
    gray,
    gray_of_samples,
    train_paper,
)


@torch.no_grad()
def test_the_networks_have_the_published_shapes():
    networks, image = Networks(30), torch.zeros(2, 1, SIZE, SIZE)
    assert networks.autoencoder(image).shape == image.shape
    z = codes(networks.autoencoder, np.zeros((2, 48, 48, 2), np.uint8))
    assert z.shape == (2, 2048)
    assert networks.classifier(z).shape == (2, 30)
    d, a = networks.regressor(z, torch.tensor([0, 29]))
    assert d.shape == (2, 32, 3)
    assert a.shape == (2, 30)
    assert not torch.equal(d[0], d[1])  # it knows the template


@pytest.fixture(scope="module")
def templates(tiny_run):
    return tiny_run.graph.of(tiny_run.graph.synsets[0])


def test_draws_follow_the_mixture(templates):
    n, T, slots = 4000, len(templates), neighbour_slots(templates)
    c, d, a = draw(templates, n, np.random.default_rng(0))
    assert np.bincount(c, minlength=T) == pytest.approx([n / T] * T, rel=0.1)
    for t, template in enumerate(templates):
        mine = c == t
        np.testing.assert_allclose(d[mine].mean(0), template.d.mean(0), atol=4 * (VARIANCE / mine.sum()) ** 0.5)
        spread = VARIANCE + template.d.var(0)
        assert d[mine].var(0).mean() == pytest.approx(spread.mean(), rel=0.05)
        edges = np.isin(np.arange(T), slots[t])
        assert not a[mine][:, ~edges].any()
        assert a[mine][:, edges].mean() == pytest.approx(0.5, abs=0.05)


def test_a_combination_is_the_mean_of_its_parts_in_the_canonical_frame(templates):
    template = templates[0]
    E = len(template.neighbours)
    V = combine(template, np.zeros((32, 3)), np.ones(E))
    parts = [template.V, *(template.correspondence(j) for j in range(E))]
    plain = np.mean(parts, 0)
    np.testing.assert_allclose(np.linalg.norm(np.ptp(V, axis=0)), 1)
    np.testing.assert_allclose(V.min(0) + V.max(0), 0, atol=1e-12)
    np.testing.assert_allclose(V - V[0], (plain - plain[0]) / np.linalg.norm(np.ptp(plain, axis=0)), atol=1e-9)


def test_samples_and_views_look_alike():
    rgba = np.zeros((1, 40, 40, 4), np.uint8)
    rgba[0, 10:30, 5:35] = [90, 90, 90, 255]
    view = gray(torch.from_numpy(rgba).permute(0, 3, 1, 2))
    sample = gray_of_samples(rgba[..., 2:])
    torch.testing.assert_close(view, sample, atol=1e-3, rtol=0)
    assert view.shape == (1, 1, SIZE, SIZE)
    assert float(view[0, 0, 0, 0]) == pytest.approx(1)
    assert float(view[0, 0, SIZE // 2, SIZE // 2]) == pytest.approx(2 * 90 / 255 - 1, abs=0.01)


def test_luminance_is_that_of_the_weighted_channels():
    rgba = np.array([[[200, 100, 50, 255]]], np.uint8)
    assert gray_and_mask(rgba).tolist() == [[[round(0.299 * 200 + 0.587 * 100 + 0.114 * 50), 255]]]


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """A run with samples of the tiny graph and networks trained on them; `make` makes them again."""
    folder = tmp_path_factory.mktemp("run")
    tiny_run.graph.save(folder / "graph")

    def make(graph=tiny_run.graph, n=20, seed=0, epochs=(1, 2, 2), callbacks=()):
        samples = generate(graph, folder / "samples", n=n, seed=seed, workers=1)
        train_paper(samples, graph, folder / "paper", epochs=epochs, batch_size=8, seed=0, callbacks=callbacks)
        return samples

    return SimpleNamespace(folder=folder, make=make, samples=make())


def test_points_are_those_of_the_combined_mesh(templates):
    """Up to the bounding box, which is that of the points."""
    c, d, a = draw(templates, 6, np.random.default_rng(0))
    points = Shapes(templates).decode(*(torch.from_numpy(x) for x in (c, d, a)))
    for i in range(6):
        V, F = surface_of(templates, c[i], d[i], a[i])
        target = Target.of(sample_surface(V, F, 20_000, np.random.default_rng(1))[0])
        assert chamfer(points[i].double().numpy(), target) < 0.02


@torch.no_grad()
def test_the_epochs_with_the_least_validation_chamfer_are_kept(tiny_run, run):
    """Of the regressor with the known template, and of the classifier with the regressor's answers."""
    for synset, samples in run.samples.items():
        folder, shapes = run.folder / "paper" / synset, Shapes(tiny_run.graph.of(synset))
        networks, rows = Networks(2).eval(), slice(samples.n_train - 1, samples.n_train)  # the one that validates
        for name in ("autoencoder", "classifier", "regressor"):
            best = json.loads((folder / name / "checkpoint.json").read_text())["best"]["epoch"]
            getattr(networks, name).load_state_dict(load_file(folder / name / f"best_{best}.safetensors"))
        z = codes(networks.autoencoder, samples.images[: samples.n_train])[rows]
        truth = {name: torch.from_numpy(getattr(samples, name))[rows] for name in "cda"}
        chosen = networks.classifier(z).argmax(1)
        for name, c in (("regressor", truth["c"]), ("classifier", chosen)):
            value = shapes.chamfer_l1(truth, c, *networks.regressor(z, c))
            history = pd.read_parquet(folder / name / "history.parquet")
            assert float(value) == pytest.approx(history.val_chamfer_l1.min(), rel=1e-3)


def test_a_category_of_one_template_is_trained_and_answered(tiny_run, tmp_path):
    """Beside one of two: nothing takes their numbers for equal."""
    first, *rest = tiny_run.graph.templates[1:]
    alone = replace(first, neighbours=(), d=first.d[:0], c=first.c[:0])
    graph = TemplateGraph([alone, *rest], tiny_run.graph.edges)
    graph.save(tmp_path / "graph")
    samples = generate(graph, tmp_path / "samples", n=12, seed=0, workers=1)
    train_paper(samples, graph, tmp_path / "paper", epochs=(1, 1, 1), batch_size=8, seed=0)
    method = PaperMethod.load(tmp_path)
    for synset, n in zip(graph.synsets, (1, 2), strict=True):
        assert samples[synset].a.shape == (12, n) == (12, len(graph.of(synset)))
        for V, F in method.predict_samples(samples[synset].images[:3], synset):
            assert any(np.array_equal(F, t.F) and V.shape == t.V.shape for t in graph.of(synset))


def test_it_answers_with_meshes_of_the_category(dataset, tiny_run, run):
    method = PaperMethod.load(run.folder)
    assert (method.name, method.told) == ("image2mesh_paper", "the image and the category")
    assert (method.budget.views, method.budget.steps) == (
        2 * 13,
        2 * 5 * 2,
    )  # 14 of 20 samples train, 1 of them validates
    (views,) = chunks(dataset, dataset.views.head(3))
    faces = {t.F.tobytes(): t.synset for t in tiny_run.graph.templates}
    for (V, F), synset in zip(method.answer(views), views.rows.synset, strict=True):
        assert faces[F.tobytes()] == synset
        assert np.linalg.norm(np.ptp(V, axis=0)) == pytest.approx(1)
        assert len(sample_surface(V, F, 10, np.random.default_rng(0))[0]) == 10


def test_held_out_samples_are_answered_as_their_views_are(run):
    """A sample is a gray image: as a view with three equal channels it has the same answer."""
    method, (synset, samples) = PaperMethod.load(run.folder), next(iter(run.samples.items()))
    held_out = samples.images[samples.n_train :]
    rgba = torch.from_numpy(held_out[..., [0, 0, 0, 1]]).permute(0, 3, 1, 2)
    views = Views(pd.DataFrame({"synset": [synset] * len(held_out)}), rgba)
    for (V, F), (W, G) in zip(method.predict_samples(held_out, synset), method.answer(views), strict=True):
        np.testing.assert_allclose(V, W, atol=1e-6)
        np.testing.assert_array_equal(F, G)


def test_another_generator_or_other_settings_are_made_anew(run, tiny_run, caplog, monkeypatch):
    def told(**changed):
        caplog.clear()
        with caplog.at_level("INFO", "i2m_lib"):
            samples = run.make(**changed)
        return samples, caplog.text

    assert told(callbacks=[lambda trainer: pytest.fail("trained again")])[1] == ""
    samples, text = told(n=12)
    assert "n is 20, not 12" in text and "its samples is another" in text
    assert all(len(one.images) == 12 for one in samples.values())
    samples, text = told(n=12, seed=1)
    assert "seed is 0, not 1" in text and "its samples is another" in text
    small = TemplateGraph([replace(t, V=0.9 * t.V) for t in tiny_run.graph.templates], tiny_run.graph.edges)
    _, text = told(graph=small, n=12, seed=1)
    assert "its graph is another" in text
    with pytest.raises(StaleError, match="another template graph"):
        PaperMethod.load(run.folder)
    _, text = told(n=12, seed=1, epochs=(1, 1, 1))
    assert "epochs is [1, 2, 2], not [1, 1, 1]" in text
    monkeypatch.setattr("i2m_lib.published.paper.VERSION", 7)
    _, text = told(n=12, seed=1, epochs=(1, 1, 1))
    assert f"version is {VERSION}, not 7" in text and "samples was made" not in text
    monkeypatch.setattr("i2m_lib.published.generator.VERSION", 7)
    assert "samples was made of something else (version is 1, not 7)" in told(n=12, seed=1, epochs=(1, 1, 1))[1]


def test_networks_that_were_not_trained_are_named(tiny_run, tmp_path):
    tiny_run.graph.save(tmp_path / "graph")
    with pytest.raises(FileNotFoundError, match="train the paper profile"):
        PaperMethod.load(tmp_path)
