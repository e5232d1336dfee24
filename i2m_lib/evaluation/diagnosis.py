"""Where accuracy is lost: which template was chosen, from where the object was seen, what is wrong with bad answers."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from i2m_lib.artefacts import Key, keep, read_key, require
from i2m_lib.dataset.dataset import Dataset, Views, chunks, views_of
from i2m_lib.geometry.nearest import Target
from i2m_lib.geometry.registration import fit_cost, fit_ffd
from i2m_lib.geometry.source_mesh import N_SAMPLES
from i2m_lib.graph.correspondence import prepare
from i2m_lib.graph.fits import Fits, fit_split
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.reconstruction.doubt import Doubt, doubt_file, doubt_key, masks_of, signs_of_doubt
from i2m_lib.reconstruction.memory import Memory
from i2m_lib.reconstruction.reconstructor import Reconstruction, Reconstructor

from . import swaps
from .distances import Distances
from .ladder import inputs_of, kept_table
from .method import surface_of

VERSION = 1  # Raise it when results change.
TOP = (1, 3, 5)
N_VALIDATION = 4  # views of each validation model on which the weights of doubt are chosen


def kept_diagnosis(
    run: str | Path, dataset: Dataset, reconstructor: Reconstructor, *, n_views: int, seed: int, workers: int = -1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`diagnose` and `swap_parts`, with a column `reason`, of the test split: kept in `run`/diagnosis.parquet and
    swaps.parquet, made anew if they are of other parameters, dataset, graph or model."""
    run, inputs, how = Path(run), inputs_of(dataset, run), {"split": "test", "workers": workers}
    fits = cache(lambda: fit_split(dataset, reconstructor.graph, seed=seed, **how))

    def diagnosed() -> pd.DataFrame:
        memory = Memory.kept(run, reconstructor, dataset)
        return diagnose(dataset, reconstructor, memory, fits(), n_views=n_views, seed=seed, **how)

    def swapped() -> pd.DataFrame:
        table = swaps.swap_parts(dataset, reconstructor, fits(), **how)
        return table.assign(reason=reasons(diagnosis, table).to_numpy())

    key = Key("diagnosis", VERSION, {"n_views": n_views, "seed": seed}, inputs)
    diagnosis = kept_table(run / "diagnosis.parquet", key, diagnosed)
    return diagnosis, kept_table(run / "swaps.parquet", Key("swaps", swaps.VERSION, {"seed": seed}, inputs), swapped)


def read_diagnosis(run: str | Path, dataset: Dataset) -> pd.DataFrame:
    """`run`/diagnosis.parquet. Raises StaleError if it is missing, or of another dataset, graph or model."""
    path = Path(run) / "diagnosis.parquet"
    found = read_key(path)
    key = Key("diagnosis", VERSION, found.parameters if found else {}, inputs_of(dataset, run))
    require(path, key, "run 04_evaluation again")
    return pd.read_parquet(path)


def diagnose(
    dataset: Dataset, reconstructor: Reconstructor, memory: Memory, fits: dict[str, Fits], *, split: str, n_views: int,
    seed: int, workers: int = -1,
) -> pd.DataFrame:  # fmt: skip
    """The columns of `judged` and `template_choice` for the first `n_views` views of each fitted model of a split."""
    models, parts, distances = dataset.select(split), [], Distances(dataset, seed)
    for chunk in chunks(dataset, dataset.first_views(models[models.synset.isin(list(fits))], n_views), 512):
        answers = reconstructor.predict(chunk.images)
        table = judged(dataset, chunk, answers, memory, distances, workers)
        choice = template_choice(dataset, reconstructor.graph, fits, chunk.rows, answers, seed)
        parts.append(table.join(choice))
    return pd.concat(parts, ignore_index=True)


def judged(
    dataset: Dataset, views: Views, answers: list[Reconstruction], memory: Memory, distances: Distances, workers: int
) -> pd.DataFrame:
    """A row for the answer to each view: the columns of `Dataset.views`, category, predicted and its probability,
    chamfer_l1 (`distances`), floor, that of the model itself, and the signs of doubt."""
    rows, shapes = views.rows, views.rows.model_id.unique().tolist()
    floors = distances.of_all([surface_of(dataset, m) for m in shapes], shapes, workers)
    return rows.assign(
        category=rows.model_id.map(dataset.models.set_index("model_id").category),
        predicted=[r.category for r in answers],
        probability=[r.category_probabilities[r.category] for r in answers],
        chamfer_l1=distances.of_all([(r.V, r.F) for r in answers], rows.model_id, workers),
        floor=rows.model_id.map(dict(zip(shapes, floors, strict=True))),
    ).join(signs_of_doubt(answers, masks_of(views.images), memory, workers=workers))


def doubt_on_validation(dataset: Dataset, reconstructor: Reconstructor, memory: Memory, *, workers: int = -1) -> Doubt:
    """`Doubt.chosen` on the first N_VALIDATION views of each validation model. Raises ValueError if there are none."""
    views = Views(*views_of(dataset, "val", N_VALIDATION))
    if not len(views):
        raise ValueError(f"{dataset.path} has no validation models, on which the weights of doubt are chosen.")
    answers = reconstructor.predict(views.images)
    return Doubt.chosen(judged(dataset, views, answers, memory, Distances(dataset), workers))


def kept_doubt(
    run: str | Path, dataset: Dataset, reconstructor: Reconstructor, memory: Memory, *, workers: int = -1
) -> Doubt:
    """`run`/doubt.json, made by `doubt_on_validation`, anew if it is of another model or dataset."""
    key = doubt_key(reconstructor, dataset)
    keep(doubt_file(run), key, lambda: doubt_on_validation(dataset, reconstructor, memory, workers=workers).save(run))
    return Doubt.load(run, reconstructor, dataset)


def template_choice(
    dataset: Dataset, graph: TemplateGraph, fits: dict[str, Fits], views: pd.DataFrame, answers: list[Reconstruction],
    seed: int,
) -> pd.DataFrame:  # fmt: skip
    """How well templates were chosen, a row a view: template, the selected one; best, the one that fits the shape best;
    rank of the best among the network's guesses, from 0; and regret, by how much the selected one fits worse, by
    Chamfer-L1 after fitting the lattice, on 1,024 samples in units of the longest edge."""
    rows, slot = [], {t.model_id: i for i, t in enumerate(graph.templates)}
    for view, r in zip(views.itertuples(), answers, strict=True):
        fit, mesh, said = fits[view.synset], dataset.mesh(view.model_id), r.template.model_id
        row = fit.cost[fit.model_ids.tolist().index(view.model_id)]
        costs = dict(zip((t.model_id for t in graph.of(view.synset)), row, strict=True))
        best = min(costs, key=costs.get)
        if said not in costs:  # a template of another category
            source, target = prepare([r.template], seed)[0], Target.of(mesh.S[:N_SAMPLES])
            costs[said] = fit_cost(source, fit_ffd(source, target), target)
        rank = int((r.probabilities > r.probabilities[slot[best]]).sum())
        rows.append((said, best, rank, (costs[said] - costs[best]) / np.ptp(mesh.V, axis=0).max()))
    return pd.DataFrame(rows, columns=["template", "best", "rank", "regret"])


def template_summary(diagnosis: pd.DataFrame, graph: TemplateGraph) -> pd.DataFrame:
    """A row for each category and for `all`: templates; top_1, top_3, top_5, the share of views whose best template is
    among the network's first guesses; mean regret; never_used and never_best, how many templates no view selected, and
    how many are best for no shape."""
    names = dict(zip(diagnosis.synset, diagnosis.category, strict=True))
    groups = [(name, diagnosis[diagnosis.synset == s], graph.of(s)) for s, name in names.items()]
    rows = []
    for name, views, templates in [*groups, ("all", diagnosis, [t for _, _, of in groups for t in of])]:
        ids = {t.model_id for t in templates}
        hits = {f"top_{k}": (views["rank"] < k).mean() for k in TOP}
        never = {"never_used": len(ids - set(diagnosis.template)), "never_best": len(ids - set(diagnosis.best))}
        rows.append({"category": name, "templates": len(ids), **hits, "regret": views.regret.mean(), **never})
    return pd.DataFrame(rows)


def reasons(diagnosis: pd.DataFrame, swapped: pd.DataFrame) -> pd.Series:
    """Why the answers of `swap_parts` are wrong, by model_id: `wrong category`; else `beyond the representation`, if
    the right parts leave more than half of the distance above the floor; else the part that gains most when replaced by
    the right one: `wrong template`, `wrong deformation` or `wrong weights`."""
    first = diagnosis.groupby("model_id").first().loc[swapped.model_id]
    found = ("wrong " + swapped[["template", "deformation", "weights"]].idxmin(axis=1)).to_numpy()
    halfway = (swapped["as predicted"] + first.floor.to_numpy()) / 2
    found = np.where(swapped["all"] > halfway, "beyond the representation", found)
    found = np.where(first.predicted != first.category, "wrong category", found)
    return pd.Series(found, index=swapped.model_id.to_numpy(), name="reason")
