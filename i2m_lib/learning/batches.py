"""Batches of views on the device, each a function of (seed, epoch, step) alone."""

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from i2m_lib.dataset.views import ViewDataset

from .distributed import Share, share
from .images import N_DRAWS, augment, plain
from .settings import Settings
from .training import seed_of


class Batches:
    """A sequence of batches: drawn and augmented in epoch `epoch`, or all views in order, plain, if that is None.

    Categories are drawn equally often: the headline weighs them equally, and ShapeNet's differ a hundredfold. The
    batch after the one asked for is read meanwhile. Under torchrun each process gets its share of every batch.

    Raises:
        ValueError: the batch cannot be divided among the processes.
    """

    def __init__(self, views: ViewDataset, settings: Settings, device: torch.device, epoch: int | None):
        self.views, self.settings, self.device, self.epoch = views, settings, device, epoch
        seed, batch_size = settings.seed, settings.batch_size
        self.share: Share = share()
        if batch_size % self.share.world:
            raise ValueError(f"a batch of {batch_size} cannot be divided among {self.share.world} processes.")
        n = -(-len(views) // batch_size)
        if epoch is None:
            order = torch.arange(len(views))
        else:
            generator = torch.Generator().manual_seed(seed_of(seed, epoch))
            order = torch.multinomial(balanced(views), n * batch_size, replacement=True, generator=generator)
        self.order = order.split(batch_size) if n else ()
        self._pool, self._ahead = ThreadPoolExecutor(1), (-1, Future())

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        if not 0 <= i < len(self):
            raise IndexError(f"batch {i} of {len(self)}")
        number, ready = self._ahead
        batch = ready.result() if number == i else self._read(i)
        if i + 1 < len(self):
            self._ahead = i + 1, self._pool.submit(self._read, i + 1)
        batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
        if self.epoch is None:
            return plain(batch, self.settings.size)
        return augment(batch, self.settings.size, batch.pop("draws"), self.settings.stretch)

    def _read(self, i: int) -> dict[str, Tensor]:
        rows = self.share.of(len(self.order[i]))
        batch = self.views.__getitems__(self.order[i][rows].tolist())
        if self.epoch is not None:
            generator = torch.Generator().manual_seed(seed_of(self.settings.seed, self.epoch, i))
            batch["draws"] = torch.rand(len(self.order[i]), N_DRAWS, generator=generator)[rows]
        return {k: v.pin_memory() for k, v in batch.items()} if self.device.type == "cuda" else batch


def balanced(views: ViewDataset) -> Tensor:
    """Weight of each view (n,) in a draw that favours no category."""
    synset = views.dataset.models.set_index("model_id").synset.loc[views.model_ids].astype("category")
    category = torch.from_numpy(synset.cat.codes.to_numpy(dtype="int64"))[views.model]
    return 1 / category.bincount().double()[category]
