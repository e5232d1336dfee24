import numpy as np
import pytest
import torch

from i2m_lib.geometry.surfaces import sample_surface
from i2m_lib.published.generator import VARIANCE, draw, generate
from i2m_lib.published.paper import PaperReconstructor, PaperSettings, gray, gray_of_samples, train_category
from i2m_lib.published.paper_networks import SIZE, Autoencoder, Classifier, Regressor
from i2m_lib.published.samples import combine, neighbour_slots


def test_the_networks_have_the_published_shapes():
    image = torch.zeros(2, 1, SIZE, SIZE)
    autoencoder = Autoencoder()
    assert autoencoder(image).shape == image.shape
    z = autoencoder.code(image)
    assert z.shape == (2, 2048)
    assert Classifier(30)(z).shape == (2, 30)
    d, a = Regressor(30)(z, torch.tensor([0, 29]))
    assert d.shape == (2, 32, 3)
    assert a.shape == (2, 30)
    assert not torch.equal(d[0], d[1])  # it knows the template


@pytest.fixture(scope="module")
def templates(tiny_run):
    return tiny_run.graph.of(tiny_run.graph.synsets[0])


def test_draws_follow_the_mixture(templates):
    n, T, slots = 4000, len(templates), neighbour_slots(templates)
    drawn = draw(templates, n, np.random.default_rng(0))
    assert np.bincount(drawn.c, minlength=T) == pytest.approx([n / T] * T, rel=0.1)
    for t, template in enumerate(templates):
        mine = drawn.c == t
        np.testing.assert_allclose(drawn.d[mine].mean(0), template.d.mean(0), atol=4 * (VARIANCE / mine.sum()) ** 0.5)
        spread = VARIANCE + template.d.var(0)
        assert drawn.d[mine].var(0).mean() == pytest.approx(spread.mean(), rel=0.05)
        edges = np.isin(np.arange(T), slots[t])
        assert not drawn.a[mine][:, ~edges].any()
        assert drawn.a[mine][:, edges].mean() == pytest.approx(0.5, abs=0.05)


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


def test_it_trains_on_samples_and_answers_with_meshes(dataset, tiny_run):
    samples = generate(tiny_run.graph, tiny_run.folder / "samples", n=20, seed=0, workers=1)
    settings = PaperSettings((1, 2, 2), batch_size=8)
    for synset, one in samples.items():
        assert one.images.shape == (20, 192, 192, 2)
        assert one.n_train == 14
        train_category(one, tiny_run.folder / "paper" / synset, settings)
    reconstructor = PaperReconstructor.load(tiny_run.folder)
    images = torch.from_numpy(np.array(dataset.images[:3])).permute(0, 3, 1, 2)
    synsets = dataset.views.synset[:3].tolist()
    for answer, synset in zip(reconstructor.predict(images, synsets), synsets, strict=True):
        assert answer.template.synset == synset
        assert np.isfinite(answer.V).all()
        assert len(sample_surface(answer.V, answer.F, 10, np.random.default_rng(0))[0]) == 10
    assert len(reconstructor.predict_samples(samples[synset].images[14:16], synset)) == 2
    with pytest.raises(FileNotFoundError, match="train the paper profile"):
        PaperReconstructor.load(_without_networks(tiny_run))


def _without_networks(tiny_run):
    (tiny_run.folder / "bare").mkdir()
    tiny_run.graph.save(tiny_run.folder / "bare" / "graph")
    return tiny_run.folder / "bare"
