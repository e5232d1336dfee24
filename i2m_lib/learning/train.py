"""The `ours` profile: dataset, graph and fits in; one trained network for all categories out."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.files import save_json, save_parquet, whole
from i2m_lib.graph.template_graph import TemplateGraph

from .batches import Batches, ViewDataset
from .device import autocast
from .distributed import share, synchronised
from .losses import image2mesh_loss
from .networks import Image2Mesh
from .settings import Settings, describe, read_description
from .targets import Targets, make_targets
from .trainer import Schedule, Trainer


def train(
    dataset: Dataset,
    graph: TemplateGraph,
    fits: dict,
    folder: str | Path,
    settings: Settings,
    *,
    device: torch.device,
    callbacks: Iterable[Callable[[Trainer], None]] = (),
) -> tuple[Image2Mesh, pd.DataFrame]:
    """Trains, or resumes, in `folder`; writes model.safetensors, model.json and history.parquet there.

    Returns:
        The trained network and the history, a row an epoch.
    """
    views = {split: ViewDataset(dataset, split) for split in ("train", "val")}
    n_train = len(views["train"].model_ids)
    everything = make_targets(
        dataset,
        graph,
        fits,
        model_ids=views["train"].model_ids + views["val"].model_ids,
        k=settings.n_axes,
        temperature=settings.temperature,
    ).to(device)
    targets = {"train": everything.rows(slice(n_train)), "val": everything.rows(slice(n_train, None))}
    torch.manual_seed(settings.seed)
    model = synchronised(new_model(settings, everything).to(device, memory_format=torch.channels_last))

    def batches(split: str, epoch: int) -> Batches:
        epoch = epoch if split == "train" else None
        return Batches(views[split], settings, device, epoch)

    step = make_step(targets, settings, device)
    schedule = Schedule(settings.epochs, settings.lr, patience=settings.patience, seed=settings.seed)
    history = Trainer(
        model, step, batches, schedule, Path(folder) / "training", callbacks, settings=asdict(settings)
    ).run()
    if share().rank == 0:
        names = dict(zip(dataset.models.synset, dataset.models.category, strict=True))
        save_model(folder, model, settings, graph, names)
        save_parquet(Path(folder) / "history.parquet", history)
    return model, history


def make_step(targets: dict[str, Targets], settings: Settings, device: torch.device) -> Callable:
    """What `Trainer` calls for a batch: the weighted terms of the loss, against the targets of its split."""
    importance = settings.importance()

    def step(network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with autocast(device):
            out = network(batch["image"].contiguous(memory_format=torch.channels_last))
        terms = image2mesh_loss(out, batch, targets["train" if network.training else "val"])
        return {name: importance[name] * term for name, term in terms.items()}

    return step


def new_model(settings: Settings, targets: Targets) -> Image2Mesh:
    """An untrained network that knows the targets' deformation spaces."""
    model = Image2Mesh(
        backbone=settings.backbone,
        node=settings.node,
        weights=settings.weights,
        n_code=settings.n_code,
        n_templates=len(targets.means),
        n_edges=targets.gram.shape[-1],
        n_axes=settings.n_axes,
    )
    model.means.copy_(targets.means)
    model.axes.copy_(targets.axes)
    model.y_scale.fill_(targets.y_variance**0.5)
    return model


def save_model(
    folder: str | Path,
    model: Image2Mesh,
    settings: Settings,
    graph: TemplateGraph,
    categories: dict[str, str],
) -> None:
    """model.safetensors in half precision, and model.json with what is needed to rebuild the network.

    categories: {synset: name}.
    """
    folder = Path(folder)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    with whole(folder / "model.safetensors") as temporary:
        save_file({k: v.contiguous().cpu() for k, v in halves.items()}, temporary)
    n_templates, _, n_edges = model.sizes
    content = describe(settings, graph) | {"n_templates": n_templates, "n_edges": n_edges}
    content["categories"] = {s: categories[s] for s in graph.synsets}
    save_json(folder / "model.json", content)


def load_model(folder: str | Path, graph: TemplateGraph) -> tuple[Image2Mesh, Settings]:
    """The trained network of a run, in evaluation mode on the CPU, and its settings.

    Raises:
        FileNotFoundError: the run has no model. ValueError: the model was trained with other templates.
    """
    content, settings = read_description(folder, graph)
    model = Image2Mesh(
        backbone=settings.backbone,
        node=settings.node,
        weights=None,
        n_code=settings.n_code,
        n_templates=content["n_templates"],
        n_edges=content["n_edges"],
        n_axes=settings.n_axes,
    )
    model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    return model.float().eval(), settings


def categories_of(folder: str | Path) -> dict[str, str]:
    """{synset: name} of the categories that a run's network knows."""
    return read_description(folder)[0]["categories"]
