"""The ladder: methods from a random shape to the best that deformed templates can do, scored on held-out models.

Views are read, answered and scored a chunk at a time, so that memory does not grow with their number.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from i2m_lib.artefacts import Key, keep, sha256
from i2m_lib.dataset.dataset import Dataset, Views, chunks
from i2m_lib.files import save_parquet
from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import held_out, silhouette_iou
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.published.learning_ffd import LearningFFDMethod
from i2m_lib.published.paper import PaperMethod
from i2m_lib.reconstruction.memory import Memory
from i2m_lib.scoring.protocols import Protocol

from .method import Method, Network, by_model, from_image, located, opened
from .oracle_methods import fitted_template, nearest_shape, nearest_template, true_shape
from .recognition import Clusters, Shapes, classifier, mean_shape, random_shape, recognition

VERSION = 2  # Raise it when results change.
PUBLISHED = {"learning_ffd": LearningFFDMethod, "image2mesh_paper": PaperMethod}
# Our method and its rungs: the selected template, deformed, and combined with its neighbours.
RUNGS = {
    "template": lambda r: r.template.V,
    "template_ffd": lambda r: r.template.decode(r.d),
    "image2mesh": lambda r: r.V,
}


def ladder_methods(
    dataset: Dataset, run: str | Path, *, seed: int, published: bool = False, workers: int = -1
) -> list[Method]:
    """The methods of the ladder with a run's graph and networks; `published` ones only if the run has trained them."""
    network, shapes = Network(run), Shapes.of(dataset)
    memory, templates = Memory.kept(run, network.reconstructor, dataset), network.reconstructor.graph
    graph = Path(run) / "graph", templates.digest
    # In each category as many clusters as templates.
    sizes = {s: max(1, len(templates.of(s))) for s in sorted(set(shapes.synsets.tolist()))}
    clusters = Clusters.kept(run, dataset, shapes, sizes, seed=seed, workers=workers)

    told_category, told_shape = ("the category", dataset), ("the true shape", dataset)
    return [
        by_model("random_shape", *told_category, random_shape, seed=seed),
        by_model("mean_shape", *told_category, mean_shape, mean_shapes=clusters.mean_shapes),
        recognition("image_retrieval", dataset, network, memory.retrieve),
        recognition("cluster_classifier", dataset, network, classifier(memory, clusters)),
        *(rung(name, network) for name in RUNGS),
        *(kind.load(run) for kind in PUBLISHED.values() if published),
        by_model("oracle_nearest", *told_shape, nearest_shape, shapes=shapes),
        by_model("oracle_template", *told_shape, nearest_template, graph=graph, seed=seed),
        by_model("oracle_ffd", *told_shape, fitted_template, graph=graph, seed=seed),
        by_model("floor", *told_shape, true_shape),
    ]


def rung(name: str, network: Network) -> Method:
    """Our method up to one of RUNGS."""
    return from_image(name, network, lambda answers: [(RUNGS[name](r), r.F) for r in answers])


def kept_scores(run: str | Path, dataset: Dataset, methods: list[Method], *, workers: int = -1, **how) -> pd.DataFrame:
    """`run`/scores.parquet, made by `score_ladder` with `how`; made anew if it is of other parameters, methods,
    budgets, dataset, graph or model."""
    budgets = {m.name: asdict(m.budget) for m in methods}
    parameters = how | {"protocol": asdict(how["protocol"]), "methods": budgets}
    key = Key("scores", VERSION, parameters, inputs_of(dataset, run))
    make = partial(score_ladder, dataset, methods, workers=workers, **how)
    return kept_table(Path(run) / "scores.parquet", key, make)


def inputs_of(dataset: Dataset, run: str | Path) -> dict[str, str]:
    """Digests of what a network's answers to a dataset depend on."""
    graph, model = TemplateGraph.load(Path(run) / "graph"), Path(run) / "model.safetensors"
    return {"dataset": dataset.digest, "graph": graph.digest, "model": sha256(model)}


def kept_table(path: Path, key: Key, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The parquet table at `path`, made anew if it has another key."""
    keep(path, key, lambda: save_parquet(path, make()))
    return pd.read_parquet(path)


def score_ladder(
    dataset: Dataset, methods: list[Method], *, split: str, n_views: int, protocol: Protocol, seed: int,
    workers: int = -1,
) -> pd.DataFrame:  # fmt: skip
    """Scores methods, on surfaces and silhouettes, in the first `n_views` views of each model of a split.

    A method that sees images answers a chunk of views in this process. The others answer once for each model, in the
    worker processes that also score.

    Returns:
        method, view, metric, value, synset, category, model_id, near_duplicate (of a shape of training or validation),
        protocol, split. Surfaces of a method that sees no image have view -1; its silhouettes are compared in the same
        views as those of the other methods.
    """
    models, all_views, parts = dataset.select(split), dataset.views.groupby("model_id"), []
    views = dataset.first_views(models, n_views)
    known = models.set_index("model_id")
    views = views.assign(category=views.model_id.map(known.category))
    views["near_duplicate"] = views.model_id.map(known.near_duplicate_of.notna())
    seeing, blind = ([m for m in methods if m.told.startswith("the image") == sees] for sees in (True, False))
    with Parallel(n_jobs=workers) as parallel:
        for chunk in chunks(dataset, views):
            answers, tasks = {m.name: m.answer(chunk) for m in seeing}, []
            for model_id, rows in chunk.rows.groupby("model_id", sort=False):
                mine = {name: [surfaces[i] for i in rows.index] for name, surfaces in answers.items()}
                known = located(dataset), all_views.get_group(model_id), protocol, seed
                tasks.append(delayed(_score)(rows, mine, blind, *known))
            parts += parallel(tasks)
    return pd.concat(parts, ignore_index=True).assign(protocol=protocol.name, split=split)


def _score(rows: pd.DataFrame, answers: dict, blind: list[Method], data, views: pd.DataFrame, protocol, seed):
    """All methods on one model: `answers` {method: surfaces} to some `rows` of its `views`."""
    dataset, model_id, views = opened(*data), rows.model_id.iloc[0], views.sort_values("view")
    truth, one = dataset.mesh(model_id), Views(rows.iloc[:1], torch.empty(0))
    target = protocol.prepare(truth.V, truth.F, seed)
    cameras = [Camera.of(view) for view in views.itertuples()]
    masks = [dataset.image(i)[..., 3] > 127 for i in views["index"]]
    compare = once(lambda V, F: list(target.score(V, F, seed).items()))
    overlap = once(lambda V, F, view: silhouette_iou(V, F, cameras[view], masks[view]))
    whole = {m.name: m.answer(one)[0] for m in blind}
    scores = [(m, -1, *score) for m, surface in whole.items() for score in compare(*surface)]
    for i, view in enumerate(rows.view):
        seen = {name: surfaces[i] for name, surfaces in answers.items()}
        scores += [(m, view, *score) for m, surface in seen.items() for score in compare(*surface)]
        for m, surface in (whole | seen).items():
            scores.append((m, view, "silhouette_iou", overlap(*surface, view)))
            scores.append((m, view, "silhouette_iou_held_out", overlap(*surface, held_out(view, len(views)))))
    table = pd.DataFrame(scores, columns=["method", "view", "metric", "value"])
    return table.assign(**rows[["synset", "category", "model_id", "near_duplicate"]].iloc[0])


def once(function: Callable) -> Callable:
    """The function of arrays, called only once for the same contents: answers of methods often agree."""
    known = {}

    def remembered(*arrays):
        digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in arrays)).digest()
        if digest not in known:
            known[digest] = function(*arrays)
        return known[digest]

    return remembered
