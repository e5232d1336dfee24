"""The baseline Learning FFD (Jack et al., ACCV 2018): all templates are deformed at once and compared to the shape.

    loss = sum_t f(gamma_t) chamfer(B_t (P_t + dP_t), shape) + regularisers

Loss, heads and constants are those of the published code (jackd/template_ffd); images, augmentation, backbone, budget
and trainer are those of `ours`. One network serves all categories, but the category is given, as it is to the
published networks, of which there is one a category: probabilities are over the given category's templates.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.files import save_json, whole
from i2m_lib.geometry.ffd import Lattice
from i2m_lib.graph.template_graph import Template, TemplateGraph
from i2m_lib.learning.batches import Batches, ViewDataset
from i2m_lib.learning.device import autocast
from i2m_lib.learning.images import compose, crop_to_mask
from i2m_lib.learning.networks import Encoder
from i2m_lib.learning.settings import Settings, describe, read_description
from i2m_lib.learning.targets import unit_diagonal
from i2m_lib.learning.trainer import Schedule, Trainer

N_CONTROL = 64
N_POINTS = 1024  # of each surface in the loss, as published; `n_points` may be fewer on a CPU
DECAY = 10.0  # regularisers fade by exp(-1e-4 step) in 1e5 steps, that is by exp(-10) over a run


@dataclass(frozen=True)
class Variant:
    """A published form of the loss: f(gamma) linear or -log(1 - gamma); eps, the share of probability spread evenly;
    weights, a view, of the entropy of mean probabilities over a batch and of sum_t gamma_t |dP_t|^2."""

    gamma: str = "linear"
    eps: float = 0.1
    entropy: float = 0.0
    dp: float = 0.0


# Published for sums over batches of 32; here means over views.
VARIANTS = {
    "base": Variant(),
    "entropy": Variant(entropy=1e2 / 32),
    "weighted": Variant(gamma="log", eps=1e-3),
    "regularised": Variant(dp=1.0),
}


class LearningFFD(nn.Module):
    """Encoder and two linear heads: template logits (b, T) and displacements dP (b, T, 64, 3) of the whole lattice."""

    def __init__(self, settings: Settings, n_templates: int):
        super().__init__()
        self.encoder = Encoder(settings.backbone, settings.node, settings.weights, settings.n_code)
        self.logits = nn.Linear(settings.n_code, n_templates)
        self.dP = nn.Linear(settings.n_code, n_templates * N_CONTROL * 3)
        nn.init.normal_(self.dP.weight, std=1e-4)
        nn.init.zeros_(self.dP.bias)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        z = self.encoder(image)
        return {"logits": self.logits(z), "dP": self.dP(z).view(len(z), -1, N_CONTROL, 3)}


@dataclass(frozen=True)
class Surfaces:
    """Samples of templates and shapes: basis B (T, s, 64), control points P (T, 64, 3), clouds (N, s, 3) and extents
    (N, 3) of the shapes, slots (N, W) the templates of each shape's category, -1 where padded."""

    B: Tensor
    P: Tensor
    clouds: Tensor
    extent: Tensor
    slots: Tensor

    @classmethod
    def of(cls, dataset: Dataset, graph: TemplateGraph, model_ids: list[str], device: torch.device) -> "Surfaces":
        S = [dataset.mesh(t.model_id).S for t in graph.templates]
        lattices = [Lattice.around(t.V) for t in graph.templates]
        B = np.stack([lattice.basis(s) for lattice, s in zip(lattices, S, strict=True)])
        meshes = [dataset.mesh(model_id) for model_id in model_ids]
        synset = dataset.models.set_index("model_id").synset
        of = {s: [i for i, t in enumerate(graph.templates) if t.synset == s] for s in graph.synsets}
        width = max(map(len, of.values()))
        slots = np.array([(of[synset[m]] + [-1] * width)[:width] for m in model_ids]).reshape(-1, width)
        arrays = [B, np.stack([lattice.points for lattice in lattices]), np.stack([mesh.S for mesh in meshes])]
        arrays.append(np.array([np.ptp(mesh.V, axis=0) for mesh in meshes]))
        return cls(*(torch.from_numpy(x).float().to(device) for x in arrays), torch.from_numpy(slots).to(device))


def chamfer(x: Tensor, y: Tensor) -> Tensor:
    """Sum of squared distances to the nearest neighbour, both ways: x (..., n, 3), y (..., m, 3) -> (...)."""
    with torch.no_grad():
        squared = torch.cdist(x, y)
        to_y, to_x = squared.min(-1).indices, squared.min(-2).indices  # on a CPU four times as fast as argmin
    forward = x - y.gather(-2, to_y[..., None].expand_as(x))
    back = y - x.gather(-2, to_x[..., None].expand_as(y))
    return forward.square().sum((-1, -2)) + back.square().sum((-1, -2))


def learning_ffd_loss(
    out: dict[str, Tensor], batch: dict[str, Tensor], surfaces: Surfaces, variant: Variant, *, progress: float, n: int
) -> dict[str, Tensor]:
    """Terms of the loss for a batch with model (b,) and stretch (b, 3), on n random samples of each surface, scaled to
    as many as were published; `progress` in [0, 1] of the run."""
    model, slots = batch["model"], surfaces.slots[batch["model"]]
    known = slots >= 0
    gamma = out["logits"].float().gather(1, slots.clamp(min=0)).masked_fill(~known, -torch.inf).softmax(1)
    gamma = (1 - variant.eps) * gamma + variant.eps * known / known.sum(1, keepdim=True)
    chosen = [torch.randint(surfaces.clouds.shape[1], (n,)).to(slots.device) for _ in range(2)]
    cloud = surfaces.clouds[model[:, None], chosen[0]]
    cloud = cloud * unit_diagonal(batch["stretch"], surfaces.extent[model])[:, None]
    weight = -torch.log1p(-gamma) if variant.gamma == "log" else gamma
    rows = torch.arange(len(model), device=slots.device)
    fit, size = 0.0, 0.0
    for w in range(slots.shape[1]):  # one template of each shape at a time: memory stays b n^2
        t = slots[:, w].clamp(min=0)
        dP = out["dP"][rows, t].float()
        moved = surfaces.B[t[:, None], chosen[1]] @ (surfaces.P[t] + dP)
        share = torch.where(known[:, w], weight[:, w], 0.0)
        fit = fit + (share * chamfer(moved, cloud)).mean() * N_POINTS / n
        size = size + (torch.where(known[:, w], gamma[:, w], 0.0) * dP.square().sum((1, 2))).mean()
    fade = float(np.exp(-DECAY * progress))
    mean = (
        torch.zeros_like(out["logits"], dtype=torch.float32).scatter_add(1, slots.clamp(min=0), gamma * known).mean(0)
    )
    entropy = (mean * mean.clamp(min=1e-12).log()).sum()
    return {"chamfer": fit, "entropy": variant.entropy * fade * entropy, "dp": variant.dp * fade * size}


def train_learning_ffd(
    dataset: Dataset,
    graph: TemplateGraph,
    folder: str | Path,
    settings: Settings,
    *,
    device: torch.device,
    variant: str = "entropy",
    n_points: int = 256,
    callbacks: Iterable[Callable[[Trainer], None]] = (),
) -> tuple[LearningFFD, pd.DataFrame]:
    """Trains, or resumes, in `folder`; writes model.safetensors and model.json there. Returns network and history."""
    views = {split: ViewDataset(dataset, split) for split in ("train", "val")}
    surfaces = {split: Surfaces.of(dataset, graph, v.model_ids, device) for split, v in views.items() if len(v)}
    torch.manual_seed(settings.seed)
    model = LearningFFD(settings, len(graph.templates)).to(device, memory_format=torch.channels_last)

    def step(network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with autocast(device):
            out = network(batch["image"].contiguous(memory_format=torch.channels_last))
        split = "train" if network.training else "val"
        return learning_ffd_loss(out, batch, surfaces[split], VARIANTS[variant], progress=trainer.progress, n=n_points)

    def batches(split: str, epoch: int) -> Batches:
        epoch = epoch if split == "train" else None
        return Batches(views[split], settings, device, epoch)

    schedule = Schedule(settings.epochs, settings.lr, patience=settings.patience, seed=settings.seed)
    made_with = asdict(settings) | {"variant": variant, "n_points": n_points}
    trainer = Trainer(model, step, batches, schedule, Path(folder) / "training", callbacks, settings=made_with)
    history = trainer.run()
    with whole(Path(folder) / "model.safetensors") as temporary:
        save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, temporary)
    save_json(Path(folder) / "model.json", describe(settings, graph) | {"variant": variant})
    return model, history


@dataclass(frozen=True)
class FFDAnswer:
    """A mesh V (n, 3), F (m, 3): `template` under displacements (64, 3) of the whole lattice."""

    template: Template
    displacements: np.ndarray

    @property
    def V(self) -> np.ndarray:
        lattice = Lattice.around(self.template.V)
        return lattice.basis(self.template.V) @ (lattice.points + self.displacements)

    @property
    def F(self) -> np.ndarray:
        return self.template.F


@dataclass(frozen=True)
class LearningFFDReconstructor:
    """The trained baseline with its graph."""

    model: LearningFFD
    graph: TemplateGraph
    size: int

    @classmethod
    def load(cls, run: str | Path) -> "LearningFFDReconstructor":
        """Of `run`/learning_ffd. Raises FileNotFoundError if it was not trained."""
        graph = TemplateGraph.load(Path(run) / "graph")
        settings = read_description(Path(run) / "learning_ffd", graph)[1]
        model = LearningFFD(replace(settings, weights=None), len(graph.templates))
        model.load_state_dict(load_file(Path(run) / "learning_ffd" / "model.safetensors"))
        return cls(model.float().eval(), graph, settings.size)

    @torch.inference_mode()
    def predict(self, rgba: Tensor, synsets: list[str], batch_size: int = 64) -> list[FFDAnswer]:
        """Images (b, 4, h, w) uint8 with true masks, of categories that are given, as to the published networks."""
        answers, names = [], np.array([t.synset for t in self.graph.templates])
        for k in range(0, len(rgba), batch_size):
            out = self.model(compose(crop_to_mask(rgba[k : k + batch_size].float() / 255, self.size)))
            for logits, dP, synset in zip(out["logits"], out["dP"], synsets[k : k + batch_size], strict=True):
                best = int(np.where(names == synset, logits.float().numpy(), -np.inf).argmax())
                answers.append(FFDAnswer(self.graph.templates[best], dP[best].double().numpy()))
        return answers
