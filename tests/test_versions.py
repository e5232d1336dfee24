"""Results that change under an unchanged version would be taken for new ones (see `i2m_lib.artefacts`).

A few numbers of each stage's results on a tiny input are compared with tests/versions.json. Where they differ, raise
VERSION in the stage's module, and write the file anew: RECORD_VERSIONS=1 python -m pytest tests/test_versions.py
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from i2m_lib.dataset import build
from i2m_lib.evaluation import diagnosis, ladder, recognition, swaps
from i2m_lib.evaluation.recognition import Clusters, Shapes
from i2m_lib.graph import build_graph
from i2m_lib.learning import train
from i2m_lib.learning.batches import Batches
from i2m_lib.learning.losses import image2mesh_loss
from i2m_lib.learning.selection import validation_chamfer
from i2m_lib.learning.targets import make_targets
from i2m_lib.published import generator, learning_ffd, paper
from i2m_lib.reconstruction import doubt, memory
from i2m_lib.reconstruction.reconstructor import Reconstructor
from i2m_lib.scoring.protocols import PROTOCOLS

RECORD = Path(__file__).with_name("versions.json")
MODULES = {
    **{"dataset": build, "graph": build_graph, "training": train, "samples": generator, "paper": paper},
    **{"learning_ffd": learning_ffd, "memory": memory, "clusters": recognition, "scores": ladder},
    **{"diagnosis": diagnosis, "swaps": swaps, "doubt": doubt},
}
CPU = torch.device("cpu")


def moments(*arrays) -> list[float]:
    """Mean and mean square of each array: numbers that change with its values."""
    arrays = [np.asarray(a, float) for a in arrays]
    return [float(x) for a in arrays for x in (a.mean(), (a**2).mean())]


def dataset_numbers(dataset, tiny_run, tmp_path):
    mesh, views = dataset.mesh(dataset.models.model_id[0]), dataset.views
    return moments(mesh.V, mesh.S, mesh.N, views[["azimuth", "elevation", "distance", "focal"]], dataset.images)


def graph_numbers(dataset, tiny_run, tmp_path):
    t, fit = tiny_run.graph.templates[0], tiny_run.fits[tiny_run.graph.synsets[0]]
    return moments(t.d, t.c, tiny_run.graph.edges[["dist", "iou", "residual"]], fit.d, fit.cost, fit.weights)


def training_numbers(dataset, tiny_run, tmp_path):
    """Loss and its gradient at random outputs for an augmented batch, and the measure that selects weights: all that
    training follows but the network."""
    settings = tiny_run.settings
    targets = make_targets(dataset, tiny_run.graph, tiny_run.fits, k=settings.n_axes, temperature=settings.temperature)
    batch = Batches(tiny_run.views, settings, CPU, 0)[0]
    out = random_outputs(tiny_run.model, len(batch["model"]))
    terms = image2mesh_loss(out, batch, targets)
    sum(terms.values()).backward()
    gradients = [x.grad.numpy() for x in out.values() if x.grad is not None]
    val = torch.arange(len(dataset.select("train")), len(targets.q))
    measure = validation_chamfer(dataset, tiny_run.graph, CPU)(val, val * 0, torch.full((len(val), 64, 3), 0.1))
    return moments(batch["image"], *(term.detach() for term in terms.values()), *gradients, measure)


def random_outputs(model, b: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        shapes = {name: x.shape for name, x in model.eval()(torch.zeros(b, 3, 64, 64)).items()}
    return {name: torch.randn(shape, generator=draw).requires_grad_() for name, shape in shapes.items()}


def samples_numbers(dataset, tiny_run, tmp_path):
    drawn = generator.generate(tiny_run.graph, tmp_path / "samples", n=6, seed=0, workers=1)
    one = drawn[tiny_run.graph.synsets[0]]
    return moments(one.images, one.c, one.d, one.a)


def paper_numbers(dataset, tiny_run, tmp_path):
    torch.manual_seed(0)
    networks, T = paper.Networks(2), 2
    batch = {"z": torch.randn(4, 2048), "c": torch.tensor([0, 1, 0, 1]), "d": torch.randn(4, 32, 3)}
    batch |= {"a": torch.ones(4, T), "image": torch.rand(2, 1, 220, 220)}
    steps = {"autoencoder": paper.reconstruct_image, "classifier": paper.choose_template, "regressor": paper.regress}
    return moments(*(x.detach() for name, step in steps.items() for x in step(getattr(networks, name), batch).values()))


def learning_ffd_numbers(dataset, tiny_run, tmp_path):
    surfaces = learning_ffd.Surfaces.of(dataset, tiny_run.graph, CPU)
    draw, b, T = torch.Generator().manual_seed(0), 3, len(tiny_run.graph.templates)
    out = {"logits": torch.randn(b, T, generator=draw), "dP": 0.1 * torch.randn(b, T, 64, 3, generator=draw)}
    batch = {"model": torch.arange(b), "stretch": torch.ones(b, 3)}
    torch.manual_seed(0)
    return moments(*learning_ffd.learning_ffd_loss(out, batch, surfaces, progress=0.5, n=32).values())


def memory_numbers(dataset, tiny_run, tmp_path):
    codes = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    known = memory.Memory(codes[10:], np.arange(40).astype(str))
    return moments(known.similarity(codes[:10]), np.array(known.retrieve(codes[:10]), int))


def clusters_numbers(dataset, tiny_run, tmp_path):
    shapes = Shapes.of(dataset)
    found = Clusters.of(shapes, dict.fromkeys(sorted(set(shapes.synsets.tolist())), 1), seed=0, workers=1)
    return moments(recognition.pairwise(shapes.few), [shapes.model_ids.tolist().index(m) for m in found.medoids])


def scores_numbers(dataset, tiny_run, tmp_path):
    protocol = replace(PROTOCOLS["canonical"], n_samples=1000, n_inside=500)
    methods = [m for m in ladder.ladder_methods(dataset, tiny_run.folder, seed=0, workers=1) if m.name in BLIND]
    how = {"split": "test", "n_views": 1, "protocol": protocol, "seed": 0, "workers": 1}
    scores = ladder.score_ladder(dataset, methods, **how)
    return moments(*(rows.value.dropna() for _, rows in scores.groupby(["method", "metric"])))


def diagnosis_numbers(dataset, tiny_run, tmp_path):
    reconstructor = Reconstructor.load(tiny_run.folder)
    known = memory.Memory.of(reconstructor, dataset)
    how = {"split": "val", "n_views": 1, "seed": 0, "workers": 1}
    table = diagnosis.diagnose(dataset, reconstructor, known, tiny_run.fits, **how)
    return moments(table.floor)  # What else there is depends on a network.


def swaps_numbers(dataset, tiny_run, tmp_path):
    return moments(swaps.swap_parts(dataset, Reconstructor.load(tiny_run.folder), tiny_run.fits)["all"])


def doubt_numbers(dataset, tiny_run, tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.random(50) for name in [*doubt.SIGNS, "chamfer_l1"]})
    chosen = doubt.Doubt.chosen(table)
    return moments(chosen.weights, chosen(table.head(5)))


BLIND = ("random_shape", "mean_shape", "oracle_template", "oracle_nearest", "oracle_ffd", "floor")
NUMBERS = {name: globals()[f"{name}_numbers"] for name in MODULES}


@pytest.mark.parametrize("stage", NUMBERS)
def test_results_change_only_with_their_version(stage, dataset, tiny_run, tmp_path):
    known = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    found = {"version": MODULES[stage].VERSION, "numbers": NUMBERS[stage](dataset, tiny_run, tmp_path)}
    if os.environ.get("RECORD_VERSIONS"):
        RECORD.write_text(json.dumps(known | {stage: found}, indent=1, sort_keys=True) + "\n")
        return
    assert found["version"] == known[stage]["version"], f"record the results of version {found['version']} of {stage}"
    # Other processors and library versions round in another way.
    assert found["numbers"] == pytest.approx(known[stage]["numbers"], rel=2e-3, abs=1e-6), (
        f"results of stage {stage} have changed: raise VERSION in {MODULES[stage].__name__}"
    )
