"""Reads a built dataset: tables, meshes and views. Needs neither VTK nor trimesh."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from i2m_lib.artefacts import Key, key_of, read_key
from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import silhouette_iou

STRETCH = ["stretch_x", "stretch_y", "stretch_z"]  # how many times as wide, high and deep as its model a view shows it


@dataclass(frozen=True)
class Mesh:
    """Canonical frame: vertices V (n,3) float64, faces F (m,3) int64, face colours C (m,3) uint8, surface samples S
    (k,3) float64 and the unit normals N (k,3) of the faces they lie on."""

    V: np.ndarray
    F: np.ndarray
    C: np.ndarray
    S: np.ndarray
    N: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """The tables of a built dataset. `manifest` has a row for each model of the corpus, `models` those with status
    'ok', `views` a row for each view; `index` there counts rows of `images`. Training models may have views in other
    proportions (`STRETCH`), again of diagonal 1; `true_views` are the others. `removed` lists synsets."""

    path: Path
    manifest: pd.DataFrame
    views: pd.DataFrame
    removed: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str | Path) -> "Dataset":
        """Raises FileNotFoundError if no finished dataset lies at `path`."""
        path = Path(path)
        if read_key(path) is None:
            raise FileNotFoundError(f"{path} holds no finished dataset: run 01_dataset first.")
        return cls(path, *(pd.read_parquet(path / f"{name}.parquet") for name in ("models", "views")))

    @cached_property
    def models(self) -> pd.DataFrame:
        rows = self.manifest[self.manifest.status == "ok"].reset_index(drop=True)
        # Only quarantined rows lack numbers; without them plain numpy types will do.
        nullable = rows.select_dtypes(["Int64", "Float64", "boolean"])
        return rows.astype({name: dtype.numpy_dtype for name, dtype in nullable.dtypes.items()})

    @cached_property
    def true_views(self) -> pd.DataFrame:
        """The rows of `views` that show the models as they are."""
        return self.views[(self.views[STRETCH] == 1).all(axis=1)]

    def first_views(self, models: pd.DataFrame, n: int) -> pd.DataFrame:
        """The first n rows of `true_views` of each of some rows of `models`."""
        views = self.true_views[self.true_views.view < n]
        return views[views.model_id.isin(models.model_id)].reset_index(drop=True)

    @property
    def parameters(self) -> dict:
        """What the dataset was built with."""
        return read_key(self.path).parameters

    @cached_property
    def digest(self) -> str:
        """Of its key; another for each choice of `removed`."""
        whole = key_of(self.path)
        return Key("part", 1, {"removed": self.removed}, {"dataset": whole}).digest if self.removed else whole

    @cached_property
    def cost(self) -> pd.DataFrame:
        """Of each model of `manifest`: mesh_seconds to read, clean and sample it, view_seconds to draw and save it."""
        return pd.read_parquet(self.path / "cost.parquet")

    @cached_property
    def images(self) -> np.ndarray:
        """(n,h,w,4) uint8, mapped from disk."""
        return np.load(self.path / "views.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def _synsets(self) -> dict[str, str]:
        return dict(zip(self.models.model_id, self.models.synset, strict=True))

    def __getstate__(self) -> dict:
        # A pickled memory map would carry all its pixels to each loader process.
        return {key: value for key, value in self.__dict__.items() if key != "images"}

    def mesh(self, model_id: str) -> Mesh:
        """Raises KeyError if the dataset has no such model or has it quarantined."""
        if model_id not in self._synsets:
            raise KeyError(f"{self.path} has no usable model {model_id}; see models.parquet.")
        with np.load(self.path / f"meshes/{self._synsets[model_id]}/{model_id}.npz", allow_pickle=False) as arrays:
            V, S, N = (arrays[key].astype(np.float64) for key in "VSN")
            return Mesh(V, arrays["F"].astype(np.int64), arrays["C"], S, N)

    def select(self, split: str | None = None, synset: str | None = None) -> pd.DataFrame:
        """The rows of `models` of one split, of one synset, or of both."""
        rows = self.models if split is None else self.models[self.models.split == split]
        return (rows if synset is None else rows[rows.synset == synset]).reset_index(drop=True)

    def without(self, synset: str) -> "Dataset":
        """The same without the models and views of one category."""
        tables = [table[table.synset != synset].reset_index(drop=True) for table in (self.manifest, self.views)]
        return Dataset(self.path, *tables, removed=tuple(sorted({*self.removed, synset})))

    def image(self, index: int) -> np.ndarray:
        """(h,w,4) uint8 RGBA of one row of `views`, by its `index`."""
        return np.array(self.images[index])


@dataclass(frozen=True)
class Views:
    """A chunk of b views: `rows` of `Dataset.views`, and their images (b, 4, h, w) uint8 with the true masks."""

    rows: pd.DataFrame
    images: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)


def chunks(dataset: Dataset, rows: pd.DataFrame, size: int = 256) -> Iterator[Views]:
    """The views of `rows`, at least `size` at a time; the views of a model stay together where they are adjacent."""
    start = 0
    for end in np.flatnonzero(rows.model_id.ne(rows.model_id.shift(-1))) + 1:
        if end - start >= size or end == len(rows):
            part = rows.iloc[start:end].reset_index(drop=True)
            yield Views(part, load_images(dataset, part["index"].to_numpy()))
            start = end


def load_images(dataset: Dataset, index: np.ndarray) -> torch.Tensor:
    """Views by their index: (b, 4, h, w) uint8."""
    return torch.from_numpy(np.asarray(dataset.images[index])).permute(0, 3, 1, 2)


def views_of(dataset: Dataset, split: str, n_views: int) -> tuple[pd.DataFrame, torch.Tensor]:
    """The first views of each model of a split: their rows, and images (b, 4, h, w) uint8."""
    views = dataset.first_views(dataset.select(split), n_views)
    return views, load_images(dataset, views["index"].to_numpy())


def overlay(dataset: Dataset, views: pd.DataFrame) -> np.ndarray:
    """(n,) IoU of the mask of each of `views`, rows of `dataset.views`, with the silhouette of mesh and camera."""
    ious = pd.Series(index=views.index, dtype=float)
    for model_id, rows in views.groupby("model_id", sort=False):
        mesh = dataset.mesh(model_id)
        for view, stretch in zip(rows.itertuples(), rows[STRETCH].to_numpy(), strict=True):
            mask = dataset.image(view.index)[..., 3] > 0
            ious[view.Index] = silhouette_iou(mesh.V * stretch, mesh.F, Camera.of(view), mask)
    return ious.to_numpy()
