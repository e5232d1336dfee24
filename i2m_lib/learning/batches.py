"""Batches of views on the device, each a function of (seed, epoch, step) alone."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from i2m_lib.dataset.dataset import STRETCH, Dataset

from .distributed import Share, share
from .images import N_DRAWS, augment, plain
from .settings import Settings
from .trainer import seed_of


class ViewDataset(torch.utils.data.Dataset):
    """The views of one split as tensors; whole batches are read at once. With a DataLoader:
    `DataLoader(views, batch_size=64, shuffle=True, collate_fn=ViewDataset.collate)`."""

    def __init__(self, dataset: Dataset, split: str):
        self.dataset = dataset
        self.model_ids = dataset.select(split).model_id.tolist()
        number = {model_id: i for i, model_id in enumerate(self.model_ids)}
        rows = dataset.views[dataset.views.model_id.isin(number)]
        self._index = rows["index"].to_numpy(np.int64)
        self.model = torch.tensor([number[model_id] for model_id in rows.model_id])
        angles = np.radians(rows[["azimuth", "elevation"]].to_numpy(np.float64).T)
        self._azimuth, self._elevation = torch.from_numpy(angles).float()
        self._stretch = torch.from_numpy(rows[STRETCH].to_numpy(np.float32, copy=True))

    def __len__(self) -> int:
        return len(self._index)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """image (b,4,h,w) uint8; model (b,) int64, counted in `model_ids`; azimuth and elevation
        (b,) float32 in radians; stretch (b,3) float32, see `STRETCH`."""
        shape = (len(indices), *self.dataset.images.shape[1:])
        images = torch.empty(shape, dtype=torch.uint8)
        if torch.utils.data.get_worker_info() is not None:
            # Read at once into the memory that the training loop shares, it need not be copied there.
            images = images.new_empty(0).set_(torch.UntypedStorage._new_shared(images.nbytes)).view(shape)
        # numpy goes through a second buffer unless indices may be clipped.
        np.take(self.dataset.images, self._index[indices], axis=0, out=images.numpy(), mode="clip")
        return {
            "image": images.permute(0, 3, 1, 2),
            "model": self.model[indices],
            "azimuth": self._azimuth[indices],
            "elevation": self._elevation[indices],
            "stretch": self._stretch[indices],
        }

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        """The same without the leading b."""
        return {key: value[0] for key, value in self.__getitems__([i]).items()}

    @staticmethod
    def collate(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`__getitems__` has stacked already."""
        return batch


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
