"""Numbers of a tiny training. Where they change, trained networks change: raise `train.VERSION`, and add a row here."""

import numpy as np
import pytest
import torch
from test_images import batch, draws
from test_trainer import make

from i2m_lib.graph.template_graph import Template
from i2m_lib.learning.images import augment
from i2m_lib.learning.losses import TERMS, image2mesh_loss
from i2m_lib.learning.settings import Settings
from i2m_lib.learning.targets import Targets, deformation_space
from i2m_lib.learning.train import VERSION, new_model

N, W, E, T, K = 8, 2, 2, 3, 4
SETTINGS = Settings(1, N, 1e-3, backbone="mobilenetv3_small_100", size=64, n_axes=K, n_code=16)
EXPECTED = {
    1: {
        "loss": (1.08209, 3.10134, 0.948076, 1.105443, 0.443928),
        "space": (3.01695, 539.446, 0.0132673, 3.67086),
        "trained": 0.03629,
    }
}


def random_targets() -> Targets:
    torch.manual_seed(1)
    q = torch.rand(N, W)
    tensors = {"q": q / q.sum(1, keepdim=True), "parts": torch.randn(N, W, 3, K), "origin": torch.randn(T, K)}
    tensors |= {
        "weights": torch.rand(N, W, E),
        "weighted": torch.rand(N, W) < 0.5,
        "gram": torch.eye(E).repeat(T, 1, 1),
    }
    tensors |= {"means": torch.randn(T, 32, 3), "axes": torch.randn(T, K, 32, 3), "extent": torch.rand(N, 3) + 0.5}
    slots = torch.arange(N * W).view(N, W) % T
    return Targets(slots=slots, y_variance=1.5, residual_variance=0.5, **tensors)


def test_the_loss_of_an_untrained_network():
    given = batch(N) | {"elevation": torch.linspace(-0.2, 0.8, N), "model": torch.arange(N)}
    views = augment(given, SETTINGS.size, draws(3, N), stretch=0.3)
    targets = random_targets()
    torch.manual_seed(0)
    with torch.no_grad():
        out = new_model(SETTINGS, targets).train()(views["image"])
    terms = image2mesh_loss(out, views, targets)
    assert [float(terms[name]) for name in TERMS] == pytest.approx(EXPECTED[VERSION]["loss"], rel=2e-3)


def test_the_space_of_some_fits():
    rng = np.random.default_rng(0)
    V, d, c = rng.random((30, 3)), rng.normal(0, 0.1, (2, 32, 3)), rng.normal(0, 0.1, (2, 5, 3))
    template = Template("1", "a", V, np.arange(30).reshape(10, 3), np.zeros((10, 3), np.uint8), V[:5], ("b", "c"), d, c)
    found = [float(np.abs(x).sum()) for x in deformation_space(template, V, rng.normal(0, 0.1, (6, 32, 3)), K)]
    assert found == pytest.approx(EXPECTED[VERSION]["space"], rel=1e-4)


def test_the_end_of_a_training(tmp_path):
    found = make(tmp_path).run().val_loss.iloc[-1]
    assert found == pytest.approx(EXPECTED[VERSION]["trained"], rel=1e-2)
