"""The `paper` profile (METHOD, section 5): in each category an autoencoder, and a classifier and regressor on its code.

Architectures, losses and data are the paper's, but not the optimisation: its 3.5 million steps of SGD on single samples
become epochs of batches under AdamW with warm-up and decay, which need no tuning for each network. The weights of the
autoencoder are chosen by its loss on validation samples, those of the other two by Chamfer-L1, as for every method.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, multilabel_soft_margin_loss, one_hot

from i2m_lib.artefacts import Key, StaleError, keep, read_key
from i2m_lib.dataset.dataset import Views
from i2m_lib.geometry.batched_nearest import offsets
from i2m_lib.geometry.ffd import Lattice, displace, symmetric_basis
from i2m_lib.geometry.surfaces import Surface, sample_surface
from i2m_lib.graph.template_graph import Template, TemplateGraph
from i2m_lib.learning.checkpoints import read_halves, write_halves
from i2m_lib.learning.images import compose, crop_to_mask
from i2m_lib.learning.trainer import Batch, Budget, Callbacks, Schedule, Trainer, seed_of

from .generator import Samples, neighbour_slots, surface_of

VERSION = 3  # Raise it when results change, also of `learning.images` or `learning.trainer`.
SIZE, N_CODE, N_FREE = 220, 2048, 96
ON = 0.45  # a weight above this is 1; the official code compares |a|, which switches strongly negative ones on
LUMINANCE = (0.299, 0.587, 0.114)
VAL_SHARE = 0.1  # of the training samples
N_POINTS = 512  # of each surface, where weights are chosen
RATE, RATE_OF_HEADS, PATIENCE = 2e-3, 5e-4, 15  # learning rates of the autoencoder and of the other two; early stopping


class Autoencoder(nn.Module):
    """Gray images (b, 1, 220, 220) in [-1, 1] to codes z (b, 2048) and back."""

    def __init__(self):
        super().__init__()
        down = [nn.Conv2d(1, 8, 5, 3), nn.Conv2d(8, 16, 3, 3), nn.Conv2d(16, 32, 3, 3)]
        up = [nn.ConvTranspose2d(32, 16, 3, 3), nn.ConvTranspose2d(16, 8, 3, 3)]
        last = nn.ConvTranspose2d(8, 1, 5, 3, output_padding=2)
        self.encoder = nn.Sequential(*(layer for conv in down for layer in (conv, nn.ReLU())))
        self.decoder = nn.Sequential(*(layer for conv in up for layer in (conv, nn.ReLU())), last, nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(image))


class Regressor(nn.Module):
    """Codes (b, 2048) and the template c (b,) to d (b, 32, 3) and weights a (b, T). The official regressor has to guess
    c; here c is an input."""

    def __init__(self, n_templates: int):
        super().__init__()
        self.n_templates, n_in = n_templates, N_CODE + n_templates
        self.layers = nn.Sequential(nn.Linear(n_in, 1500), nn.ReLU(), nn.Linear(1500, N_FREE + n_templates))

    def forward(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        out = self.layers(torch.cat([z, one_hot(c, self.n_templates).to(z.dtype)], 1))
        return out[:, :N_FREE].view(-1, 32, 3), out[:, N_FREE:]


class Networks(nn.Module):
    """The three networks of one category; the classifier takes codes (b, 2048) to template logits (b, T)."""

    def __init__(self, n_templates: int):
        super().__init__()
        self.autoencoder = Autoencoder()
        self.classifier = nn.Sequential(nn.Linear(N_CODE, 1050), nn.ReLU(), nn.Linear(1050, n_templates))
        self.regressor = Regressor(n_templates)


def gray(rgba: Tensor) -> Tensor:
    """Images (b, 4, h, w) uint8 -> (b, 1, 220, 220) in [-1, 1], cropped to their masks, on white."""
    rgb = compose(crop_to_mask(rgba.float() / 255, SIZE))
    return 2 * torch.einsum("bchw,c->bhw", rgb, rgb.new_tensor(LUMINANCE))[:, None] - 1


def gray_of_samples(images: np.ndarray) -> Tensor:
    """The same for gray images with masks (b, s, s, 2)."""
    la = torch.from_numpy(images).permute(0, 3, 1, 2)
    return gray(torch.cat([la[:, :1].expand(-1, 3, -1, -1), la[:, 1:]], 1))


class Shuffled:
    """Batches of rows of {name: tensor (n, ...), or array of images}, shuffled by (seed, epoch), or in order if that is
    None."""

    def __init__(self, tensors: dict, rows: Tensor, batch_size: int, seed: int, epoch: int | None):
        if epoch is not None:
            rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed_of(seed, epoch)))]
        self.tensors, self.rows = tensors, rows.split(batch_size)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Batch:
        rows = self.rows[i]
        return {k: x[rows] if torch.is_tensor(x) else gray_of_samples(x[rows.numpy()]) for k, x in self.tensors.items()}


def reconstruct_image(network: nn.Module, batch: Batch) -> Batch:
    return {"image": mse_loss(network(batch["image"]), batch["image"])}


def choose_template(network: nn.Module, batch: Batch) -> Batch:
    logits = network(batch["z"])
    return {"template": multilabel_soft_margin_loss(logits, one_hot(batch["c"], logits.shape[1]).float())}


def regress(network: nn.Module, batch: Batch) -> Batch:
    d, a = network(batch["z"], batch["c"])
    error = (d - batch["d"]).square().sum((1, 2)) + (a - batch["a"]).square().sum(1)
    return {"parameters": (error / (N_FREE + a.shape[1])).mean()}


class Shapes:
    """Samples of the surfaces of a category's templates, to compare what parameters make of them. X (T, n, 3); bases M
    (T, 3, n, 32); parts (T, T, n, 3): the template's samples in the shape of each neighbour, 0 where there is none."""

    def __init__(self, templates: list[Template]):
        rng = np.random.default_rng(0)
        X = [sample_surface(t.V, t.F, N_POINTS, rng)[0] for t in templates]
        M = [symmetric_basis(Lattice.around(t.V).basis(x)) for t, x in zip(templates, X, strict=True)]
        parts = np.zeros((len(templates), *np.shape(X)))
        for t, slots in enumerate(neighbour_slots(templates)):
            for j, slot in enumerate(slots):
                parts[t, slot] = templates[t].deform(X[t], templates[t].d[j], np.eye(len(slots))[j])
        self.X, self.M, self.parts = (torch.from_numpy(np.array(x)).float() for x in (X, M, parts))
        self.edges = self.parts.abs().amax((2, 3)) > 0

    def decode(self, c: Tensor, d: Tensor, a: Tensor) -> Tensor:
        """Points (b, n, 3) of templates c (b,) under d (b, 32, 3) and a (b, T), centred and of diagonal 1."""
        on = ((a > ON) & self.edges[c]).float()
        total = self.X[c] + displace(self.M[c], d) + torch.einsum("bt,btna->bna", on, self.parts[c])
        mean = total / (1 + on.sum(1))[:, None, None]
        low, high = mean.amin(1, keepdim=True), mean.amax(1, keepdim=True)
        return (mean - (low + high) / 2) / (high - low).norm(dim=2, keepdim=True)

    def chamfer_l1(self, batch: Batch, c: Tensor, d: Tensor, a: Tensor) -> Tensor:
        """Mean distance of answers to the samples of a batch, in their longest edges."""
        truth = self.decode(batch["c"], batch["d"], batch["a"])
        both = sum(x.norm(dim=2).mean(1) for x in offsets(self.decode(c, d, a), truth)) / 2
        return (both / (truth.amax(1) - truth.amin(1)).amax(1)).mean()


def train_paper(
    samples: dict[str, Samples], graph: TemplateGraph, folder: str | Path, *,
    epochs: tuple[int, int, int], batch_size: int, seed: int, callbacks: Callbacks = (),
) -> None:  # fmt: skip
    """Trains the networks of each category on its training samples, `epochs` of autoencoder, classifier and regressor,
    or goes on where such a training stopped; writes `folder`/<synset>/networks.safetensors."""
    for synset in graph.synsets:
        path = Path(folder) / synset / "networks.safetensors"
        inputs = {"samples": samples[synset].digest, "graph": graph.digest}
        key = Key("paper", VERSION, {"epochs": epochs, "batch_size": batch_size, "seed": seed}, inputs)
        given = samples[synset], graph.of(synset), path, key, callbacks
        keep(path, key, partial(_train_category, *given, **key.parameters))


def _train_category(samples, templates, path, key, callbacks, *, epochs: list[int], batch_size: int, seed: int) -> None:
    torch.manual_seed(seed)
    networks, shapes = Networks(len(templates)), Shapes(templates)
    n_val = max(1, int(VAL_SHARE * samples.n_train))
    train, val = torch.arange(samples.n_train).split([samples.n_train - n_val, n_val])

    def fit(name: str, step: Callable, tensors: dict, n_epochs: int, lr: float, **options) -> None:
        def batches(split: str, epoch: int) -> Shuffled:
            rows, epoch = (train, epoch) if split == "train" else (val, None)
            return Shuffled(tensors, rows, batch_size, seed, epoch)

        schedule = Schedule(n_epochs, lr, weight_decay=1e-5, patience=PATIENCE, seed=seed)
        Trainer(getattr(networks, name), step, batches, schedule, path.with_name(name), key, callbacks, **options).run()

    def known_template(regressor: nn.Module, batch: Batch) -> Tensor:
        return shapes.chamfer_l1(batch, batch["c"], *regressor(batch["z"], batch["c"]))

    def chosen_template(classifier: nn.Module, batch: Batch) -> Tensor:
        c = classifier(batch["z"]).argmax(1)
        return shapes.chamfer_l1(batch, c, *networks.regressor.eval()(batch["z"], c))

    fit("autoencoder", reconstruct_image, {"image": samples.images}, epochs[0], RATE, n_views=len(train))
    z = codes(networks.autoencoder, samples.images[: samples.n_train])
    targets = {name: torch.from_numpy(getattr(samples, name))[: samples.n_train] for name in "cda"} | {"z": z}
    # On codes of the same views. The classifier comes last, as its answers are deformed by the regressor.
    fit("regressor", regress, targets, epochs[2], RATE_OF_HEADS, measure=known_template)
    fit("classifier", choose_template, targets, epochs[1], RATE_OF_HEADS, measure=chosen_template)
    write_halves(path, networks)


@torch.inference_mode()
def codes(autoencoder: Autoencoder, images: np.ndarray) -> Tensor:
    """Frozen codes z (n, 2048) of images (n, s, s, 2)."""
    parts = np.split(images, range(64, len(images), 64))
    return torch.cat([autoencoder.eval().encoder(gray_of_samples(part)).flatten(1) for part in parts])


@dataclass(frozen=True)
class PaperMethod:
    """The trained networks of every category as a method (see `evaluation.method`)."""

    graph: TemplateGraph
    networks: dict[str, Networks]
    budget: Budget
    name: str = "image2mesh_paper"
    told: str = "the image and the category"

    @classmethod
    def load(cls, run: str | Path) -> "PaperMethod":
        """From `run`/paper. Raises FileNotFoundError if it was not trained, StaleError if with another graph."""
        folder, graph, networks = Path(run) / "paper", TemplateGraph.load(Path(run) / "graph"), {}
        for synset in graph.synsets:
            path = folder / synset / "networks.safetensors"
            key = read_key(path)
            if key is None:
                raise FileNotFoundError(f"{path} is missing or unfinished: train the paper profile in 03_training.")
            if key.inputs["graph"] != graph.digest:
                raise StaleError(f"{path} was trained with another template graph: run 03_training again.")
            networks[synset] = read_halves(path, Networks(len(graph.of(synset))))
        return cls(graph, networks, Budget.of(folder))

    def answer(self, views: Views) -> list[Surface]:
        """The template that the classifier chooses, combined with its neighbours as the regressor says."""
        return [self._answer(gray(x[None]), s) for x, s in zip(views.images, views.rows.synset, strict=True)]

    def predict_samples(self, images: np.ndarray, synset: str) -> list[Surface]:
        """The same for images (b, s, s, 2) of the generator."""
        return [self._answer(gray_of_samples(x[None]), synset) for x in images]

    @torch.inference_mode()
    def _answer(self, image: Tensor, synset: str) -> Surface:
        networks, templates = self.networks[synset], self.graph.of(synset)
        z = networks.autoencoder.encoder(image).flatten(1)
        c = networks.classifier(z).argmax(1)
        d, a = (x[0].double().numpy() for x in networks.regressor(z, c))
        return surface_of(templates, int(c), d, a > ON)
