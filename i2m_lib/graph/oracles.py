"""What templates can represent: the best answers there are, found with the true shape in hand."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.optimize import nnls

from i2m_lib.dataset.dataset import Dataset, Mesh
from i2m_lib.geometry.ffd import displace
from i2m_lib.geometry.nearest import Target, chamfer, distances
from i2m_lib.geometry.registration import fit_cost, fit_ffd, fit_residual
from i2m_lib.geometry.source_mesh import N_SAMPLES, Source
from i2m_lib.geometry.surfaces import sample_surface

from .correspondence import prepare, source_of
from .fits import Fits, fit_shapes
from .linear_combination import fit_together
from .template_choice import choose_templates
from .template_graph import Template, TemplateGraph

# The best few after a fit like those the network learns from are fitted anew, to all samples and much softer.
N_SHORTLIST, FINE_SAMPLES, FINE_STIFFNESS = 5, 4096, np.geomspace(1e-2, 1e-6, 14)
N_COMBINED = 3
Answer = tuple[int, np.ndarray, np.ndarray]


def oracle_template(sources: list[Source], S: np.ndarray) -> int:
    """Index of the template that is nearest, undeformed, to samples S (k, 3)."""
    target = Target.of(S[:N_SAMPLES])
    return int(np.argmin([chamfer(source.S, target) for source in sources]))


def oracle_fit(templates: list[Template], sources: list[Source], S: np.ndarray) -> Answer:
    """Index of a template, lattice displacements d (32, 3) and weights a (E,) that come nearest to samples S (k, 3):
    what a perfect network would answer."""
    return _combined(templates, _shortlist(templates, sources, S), Target.of(S[:FINE_SAMPLES]))


def _shortlist(templates: list[Template], sources: list[Source], S: np.ndarray) -> list[tuple[int, np.ndarray, Source]]:
    """The best few templates for samples S (k, 3) under the lattice alone, best first: index, d (32, 3), source."""
    few, every = Target.of(S[:N_SAMPLES]), Target.of(S[:FINE_SAMPLES])
    rough = [fit_ffd(source, few) for source in sources]
    order = np.argsort([fit_cost(s, d, few) for s, d in zip(sources, rough, strict=True)])[:N_SHORTLIST]
    found = []
    for i in order:
        source = source_of(templates[i], 0, len(every.points))
        d = fit_ffd(source, every, FINE_STIFFNESS, start=rough[i])
        found.append((fit_cost(source, d, every), int(i), d, source))
    return [answer[1:] for answer in sorted(found, key=lambda answer: answer[0])]


def _combined(templates: list[Template], shortlist: list[tuple], target: Target) -> Answer:
    found = []
    for i, d, source in shortlist[:N_COMBINED]:
        d, a = fit_together(templates[i], source, d, target)
        found.append((chamfer(source.A @ templates[i].decode(d, a), target), i, d, a))
    return min(found, key=lambda answer: answer[0])[1:]


def representation_ladder(
    dataset: Dataset, graph: TemplateGraph, *, split: str, seed: int, n_samples: int = 16384, workers: int = -1
) -> pd.DataFrame:
    """Chamfer-L1, in canonical units at `n_samples`, of the best that templates can do for each shape of a split, with
    the columns of scores.parquet.

    Methods: oracle_template, the nearest template; oracle_lattice, the template whose lattice fits best, fitted;
    oracle_ffd, lattice and weights of a template fitted together; oracle_residual, the fitted lattice and a residual
    that is free; floor, two samplings of the shape itself.
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
    sources, every = prepare(templates, seed), Target.of(mesh.S[:FINE_SAMPLES])
    shortlist = _shortlist(templates, sources, mesh.S)
    (k, lattice, source), (i, d, a) = shortlist[0], _combined(templates, shortlist, every)
    nearest, fitted, combined = (templates[j] for j in (oracle_template(sources, mesh.S), k, i))
    free = displace(fitted.K, fit_residual(source, lattice, every))
    surfaces = {
        "oracle_template": (nearest.V, nearest.F),
        "oracle_lattice": (fitted.decode(lattice), fitted.F),
        "oracle_ffd": (combined.decode(d, a), combined.F),
        "oracle_residual": (fitted.decode(lattice) + free, fitted.F),
        "floor": (mesh.V, mesh.F),
    }
    rng = np.random.default_rng(seed)
    target = Target.of(sample_surface(mesh.V, mesh.F, n_samples, rng)[0])
    return {name: chamfer(sample_surface(V, F, n_samples, rng)[0], target) for name, (V, F) in surfaces.items()}


def residuals_explained(
    dataset: Dataset, graph: TemplateGraph, fits: dict[str, Fits], *, split: str, seed: int, workers: int = -1
) -> pd.DataFrame:
    """How much of what the lattice leaves to each shape of a split a linear combination could express at best.

    Of each shape the template that fits it best, in `fits`, is fitted further by a free residual. Columns: synset,
    model_id; left, its length (RMS over the surface, canonical units); and the share of its squared length, 0..1, that
    residuals of other templates express: `neighbours` and `all` of the category, with weights a >= 0 or of any sign.
    """
    jobs = []
    for synset in graph.synsets:
        one, templates = fits[synset], graph.of(synset)
        shapes, ids = dataset.select(split, synset).model_id.tolist(), [t.model_id for t in templates]
        row = {m: i for i, m in enumerate(one.model_ids.tolist())}
        best = {m: int(one.cost[row[m]].argmin()) for m in shapes}
        for k in sorted(set(best.values())):
            of_k = [m for m in shapes if best[m] == k]
            goals = {m: (dataset.mesh(m).S[:N_SAMPLES], one.d[row[m], k].astype(float)) for m in of_k + ids}
            jobs.append((templates, k, goals, seed))
    parts = Parallel(n_jobs=workers)(delayed(_explained)(*job) for job in jobs)
    return pd.DataFrame([row for part in parts for row in part])


def _explained(templates: list[Template], k: int, goals: dict[str, tuple], seed: int) -> list[dict]:
    """Rows of `residuals_explained` for the shapes among goals {model_id: (samples, lattice)} that are no templates."""
    source, template = source_of(templates[k], seed), templates[k]
    fields = {m: displace(source.KS, fit_residual(source, d, Target.of(S))) for m, (S, d) in goals.items()}
    others = {t.model_id: fields.pop(t.model_id) for t in templates}
    groups = {"neighbours": template.neighbours, "all": [m for m in others if m != template.model_id]}
    rows = []
    for model_id, wanted in fields.items():
        row = {"synset": template.synset, "model_id": model_id, "left": np.sqrt((wanted**2).sum(1).mean())}
        for name, ids in groups.items():
            columns = np.array([others[m].ravel() for m in ids]).reshape(len(ids), wanted.size).T
            row |= {
                name: explained(columns, wanted.ravel()),
                f"{name}, any sign": explained(columns, wanted.ravel(), True),
            }
        rows.append(row)
    return rows


def explained(columns: np.ndarray, wanted: np.ndarray, signed: bool = False) -> float:
    """Share of |wanted|^2 (n,) that the best combination of columns (n, k) expresses, 0..1; weights >= 0, or signed."""
    if not columns.shape[1] or not wanted.any():
        return 0.0
    a = np.linalg.lstsq(columns, wanted)[0] if signed else nnls(columns, wanted)[0]
    return float(1 - ((columns @ a - wanted) ** 2).sum() / (wanted**2).sum())


def worst_represented(
    dataset: Dataset, graph: TemplateGraph, ladder: pd.DataFrame, n: int, *, seed: int
) -> tuple[pd.DataFrame, list[tuple]]:
    """The n shapes of a ladder farthest from their floor, worst first, and why: a table (category, model_id, value,
    template, missing, extra, reason), where `missing` is the mean distance from the shape to its answer and `extra`
    that from the answer to the shape, in canonical units; and of each its surface and its answer's, (V, F, C)."""
    wide = ladder.pivot(index=["synset", "category", "model_id"], columns="method", values="value")
    rows, surfaces = [], []
    for synset, category, model_id in (wide.oracle_ffd - wide.floor).nlargest(n).index:
        mesh, templates = dataset.mesh(model_id), graph.of(synset)
        i, d, a = oracle_fit(templates, prepare(templates, seed), mesh.S)
        t, V = templates[i], templates[i].decode(d, a)
        answer = sample_surface(V, t.F, len(mesh.S), np.random.default_rng(seed))[0]
        extra, missing = (x.mean() for x in distances(answer, Target.of(mesh.S)))
        reason = "it has parts that no template has" if missing > extra else "its template has parts that it lacks"
        value = wide.oracle_ffd[synset, category, model_id]
        rows.append((category, model_id, value, t.model_id, missing, extra, reason))
        surfaces.append(((mesh.V, mesh.F, mesh.C), (V, t.F, t.C)))
    columns = ["category", "model_id", "value", "template", "missing", "extra", "reason"]
    return pd.DataFrame(rows, columns=columns), surfaces


def ceiling(
    dataset: Dataset, synset: str, *, sizes: Sequence[int], choices: Sequence[str], split: str, seed: int, workers=-1
) -> pd.DataFrame:
    """Chamfer-L1 (1,024 samples, canonical units) from each shape of a split to the best of T templates, its lattice
    fitted, for the numbers T of `sizes` that training shapes allow, or else all of these, and for `choices`
    (`template_choice.CHOICES`): columns choice, n_templates, model_id, value."""
    train, held_out = (dataset.select(s, synset).model_id.tolist() for s in ("train", split))
    meshes, sizes = [dataset.mesh(m) for m in train], [t for t in sizes if t <= len(train)] or [len(train)]
    points, goals = (np.stack([dataset.mesh(m).S[:N_SAMPLES] for m in ids]) for ids in (train, held_out))
    with Parallel(n_jobs=workers) as parallel:
        options = {"seed": seed, "parallel": parallel}
        sets = {c: choose_templates(meshes, points, sizes, choice=c, spare=2, **options) for c in choices}
        used = sorted({int(i) for chosen in sets.values() for one in chosen for i in one})
        fitted = parallel(delayed(fit_shapes)(meshes[i], goals, seed) for i in used)
    costs = {i: one["cost"] for i, one in zip(used, fitted, strict=True)}
    parts = [
        pd.DataFrame({"choice": c, "n_templates": t, "model_id": held_out, "value": np.min([costs[i] for i in one], 0)})
        for c, chosen in sets.items()
        for t, one in zip(sizes, chosen, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)
