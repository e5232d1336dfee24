"""Fits: every shape fitted in closed form from every template of its category, for training to learn from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from i2m_lib.dataset.dataset import Dataset, Mesh
from i2m_lib.files import save_npz
from i2m_lib.geometry.nearest import Target
from i2m_lib.geometry.registration import FFD_STIFFNESS, fit_cost, fit_ffd
from i2m_lib.geometry.source_mesh import N_SAMPLES

from .correspondence import source_of
from .linear_combination import fit_weights
from .template_graph import Template, TemplateGraph, digest_of, refuse_half_made

N_WEIGHTED = 4  # templates a shape, the best: no other is used with weights
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fits:
    """S shapes of a category, fitted from each of its T templates.

    model_ids (S,); d (S, T, 32, 3) lattice displacements; cost (S, T) Chamfer-L1 after the fit, canonical units;
    weights (S, T, E) of the templates' neighbours, padded with zeros; weighted (S, T) bool: whether they were fitted.
    """

    model_ids: np.ndarray
    d: np.ndarray
    cost: np.ndarray
    weights: np.ndarray
    weighted: np.ndarray

    def save(self, path: str | Path) -> None:
        """Writes an npz."""
        save_npz(path, **vars(self))

    @classmethod
    def load_all(cls, folder: str | Path) -> dict[str, "Fits"]:
        """{synset: Fits} of a folder. Raises FileNotFoundError if it holds none, StaleError if it is half made."""
        refuse_half_made(Path(folder))
        files = {path.stem: np.load(path, allow_pickle=False) for path in sorted(Path(folder).glob("[!.]*.npz"))}
        if not files:
            raise FileNotFoundError(f"{folder} holds no fits: run 02_template_graph first.")
        return {s: cls(**{name: file[name] for name in cls.__dataclass_fields__}) for s, file in files.items()}


def digest_of_fits(fits: dict[str, Fits]) -> str:
    """16 hexadecimal digits, equal for equal arrays of equal categories."""
    return digest_of(*(array for s in sorted(fits) for array in (np.array(s), *vars(fits[s]).values())))


def fit_shapes(
    shape: Mesh | Template, points: np.ndarray, seed: int, d=None, n_samples=N_SAMPLES, stiffness=FFD_STIFFNESS
) -> Arrays:
    """The lattice of `shape` fitted to S shapes of samples points (S, k, 3): d (S, 32, 3), if it is not given, and cost
    (S,), the Chamfer-L1 that remains, in canonical units."""
    source, targets = source_of(shape, seed, n_samples), [Target.of(p) for p in points]
    d = np.stack([fit_ffd(source, t, stiffness) for t in targets]) if d is None else d
    return {"d": d, "cost": np.array([fit_cost(source, x, t) for x, t in zip(d, targets, strict=True)])}


def fit_split(dataset: Dataset, graph: TemplateGraph, split: str, *, seed: int, workers: int = -1) -> dict[str, Fits]:
    """{synset: Fits} of the shapes of any split, fitted as `build_graph` fits those of training and validation."""
    fits = {}
    with Parallel(n_jobs=workers) as parallel:
        for synset in graph.synsets:
            ids, templates = dataset.select(split, synset).model_id.tolist(), graph.of(synset)
            if ids:
                points = np.stack([dataset.mesh(m).S[:N_SAMPLES] for m in ids])
                lattices = parallel(delayed(fit_shapes)(t, points, seed) for t in templates)
                fits[synset] = with_weights(ids, points, templates, lattices, seed, parallel)
    return fits


def with_weights(
    ids: list[str], points: np.ndarray, templates: list[Template], lattices: list, seed: int, parallel, part=None
) -> Fits:
    """Fits of S shapes with samples points (S, k, 3): lattices[i], what `fit_shapes` found of template i, with weights
    where it is among a shape's best; part(name) is the file where `kept` keeps some."""
    d, cost = (np.stack([one[name] for one in lattices], 1) for name in ("d", "cost"))
    weighted = cost <= np.sort(cost, 1)[:, [min(N_WEIGHTED, len(templates)) - 1]]
    width, paths = (
        max(len(t.neighbours) for t in templates),
        [part and part(f"{t.model_id}.weights") for t in templates],
    )
    rows = parallel(
        delayed(kept)(paths[i], _fit_weights, t, points, d[:, i], weighted[:, i], width, seed)
        for i, t in enumerate(templates)
    )
    weights = np.stack([row["weights"] for row in rows], 1)
    return Fits(np.array(ids), d.astype(np.float32), cost.astype(np.float32), weights, weighted)


def _fit_weights(t: Template, points: np.ndarray, d: np.ndarray, wanted: np.ndarray, width: int, seed: int) -> Arrays:
    """weights (S, width) float32: of the wanted shapes and E neighbours, zero elsewhere."""
    source, weights = source_of(t, seed), np.zeros((len(points), width), np.float32)
    for i in np.flatnonzero(wanted):
        weights[i, : len(t.neighbours)] = fit_weights(t, source, d[i], Target.of(points[i]))
    return {"weights": weights}


def kept(path: Path | None, find: Callable[..., Arrays], *args) -> Arrays:
    """The arrays that find(*args) returns, from `path` if an interrupted run left them there; without one, not kept."""
    if path is not None and path.is_file():
        return dict(np.load(path, allow_pickle=False))
    arrays = find(*args)
    if path is not None:
        save_npz(path, **arrays)
    return arrays
