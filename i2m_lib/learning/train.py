"""Training our network: dataset, graph and fits in; one network for all categories out."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from i2m_lib.artefacts import Key
from i2m_lib.dataset.dataset import Dataset
from i2m_lib.files import save_json, save_parquet
from i2m_lib.geometry.ffd import displace, symmetric_basis
from i2m_lib.graph.fits import Fits, digest_of_fits
from i2m_lib.graph.template_graph import TemplateGraph

from .batches import Batches, ViewDataset
from .checkpoints import read_halves, write_halves
from .device import autocast, share, synchronised
from .losses import image2mesh_loss
from .networks import Image2Mesh
from .selection import validation_chamfer
from .settings import Settings, describe, read_description
from .targets import Targets, make_targets
from .trainer import Batch, Callbacks, Schedule, Trainer

VERSION = 4  # Raise it when results change: of augmentation, targets, network, loss or trainer.


def train(
    dataset: Dataset, graph: TemplateGraph, fits: dict[str, Fits], folder: str | Path, settings: Settings, *,
    device: torch.device, callbacks: Callbacks = (),
) -> tuple[Image2Mesh, pd.DataFrame]:  # fmt: skip
    """Trains in `folder`, or goes on where a training of the same data and settings stopped; writes model.safetensors,
    model.json and history.parquet there. Returns the network and the history, a row an epoch."""
    inputs = {"dataset": dataset.digest, "graph": graph.digest, "fits": digest_of_fits(fits)}
    key = Key("training", VERSION, asdict(settings), inputs)
    targets = make_targets(dataset, graph, fits, k=settings.n_axes, temperature=settings.temperature).to(device)
    importance, spread = settings.importance(), symmetric_basis(torch.eye(64, device=device))

    def loss(out: Batch, batch: Batch, _progress: float) -> Batch:
        return image2mesh_loss(out, batch, targets, importance)

    def answer(out: Batch, _batch: Batch) -> tuple[Tensor, Tensor]:
        best = out["logits"].argmax(1)
        y = out["y"][torch.arange(len(best)), best].float()
        return best, displace(spread, model.lattice(y, best))

    torch.manual_seed(settings.seed)
    model = new_model(settings, targets)
    return model, fit(model, loss, answer, dataset, graph, folder, settings, key, device=device, callbacks=callbacks)


def fit(
    model: nn.Module, loss: Callable, answer: Callable, dataset: Dataset, graph: TemplateGraph, folder: str | Path,
    settings: Settings, key: Key, *, device: torch.device, callbacks: Callbacks = (),
) -> pd.DataFrame:  # fmt: skip
    """Trains any network with `forward` and, as at inference, `average` on a dataset's views by loss(outputs, batch,
    progress) -> {name: term}. The weights are kept whose answers, answer(outputs, batch) -> (templates (b,),
    displacements dP (b, 64, 3)), are best on validation (`selection`). Writes what `train` does, and returns the
    history."""
    views = {split: ViewDataset(dataset, split) for split in ("train", "val")}
    model = synchronised(model.to(device, memory_format=torch.channels_last))

    def batches(split: str, epoch: int) -> Batches:
        return Batches(views[split], settings, device, epoch if split == "train" else None)

    def step(network: nn.Module, batch: Batch) -> Batch:
        with autocast(device, model):
            out = network(batch["image"].contiguous(memory_format=torch.channels_last))
        return loss(out, batch, trainer.progress)

    def measure(network: nn.Module, batch: Batch) -> Tensor:
        with autocast(device, network):
            out = network.average(batch["image"].contiguous(memory_format=torch.channels_last))
        return chamfer_l1(batch["model"], *answer(out, batch))

    chamfer_l1 = validation_chamfer(dataset, graph, device)
    folder, n_views = Path(folder), len(views["train"])
    shares = {"encoder.trunk.": settings.trunk_lr}
    schedule = Schedule(settings.epochs, settings.lr, patience=settings.patience, seed=settings.seed, shares=shares)
    trainer = Trainer(model, step, batches, schedule, folder / "training", key, callbacks, n_views, measure=measure)
    history = trainer.run()
    if share().rank == 0:
        names = dict(zip(dataset.models.synset, dataset.models.category, strict=True))
        write_halves(folder / "model.safetensors", model)
        save_json(folder / "model.json", describe(key, settings, graph, {s: names[s] for s in graph.synsets}))
        save_parquet(folder / "history.parquet", history)
    return history


def new_model(settings: Settings, targets: Targets) -> Image2Mesh:
    """An untrained network with the targets' deformation spaces."""
    model = Image2Mesh(settings, n_templates=len(targets.means), n_edges=targets.gram.shape[-1])
    model.means.copy_(targets.means)
    model.axes.copy_(targets.axes)
    model.y_scale.fill_(targets.y_variance**0.5)
    return model


def load_model(folder: str | Path, graph: TemplateGraph) -> tuple[Image2Mesh, Settings]:
    """The trained network of a run, in evaluation mode on the CPU, and its settings. Raises as `read_description`."""
    settings = read_description(folder, graph)[1]
    model = Image2Mesh(replace(settings, weights=None), len(graph.templates), graph.n_edges)
    return read_halves(Path(folder) / "model.safetensors", model), settings


def categories_of(folder: str | Path) -> dict[str, str]:
    """{synset: name} of the categories that a run's network knows."""
    return read_description(folder)[0]["categories"]
