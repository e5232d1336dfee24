"""Numbers of tiny samples and trainings. Where they change, results change: raise the VERSION of the module that is
named, and add a row to its table."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from i2m_lib.graph.template_graph import Template, TemplateGraph
from i2m_lib.published import generator, learning_ffd, paper

SAMPLES = {1: (48.313, 0.55, 0.047416, 0.225)}
PAPER = {1: (0.52802, 0.71021, 0.0071197)}
FFD = {1: (287.476, -1.19177)}


@pytest.fixture(scope="module")
def graph():
    """Two boxes that are neighbours."""
    rng = np.random.default_rng(0)
    corners = np.array([[x, y, z] for x in (-0.3, 0.3) for y in (-0.3, 0.3) for z in (-0.3, 0.3)])
    F = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6]])
    C, templates = np.full((len(F), 3), 120, np.uint8), []
    for name, other, height in (("a", "b", 1.0), ("b", "a", 1.5)):
        V, d, c = corners * [1, height, 1], rng.normal(0, 0.05, (1, 32, 3)), rng.normal(0, 0.05, (1, 4, 3))
        templates.append(Template("1", name, V, F, C, V[:4], (other,), d, c))
    return TemplateGraph(templates, pd.DataFrame())


@pytest.fixture(scope="module")
def samples(graph, tmp_path_factory):
    return generator.generate(graph, tmp_path_factory.mktemp("samples"), n=20, seed=0, workers=1)


def test_samples_of_the_generator(samples):
    one = samples["1"]
    found = [float(np.abs(x).mean()) for x in (one.images, one.c, one.d, one.a)]
    assert found == pytest.approx(SAMPLES[generator.VERSION], rel=1e-2)


def test_losses_of_the_paper_profile(samples, graph, tmp_path):
    paper.train_paper(samples, graph, tmp_path, epochs=(1, 1, 1), batch_size=4, seed=0)
    names = ("autoencoder", "classifier", "regressor")
    checkpoints = [json.loads((tmp_path / "1" / name / "checkpoint.json").read_text()) for name in names]
    found = [checkpoint["history"][0]["train_loss"] for checkpoint in checkpoints]
    assert found == pytest.approx(PAPER[paper.VERSION], rel=2e-2)


def test_loss_of_learning_ffd():
    torch.manual_seed(0)
    surfaces = learning_ffd.Surfaces(
        B=torch.rand(3, 50, 64).softmax(2),
        P=torch.rand(3, 64, 3),
        clouds=torch.rand(4, 50, 3),
        extent=torch.rand(4, 3) + 0.5,
        slots=torch.tensor([[0, 1], [0, 1], [2, -1], [2, -1]]),
    )
    out = {"logits": torch.randn(4, 3), "dP": 0.1 * torch.randn(4, 3, 64, 3)}
    batch = {"model": torch.arange(4), "stretch": torch.rand(4, 3) + 0.5}
    terms = learning_ffd.learning_ffd_loss(out, batch, surfaces, progress=0.1, n=20)
    found = [float(terms[name]) for name in ("chamfer", "entropy")]
    assert found == pytest.approx(FFD[learning_ffd.VERSION], rel=1e-3)
