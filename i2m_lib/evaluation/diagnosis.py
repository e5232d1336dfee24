"""Where accuracy is lost: which template was chosen, from where the object was seen, and what ails the worst answers.

Errors are `limits.Distances`: Chamfer-L1 on a few thousand samples, in units of the shape's longest edge.
"""

import numpy as np
import pandas as pd

from i2m_lib.dataset.dataset import Dataset, load_images
from i2m_lib.geometry.nearest import Target
from i2m_lib.geometry.registration import fit_cost, fit_ffd
from i2m_lib.geometry.source_mesh import N_SAMPLES
from i2m_lib.graph.fits import Fits
from i2m_lib.graph.oracles import prepare
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.reconstruction.doubt import masks_of, signs_of_doubt
from i2m_lib.reconstruction.memory import Memory
from i2m_lib.reconstruction.reconstructor import Reconstruction, Reconstructor

from .ladder import surface_of
from .swaps import Distances

CHUNK = 512  # views whose answers are held at once
TOP = (1, 3, 5)


def diagnose(
    dataset: Dataset,
    reconstructor: Reconstructor,
    memory: Memory,
    fits: dict[str, Fits],
    *,
    split: str = "test",
    n_views: int,
    seed: int,
    workers: int = -1,
) -> pd.DataFrame:
    """The answers to the first `n_views` views of each fitted model of a split, a row each.

    Returns:
        The columns of `dataset.views` and: category, predicted and its probability; chamfer_l1, and floor, that of the
        shape itself, which is all noise of sampling; the signs of doubt
        (`doubt`); template, the selected one, best, the one that fits the shape best, rank, the place of the best among
        the network's guesses, from 0, and regret, by how much the selected one fits worse (`template_choice`).
    """
    models = dataset.select(split).set_index("model_id")
    views = dataset.first_views(models[models.synset.isin(list(fits))].reset_index(), n_views)
    parts, distances = [], Distances(dataset, seed)
    for first in range(0, len(views), CHUNK):
        part = views.iloc[first : first + CHUNK].reset_index(drop=True)
        images = load_images(dataset, part["index"].to_numpy())
        answers, shapes = reconstructor.predict(images), part.model_id.unique().tolist()
        floors = distances.of_all([surface_of(dataset, m) for m in shapes], shapes, workers)
        named = {
            "category": part.model_id.map(models.category),
            "predicted": [r.category for r in answers],
            "probability": [r.category_probabilities[r.category] for r in answers],
            "chamfer_l1": distances.of_all([(r.V, r.F) for r in answers], part.model_id.tolist(), workers),
            "floor": part.model_id.map(dict(zip(shapes, floors, strict=True))),
        }
        signs = signs_of_doubt(answers, masks_of(images), memory, workers=workers)
        choice = template_choice(dataset, reconstructor.graph, fits, part, answers, seed)
        parts.append(pd.concat([part.assign(**named), signs, choice], axis=1))
    return pd.concat(parts, ignore_index=True)


def template_choice(
    dataset: Dataset,
    graph: TemplateGraph,
    fits: dict[str, Fits],
    views: pd.DataFrame,
    answers: list[Reconstruction],
    seed: int,
) -> pd.DataFrame:
    """How well templates were chosen, a row for each view: template, best, rank and regret, as `diagnose` says.

    Regret is the difference of both templates' Chamfer-L1 after their lattices were fitted to the shape, on 1,024
    samples, in units of its longest edge; a template of another category is fitted as well.
    """
    costs, edges, rows = {}, {}, []
    for synset, fit in fits.items():
        ids = [t.model_id for t in graph.of(synset)]
        costs |= {
            (m, t): c for m, row in zip(fit.model_ids, fit.cost, strict=True) for t, c in zip(ids, row, strict=True)
        }
    for view, r in zip(views.itertuples(), answers, strict=True):
        shape, said = view.model_id, r.template.model_id
        own = [i for i, t in enumerate(graph.templates) if t.synset == view.synset]
        best = min(own, key=lambda i: costs[shape, graph.templates[i].model_id])
        if (shape, said) not in costs:
            source, target = prepare([r.template], seed)[0], Target.of(dataset.mesh(shape).S[:N_SAMPLES])
            costs[shape, said] = fit_cost(source, fit_ffd(source, target), target)
        if shape not in edges:
            edges[shape] = np.ptp(dataset.mesh(shape).V, axis=0).max()
        name = graph.templates[best].model_id
        rank = int((r.probabilities > r.probabilities[best]).sum())
        rows.append((said, name, rank, (costs[shape, said] - costs[shape, name]) / edges[shape]))
    return pd.DataFrame(rows, columns=["template", "best", "rank", "regret"])


def template_summary(diagnosis: pd.DataFrame, graph: TemplateGraph) -> pd.DataFrame:
    """A row for each category and for `all`: templates; top_1, top_3, top_5, the share of views whose best-fitting
    template is among the network's first guesses; regret, its mean; never_used and never_best, how many templates no
    view selected, and how many fit no shape best."""
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
    """Why each answer of `limits.limits` is as far off as it is, by model_id.

    `wrong category`; else `beyond the representation`, where all parts put right leave more than half of what the
    distance exceeds its floor by; else the part, put right, that gains most: `wrong template`, `wrong deformation` or
    `wrong weights`.
    """
    first = diagnosis.groupby("model_id").first().loc[swapped.model_id]
    parts = swapped[["template", "deformation", "weights"]]
    found = ("wrong " + parts.idxmin(axis=1)).to_numpy()
    halfway = (swapped["as predicted"] + first.floor.to_numpy()) / 2
    found = np.where(swapped["all"] > halfway, "beyond the representation", found)
    found = np.where(first.predicted != first.category, "wrong category", found)
    return pd.Series(found, index=swapped.model_id.to_numpy(), name="reason")
