"""What templates can represent: the best answers there are, found with the true shape in hand."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from i2m_lib.dataset.dataset import Dataset, Mesh
from i2m_lib.geometry.ffd import displace
from i2m_lib.geometry.nearest import Target, chamfer, distances
from i2m_lib.geometry.registration import fit_cost, fit_ffd, fit_residual
from i2m_lib.geometry.source_mesh import N_SAMPLES, Source
from i2m_lib.geometry.surfaces import Surface, sample_surface

from .correspondence import prepare, source_of
from .fits import fit_shapes
from .linear_combination import fit_together
from .template_choice import choose_sets
from .template_graph import Template, TemplateGraph

# The best few after a fit like those the network learns from are fitted anew, to all samples and much softer.
N_SHORTLIST, FINE_SAMPLES, FINE_STIFFNESS = 5, 4096, np.geomspace(1e-2, 1e-6, 14)
N_COMBINED = 3


def oracle_template(sources: list[Source], S: np.ndarray) -> int:
    """Index of the template that is nearest, undeformed, to samples S (k, 3)."""
    target = Target.of(S[:N_SAMPLES])
    return int(np.argmin([chamfer(source.S, target) for source in sources]))


def oracle_fit(templates: list[Template], sources: list[Source], S: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Index of a template, lattice displacements d (32, 3) and weights a (E,) that come nearest to samples S (k, 3):
    what a perfect network would answer."""
    return _combined(templates, _shortlist(templates, sources, S), Target.of(S[:FINE_SAMPLES]))


def _shortlist(templates: list[Template], sources: list[Source], S: np.ndarray) -> list[tuple]:
    """The best few templates for samples S (k, 3) under the lattice alone, best first: index, d (32, 3), source."""
    few, every = Target.of(S[:N_SAMPLES]), Target.of(S[:FINE_SAMPLES])
    rough = [fit_ffd(source, few) for source in sources]
    order = np.argsort([fit_cost(s, d, few) for s, d in zip(sources, rough, strict=True)])[:N_SHORTLIST]
    found = []
    for i in order:
        source = source_of(templates[i], np.random.default_rng(0), len(every.points))
        d = fit_ffd(source, every, FINE_STIFFNESS, start=rough[i])
        found.append((fit_cost(source, d, every), int(i), d, source))
    return [answer[1:] for answer in sorted(found, key=lambda answer: answer[0])]


def _combined(templates: list[Template], shortlist: list[tuple], target: Target) -> tuple[int, np.ndarray, np.ndarray]:
    found = []
    for i, d, source in shortlist[:N_COMBINED]:
        d, a = fit_together(templates[i], source, d, target)
        found.append((chamfer(source.A @ templates[i].decode(d, a), target), i, d, a))
    return min(found, key=lambda answer: answer[0])[1:]


def best_answers(templates: list[Template], S: np.ndarray, seed: int) -> dict[str, Surface]:
    """The oracles' answers to a shape with samples S (k, 3), by the methods of `representation_ladder`."""
    sources, every = prepare(templates, seed), Target.of(S[:FINE_SAMPLES])
    nearest = templates[oracle_template(sources, S)]
    shortlist = _shortlist(templates, sources, S)
    k, lattice, source = shortlist[0]
    i, d, a = _combined(templates, shortlist, every)
    free = displace(templates[k].K, fit_residual(source, lattice, every))
    return {
        "oracle_template": (nearest.V, nearest.F),
        "oracle_lattice": (templates[k].decode(lattice), templates[k].F),
        "oracle_ffd": (templates[i].decode(d, a), templates[i].F),
        "oracle_residual": (templates[k].decode(lattice) + free, templates[k].F),
    }


def representation_ladder(
    dataset: Dataset, graph: TemplateGraph, *, split: str, seed: int, n_samples: int = 16384, workers: int = -1
) -> pd.DataFrame:
    """Chamfer-L1, in canonical units at `n_samples`, of the best that templates can do for each shape of a split.

    Methods: oracle_template, the nearest template; oracle_lattice, the template whose lattice fits best, fitted;
    oracle_ffd, lattice and weights of a template fitted together; oracle_residual, the fitted lattice and a residual
    that is free; floor, two samplings of the shape itself.

    Returns:
        The columns of scores.parquet, with protocol "representation".
    """
    models = dataset.select(split)
    models = models[models.synset.isin(graph.synsets)]
    rows = Parallel(n_jobs=workers)(
        delayed(_ladder)(graph.of(m.synset), dataset.mesh(m.model_id), seed, n_samples) for m in models.itertuples()
    )
    table = models[["synset", "category", "model_id"]].reset_index(drop=True).join(pd.DataFrame(rows))
    tidy = table.melt(["synset", "category", "model_id"], var_name="method")
    return tidy.assign(protocol="representation", split=split, view=-1, metric="chamfer_l1")


def _ladder(templates: list[Template], mesh: Mesh, seed: int, n_samples: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    target = Target.of(sample_surface(mesh.V, mesh.F, n_samples, rng)[0])
    surfaces = best_answers(templates, mesh.S, seed) | {"floor": (mesh.V, mesh.F)}
    return {name: chamfer(sample_surface(V, F, n_samples, rng)[0], target) for name, (V, F) in surfaces.items()}


def worst_represented(
    dataset: Dataset, graph: TemplateGraph, ladder: pd.DataFrame, n: int, *, seed: int
) -> tuple[pd.DataFrame, list[tuple]]:
    """The n shapes of a ladder farthest from their floor, worst first, and why.

    Returns:
        A table (category, model_id, value, template, missing, extra, reason), in canonical units: `missing` is the
        mean distance from the shape to its answer and `extra` that from the answer to the shape. And for each shape
        its surface and its answer's, (V, F, C).
    """
    wide = ladder.pivot(index=["synset", "category", "model_id"], columns="method", values="value")
    worst = (wide.oracle_ffd - wide.floor).nlargest(n).index
    rows, surfaces = [], []
    for synset, category, model_id in worst:
        mesh, templates = dataset.mesh(model_id), graph.of(synset)
        i, d, a = oracle_fit(templates, prepare(templates, seed), mesh.S)
        V, t = templates[i].decode(d, a), templates[i]
        answer = sample_surface(V, t.F, len(mesh.S), np.random.default_rng(seed))[0]
        extra, missing = (d.mean() for d in distances(answer, Target.of(mesh.S)))
        reason = "it has parts that no template has" if missing > extra else "its template has parts that it lacks"
        value = wide.oracle_ffd[synset, category, model_id]
        rows.append((category, model_id, value, t.model_id, missing, extra, reason))
        surfaces.append(((mesh.V, mesh.F, mesh.C), (V, t.F, t.C)))
    columns = ["category", "model_id", "value", "template", "missing", "extra", "reason"]
    return pd.DataFrame(rows, columns=columns), surfaces


def ceiling(
    dataset: Dataset,
    synset: str,
    *,
    sizes: Sequence[int],
    choices: Sequence[str],
    split: str,
    seed: int,
    workers: int = -1,
) -> pd.DataFrame:
    """How far the best of T templates, its lattice fitted, stays from each shape of a split, for each number T of
    `sizes` and each of `choices` (`template_choice.CHOICES`): columns choice, n_templates, model_id, value (Chamfer-L1
    at 1,024 samples, canonical units). Sizes beyond the number of training shapes are left out."""
    train, held_out = (dataset.select(s, synset).model_id.tolist() for s in ("train", split))
    meshes = [dataset.mesh(m) for m in train]
    points, goals = (np.stack([dataset.mesh(m).S[:N_SAMPLES] for m in ids]) for ids in (train, held_out))
    sizes = [t for t in sizes if t <= len(train)]
    with Parallel(n_jobs=workers) as parallel:
        options = {"seed": seed, "parallel": parallel}
        sets = {c: choose_sets(meshes, points, sizes, 2 * max(sizes), choice=c, **options) for c in choices}
        used = sorted({int(i) for chosen in sets.values() for one in chosen for i in one})
        costs = dict(zip(used, parallel(delayed(_costs)(meshes[i], goals, seed) for i in used), strict=True))
    parts = [
        pd.DataFrame({"choice": c, "n_templates": t, "model_id": held_out, "value": np.min([costs[i] for i in one], 0)})
        for c, chosen in sets.items()
        for t, one in zip(sizes, chosen, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _costs(mesh: Mesh, points: np.ndarray, seed: int) -> np.ndarray:
    return fit_shapes(Source.of(mesh.V, mesh.F, rng=np.random.default_rng(seed)), points)["cost"]
