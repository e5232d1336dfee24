"""The template graph: templates, the edges between them, and a file to keep them in.

Template i knows its neighbours j in E(i) as correspondences V_ij: i's vertices in j's shape. They are held in few
numbers, V_ij = V_i + M d_ij + K c_ij, a lattice part and a smooth residual. A shape is decoded from a template as

    V = V_i + M d + sum_j a_j (K c_ij)

This is METHOD's V = B (P + Phi dP) + sum_j a_j V_ij with weights normalised so that scale holds: d takes up the lattice
part of each V_ij, which the lattice expresses exactly, and only residuals are combined.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from i2m_lib.artefacts import StaleError, read_key
from i2m_lib.files import save_npz, save_parquet
from i2m_lib.geometry.ffd import KERNEL_WIDTH, Lattice, displace, kernel_basis, symmetric_basis

FORMAT = 1
# Types of a template's arrays in memory and in a file, where those of all templates are laid end to end.
FIELDS = {"V": float, "F": int, "C": np.uint8, "centres": float, "d": float, "c": float}
STORED = {float: "f4", int: "i4", np.uint8: "u1"}


@dataclass(frozen=True, eq=False)
class Template:
    """A CAD model and its neighbours; equal to another of equal content.

    V (n, 3) vertices, F (m, 3) faces, C (m, 3) uint8 face colours, centres (k, 3) of the residual's kernels;
    neighbours: E model ids, d (E, 32, 3) and c (E, k, 3) the lattice part and the residual of V_ij; original: the
    model's own file, with texture coordinates and materials, where it was kept (`originals`).
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
    original: Path | None = None

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for equal names and arrays, in memory and from a file."""
        names = np.array([self.synset, self.model_id, *self.neighbours], "U64")
        return digest_of(names, *(getattr(self, name).astype(STORED[dtype]) for name, dtype in FIELDS.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

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
        return self._moved(self.V, self.M, self.K, d, a)

    def deform(self, X: np.ndarray, d: np.ndarray | None = None, a: np.ndarray | None = None) -> np.ndarray:
        """Any points X (n, 3) of the template's frame, moved as `decode` moves its vertices."""
        M = symmetric_basis(Lattice.around(self.V).basis(X))
        return self._moved(X, M, kernel_basis(X, self.centres, KERNEL_WIDTH)[None], d, a)

    def _moved(self, X, M, K, d, a) -> np.ndarray:
        X = X if d is None else X + displace(M, d)
        return X if a is None or not len(a) else X + displace(K, np.tensordot(a, self.c, axes=1))

    def correspondence(self, j: int) -> np.ndarray:
        """V_ij (n, 3): this template's vertices in the shape of its j-th neighbour."""
        return self.decode(self.d[j], np.eye(len(self.neighbours))[j])


@dataclass(frozen=True)
class TemplateGraph:
    """Templates of all categories, in the order the networks count them, and the table of all scored edges
    (synset, source, target; dist, iou, residual of V_ij; its shares of flipped and collapsed faces; selected)."""

    templates: list[Template]
    edges: pd.DataFrame

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for equal templates in equal order."""
        return digest_of(np.array([t.digest for t in self.templates], "U16"))

    @cached_property
    def synsets(self) -> list[str]:
        """Categories in the order of their first template."""
        return list(dict.fromkeys(t.synset for t in self.templates))

    @property
    def n_edges(self) -> int:
        """The most neighbours that a template has, and at least 1, so that arrays of weights are never empty."""
        return max(1, *(len(t.neighbours) for t in self.templates))

    def of(self, synset: str) -> list[Template]:
        """The templates of one category."""
        return [t for t in self.templates if t.synset == synset]

    def without(self, synset: str) -> "TemplateGraph":
        """The graph of all other categories."""
        others = [t for t in self.templates if t.synset != synset]
        return TemplateGraph(others, self.edges[self.edges.synset != synset].reset_index(drop=True))

    def adjacency(self, synset: str) -> np.ndarray:
        """(T, T) bool: whether an edge leads from the template of the row to that of the column."""
        templates = self.of(synset)
        return np.array([[t.model_id in s.neighbours for t in templates] for s in templates])

    def components(self, synset: str) -> np.ndarray:
        """(T,) the connected component of each template of a category, by edges of either direction, from 0."""
        return connected_components(self.adjacency(synset), directed=False)[1]

    def save(self, folder: str | Path) -> None:
        """Writes `<synset>.npz` a category and `edges.parquet`."""
        for synset in self.synsets:
            templates = self.of(synset)
            arrays = {"version": np.array(FORMAT), "model_ids": np.array([t.model_id for t in templates])}
            arrays["neighbours"] = np.array([j for t in templates for j in t.neighbours], "U64")
            for name, dtype in FIELDS.items():
                arrays[name] = np.concatenate([getattr(t, name) for t in templates]).astype(STORED[dtype])
                arrays[f"{name}_length"] = np.array([len(getattr(t, name)) for t in templates])
            save_npz(Path(folder) / f"{synset}.npz", **arrays)
        save_parquet(Path(folder) / "edges.parquet", self.edges)

    @classmethod
    def load(cls, folder: str | Path) -> "TemplateGraph":
        """Raises FileNotFoundError if there is none, StaleError if half made, ValueError if of a newer version."""
        folder = Path(folder)
        refuse_half_made(folder)
        if not (folder / "edges.parquet").is_file():
            raise FileNotFoundError(f"{folder} holds no template graph: run 02_template_graph first.")
        templates = [t for path in sorted(folder.glob("[!.]*.npz")) for t in _read(path)]
        templates = [replace(t, original=p) if (p := original_path(folder, t)).is_file() else t for t in templates]
        return cls(templates, pd.read_parquet(folder / "edges.parquet"))


def _read(path: Path) -> list[Template]:
    with np.load(path, allow_pickle=False) as file:
        if file["version"] > FORMAT:
            raise ValueError(f"{path} has version {file['version']}, this code reads {FORMAT}: update i2m_lib.")
        ends = {name: np.cumsum(file[f"{name}_length"])[:-1] for name in FIELDS}
        parts = {name: np.split(file[name].astype(dtype), ends[name]) for name, dtype in FIELDS.items()}
        parts["neighbours"] = [tuple(part.tolist()) for part in np.split(file["neighbours"], ends["d"])]
        rows = [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]
        return [Template(path.stem, m, **row) for m, row in zip(file["model_ids"].tolist(), rows, strict=True)]


def original_path(folder: str | Path, template: Template) -> Path:
    """Where the original of a template lies, beside the graph in `folder`."""
    return Path(folder) / "originals" / template.synset / f"{template.model_id}.glb"


def digest_of(*arrays: np.ndarray) -> str:
    """16 hexadecimal digits, equal for arrays of equal types, shapes and values."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
    return content.hexdigest()[:16]


def refuse_half_made(folder: Path) -> None:
    """Raises StaleError if the artefact in `folder` was begun and not finished."""
    if read_key(folder, finished=False) != read_key(folder):
        raise StaleError(f"{folder} is half made: run 02_template_graph to its end.")
