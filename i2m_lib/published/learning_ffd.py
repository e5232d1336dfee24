"""The baseline Learning FFD (Jack et al., ACCV 2018): all templates are deformed at once and compared to the shape.

    loss = sum_t gamma_t chamfer(B_t (P_t + dP_t), shape) - entropy of the mean gamma over a batch

Loss, heads and constants are those of the published code (jackd/template_ffd) with its entropy regulariser; images,
augmentation, backbone, trainer, choice of weights and the mean over mirror images, here of gamma, are those of our
network. The authors train one network for each category. Here one network serves all, and the category is given: gamma
are probabilities of that category's templates.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from i2m_lib.artefacts import Key
from i2m_lib.dataset.dataset import Dataset, Views
from i2m_lib.geometry.batched_nearest import squared_chamfer
from i2m_lib.geometry.ffd import Lattice
from i2m_lib.geometry.surfaces import Surface
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.learning.checkpoints import read_halves
from i2m_lib.learning.images import compose, crop_to_mask
from i2m_lib.learning.networks import Encoder
from i2m_lib.learning.settings import Settings, read_description
from i2m_lib.learning.targets import models_of, unit_diagonal
from i2m_lib.learning.train import VERSION as LEARNING_VERSION
from i2m_lib.learning.train import fit
from i2m_lib.learning.trainer import Batch, Budget, Callbacks

VERSION = 2  # Raise it when results change.
N_CONTROL = 64
N_POINTS = 1024  # of each surface in the loss, as published; `n_points` may be fewer on a CPU
EPS = 0.1  # share of the probability that is spread evenly
ENTROPY = 1e2 / 32  # weight of the entropy; published for sums over batches of 32, here for means over views
MIRRORED = (-1.0, 1.0, 1.0)
DECAY = 10.0  # the published factor exp(-1e-4 step) over 1e5 steps: the entropy fades by exp(-10) over a run


class LearningFFD(nn.Module):
    """Encoder and two linear heads: template logits (b, T) and displacements dP (b, T, 64, 3) of the whole lattice."""

    def __init__(self, settings: Settings, n_templates: int):
        super().__init__()
        self.encoder = Encoder(settings)
        self.logits = nn.Linear(settings.n_code, n_templates)
        self.dP = nn.Linear(settings.n_code, n_templates * N_CONTROL * 3)
        nn.init.normal_(self.dP.weight, std=1e-4)
        nn.init.zeros_(self.dP.bias)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        z = self.encoder(image)
        return {"logits": self.logits(z), "dP": self.dP(z).view(len(z), -1, N_CONTROL, 3)}

    def average(self, image: Tensor) -> dict[str, Tensor]:
        """The outputs for images (b, 3, h, w), with the mean logits of images and their mirror images. Displacements
        are those for the image alone: those for its mirror image, mirrored back, move the mirrored template, which is
        another surface where a template is not symmetric. On validation the mean of both was farther from the shape."""
        out = self(image)
        return out | {"logits": (out["logits"] + self(image.flip(3))["logits"]) / 2}


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
    def of(cls, dataset: Dataset, graph: TemplateGraph, device: torch.device) -> "Surfaces":
        """Of the graph's templates, and of the shapes `models_of` the dataset."""
        model_ids, synset = models_of(dataset), dataset.models.set_index("model_id").synset
        meshes = [dataset.mesh(m) for m in model_ids]
        lattices = [Lattice.around(t.V) for t in graph.templates]
        bases = [b.basis(dataset.mesh(t.model_id).S) for b, t in zip(lattices, graph.templates, strict=True)]
        of = {s: [i for i, t in enumerate(graph.templates) if t.synset == s] for s in graph.synsets}
        width = max(map(len, of.values()))
        slots = np.array([(of[synset[m]] + [-1] * width)[:width] for m in model_ids]).reshape(-1, width)
        extents = [np.ptp(mesh.V, axis=0) for mesh in meshes]
        arrays = (bases, [lattice.points for lattice in lattices], [mesh.S for mesh in meshes], extents)
        tensors = (torch.from_numpy(np.array(x)).float().to(device) for x in arrays)
        return cls(*tensors, torch.from_numpy(slots).to(device))


def learning_ffd_loss(out: Batch, batch: Batch, surfaces: Surfaces, *, progress: float, n: int) -> Batch:
    """Terms of the loss for a batch with model (b,), stretch (b, 3) and, where some views are mirror images, mirrored
    (b,), on n random samples of each surface, scaled to the published number; `progress` in [0, 1] of the run."""
    model, slots = batch["model"], surfaces.slots[batch["model"]]
    known, t = slots >= 0, slots.clamp(min=0)
    gamma = out["logits"].float().gather(1, t).masked_fill(~known, -torch.inf).softmax(1)
    gamma = (1 - EPS) * gamma + EPS * known / known.sum(1, keepdim=True)
    chosen = [torch.randint(surfaces.clouds.shape[1], (n,)).to(slots.device) for _ in range(2)]
    cloud = surfaces.clouds[model[:, None], chosen[0]]
    cloud = cloud * unit_diagonal(batch["stretch"], surfaces.extent[model])[:, None]
    if "mirrored" in batch:
        cloud = torch.where(batch["mirrored"][:, None, None], cloud * cloud.new_tensor(MIRRORED), cloud)
    fit, rows = 0.0, torch.arange(len(model), device=slots.device)
    for w in range(slots.shape[1]):  # one template of each shape at a time, so that memory is b n^2
        points = surfaces.P[t[:, w]] + out["dP"][rows, t[:, w]].float()
        moved = surfaces.B[t[:, w, None], chosen[1]] @ points
        share = torch.where(known[:, w], gamma[:, w], 0.0)
        fit = fit + (share * squared_chamfer(moved, cloud)).mean() * N_POINTS / n
    mean = torch.zeros_like(out["logits"], dtype=torch.float32).scatter_add(1, t, gamma * known).mean(0)
    entropy = (mean * mean.clamp(min=1e-12).log()).sum()
    return {"chamfer": fit, "entropy": ENTROPY * float(np.exp(-DECAY * progress)) * entropy}


def train_learning_ffd(
    dataset: Dataset, graph: TemplateGraph, folder: str | Path, settings: Settings, *,
    device: torch.device, n_points: int = 128, callbacks: Callbacks = (),
) -> tuple[LearningFFD, pd.DataFrame]:  # fmt: skip
    """Trains as `learning.train` does, and writes the same files. Returns network and history."""
    parameters = asdict(settings) | {"n_points": n_points, "learning": LEARNING_VERSION}
    key = Key("learning_ffd", VERSION, parameters, {"dataset": dataset.digest, "graph": graph.digest})
    surfaces = Surfaces.of(dataset, graph, device)
    torch.manual_seed(settings.seed)
    model = LearningFFD(settings, len(graph.templates))

    def loss(out: Batch, batch: Batch, progress: float) -> Batch:
        return learning_ffd_loss(out, batch, surfaces, progress=progress, n=n_points)

    def answer(out: Batch, batch: Batch) -> tuple[Tensor, Tensor]:
        slots = surfaces.slots[batch["model"]]
        logits = out["logits"].gather(1, slots.clamp(min=0)).masked_fill(slots < 0, -torch.inf)
        rows = torch.arange(len(slots), device=device)
        best = slots[rows, logits.argmax(1)]
        return best, out["dP"][rows, best].float()

    return model, fit(model, loss, answer, dataset, graph, folder, settings, key, device=device, callbacks=callbacks)


@dataclass(frozen=True)
class LearningFFDMethod:
    """The trained baseline as a method (see `evaluation.method`)."""

    model: LearningFFD
    graph: TemplateGraph
    size: int
    budget: Budget
    name: str = "learning_ffd"
    told: str = "the image and the category"

    @classmethod
    def load(cls, run: str | Path) -> "LearningFFDMethod":
        """From `run`/learning_ffd. Raises FileNotFoundError if it was not trained, StaleError if with another graph."""
        folder, graph = Path(run) / "learning_ffd", TemplateGraph.load(Path(run) / "graph")
        settings = read_description(folder, graph)[1]
        model = LearningFFD(replace(settings, weights=None), len(graph.templates))
        return cls(read_halves(folder / "model.safetensors", model), graph, settings.size, Budget.of(folder))

    @torch.inference_mode()
    def answer(self, views: Views) -> list[Surface]:
        """The most probable template of each view's category, deformed by its control points."""
        surfaces, synset_of_template = [], np.array([t.synset for t in self.graph.templates])
        synsets = iter(views.rows.synset)
        for images in views.images.split(64):  # the size of a batch changes how convolutions are rounded
            out = self.model.average(compose(crop_to_mask(images.float() / 255, self.size)))
            for logits, dP in zip(out["logits"].float().numpy(), out["dP"].double().numpy(), strict=True):
                best = int(np.where(synset_of_template == next(synsets), logits, -np.inf).argmax())
                template = self.graph.templates[best]
                lattice = Lattice.around(template.V)
                surfaces.append((lattice.basis(template.V) @ (lattice.points + dP[best]), template.F))
        return surfaces
