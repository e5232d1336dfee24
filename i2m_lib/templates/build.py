"""From a dataset to a template graph and the fits that training learns from, on all cores.

    graph, fits = build_graph(dataset, n_templates=20, seed=0)

Only training shapes become templates. A pass over templates fits each to every training and validation shape of
its category; a second adds sparse weights where a template is among a shape's best.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from i2m_lib.dataset.views import Dataset, Mesh

from .choose import descriptor, greedy_coverage, solid, spread, voxel_iou
from .compact import fit_weights
from .ffd import displace
from .fits import Fits
from .graph import Template, TemplateGraph
from .registration import (
    FFD_STIFFNESS,
    N_SAMPLES,
    Source,
    Target,
    fit_cost,
    fit_ffd,
    fit_residual,
    sampling_matrix,
)

log = logging.getLogger(__name__)

# METHOD's rule: an edge where the deformed template lies on its neighbour, and to the three nearest in any case.
FAR, MAX_DIST, MIN_IOU, MIN_EDGES = 3e-3, 0.035, 0.25, 3
N_DENSE, RESOLUTION = 16384, 32
# A rough fit ranks candidates nearly as the full one does, at a sixth of the cost.
COARSE_SAMPLES, COARSE_STIFFNESS = 512, FFD_STIFFNESS[::2]
CANDIDATES_PER_TEMPLATE = 3
# Weights are fitted where they may be used: a shape's best templates.
N_WEIGHTED = 4


def build_graph(dataset: Dataset, *, n_templates: int, seed: int, workers: int = -1):
    """Chooses at most `n_templates` training shapes a category, connects and fits them.

    Returns:
        The TemplateGraph and {synset: Fits} of the training and validation shapes.
    """
    templates, edges, fits = [], [], {}
    with Parallel(n_jobs=workers) as parallel:
        for synset in sorted(dataset.models.synset.unique()):
            if dataset.select("train", synset).empty:
                continue
            category = _build_category(dataset, synset, n_templates, seed, parallel)
            templates += category[0]
            edges.append(category[1])
            fits[synset] = category[2]
            log.info("%s: %d templates, %d edges", synset, len(category[0]), category[1].selected.sum())
    return TemplateGraph(templates, pd.concat(edges, ignore_index=True)), fits


def _build_category(dataset, synset, n_templates, seed, parallel):
    train = dataset.select("train", synset).model_id.tolist()
    shapes = train + dataset.select("val", synset).model_id.tolist()
    meshes = {model_id: dataset.mesh(model_id) for model_id in shapes}
    points = np.stack([meshes[m].S[:N_SAMPLES] for m in shapes])

    chosen = choose_templates([meshes[m] for m in train], points[: len(train)], n_templates, seed, parallel)
    ids = [train[i] for i in chosen]
    solids = parallel(delayed(_solid)(meshes[m], seed) for m in ids)
    passes = parallel(delayed(_fit_all)(meshes[m], points, chosen, solids, seed) for m in ids)
    templates, edges = _connect(synset, ids, chosen, [meshes[m] for m in ids], passes)

    d, cost = np.stack([p.d for p in passes], 1), np.stack([p.cost for p in passes], 1)
    weighted = cost <= np.sort(cost, 1)[:, [min(N_WEIGHTED, len(ids)) - 1]]
    rows = parallel(delayed(_fit_weights)(t, points, d[:, i], weighted[:, i], seed) for i, t in enumerate(templates))
    weights = np.zeros((len(shapes), len(ids), max(len(t.neighbours) for t in templates)), np.float32)
    for i, row in enumerate(rows):
        weights[:, i, : row.shape[1]] = row
    fits = Fits(np.array(shapes), d.astype(np.float32), cost.astype(np.float32), weights, weighted)
    return templates, edges, fits


def choose_templates(meshes: list[Mesh], points: np.ndarray, n_templates: int, seed: int, parallel) -> np.ndarray:
    """Indices of the templates among training meshes, with samples points (S, k, 3): greedy coverage under the cost
    of a rough fit, over candidates that are spread by descriptor so that the work grows with S, not its square."""
    if len(meshes) <= n_templates:
        return np.arange(len(meshes))
    candidates = spread(np.stack([descriptor(p) for p in points]), CANDIDATES_PER_TEMPLATE * n_templates)
    coarse = points[:, :COARSE_SAMPLES]
    costs = np.array(parallel(delayed(_coarse_costs)(meshes[i], coarse, seed) for i in candidates))
    return candidates[greedy_coverage(costs, n_templates)]


def _coarse_costs(mesh: Mesh, points: np.ndarray, seed: int) -> np.ndarray:
    source = Source.of(mesh.V, mesh.F, rng=np.random.default_rng(seed), n_samples=COARSE_SAMPLES)
    targets = [Target.of(p) for p in points]
    return np.array([fit_cost(source, fit_ffd(source, t, COARSE_STIFFNESS), t) for t in targets])


def _solid(mesh: Mesh, seed: int) -> np.ndarray:
    A = sampling_matrix(mesh.V, mesh.F, N_DENSE, np.random.default_rng(seed))
    return solid(A @ mesh.V, RESOLUTION)


@dataclass(frozen=True)
class _Pass:
    """One template against all S shapes and T templates."""

    centres: np.ndarray  # (k, 3)
    d: np.ndarray  # (S, 32, 3)
    cost: np.ndarray  # (S,)
    c: np.ndarray  # (T, k, 3)
    dist: np.ndarray  # (T,)
    iou: np.ndarray  # (T,)


def _fit_all(mesh: Mesh, points: np.ndarray, chosen: np.ndarray, solids: list, seed: int) -> _Pass:
    source = Source.of(mesh.V, mesh.F, rng=np.random.default_rng(seed))
    dense = sampling_matrix(mesh.V, mesh.F, N_DENSE, np.random.default_rng(seed))
    targets = [Target.of(p) for p in points]
    d = np.stack([fit_ffd(source, t) for t in targets])
    cost = np.array([fit_cost(source, x, t) for x, t in zip(d, targets, strict=True)])
    c, dist, iou = [], [], []
    for j, shape in zip(chosen, solids, strict=True):
        c.append(fit_residual(source, d[j], targets[j]))
        V_ij = source.V + displace(source.M, d[j]) + displace(source.K, c[-1])
        dist.append(official_dist(source.A @ V_ij, targets[j]))
        iou.append(voxel_iou(solid(dense @ V_ij, RESOLUTION), shape))
    return _Pass(source.centres, d, cost, np.stack(c), np.array(dist), np.array(iou))


def official_dist(points: np.ndarray, target: Target) -> float:
    """D in [0, 2] of the official code: the share of samples (s, 3) whose squared distance to the target's samples
    exceeds 3e-3, plus the reverse share."""
    forward, back = target.tree.query(points)[0], Target.of(points).tree.query(target.points)[0]
    return float((forward**2 > FAR).mean() + (back**2 > FAR).mean())


def _connect(synset: str, ids: list[str], chosen: np.ndarray, meshes: list[Mesh], passes: list[_Pass]):
    """Templates with their out-edges, and the table of all ordered pairs."""
    templates, tables = [], []
    for i, (mesh, one) in enumerate(zip(meshes, passes, strict=True)):
        others = np.delete(np.arange(len(ids)), i)
        nearest = others[np.lexsort((-one.iou[others], one.dist[others]))][:MIN_EDGES]
        selected = (one.dist < MAX_DIST) & (one.iou > MIN_IOU)
        selected[nearest] = True
        selected[i] = False
        to = np.flatnonzero(selected)
        neighbours = tuple(ids[j] for j in to)
        templates.append(
            Template(
                synset,
                ids[i],
                mesh.V,
                mesh.F,
                mesh.C,
                one.centres,
                neighbours,
                one.d[chosen[to]],
                one.c[to],
            )
        )
        columns = {
            "dist": one.dist,
            "iou": one.iou,
            "residual": one.cost[chosen],
            "selected": selected,
        }
        table = pd.DataFrame({"synset": synset, "source": ids[i], "target": ids, **columns})
        tables.append(table.drop(index=i))
    return templates, pd.concat(tables, ignore_index=True)


def _fit_weights(template: Template, points: np.ndarray, d: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """(S, E) float32: weights of the wanted shapes, zero elsewhere."""
    source = Source.of(template.V, template.F, rng=np.random.default_rng(seed))
    weights = np.zeros((len(points), len(template.neighbours)), np.float32)
    for i in np.flatnonzero(wanted):
        weights[i] = fit_weights(template, source, d[i], Target.of(points[i]))
    return weights
