from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from i2m_lib.artefacts import StaleError
from i2m_lib.dataset.dataset import chunks
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.learning.settings import Settings
from i2m_lib.learning.targets import models_of
from i2m_lib.published import learning_ffd
from i2m_lib.published.learning_ffd import ENTROPY, LearningFFDMethod, Surfaces, learning_ffd_loss, train_learning_ffd

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


@pytest.fixture(scope="module")
def run(dataset, tiny_run, tmp_path_factory):
    """A run with the tiny graph and a trained baseline; trains it again, with other settings or another graph."""
    folder = tmp_path_factory.mktemp("run")
    tiny_run.graph.save(folder / "graph")

    def train(graph=tiny_run.graph, n_points=32, callbacks=()):
        settings = Settings(1, 8, 1e-3, backbone="mobilenetv3_small_100", size=64)
        options = {"device": CPU, "n_points": n_points, "callbacks": callbacks}
        return train_learning_ffd(dataset, graph, folder / "learning_ffd", settings, **options)[1]

    assert np.isfinite(train().train_chamfer).all()
    return SimpleNamespace(folder=folder, train=train)


def test_it_answers_within_the_category(dataset, tiny_run, run):
    method = LearningFFDMethod.load(run.folder)
    assert (method.name, method.told) == ("learning_ffd", "the image and the category")
    assert (method.budget.views, method.budget.steps) == (len(tiny_run.views), 2)
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
