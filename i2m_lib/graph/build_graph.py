"""From a dataset to its template graph and the fits that training learns from, on all cores.

    graph, fits = make_graph(dataset, "results/demo", n_templates=12, choice="coverage", seed=0)

Steps, a category at a time: choose templates among the training shapes (`template_choice`); fit each to every training
and validation shape (`fits`) and register it to the other templates (`correspondence`); join them by the edge rule
(`edges`); fit weights of the neighbours (`linear_combination`).
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from i2m_lib.artefacts import Key, keep, locked
from i2m_lib.dataset.dataset import Dataset, Mesh
from i2m_lib.dataset.splits import read_template_ids
from i2m_lib.geometry.batched_registration import fit_many
from i2m_lib.geometry.nearest import Target
from i2m_lib.geometry.source_mesh import N_SAMPLES, Source

from .correspondence import correspondences
from .edges import edge_rule, edge_table, score_edges, solid_of
from .fits import Fits, fit_shapes, kept, with_weights
from .originals import keep_originals
from .template_choice import check_choice, choose_templates
from .template_graph import Template, TemplateGraph

log = logging.getLogger(__name__)

VERSION = 1  # Raise it when results change.


def make_graph(
    dataset: Dataset,
    run_folder: str | Path,
    *,
    n_templates: int,
    choice: str,
    seed: int,
    template_ids: str | Path = "",
    corpus_root: str | Path = "",
    workers: int = -1,
    device: str = "cpu",
) -> tuple[TemplateGraph, dict[str, Fits]]:
    """The graph and the fits of a run, from `run_folder` if they were made of the same; otherwise `build_graph` makes
    them, and an interrupted call is continued.

    Args:
        template_ids: a file of model ids to take instead, as `splits.read_template_ids` reads.
        corpus_root: where the originals of the templates are, with their textures; "" keeps none.

    Raises:
        StaleError: a folder in `run_folder` holds files that this program did not make.
    """
    folder = Path(run_folder)
    ids = read_template_ids(template_ids) if template_ids else {}
    listed = usable_ids(dataset, [m for of_synset in ids.values() for m in of_synset])
    check_choice(choice)
    options = {"n_templates": n_templates, "choice": choice, "template_ids": listed, "seed": seed}
    key = Key("graph", VERSION, {**options, "originals": bool(corpus_root)}, {"dataset": dataset.digest})

    @cache
    def build() -> tuple[TemplateGraph, dict[str, Fits]]:
        return build_graph(dataset, **options, parts=folder / "parts" / key.digest, device=device, workers=workers)

    def save_graph() -> None:
        build()[0].save(folder / "graph")
        if corpus_root:
            keep_originals(dataset, build()[0], corpus_root, folder / "graph")

    def save_fits() -> None:
        for synset, fit in build()[1].items():
            fit.save(folder / "fits" / f"{synset}.npz")

    with locked(folder / "parts"):
        keep(folder / "graph", key, save_graph)
        keep(folder / "fits", replace(key, stage="fits"), save_fits)
        shutil.rmtree(folder / "parts", ignore_errors=True)
        return TemplateGraph.load(folder / "graph"), Fits.load_all(folder / "fits")


def build_graph(
    dataset: Dataset,
    *,
    n_templates: int,
    seed: int,
    choice: str = "coverage",
    template_ids: Sequence[str] = (),
    parts: Path | None = None,
    device: str = "cpu",
    workers: int = -1,
) -> tuple[TemplateGraph, dict[str, Fits]]:
    """Chooses at most `n_templates` training shapes a category, connects and fits them.

    Args:
        choice: how, one of `template_choice.CHOICES`.
        template_ids: model ids to take instead; see `usable_ids`. A category that none belongs to is chosen as if
            there were no list.
        parts: a folder for what is finished, so that an interrupted run can go on; None keeps nothing.
        device: "cuda" fits lattices there, many shapes at once.

    Returns:
        The TemplateGraph and {synset: Fits} of the training and validation shapes.

    Raises:
        ValueError: the choice is unknown, or a listed template is held out for evaluation.
    """
    check_choice(choice)
    listed = usable_ids(dataset, template_ids)
    templates, edges, fits = [], [], {}
    with Parallel(n_jobs=workers) as parallel:
        for synset in sorted(dataset.models.synset.unique()):
            if dataset.select("train", synset).empty:
                continue
            shapes, part = _Shapes.of(dataset, synset), partial(_part, parts, synset)
            chosen = np.array([i for i, m in enumerate(shapes.ids[: shapes.n_train]) if m in listed], int)
            if not len(chosen):
                chosen = kept(part("chosen"), _choose, shapes, n_templates, choice, seed, parallel)["chosen"]
            passes = _register_all(shapes, chosen, part, seed=seed, device=device, parallel=parallel)
            connected, table = _connect(synset, shapes, chosen, passes)
            fits[synset] = with_weights(
                shapes.ids, shapes.points, connected, passes, seed=seed, parallel=parallel, part=part
            )
            templates += connected
            edges.append(table)
            log.info("%s: %d templates, %d edges", synset, len(connected), table.selected.sum())
    return TemplateGraph(templates, pd.concat(edges, ignore_index=True)), fits


def usable_ids(dataset: Dataset, ids: Sequence[str]) -> list[str]:
    """Those of a list of templates that are training shapes of the dataset; those that it lacks are passed over with a
    warning. Raises ValueError if one is held out for evaluation."""
    split = dataset.models.set_index("model_id").split
    known = [m for m in ids if m in split.index]
    held_out = [m for m in known if split[m] != "train"]
    if held_out:
        raise ValueError(f"template {held_out[0]} is in the split {split[held_out[0]]}: list training shapes alone.")
    if len(known) < len(ids):
        log.warning("%d of %d listed templates are not in %s", len(ids) - len(known), len(ids), dataset.path)
    return sorted(known)


@dataclass(frozen=True)
class _Shapes:
    """The S shapes of a category that are fitted, training shapes first: ids, meshes, points (S, k, 3)."""

    ids: list[str]
    n_train: int
    meshes: list[Mesh]
    points: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, synset: str) -> "_Shapes":
        train, val = (dataset.select(split, synset).model_id.tolist() for split in ("train", "val"))
        meshes = [dataset.mesh(m) for m in train + val]
        return cls(train + val, len(train), meshes, np.stack([mesh.S[:N_SAMPLES] for mesh in meshes]))


def _part(parts: Path | None, synset: str, name: str) -> Path | None:
    return parts and parts / synset / f"{name}.npz"


def _choose(shapes: _Shapes, n: int, choice: str, seed: int, parallel: Parallel) -> dict[str, np.ndarray]:
    """chosen (T,): indices of the templates among the training shapes."""
    meshes, points = shapes.meshes[: shapes.n_train], shapes.points[: shapes.n_train]
    return {"chosen": choose_templates(meshes, points, n, choice=choice, seed=seed, parallel=parallel)}


def _register_all(
    shapes: _Shapes,
    chosen: np.ndarray,
    part: Callable[[str], Path | None],
    *,
    seed: int,
    device: str,
    parallel: Parallel,
) -> list[dict[str, np.ndarray]]:
    """`_register` of each template."""
    meshes = [shapes.meshes[i] for i in chosen]
    solids = [solid_of(mesh, seed) for mesh in meshes]
    paths = [part(shapes.ids[i]) for i in chosen]

    def lattices(mesh: Mesh, path: Path | None) -> np.ndarray | None:
        # On a GPU by this process, whose context is the only one. On a CPU the workers fit them.
        if device == "cpu" or (path and path.is_file()):
            return None
        return fit_many(_source(mesh, seed), shapes.points, device=device)

    return parallel(
        delayed(kept)(path, _register, mesh, shapes.points, chosen, solids, seed, lattices(mesh, path))
        for mesh, path in zip(meshes, paths, strict=True)
    )


def _register(
    mesh: Mesh, points: np.ndarray, chosen: np.ndarray, solids: list[np.ndarray], seed: int, d: np.ndarray | None
) -> dict[str, np.ndarray]:
    """One template against all S shapes: what `fit_shapes` returns; and against the T templates: edge_d (T, 32, 3),
    c (T, k, 3) of V_ij with kernels at centres (k, 3), and what `score_edges` returns."""
    source, targets = _source(mesh, seed), [Target.of(points[j]) for j in chosen]
    fitted = fit_shapes(source, points, d)
    found = correspondences(source, targets, fitted["d"][chosen])
    parts = {"edge_d": np.array([r.d for r in found]), "c": np.array([r.c for r in found])}
    return {"centres": source.centres, **fitted, **parts, **score_edges(mesh, source, found, targets, solids, seed)}


def _source(mesh: Mesh, seed: int) -> Source:
    return Source.of(mesh.V, mesh.F, rng=np.random.default_rng(seed))


def _connect(
    synset: str, shapes: _Shapes, chosen: np.ndarray, passes: list[dict]
) -> tuple[list[Template], pd.DataFrame]:
    """The templates with their out-edges, and the table of all ordered pairs."""
    ids, templates = [shapes.ids[i] for i in chosen], []
    for i, one in enumerate(passes):
        mesh, to = shapes.meshes[chosen[i]], np.flatnonzero(edge_rule(one["dist"], one["iou"], i))
        edges = one["centres"], tuple(ids[j] for j in to), one["edge_d"][to], one["c"][to]
        templates.append(Template(synset, ids[i], mesh.V, mesh.F, mesh.C, *edges))
    return templates, edge_table(synset, ids, passes)
