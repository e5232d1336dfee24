"""Batches of views on the device, each a function of (seed, epoch, step) alone."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from i2m_lib.dataset.dataset import STRETCH, Dataset

from .device import share
from .images import N_DRAWS, augment, plain
from .settings import Settings
from .targets import models_of
from .trainer import seed_of


class ViewDataset:
    """The n views of one split; `model` (n,) is the number of each view's model in `models_of` the dataset."""

    def __init__(self, dataset: Dataset, split: str):
        self.dataset, number = dataset, {model_id: i for i, model_id in enumerate(models_of(dataset))}
        rows = dataset.views[dataset.views.model_id.isin(dataset.select(split).model_id)]
        self.index = rows["index"].to_numpy(np.int64)
        self.model = torch.tensor([number[model_id] for model_id in rows.model_id])
        angles = np.radians(rows[["azimuth", "elevation"]].to_numpy(np.float64).T)
        azimuth, elevation = torch.from_numpy(angles).float()
        stretch = torch.from_numpy(rows[STRETCH].to_numpy(np.float32, copy=True))
        self._labels = {"model": self.model, "azimuth": azimuth, "elevation": elevation, "stretch": stretch}

    def __len__(self) -> int:
        return len(self.index)

    def read(self, rows: Tensor) -> dict[str, Tensor]:
        """The views `rows` (b,): image (b, 4, h, w) uint8; model (b,) int64; azimuth and elevation (b,), radians, and
        stretch (b, 3), see `STRETCH`, float32."""
        images = torch.empty((len(rows), *self.dataset.images.shape[1:]), dtype=torch.uint8)
        # Without clipped indices numpy copies twice.
        np.take(self.dataset.images, self.index[rows.numpy()], axis=0, out=images.numpy(), mode="clip")
        return {"image": images.permute(0, 3, 1, 2)} | {name: label[rows] for name, label in self._labels.items()}


class Batches:
    """A sequence of batches: drawn, from all categories equally often, and augmented in epoch `epoch`; all views in
    order, not augmented, if it is None. The next batch is read in the background. Under torchrun each process gets its
    share of every batch. Raises ValueError if the batch cannot be divided equally among the processes."""

    def __init__(self, views: ViewDataset, settings: Settings, device: torch.device, epoch: int | None):
        self.views, self.settings, self.device, self.epoch, self.share = views, settings, device, epoch, share()
        size = settings.batch_size
        if size % self.share.world:
            raise ValueError(f"a batch of {size} cannot be divided among {self.share.world} processes.")
        n, order = -(-len(views) // size), torch.arange(len(views))
        if epoch is not None:
            order = torch.multinomial(balanced(views), n * size, replacement=True, generator=self._generator())
        self.order = order.split(size) if n else ()
        self._pool, self._ahead = ThreadPoolExecutor(1), (-1, Future())

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        number, ready = self._ahead
        batch = ready.result() if number == i else self._read(i)
        if i + 1 < len(self):
            self._ahead = i + 1, self._pool.submit(self._read, i + 1)
        batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
        if self.epoch is None:
            return plain(batch, self.settings.size)
        return augment(batch, self.settings.size, batch.pop("draws"), self.settings.stretch)

    def _read(self, i: int) -> dict[str, Tensor]:
        mine = self.share.of(len(self.order[i]))
        batch = self.views.read(self.order[i][mine])
        if self.epoch is not None:
            batch["draws"] = torch.rand(len(self.order[i]), N_DRAWS, generator=self._generator(i))[mine]
        return {k: v.pin_memory() for k, v in batch.items()} if self.device.type == "cuda" else batch

    def _generator(self, *step: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of(self.settings.seed, self.epoch, *step))


def balanced(views: ViewDataset) -> Tensor:
    """Weights (n,) with which all categories are drawn equally often: results weigh them equally, and ShapeNet's sizes
    differ a hundredfold."""
    synset = views.dataset.models.set_index("model_id").synset.loc[models_of(views.dataset)].astype("category")
    category = torch.from_numpy(synset.cat.codes.to_numpy(dtype="int64"))[views.model]
    return 1 / category.bincount().double()[category]
