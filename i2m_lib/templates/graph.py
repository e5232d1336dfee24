"""The template graph: templates, the edges between them, and a file to keep them in.

Template i knows its neighbours j in E(i) as correspondences: V_ij, i's vertices in j's shape. They are held in few
numbers, V_ij = V_i + M d_ij + K c_ij, a lattice part and a smooth residual. A shape is decoded from a template as

    V = V_i + M d + sum_j a_j (K c_ij)

which is METHOD's V = B (P + Phi dP) + sum_j a_j V_ij with the weights normalised so that scale holds: the lattice
part of each V_ij is absorbed by d, where the lattice expresses it exactly, and only residuals are combined.

Reads and writes with numpy and pandas alone, so that training needs nothing else.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from i2m_lib.files import save_npz, save_parquet

from .ffd import KERNEL_WIDTH, Lattice, displace, kernel_basis, symmetric_basis

VERSION = 1
# One array per template and field in the file; ragged, so they are laid end to end.
FIELDS = {
    "V": np.float32,
    "F": np.int32,
    "C": np.uint8,
    "centres": np.float32,
    "d": np.float32,
    "c": np.float16,
}


@dataclass(frozen=True)
class Template:
    """A CAD model and its neighbours.

    V (n, 3) vertices, F (m, 3) faces, C (m, 3) uint8 face colours, centres (k, 3) of the residual's kernels;
    neighbours: E model ids, d (E, 32, 3) and c (E, k, 3) the lattice part and the residual of V_ij.
    """

    synset: str
    model_id: str
    V: np.ndarray
    F: np.ndarray
    C: np.ndarray
    centres: np.ndarray
    neighbours: tuple[str, ...]
    d: np.ndarray
    c: np.ndarray

    @cached_property
    def M(self) -> np.ndarray:
        """Symmetric lattice basis (3, n, 32) at the vertices."""
        return symmetric_basis(Lattice.around(self.V).basis(self.V))

    @cached_property
    def K(self) -> np.ndarray:
        """Kernel basis (1, n, k) at the vertices."""
        return kernel_basis(self.V, self.centres, KERNEL_WIDTH)[None]

    def decode(self, d: np.ndarray | None = None, a: np.ndarray | None = None) -> np.ndarray:
        """Vertices (n, 3) under lattice displacements d (32, 3) and weights a (E,); None is zero."""
        V = self.V
        if d is not None:
            V = V + displace(self.M, d)
        if a is not None:
            V = V + displace(self.K, np.tensordot(a, self.c, axes=1))
        return V

    def correspondence(self, j: int) -> np.ndarray:
        """V_ij (n, 3): this template's vertices in the shape of its j-th neighbour."""
        return self.decode(self.d[j], np.eye(len(self.neighbours))[j])


@dataclass(frozen=True)
class TemplateGraph:
    """Templates of all categories, in the order the networks count them, and the table of all scored edges
    (synset, source, target, dist, iou, selected)."""

    templates: list[Template]
    edges: pd.DataFrame

    @cached_property
    def synsets(self) -> list[str]:
        """Categories in the order of their first template."""
        return list(dict.fromkeys(t.synset for t in self.templates))

    def of(self, synset: str) -> list[Template]:
        """The templates of one category."""
        return [t for t in self.templates if t.synset == synset]

    def save(self, folder: str | Path) -> None:
        """Writes `<synset>.npz` a category and `edges.parquet`."""
        for synset in self.synsets:
            templates = self.of(synset)
            arrays = {f: np.concatenate([getattr(t, f) for t in templates]).astype(FIELDS[f]) for f in FIELDS}
            lengths = {f"{f}_length": np.array([len(getattr(t, f)) for t in templates]) for f in FIELDS}
            names = {
                "model_ids": np.array([t.model_id for t in templates]),
                "neighbours": np.array([j for t in templates for j in t.neighbours], dtype="U64"),
            }
            save_npz(
                Path(folder) / f"{synset}.npz",
                version=np.array(VERSION),
                **arrays,
                **lengths,
                **names,
            )
        save_parquet(Path(folder) / "edges.parquet", self.edges)

    @classmethod
    def load(cls, folder: str | Path) -> "TemplateGraph":
        """Raises FileNotFoundError if there is no graph, ValueError if a newer version wrote it."""
        folder = Path(folder)
        if not (folder / "edges.parquet").is_file():
            raise FileNotFoundError(f"{folder} holds no template graph: run 02_template_graph first.")
        templates = [t for path in sorted(folder.glob("*.npz")) for t in _read(path)]
        return cls(templates, pd.read_parquet(folder / "edges.parquet"))


def _read(path: Path) -> list[Template]:
    with np.load(path, allow_pickle=False) as file:
        if file["version"] > VERSION:
            raise ValueError(f"{path} has version {file['version']}, this code reads {VERSION}: update i2m_lib.")
        parts = {f: np.split(file[f], np.cumsum(file[f"{f}_length"])[:-1]) for f in FIELDS}
        neighbours = np.split(file["neighbours"], np.cumsum(file["d_length"])[:-1])
        model_ids = file["model_ids"].tolist()
    exact = {f: [x if f == "C" else x.astype(np.int64 if f == "F" else np.float64) for x in parts[f]] for f in parts}
    return [
        Template(
            path.stem,
            model_id,
            **{f: exact[f][i] for f in ("V", "F", "C", "centres")},
            neighbours=tuple(neighbours[i].tolist()),
            d=exact["d"][i],
            c=exact["c"][i],
        )
        for i, model_id in enumerate(model_ids)
    ]
