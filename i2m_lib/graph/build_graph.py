"""From a dataset to its template graph and the fits that training learns from, on all cores.

A category at a time: choose templates among the training shapes (`template_choice`); fit each to every training and
validation shape (`fits`) and register it to the other templates (`correspondence`); join them by the edge rule
(`edges`); fit weights of the neighbours (`linear_combination`).
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
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
from i2m_lib.geometry.source_mesh import N_SAMPLES
from i2m_lib.geometry.voxels import solid

from .correspondence import correspondences, source_of
from .edges import RESOLUTION, dense_samples, edge_rule, edge_table, score_edges
from .fits import Arrays, Fits, fit_shapes, kept, with_weights
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
    corpus_root: str | Path,
    workers: int = -1,
    device: str = "cpu",
) -> tuple[TemplateGraph, dict[str, Fits]]:
    """The graph and the fits of a run: read from its folder if they were made of the same, else made by `build_graph`,
    which continues what was interrupted. `template_ids` is a file for `splits.read_template_ids`, and `corpus_root` has
    the templates' textures. Raises StaleError if the run holds files of unknown origin."""
    folder, listed = Path(run_folder), read_template_ids(template_ids) if template_ids else {}
    ids = usable_ids(dataset, [m for of_synset in listed.values() for m in of_synset])
    check_choice(choice)
    options = {"n_templates": n_templates, "choice": choice, "template_ids": ids, "seed": seed}
    key = Key("graph", VERSION, options, {"dataset": dataset.digest})
    # No part of the key: parts are named by it, and workers and device change no more than rounding.
    options |= {"parts": folder / "parts" / key.digest, "workers": workers, "device": device}
    build = cache(lambda: build_graph(dataset, **options))

    def save_graph() -> None:
        build()[0].save(folder / "graph")
        keep_originals(dataset, build()[0], corpus_root, folder / "graph")

    def save_fits() -> None:
        for synset, fit in build()[1].items():
            fit.save(folder / "fits" / f"{synset}.npz")

    with locked(folder / "parts"):
        keep(folder / "graph", key, save_graph)
        keep(folder / "fits", replace(key, stage="fits"), save_fits)
        shutil.rmtree(folder / "parts", ignore_errors=True)
        return TemplateGraph.load(folder / "graph"), Fits.load_all(folder / "fits")


def usable_ids(dataset: Dataset, ids: Sequence[str]) -> list[str]:
    """Those of `ids` that the dataset has, sorted; a warning counts the rest. Raises ValueError if one is held out."""
    split = dataset.models.set_index("model_id").split
    known = sorted(set(ids) & set(split.index))
    if held_out := [m for m in known if split[m] != "train"]:
        raise ValueError(f"template {held_out[0]} is in the split {split[held_out[0]]}: list training shapes alone.")
    if len(known) < len(ids):
        log.warning("%d of %d listed templates are not in %s", len(ids) - len(known), len(ids), dataset.path)
    return known


def build_graph(
    dataset: Dataset,
    *,
    n_templates: int,
    seed: int,
    choice: str = "coverage",
    template_ids: Sequence[str] = (),
    parts: Path | None = None,
    workers: int = -1,
    device: str = "cpu",
) -> tuple[TemplateGraph, dict[str, Fits]]:
    """The graph of at most `n_templates` training shapes a category, chosen by one of `template_choice.CHOICES`, or of
    those among `template_ids` where a category has some; and {synset: Fits} of training and validation shapes. `parts`
    is a folder for what is finished; "cuda" fits lattices on the GPU. Raises ValueError if the choice is unknown or a
    template is held out for evaluation."""
    check_choice(choice)
    ids = usable_ids(dataset, template_ids)
    templates, edges, fits = [], [], {}
    with Parallel(n_jobs=workers) as parallel:
        choose = partial(choose_templates, sizes=[n_templates], choice=choice, seed=seed, parallel=parallel)
        for synset in sorted(dataset.select("train").synset.unique()):
            part = partial(_part, parts, synset)
            found, table, fits[synset] = _build_category(dataset, synset, ids, choose, part, seed, parallel, device)
            templates += found
            edges.append(table)
            log.info("%s: %d templates, %d edges", synset, len(found), table.selected.sum())
    return TemplateGraph(templates, pd.concat(edges, ignore_index=True)), fits


def _part(parts: Path | None, synset: str, name: str) -> Path | None:
    return parts and parts / synset / f"{name}.npz"


def _build_category(dataset: Dataset, synset: str, listed: list[str], choose, part, seed: int, parallel, device: str):
    """The templates of a category, those listed or else chosen, the table of all ordered pairs, and the fits."""
    train, val = (dataset.select(split, synset).model_id.tolist() for split in ("train", "val"))
    every, n = [dataset.mesh(m) for m in train + val], len(train)
    points = np.stack([mesh.S[:N_SAMPLES] for mesh in every])
    chosen = np.array([i for i, m in enumerate(train) if m in listed], int)
    if not len(chosen):
        chosen = kept(part("chosen"), lambda: {"chosen": choose(every[:n], points[:n])[0]})["chosen"]
    ids, meshes = [train[i] for i in chosen], [every[i] for i in chosen]
    solids = [solid(dense_samples(mesh, seed) @ mesh.V, RESOLUTION) for mesh in meshes]
    # Only this process uses a GPU; without one the workers fit the lattices.
    sources = (None if device == "cpu" else source_of(mesh, seed) for mesh in meshes)
    lattices = (source and fit_many(source, points, device=device) for source in sources)
    passes = parallel(
        delayed(kept)(part(m), _register, mesh, points, chosen, solids, seed, d)
        for m, mesh, d in zip(ids, meshes, lattices, strict=True)
    )
    templates = []
    for i, (mesh, one) in enumerate(zip(meshes, passes, strict=True)):
        to = np.flatnonzero(edge_rule(one["dist"], one["iou"], i))
        edges = one["centres"], tuple(ids[j] for j in to), one["edge_d"][to], one["c"][to]
        templates.append(Template(synset, ids[i], mesh.V, mesh.F, mesh.C, *edges))
    fits = with_weights(train + val, points, templates, passes, seed, parallel, part)
    return templates, edge_table(synset, ids, passes), fits


def _register(mesh: Mesh, points: np.ndarray, chosen: np.ndarray, solids: list, seed: int, d) -> Arrays:
    """One template against all S shapes, as `fit_shapes` returns; and against the T templates: V_ij by edge_d
    (T, 32, 3) and c (T, k, 3) of kernels at centres (k, 3), and what `score_edges` returns."""
    fitted, source = fit_shapes(mesh, points, seed, d=d), source_of(mesh, seed)
    targets = [Target.of(points[j]) for j in chosen]
    found = correspondences(source, targets, fitted["d"][chosen])
    parts = {"centres": source.centres, "edge_d": np.array([r.d for r in found]), "c": np.array([r.c for r in found])}
    return {**fitted, **parts, **score_edges(source, found, targets, solids, seed)}
