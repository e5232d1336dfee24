"""The `ours` profile: dataset, graph and fits in; one trained network for all categories out."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, WeightedRandomSampler

from i2m_lib.dataset.views import Dataset, ViewDataset
from i2m_lib.files import save_json, whole
from i2m_lib.templates.graph import TemplateGraph

from .images import augment, plain
from .losses import image2mesh_loss
from .networks import Image2Mesh
from .targets import Targets, make_targets
from .training import Schedule, Trainer


@dataclass(frozen=True)
class Settings:
    """What defines a training run.

    backbone, node, weights: the encoder (`networks.Encoder`); size: side of its input in pixels; n_code, n_axes:
    lengths of z and of y; temperature: of the soft template labels, in canonical units.
    """

    epochs: int
    batch_size: int
    lr: float
    backbone: str = "resnet18"
    node: str = "layer3"
    weights: str | None = None
    size: int = 96
    n_code: int = 256
    n_axes: int = 24
    temperature: float = 1e-3
    seed: int = 0


def default_device() -> torch.device:
    """The GPU when there is one, the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    dataset: Dataset,
    graph: TemplateGraph,
    fits: dict,
    folder: str | Path,
    settings: Settings,
    *,
    device: torch.device,
    callbacks: Iterable[Callable[[list[dict]], None]] = (),
) -> tuple[Image2Mesh, pd.DataFrame]:
    """Trains, or resumes, in `folder`; writes model.safetensors and model.json there.

    Returns:
        The trained network and the history, a row an epoch.
    """
    views = {split: ViewDataset(dataset, split) for split in ("train", "val")}
    targets = {
        split: make_targets(
            dataset,
            graph,
            fits,
            model_ids=views[split].model_ids,
            k=settings.n_axes,
            temperature=settings.temperature,
        )
        for split in views
    }
    torch.manual_seed(settings.seed)
    model = new_model(settings, targets["train"]).to(device, memory_format=torch.channels_last)
    on_device = {split: t.to(device) for split, t in targets.items()}

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16):
            out = model(batch["image"].contiguous(memory_format=torch.channels_last))
        return image2mesh_loss(out, batch, on_device["train" if model.training else "val"])

    def batches(split: str, epoch: int) -> "Batches":
        return Batches(views[split], settings, device, epoch if split == "train" else None)

    schedule = Schedule(settings.epochs, settings.lr)
    history = Trainer(model, step, batches, schedule, Path(folder) / "training", callbacks).run()
    names = dict(zip(dataset.models.synset, dataset.models.category, strict=True))
    save_model(folder, model, settings, graph, names)
    return model, history


class Batches:
    """Batches of views on the device: drawn and augmented by (seed, epoch), or in order and plain if None.

    Categories are drawn equally often: the headline weighs them equally, and ShapeNet's differ a hundredfold.
    """

    def __init__(self, views: ViewDataset, settings: Settings, device: torch.device, epoch: int | None):
        self.settings, self.device, self.augmented = settings, device, epoch is not None
        self.generator = torch.Generator().manual_seed(settings.seed * 100_003 + (epoch or 0))
        sampler = None
        if self.augmented:
            sampler = WeightedRandomSampler(balanced(views), len(views), generator=self.generator)
        self.loader = DataLoader(
            views,
            settings.batch_size,
            sampler=sampler,
            drop_last=self.augmented and len(views) > settings.batch_size,
            collate_fn=ViewDataset.collate,
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.loader:
            moved = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
            size = self.settings.size
            yield augment(moved, size, self.generator) if self.augmented else plain(moved, size)


def balanced(views: ViewDataset) -> Tensor:
    """Weight of each view (n,) in a draw that favours no category."""
    synset = views.dataset.models.set_index("model_id").synset.loc[views.model_ids].astype("category")
    category = torch.from_numpy(synset.cat.codes.to_numpy(dtype="int64"))[views.model]
    return 1 / category.bincount().double()[category]


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
    content = {
        "settings": asdict(settings),
        "n_templates": n_templates,
        "n_edges": n_edges,
        "categories": {s: categories[s] for s in graph.synsets},
        "templates": [[t.synset, t.model_id] for t in graph.templates],
    }
    save_json(folder / "model.json", content)


def load_model(folder: str | Path, graph: TemplateGraph) -> tuple[Image2Mesh, Settings]:
    """The trained network of a run, in evaluation mode on the CPU, and its settings.

    Raises:
        FileNotFoundError: the run has no model. ValueError: the model was trained with other templates.
    """
    path, content = Path(folder) / "model.json", _description(folder)
    if content["templates"] != [[t.synset, t.model_id] for t in graph.templates]:
        raise ValueError(f"{path} was trained with other templates than the graph has: run 03_training again.")
    settings = Settings(**content["settings"])
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
    return _description(folder)["categories"]


def _description(folder: str | Path) -> dict:
    path = Path(folder) / "model.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no model: run 03_training first.")
    return json.loads(path.read_text())
