from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from i2m_lib.artefacts import StaleError
from i2m_lib.dataset.dataset import Views, chunks, views_of
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.learning.images import compose, crop_to_mask
from i2m_lib.learning.selection import validation_chamfer
from i2m_lib.learning.settings import Settings
from i2m_lib.learning.targets import models_of
from i2m_lib.published import learning_ffd
from i2m_lib.published.learning_ffd import (
    ENTROPY,
    LearningFFD,
    LearningFFDMethod,
    Surfaces,
    learning_ffd_loss,
    train_learning_ffd,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def surfaces(dataset, tiny_run):
    return Surfaces.of(dataset, tiny_run.graph, CPU)


def outputs(surfaces, b):
    T = len(surfaces.P)
    return {"logits": torch.zeros(b, T), "dP": torch.zeros(b, T, 64, 3)}


def batch(b):
    return {"model": torch.arange(b), "stretch": torch.ones(b, 3)}


def test_control_points_at_rest_give_the_templates(surfaces, dataset, tiny_run):
    for t, template in enumerate(tiny_run.graph.templates):
        S = torch.from_numpy(dataset.mesh(template.model_id).S).float()
        torch.testing.assert_close(surfaces.B[t] @ surfaces.P[t], S, atol=1e-5, rtol=0)


def test_a_template_fits_itself_only_up_to_the_samples(surfaces, dataset, tiny_run):
    """All probability on the shape's own template leaves sampling noise; on another it leaves more."""
    own = {m: t for t, m in enumerate(x.model_id for x in tiny_run.graph.templates)}
    model = next(i for i, m in enumerate(models_of(dataset)) if m in own)
    slots = surfaces.slots[model].tolist()
    found = {}
    for t in slots:
        out = outputs(surfaces, 1)
        out["logits"][0, t] = 50
        b = {"model": torch.tensor([model]), "stretch": torch.ones(1, 3)}
        torch.manual_seed(0)
        terms = learning_ffd_loss(out, b, surfaces, progress=0.0, n=256)
        found[t] = float(terms["chamfer"])
    mine = own[models_of(dataset)[model]]
    assert found[mine] == min(found.values())
    assert found[mine] < 0.5 * max(found.values())


def test_the_entropy_fades(surfaces):
    first, last = (
        learning_ffd_loss(outputs(surfaces, 2), batch(2), surfaces, progress=p, n=16)["entropy"] for p in (0.0, 1.0)
    )
    assert float(last) == pytest.approx(float(first) * np.exp(-10), rel=1e-4)


def test_templates_of_another_category_change_nothing(surfaces):
    out = outputs(surfaces, 2)
    foreign = [t for t in range(len(surfaces.P)) if t not in surfaces.slots[:2]]
    found = []
    for logit, shift in ((0.0, 0.0), (9.0, 1.0)):
        out["logits"][:, foreign], out["dP"][:, foreign] = logit, shift
        torch.manual_seed(0)
        found.append(learning_ffd_loss(out, batch(2), surfaces, progress=0.0, n=16))
    assert len(foreign) == 2
    assert all(torch.equal(found[0][name], found[1][name]) for name in ("chamfer", "entropy"))


def test_evenly_used_templates_have_the_lowest_entropy_term(surfaces):
    out = outputs(surfaces, 2)
    even = learning_ffd_loss(out, batch(2), surfaces, progress=0.0, n=16)["entropy"]
    assert float(even) == pytest.approx(
        -ENTROPY * np.log(2), rel=1e-5
    )  # both shapes are of one category of two templates
    out["logits"][:, surfaces.slots[0, 0]] = 9
    assert float(even) < float(learning_ffd_loss(out, batch(2), surfaces, progress=0.0, n=16)["entropy"])


def test_mirrored_targets_are_the_mirrored_clouds(surfaces):
    """A mirror image has the loss of the mirrored shape, bit for bit; other views of the batch are as they were."""
    out, views, mirror = outputs(surfaces, 2), batch(2), torch.tensor([-1.0, 1.0, 1.0])
    clouds = surfaces.clouds.clone()
    clouds[1] *= mirror
    found = []
    mirrored = views | {"mirrored": torch.tensor([False, True])}
    for given, where in ((mirrored, surfaces), (views, replace(surfaces, clouds=clouds))):
        torch.manual_seed(0)
        found.append(learning_ffd_loss(out, given, where, progress=0.0, n=64)["chamfer"])
    assert torch.equal(*found)
    assert not torch.equal(surfaces.clouds[1], clouds[1])


@torch.no_grad()
def test_an_image_and_its_mirror_image_choose_the_same_template():
    """Each with its own displacements: a mirrored displacement would move the mirrored template."""
    model = LearningFFD(Settings(1, 8, 1e-3, backbone="mobilenetv3_small_100", size=64), 2).eval()
    nn.init.normal_(model.dP.weight, std=0.1)
    image = torch.rand(3, 3, 64, 64)
    first, second = model.average(image), model.average(image.flip(3))
    torch.testing.assert_close(first["logits"], second["logits"], atol=1e-6, rtol=0)
    assert not torch.equal(first["logits"], model(image)["logits"])
    torch.testing.assert_close(first["dP"], model(image)["dP"])
    assert (first["dP"] - second["dP"]).abs().max() > 1e-3


@pytest.fixture(scope="module")
def run(dataset, tiny_run, tmp_path_factory):
    """A run with the tiny graph and a trained baseline; trains it again, with other settings or another graph."""
    folder = tmp_path_factory.mktemp("run")
    tiny_run.graph.save(folder / "graph")

    def train(graph=tiny_run.graph, n_points=32, callbacks=()):
        settings = Settings(3, 8, 1e-2, backbone="mobilenetv3_small_100", size=64)
        options = {"device": CPU, "n_points": n_points, "callbacks": callbacks}
        return train_learning_ffd(dataset, graph, folder / "learning_ffd", settings, **options)

    return SimpleNamespace(folder=folder, train=train, result=train())


def least(dataset, graph, model, slots):
    """The measure of a trained network, from its answers to all validation views."""
    views, images = views_of(dataset, "val", 4)
    number = {m: i for i, m in enumerate(models_of(dataset))}
    rows = torch.tensor([number[m] for m in views.model_id])
    with torch.no_grad():
        out = model.eval().average(compose(crop_to_mask(images.float() / 255, 64)))
    known = torch.full_like(out["logits"], -torch.inf).scatter(1, slots[rows], 0)
    best = (out["logits"] + known).argmax(1)
    return float(validation_chamfer(dataset, graph, CPU)(rows, best, out["dP"][torch.arange(len(best)), best]))


def test_the_epoch_with_the_least_validation_chamfer_is_kept(dataset, tiny_run, run, surfaces):
    model, history = run.result
    kept = least(dataset, tiny_run.graph, model, surfaces.slots)
    assert kept == pytest.approx(history.val_chamfer_l1.min(), rel=1e-4)
    assert history.val_chamfer_l1.nunique() == len(history) == 3


def test_it_answers_within_the_category(dataset, tiny_run, run):
    method = LearningFFDMethod.load(run.folder)
    assert (method.name, method.told) == ("learning_ffd", "the image and the category")
    assert (method.budget.views, method.budget.steps) == (len(tiny_run.views), 3 * 2)
    (views,) = chunks(dataset, dataset.views.head(4))
    shapes = {t.F.tobytes(): t for t in tiny_run.graph.templates}
    for (V, F), synset in zip(method.answer(views), views.rows.synset, strict=True):
        assert shapes[F.tobytes()].synset == synset
        assert V.shape == shapes[F.tobytes()].V.shape and np.isfinite(V).all()


def test_an_answer_is_the_deformed_template(dataset, tiny_run, run):
    """With heads that are zero but for one template's bias, that template is moved by it, rigidly."""
    method = LearningFFDMethod.load(run.folder)
    (views,) = chunks(dataset, dataset.views.head(1))
    chosen = next(i for i, t in enumerate(tiny_run.graph.templates) if t.synset == views.rows.synset[0])
    with torch.no_grad():
        for head in (method.model.logits, method.model.dP):
            head.weight.zero_(), head.bias.zero_()
        method.model.logits.bias[chosen] = 1
        method.model.dP.bias.view(-1, 64, 3)[chosen, :, 1] = 0.25
    ((V, _),) = method.answer(views)
    np.testing.assert_allclose(V, tiny_run.graph.templates[chosen].V + np.array([0, 0.25, 0]), atol=1e-6)


def test_categories_may_have_unequal_numbers_of_templates(dataset, tiny_run, tmp_path):
    """One template of the first category and two of the second: trained, loaded, and answered with those alone."""
    first, *rest = tiny_run.graph.templates[1:]
    alone = replace(first, neighbours=(), d=first.d[:0], c=first.c[:0])
    graph = TemplateGraph([alone, *rest], tiny_run.graph.edges)
    graph.save(tmp_path / "graph")
    settings = Settings(1, 8, 1e-3, backbone="mobilenetv3_small_100", size=64)
    train_learning_ffd(dataset, graph, tmp_path / "learning_ffd", settings, device=CPU, n_points=16)
    slots = Surfaces.of(dataset, graph, CPU).slots
    assert sorted(map(tuple, slots.unique(dim=0).tolist())) == [(0, -1), (1, 2)]
    views = Views(*views_of(dataset, "test", 2))
    for (_, F), synset in zip(LearningFFDMethod.load(tmp_path).answer(views), views.rows.synset, strict=True):
        assert any(np.array_equal(F, t.F) for t in graph.of(synset))
    assert [len(graph.of(s)) for s in graph.synsets] == [1, 2]


def test_another_graph_or_other_settings_are_trained_on_anew(tiny_run, run, caplog, monkeypatch):
    run.train(callbacks=[lambda trainer: pytest.fail("trained again")])
    with caplog.at_level("INFO", "i2m_lib"):
        run.train(n_points=16)
    assert "n_points is 32, not 16" in caplog.text
    small = TemplateGraph([replace(t, V=0.9 * t.V) for t in tiny_run.graph.templates], tiny_run.graph.edges)
    with caplog.at_level("INFO", "i2m_lib"):
        run.train(small)
    assert "its graph is another" in caplog.text
    with pytest.raises(StaleError, match="another template graph"):
        LearningFFDMethod.load(run.folder)
    for name in ("VERSION", "LEARNING_VERSION"):
        caplog.clear()
        now = getattr(learning_ffd, name)
        monkeypatch.setattr(learning_ffd, name, now + 1)
        with caplog.at_level("INFO", "i2m_lib"):
            run.train()
        assert f"is {now}, not {now + 1}" in caplog.text
