"""From a dataset to a template graph and the fits that training learns from, on all cores.

    graph, fits = build_graph(dataset, n_templates=20, seed=0)

Only training shapes become templates. A pass over templates fits each to every training and validation shape of
its category; a second adds sparse weights where a template is among a shape's best. What a template's passes found
is kept in `parts` as soon as it is there, and a run that was killed takes it up.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from i2m_lib.dataset.dataset import Dataset, Mesh
from i2m_lib.files import save_npz
from i2m_lib.geometry.batched_registration import fit_many
from i2m_lib.geometry.nearest import Target
from i2m_lib.geometry.registration import fit_cost, fit_ffd, register, turned_share
from i2m_lib.geometry.source_mesh import N_SAMPLES, Source, sampling_matrix
from i2m_lib.geometry.voxels import mask_iou, solid

from .fits import Fits
from .linear_combination import fit_weights, source_of
from .template_choice import check_choice, choose_templates
from .template_graph import Template, TemplateGraph

log = logging.getLogger(__name__)

# METHOD's rule: an edge where the deformed template lies on its neighbour, and to the three nearest in any case.
FAR, MAX_DIST, MIN_IOU, MIN_EDGES = 3e-3, 0.035, 0.25, 3
N_DENSE, RESOLUTION = 16384, 32
# Weights are fitted where they may be used: a shape's best templates.
N_WEIGHTED = 4
# Changes when the results kept in parts do not suit the code any more.
PARTS_VERSION = 1


def build_graph(
    dataset: Dataset,
    *,
    n_templates: int,
    seed: int,
    choice: str = "coverage",
    template_ids: Sequence[str] | None = None,
    parts: str | Path | None = None,
    device: str = "cpu",
    workers: int = -1,
) -> tuple[TemplateGraph, dict[str, Fits]]:
    """Chooses at most `n_templates` training shapes a category, connects and fits them.

    Args:
        choice: how, one of `choose.CHOICES`.
        template_ids: model ids to take instead; those that the dataset lacks are passed over with a warning, and a
            category that none belongs to is chosen as if there were no list.
        parts: a folder for what is finished, so that a killed run goes on; None keeps nothing.
        device: "cuda" fits all shapes from a template in one batch; with few workers, as each holds its own.

    Returns:
        The TemplateGraph and {synset: Fits} of the training and validation shapes.

    Raises:
        ValueError: the choice is unknown, or a listed template is held out for evaluation.
    """
    check_choice(choice)
    listed = _usable(dataset, template_ids or [])
    templates, edges, fits = [], [], {}
    with Parallel(n_jobs=workers) as parallel:
        for synset in sorted(dataset.models.synset.unique()):
            if dataset.select("train", synset).empty:
                continue
            job = _Category.of(dataset, synset, seed, parts and Path(parts) / synset, parallel, device)
            chosen = [i for i, m in enumerate(job.train) if m in listed]
            category = job.build(np.array(chosen) if chosen else job.choose(n_templates, choice))
            templates += category[0]
            edges.append(category[1])
            fits[synset] = category[2]
            log.info("%s: %d templates, %d edges", synset, len(category[0]), category[1].selected.sum())
    return TemplateGraph(templates, pd.concat(edges, ignore_index=True)), fits


def fit_split(dataset: Dataset, graph: TemplateGraph, split: str, *, seed: int, workers: int = -1) -> dict[str, Fits]:
    """{synset: Fits} of the shapes of any split, fitted as `build_graph` fits those of training and validation."""
    fits = {}
    with Parallel(n_jobs=workers) as parallel:
        for synset in graph.synsets:
            shapes, templates = dataset.select(split, synset).model_id.tolist(), graph.of(synset)
            if shapes:
                points = np.stack([dataset.mesh(m).S[:N_SAMPLES] for m in shapes])
                passes = parallel(delayed(_fit_template)(t, points, seed) for t in templates)
                fits[synset] = _with_weights(shapes, points, templates, passes, seed=seed, parallel=parallel)
    return fits


def _usable(dataset: Dataset, ids: Sequence[str]) -> set[str]:
    """Those of a list of templates that are training shapes of the dataset."""
    split = dataset.models.set_index("model_id").split
    known = [m for m in ids if m in split.index]
    held_out = [m for m in known if split[m] != "train"]
    if held_out:
        raise ValueError(f"template {held_out[0]} is in the split {split[held_out[0]]}: list training shapes alone.")
    if len(known) < len(ids):
        log.warning("%d of %d listed templates are not in %s", len(ids) - len(known), len(ids), dataset.path)
    return set(known)


@dataclass(frozen=True)
class _Category:
    """The shapes of one category: model ids of the training shapes and of all S, meshes and points (S, k, 3)."""

    synset: str
    train: list[str]
    shapes: list[str]
    meshes: dict[str, Mesh]
    points: np.ndarray
    seed: int
    parts: Path | None
    parallel: Parallel
    device: str

    @classmethod
    def of(
        cls, dataset: Dataset, synset: str, seed: int, parts: Path | None, parallel: Parallel, device: str = "cpu"
    ) -> "_Category":
        train = dataset.select("train", synset).model_id.tolist()
        shapes = train + dataset.select("val", synset).model_id.tolist()
        meshes = {model_id: dataset.mesh(model_id) for model_id in shapes}
        points = np.stack([meshes[m].S[:N_SAMPLES] for m in shapes])
        return cls(synset, train, shapes, meshes, points, seed, parts, parallel, device)

    def choose(self, n: int, choice: str) -> np.ndarray:
        """Indices (T,) of the templates among the training shapes."""

        def find() -> dict[str, np.ndarray]:
            meshes, points = [self.meshes[m] for m in self.train], self.points[: len(self.train)]
            return {"at": choose_templates(meshes, points, n, choice=choice, seed=self.seed, parallel=self.parallel)}

        return _kept(self._path("chosen", n, choice), find)["at"]

    def build(self, chosen: np.ndarray) -> tuple[list[Template], pd.DataFrame, Fits]:
        """Templates with their out-edges, the table of all ordered pairs, and the fits."""
        ids = [self.train[i] for i in chosen]
        meshes = [self.meshes[m] for m in ids]
        solids = [_solid(mesh, self.seed) for mesh in meshes]
        passes = self.parallel(
            delayed(_kept)(self._path(m, *ids), _fit_all, mesh, self.points, chosen, solids, self.seed, self.device)
            for m, mesh in zip(ids, meshes, strict=True)
        )
        templates, edges = connect(self.synset, ids, chosen, meshes, passes)
        fits = _with_weights(
            self.shapes,
            self.points,
            templates,
            passes,
            seed=self.seed,
            parallel=self.parallel,
            path=lambda t: self._path(f"{t.model_id}.weights", *ids),
        )
        return templates, edges, fits

    def _path(self, name: str, *key) -> Path | None:
        """Where a result lies that depends on the shapes, the seed and `key`."""
        if self.parts is None:
            return None
        text = repr((PARTS_VERSION, self.seed, self.shapes, key)).encode() + self.points[:, 0].tobytes()
        return self.parts / f"{name}.{hashlib.sha256(text).hexdigest()[:12]}.npz"


def _kept(path: Path | None, find: Callable[..., dict[str, np.ndarray]], *args) -> dict[str, np.ndarray]:
    """The arrays that find(*args) returns, from the file if it is there; otherwise they are put there."""
    if path is not None and path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    arrays = find(*args)
    if path is not None:
        save_npz(path, **arrays)
    return arrays


def _solid(mesh: Mesh, seed: int) -> np.ndarray:
    A = sampling_matrix(mesh.V, mesh.F, N_DENSE, np.random.default_rng(seed))
    return solid(A @ mesh.V, RESOLUTION)


def choose_and_connect(
    dataset: Dataset, synset: str, *, n_templates: int, seed: int, parallel: Parallel, choice: str = "coverage"
) -> tuple[list[Template], pd.DataFrame]:
    """Templates of one category with their out-edges and the table of all pairs, without the fits of other shapes."""
    job = _Category.of(dataset, synset, seed, None, parallel)
    ids = [job.train[i] for i in job.choose(n_templates, choice)]
    meshes = [job.meshes[m] for m in ids]
    return connect(synset, ids, np.arange(len(ids)), meshes, prepare_edges(meshes, seed=seed, parallel=parallel))


def prepare_edges(meshes: list[Mesh], *, seed: int, parallel: Parallel) -> list[dict[str, np.ndarray]]:
    """What `connect` needs to know of T templates: each registered to all, and scored."""
    points = np.stack([m.S[:N_SAMPLES] for m in meshes])
    solids = parallel(delayed(_solid)(mesh, seed) for mesh in meshes)
    return parallel(delayed(_fit_all)(mesh, points, np.arange(len(meshes)), solids, seed) for mesh in meshes)


def _fit_all(
    mesh: Mesh, points: np.ndarray, chosen: np.ndarray, solids: list, seed: int, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """One template against all S shapes: centres (k, 3), d (S, 32, 3), cost and turned (S,); and against the T
    templates, with the residual: edge_d (T, 32, 3), c (T, k, 3), dist, iou, residual, flipped and collapsed (T,)."""
    source = Source.of(mesh.V, mesh.F, rng=np.random.default_rng(seed))
    fitted = fit_shapes(source, points, device)
    edges = score_edges(mesh, source, [Target.of(points[j]) for j in chosen], fitted["d"][chosen], solids, seed)
    return {"centres": source.centres, **fitted, **edges}


def _fit_template(template: Template, points: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    return fit_shapes(source_of(template, np.random.default_rng(seed)), points)


def fit_shapes(source: Source, points: np.ndarray, device: str = "cpu") -> dict[str, np.ndarray]:
    """A template's lattice fitted to S shapes of samples (S, k, 3): d (S, 32, 3), cost and turned (S,)."""
    targets = [Target.of(p) for p in points]
    on_cpu = device == "cpu"
    d = np.stack([fit_ffd(source, t) for t in targets]) if on_cpu else fit_many(source, points, device=device)
    cost = np.array([fit_cost(source, x, t) for x, t in zip(d, targets, strict=True)])
    return {"d": d, "cost": cost, "turned": np.array([turned_share(source, x) for x in d])}


def score_edges(mesh: Mesh, source: Source, targets: list, d: np.ndarray, solids: list, seed: int) -> dict:
    """The template registered to T others, d (T, 32, 3) their lattice parts, and how well it lies on each."""
    dense = sampling_matrix(mesh.V, mesh.F, N_DENSE, np.random.default_rng(seed))
    rows = []
    for x, target, shape in zip(d, targets, solids, strict=True):
        r = register(source, target, x)
        dist, residual = official_dist(source.A @ r.V, target)
        iou = mask_iou(solid(dense @ r.V, RESOLUTION), shape)
        rows.append((r.d, r.c, dist, iou, residual, r.flipped, r.collapsed))
    names = ("edge_d", "c", "dist", "iou", "residual", "flipped", "collapsed")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def official_dist(points: np.ndarray, target: Target) -> tuple[float, float]:
    """D in [0, 2] of the official code, the share of samples (s, 3) whose squared distance to the target's samples
    exceeds 3e-3 plus the reverse share; and Chamfer-L1."""
    forward, back = target.tree.query(points)[0], Target.of(points).tree.query(target.points)[0]
    return float((forward**2 > FAR).mean() + (back**2 > FAR).mean()), float(forward.mean() + back.mean()) / 2


def connect(synset: str, ids: list[str], chosen: np.ndarray, meshes: list[Mesh], passes: list[dict]):
    """Templates with their out-edges, and the table of all ordered pairs."""
    templates, tables = [], []
    scores = ("dist", "iou", "residual", "flipped", "collapsed")
    for i, (mesh, one) in enumerate(zip(meshes, passes, strict=True)):
        others = np.delete(np.arange(len(ids)), i)
        nearest = others[np.lexsort((-one["iou"][others], one["dist"][others]))][:MIN_EDGES]
        selected = (one["dist"] < MAX_DIST) & (one["iou"] > MIN_IOU)
        selected[nearest] = True
        selected[i] = False
        to = np.flatnonzero(selected)
        neighbours = tuple(ids[j] for j in to)
        fields = one["centres"], neighbours, one["edge_d"][to], one["c"][to]
        templates.append(Template(synset, ids[i], mesh.V, mesh.F, mesh.C, *fields))
        columns = {name: one[name] for name in scores} | {"selected": selected}
        table = pd.DataFrame({"synset": synset, "source": ids[i], "target": ids, **columns})
        tables.append(table.drop(index=i))
    return templates, pd.concat(tables, ignore_index=True)


def _with_weights(
    shapes: list[str],
    points: np.ndarray,
    templates: list[Template],
    passes: list[dict],
    *,
    seed: int,
    parallel: Parallel,
    path: Callable[[Template], Path | None] = lambda template: None,
) -> Fits:
    """Fits of S shapes from what `fit_shapes` found of each template; weights are found, or kept in path(template)."""
    d, cost, turned = (np.stack([p[k] for p in passes], 1) for k in ("d", "cost", "turned"))
    weighted = cost <= np.sort(cost, 1)[:, [min(N_WEIGHTED, len(templates)) - 1]]
    rows = parallel(
        delayed(_kept)(path(t), _fit_weights, t, points, d[:, i], weighted[:, i], seed) for i, t in enumerate(templates)
    )
    weights = np.zeros((len(d), len(templates), max(len(t.neighbours) for t in templates)), np.float32)
    for i, row in enumerate(rows):
        weights[:, i, : row["weights"].shape[1]] = row["weights"]
    small = (x.astype(np.float32) for x in (d, cost))
    return Fits(np.array(shapes), *small, weights, weighted, turned.astype(np.float32))


def _fit_weights(template: Template, points: np.ndarray, d: np.ndarray, wanted: np.ndarray, seed: int) -> dict:
    """weights (S, E) float32 of the wanted shapes, zero elsewhere."""
    source = source_of(template, np.random.default_rng(seed))
    weights = np.zeros((len(points), len(template.neighbours)), np.float32)
    for i in np.flatnonzero(wanted):
        weights[i] = fit_weights(template, source, d[i], Target.of(points[i]))
    return {"weights": weights}
