import numpy as np
import pytest
import torch

from i2m_lib.learning.settings import Settings
from i2m_lib.published.learning_ffd import (
    VARIANTS,
    LearningFFDReconstructor,
    Surfaces,
    Variant,
    chamfer,
    learning_ffd_loss,
    train_learning_ffd,
)

CPU = torch.device("cpu")


def test_chamfer_is_the_sum_over_both_directions():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 30, 3, generator=rng, requires_grad=True), torch.rand(2, 20, 3, generator=rng)
    squared = (x[:, :, None] - y[:, None]).square().sum(-1)
    expected = squared.amin(2).sum(1) + squared.amin(1).sum(1)
    torch.testing.assert_close(chamfer(x, y), expected)
    (a,), (b,) = (torch.autograd.grad(z.sum(), x, retain_graph=True) for z in (chamfer(x, y), expected))
    torch.testing.assert_close(a, b)
    assert float(chamfer(y, y).abs().max()) == 0


@pytest.fixture(scope="module")
def surfaces(dataset, tiny_run):
    return Surfaces.of(dataset, tiny_run.graph, tiny_run.views.model_ids, CPU)


def outputs(surfaces, b):
    T = len(surfaces.P)
    return {"logits": torch.zeros(b, T), "dP": torch.zeros(b, T, 64, 3)}


def batch(b):
    return {"model": torch.arange(b), "stretch": torch.ones(b, 3)}


def test_control_points_at_rest_give_the_templates(surfaces, dataset, tiny_run):
    for t, template in enumerate(tiny_run.graph.templates):
        S = torch.from_numpy(dataset.mesh(template.model_id).S).float()
        torch.testing.assert_close(surfaces.B[t] @ surfaces.P[t], S, atol=1e-5, rtol=0)


def test_a_template_fits_itself_only_up_to_the_samples(surfaces, tiny_run):
    """All probability on the shape's own template leaves sampling noise; on another it leaves more."""
    own = {m: t for t, m in enumerate(x.model_id for x in tiny_run.graph.templates)}
    model = next(i for i, m in enumerate(tiny_run.views.model_ids) if m in own)
    slots = surfaces.slots[model].tolist()
    found = {}
    for t in slots:
        out = outputs(surfaces, 1)
        out["logits"][0, t] = 50
        b = {"model": torch.tensor([model]), "stretch": torch.ones(1, 3)}
        torch.manual_seed(0)
        terms = learning_ffd_loss(out, b, surfaces, Variant(eps=0.0), progress=0.0, n=256)
        found[t] = float(terms["chamfer"])
    mine = own[tiny_run.views.model_ids[model]]
    assert found[mine] == min(found.values())
    assert found[mine] < 0.5 * max(found.values())


def test_probabilities_stay_within_the_category_and_regularisers_fade(surfaces):
    out = outputs(surfaces, 2)
    out["dP"] += 0.1
    terms = [
        learning_ffd_loss(out, batch(2), surfaces, Variant(entropy=1.0, dp=1.0), progress=p, n=16) for p in (0.0, 1.0)
    ]
    assert float(terms[0]["dp"]) == pytest.approx(64 * 3 * 0.01, rel=1e-4)  # gamma sums to 1 within the category
    for name in ("dp", "entropy"):
        assert float(terms[1][name]) == pytest.approx(float(terms[0][name]) * np.exp(-10), rel=1e-4)


def test_evenly_used_templates_have_the_lowest_entropy_term(surfaces):
    even = learning_ffd_loss(outputs(surfaces, 2), batch(2), surfaces, VARIANTS["entropy"], progress=0.0, n=16)
    out = outputs(surfaces, 2)
    out["logits"][:, surfaces.slots[0, 0]] = 9
    assert float(even["entropy"]) < float(
        learning_ffd_loss(out, batch(2), surfaces, VARIANTS["entropy"], progress=0.0, n=16)["entropy"]
    )


def test_it_trains_and_answers_within_the_category(dataset, tiny_run):
    settings = Settings(1, 8, 1e-3, backbone="mobilenet_v3_small", size=64)
    history = train_learning_ffd(
        dataset, tiny_run.graph, tiny_run.folder / "learning_ffd", settings, device=CPU, n_points=32
    )[1]
    assert np.isfinite(history.train_chamfer).all()
    reconstructor = LearningFFDReconstructor.load(tiny_run.folder)
    images = torch.from_numpy(np.array(dataset.images[:4])).permute(0, 3, 1, 2)
    synsets = dataset.views.synset[:4].tolist()
    for answer, synset in zip(reconstructor.predict(images, synsets), synsets, strict=True):
        assert answer.template.synset == synset
        assert answer.V.shape == answer.template.V.shape
        np.testing.assert_array_equal(answer.F, answer.template.F)
