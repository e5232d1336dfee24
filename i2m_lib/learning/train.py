"""Training our network: dataset, graph and fits in; one network for all categories out."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from i2m_lib.artefacts import Key
from i2m_lib.dataset.dataset import Dataset
from i2m_lib.files import save_parquet
from i2m_lib.graph import fits as fits_module
from i2m_lib.graph.fits import Fits
from i2m_lib.graph.template_graph import TemplateGraph

from .batches import ViewDataset, batches_of
from .checkpoints import read_halves, write_halves
from .device import autocast
from .distributed import share, synchronised
from .losses import image2mesh_loss
from .networks import Image2Mesh
from .settings import Settings, read_description, write_description
from .targets import Targets, make_targets
from .trainer import Trainer

VERSION = 1  # Raise it when results change: of augmentation, targets, network, loss or trainer.


def train(
    dataset: Dataset,
    graph: TemplateGraph,
    fits: dict[str, Fits],
    folder: str | Path,
    settings: Settings,
    *,
    device: torch.device,
    callbacks: Iterable[Callable[[Trainer], None]] = (),
) -> tuple[Image2Mesh, pd.DataFrame]:
    """Trains in `folder`, or goes on where a training of the same data and settings stopped; writes model.safetensors,
    model.json and history.parquet there. Returns the network and the history, a row an epoch."""
    inputs = {"dataset": _digest(dataset), "graph": _digest(graph), "fits": _digest(fits)}
    key = Key("training", VERSION, asdict(settings), inputs)
    views = {split: ViewDataset(dataset, split) for split in ("train", "val")}
    n_train, model_ids = len(views["train"].model_ids), views["train"].model_ids + views["val"].model_ids
    targets = make_targets(
        dataset, graph, fits, model_ids=model_ids, k=settings.n_axes, temperature=settings.temperature
    ).to(device)
    by_split = {"train": targets.rows(slice(n_train)), "val": targets.rows(slice(n_train, None))}
    torch.manual_seed(settings.seed)
    model = synchronised(new_model(settings, targets).to(device, memory_format=torch.channels_last))
    step = make_step(by_split, settings, device)
    batches, n_views = batches_of(views, settings, device), len(views["train"])
    trainer = Trainer(model, step, batches, settings.schedule, Path(folder) / "training", key, callbacks, n_views)
    history = trainer.run()
    if share().rank == 0:
        names = dict(zip(dataset.models.synset, dataset.models.category, strict=True))
        sizes = {"n_templates": model.sizes[0], "n_edges": model.sizes[2]}
        write_halves(Path(folder) / "model.safetensors", model)
        write_description(folder, key, settings, graph, **sizes, categories={s: names[s] for s in graph.synsets})
        save_parquet(Path(folder) / "history.parquet", history)
    return model, history


def make_step(targets: dict[str, Targets], settings: Settings, device: torch.device) -> Callable:
    """`Trainer`'s step: the weighted terms of the loss for a batch, against the targets of its split."""
    importance = settings.importance()

    def step(network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with autocast(device):
            out = network(batch["image"].contiguous(memory_format=torch.channels_last))
        terms = image2mesh_loss(out, batch, targets["train" if network.training else "val"])
        return {name: importance[name] * term for name, term in terms.items()}

    return step


def new_model(settings: Settings, targets: Targets) -> Image2Mesh:
    """An untrained network with the targets' deformation spaces."""
    model = Image2Mesh(settings, n_templates=len(targets.means), n_edges=targets.gram.shape[-1])
    model.means.copy_(targets.means)
    model.axes.copy_(targets.axes)
    model.y_scale.fill_(targets.y_variance**0.5)
    return model


def load_model(folder: str | Path, graph: TemplateGraph) -> tuple[Image2Mesh, Settings]:
    """The trained network of a run, in evaluation mode on the CPU, and its settings.

    Raises:
        FileNotFoundError: the run has no model. StaleError: it was trained with another template graph.
    """
    content, settings = read_description(folder, graph)
    model = Image2Mesh(replace(settings, weights=None), content["n_templates"], content["n_edges"])
    return read_halves(Path(folder) / "model.safetensors", model), settings


def categories_of(folder: str | Path) -> dict[str, str]:
    """{synset: name} of the categories that a run's network knows."""
    return read_description(folder)[0]["categories"]


def _digest(x):  # TEMPORARY: until the digests of the other rooms are there
    if isinstance(x, dict) and hasattr(fits_module, "digest_of_fits"):
        return fits_module.digest_of_fits(x)
    return getattr(x, "digest", "unknown")
