"""Fits: every shape fitted in closed form from every template of its category. They are what training learns from.

`fit_shapes` fits a template's lattice to each shape; `with_weights` adds the weights of its neighbours where the
template is among a shape's best.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.files import save_npz
from i2m_lib.geometry.nearest import Target
from i2m_lib.geometry.registration import fit_cost, fit_ffd, turned_share
from i2m_lib.geometry.source_mesh import N_SAMPLES, Source

from .correspondence import source_of
from .linear_combination import fit_weights
from .template_graph import Template, TemplateGraph, digest_of, refuse_half_made

N_WEIGHTED = 4  # templates a shape, the best, whose weights are fitted: no other will be used


@dataclass(frozen=True)
class Fits:
    """S training and validation shapes of a category, fitted from each of its T templates.

    model_ids (S,); d (S, T, 32, 3) lattice displacements; cost (S, T) Chamfer-L1 after the fit, canonical units;
    weights (S, T, E) of the templates' neighbours, padded with zeros; weighted (S, T) bool: whether they were fitted;
    turned (S, T) the share of the watched faces that the lattice turns over.
    """

    model_ids: np.ndarray
    d: np.ndarray
    cost: np.ndarray
    weights: np.ndarray
    weighted: np.ndarray
    turned: np.ndarray

    def save(self, path: str | Path) -> None:
        """Writes an npz."""
        save_npz(path, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> "Fits":
        """Reads an npz."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**file)

    @classmethod
    def load_all(cls, folder: str | Path) -> dict[str, "Fits"]:
        """{synset: Fits} of a folder. Raises FileNotFoundError if it holds none, StaleError if it is half made."""
        refuse_half_made(Path(folder))
        paths = sorted(Path(folder).glob("*.npz"))
        if not paths:
            raise FileNotFoundError(f"{folder} holds no fits: run 02_template_graph first.")
        return {path.stem: cls.load(path) for path in paths}


def digest_of_fits(fits: dict[str, Fits]) -> str:
    """16 hexadecimal digits, equal for equal arrays of equal categories."""
    return digest_of(*(array for s in sorted(fits) for array in (np.array(s), *vars(fits[s]).values())))


def fit_shapes(source: Source, points: np.ndarray, d: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """A template's lattice fitted to S shapes of samples (S, k, 3): d (S, 32, 3), unless it is given, cost and turned
    (S,)."""
    targets = [Target.of(p) for p in points]
    d = np.stack([fit_ffd(source, t) for t in targets]) if d is None else d
    cost = np.array([fit_cost(source, x, t) for x, t in zip(d, targets, strict=True)])
    return {"d": d, "cost": cost, "turned": np.array([turned_share(source, x) for x in d])}


def fit_split(dataset: Dataset, graph: TemplateGraph, split: str, *, seed: int, workers: int = -1) -> dict[str, Fits]:
    """{synset: Fits} of the shapes of any split, fitted as `build_graph` fits those of training and validation."""
    fits = {}
    with Parallel(n_jobs=workers) as parallel:
        for synset in graph.synsets:
            ids, templates = dataset.select(split, synset).model_id.tolist(), graph.of(synset)
            if ids:
                points = np.stack([dataset.mesh(m).S[:N_SAMPLES] for m in ids])
                lattices = parallel(delayed(_fit_template)(t, points, seed) for t in templates)
                fits[synset] = with_weights(ids, points, templates, lattices, seed=seed, parallel=parallel)
    return fits


def _fit_template(template: Template, points: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    return fit_shapes(source_of(template, np.random.default_rng(seed)), points)


def with_weights(
    model_ids: list[str],
    points: np.ndarray,
    templates: list[Template],
    lattices: list[dict[str, np.ndarray]],
    *,
    seed: int,
    parallel: Parallel,
    part: Callable[[str], Path | None] = lambda name: None,
) -> Fits:
    """Fits of S shapes with samples points (S, k, 3); lattices[i] is what `fit_shapes` found of template i. The weights
    of each template are kept in the file that `part` names."""
    d, cost, turned = (np.stack([one[name] for one in lattices], 1) for name in ("d", "cost", "turned"))
    weighted = cost <= np.sort(cost, 1)[:, [min(N_WEIGHTED, len(templates)) - 1]]
    rows = parallel(
        delayed(kept)(part(f"{t.model_id}.weights"), _fit_weights, t, points, d[:, i], weighted[:, i], seed)
        for i, t in enumerate(templates)
    )
    weights = np.zeros((len(d), len(templates), max(len(t.neighbours) for t in templates)), np.float32)
    for i, row in enumerate(rows):
        weights[:, i, : row["weights"].shape[1]] = row["weights"]
    small = (x.astype(np.float32) for x in (d, cost))
    return Fits(np.array(model_ids), *small, weights, weighted, turned.astype(np.float32))


def _fit_weights(template: Template, points: np.ndarray, d: np.ndarray, wanted: np.ndarray, seed: int) -> dict:
    """weights (S, E) float32 of the wanted shapes, zero elsewhere."""
    source = source_of(template, np.random.default_rng(seed))
    weights = np.zeros((len(points), len(template.neighbours)), np.float32)
    for i in np.flatnonzero(wanted):
        weights[i] = fit_weights(template, source, d[i], Target.of(points[i]))
    return {"weights": weights}


def kept(path: Path | None, find: Callable[..., dict[str, np.ndarray]], *args) -> dict[str, np.ndarray]:
    """The arrays that find(*args) returns, from the file at `path` if an interrupted run left one; else written there,
    unless `path` is None."""
    if path is not None and path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    arrays = find(*args)
    if path is not None:
        save_npz(path, **arrays)
    return arrays
