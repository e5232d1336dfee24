"""The ladder: each method's answer for each test shape, from a random shape to the representation's ceiling, scored."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from i2m_lib.dataset.dataset import Dataset, load_images
from i2m_lib.geometry.cameras import Camera
from i2m_lib.geometry.silhouettes import held_out, silhouette_iou
from i2m_lib.geometry.surfaces import Surface
from i2m_lib.graph.oracles import oracle_fit, oracle_template, prepare
from i2m_lib.graph.template_graph import TemplateGraph
from i2m_lib.reconstruction.memory import Memory
from i2m_lib.reconstruction.reconstructor import Reconstruction, Reconstructor
from i2m_lib.scoring.protocols import PreparedTarget, Protocol

from .recognition import MOST_COMPARED, Clusters, Shapes, classifier


@dataclass(frozen=True)
class Setting:
    """What is evaluated: views (a row each) of the models of one split, and what the run answers to them; memory and
    clusters are what recognition knows."""

    models: pd.DataFrame
    views: pd.DataFrame
    answers: list[Reconstruction]
    predictions: pd.DataFrame
    codes: np.ndarray
    memory: Memory
    clusters: Clusters


def from_image(reconstruction: Reconstruction) -> dict[str, Surface]:
    """The rungs of our own method: the selected template, deformed, and combined with its neighbours."""
    template, d = reconstruction.template, reconstruction.d
    vertices = {"template": template.V, "template_ffd": template.decode(d), "image2mesh": reconstruction.V}
    return {method: (V, template.F) for method, V in vertices.items()}


@lru_cache(maxsize=1)
def context(dataset_path: Path, run: Path) -> tuple[Dataset, TemplateGraph, Shapes]:
    """Dataset, graph and training shapes, read once a process."""
    dataset = Dataset.open(dataset_path)
    train = dataset.select("train").model_id.tolist()
    return dataset, TemplateGraph.load(run / "graph"), Shapes.of(dataset, train)


@lru_cache(maxsize=64)
def sources_of(run: Path, dataset_path: Path, synset: str, seed: int) -> list:
    """A category's templates made ready for registration, once a process."""
    return prepare(context(dataset_path, run)[1].of(synset), seed)


def answer(dataset: Dataset, run: str | Path, *, split: str, n_views: int, seed: int, workers: int = -1) -> Setting:
    """Predictions of the run's network and of recognition for `n_views` views of each model of a split."""
    run = Path(run)
    models = dataset.select(split)
    views = dataset.first_views(models, n_views)
    images = load_images(dataset, views["index"].to_numpy())
    reconstructor = Reconstructor.load(run)
    answers, codes = reconstructor.predict(images), reconstructor.codes(images)
    memory = Memory.of(reconstructor, dataset)
    clusters, medoids = summarised_shapes(dataset, run, seed, workers)
    predictions = views.assign(
        retrieved=memory.retrieve(codes),
        cluster=classifier(memory, clusters)(codes),
        medoid=views.synset.map(medoids),
        template=[r.template.model_id for r in answers],
        predicted=[r.category for r in answers],
        probability=[r.category_probabilities[r.category] for r in answers],
        similarity=memory.similarity(codes),
        predicted_azimuth=[r.azimuth for r in answers],
        predicted_elevation=[r.elevation for r in answers],
    )
    return Setting(models, views, answers, predictions, codes.numpy(), memory, clusters)


def summarised_shapes(dataset: Dataset, run: Path, seed: int, workers: int) -> tuple[Clusters, dict[str, str]]:
    """Clusters of the training shapes, in each category as many as it has templates, and {synset: medoid}."""
    _, graph, shapes = context(dataset.path, run)
    rng = np.random.default_rng(seed)
    synsets = sorted(set(shapes.synsets))
    parts = []
    for synset in synsets:
        rows = np.flatnonzero(shapes.synsets == synset)
        parts.append(shapes.select(np.sort(rng.choice(rows, min(len(rows), MOST_COMPARED), replace=False))))
    for part, D in zip(parts, Parallel(n_jobs=workers)(delayed(_distances)(part) for part in parts), strict=True):
        vars(part)["distances"] = D  # where cached_property would have put it
    sizes = [max(1, len(graph.of(synset))) for synset in synsets]
    return Clusters.of(parts, sizes), {s: part.medoid() for s, part in zip(synsets, parts, strict=True)}


def _distances(shapes: Shapes) -> np.ndarray:
    return shapes.distances


def score_ladder(
    dataset: Dataset,
    run: str | Path,
    setting: Setting,
    *,
    protocol: Protocol,
    seed: int,
    others: Mapping[str, list[Surface]] | None = None,
    workers: int = -1,
) -> pd.DataFrame:
    """Scores every method of the ladder, on surfaces and on silhouettes.

    Args:
        others: further methods that see an image: name -> their answers, one for each of `setting.views`.

    Returns:
        method, protocol, split, synset, category, model_id, view, metric, value. Where a method sees no image, view is
        -1 in surface metrics; its silhouettes are judged in the same views as those of the others.
    """
    tasks = []
    for row in setting.models.itertuples():
        mine = np.flatnonzero(setting.views.model_id == row.model_id)
        more = {name: [surfaces[i] for i in mine] for name, surfaces in (others or {}).items()}
        tasks.append(
            delayed(_score)(
                row, dataset.path, Path(run), setting.predictions.iloc[mine], [setting.answers[i] for i in mine], more,
                protocol, seed,
            )
        )  # fmt: skip
    scores = pd.concat(Parallel(n_jobs=workers)(tasks), ignore_index=True)
    return scores.assign(protocol=protocol.name, split=setting.models.split.iloc[0])


def _score(row, dataset_path: Path, run: Path, predictions, answers, others, protocol: Protocol, seed: int):
    """All methods on one test shape."""
    dataset, _, _ = context(dataset_path, run)
    truth = dataset.mesh(row.model_id)
    whole = _whole(row, dataset_path, run, predictions.medoid.iloc[0], seed)
    by_view = {}
    for i, (p, answer) in enumerate(zip(predictions.itertuples(), answers, strict=True)):
        recognised = {"image_retrieval": p.retrieved, "cluster_classifier": p.cluster}
        seen = {name: surface_of(dataset, model_id) for name, model_id in recognised.items()}
        by_view[p.view] = seen | from_image(answer) | {name: surfaces[i] for name, surfaces in others.items()}
    judge = Judge(protocol.prepare(truth.V, truth.F, seed), seed, dataset, row.model_id)
    rows = [(m, -1, *score) for m, surface in whole.items() for score in judge.surface(*surface)]
    for view, rungs in by_view.items():
        rows += [(m, view, *score) for m, surface in rungs.items() for score in judge.surface(*surface)]
        rows += [(m, view, *s) for m, surface in (whole | rungs).items() for s in judge.silhouettes(*surface, view)]
    table = pd.DataFrame(rows, columns=["method", "view", "metric", "value"])
    return table.assign(synset=row.synset, category=row.category, model_id=row.model_id)


def _whole(row, dataset_path: Path, run: Path, medoid: str, seed: int) -> dict[str, Surface]:
    """Answers that depend on no view."""
    dataset, graph, shapes = context(dataset_path, run)
    truth = dataset.mesh(row.model_id)
    same = shapes.model_ids[shapes.synsets == row.synset]
    templates, sources = graph.of(row.synset), sources_of(run, dataset_path, row.synset, seed)
    best = templates[oracle_template(sources, truth.S)]
    i, d, a = oracle_fit(templates, sources, truth.S)
    return {
        "random_shape": surface_of(dataset, np.random.default_rng([seed, row.Index]).choice(same)),
        "mean_shape": surface_of(dataset, medoid),
        "oracle_nearest": surface_of(dataset, shapes.nearest(truth.S)),
        "oracle_template": (best.V, best.F),
        "oracle_ffd": (templates[i].decode(d, a), templates[i].F),
        "floor": (truth.V, truth.F),
    }


class Judge:
    """Scores answers for one test shape, each different one once: methods often agree."""

    def __init__(self, target: PreparedTarget, seed: int, dataset: Dataset, model_id: str):
        self.target, self.seed, self.known = target, seed, {}
        self.cameras, self.masks = [], []
        for view in dataset.views[dataset.views.model_id == model_id].sort_values("view").itertuples():
            self.cameras.append(Camera.of(view))
            self.masks.append(dataset.image(view.index)[..., 3] > 127)

    def surface(self, V: np.ndarray, F: np.ndarray) -> list[tuple[str, float]]:
        return self._once((V, F), lambda: list(self.target.score(V, F, self.seed).items()))

    def silhouettes(self, V: np.ndarray, F: np.ndarray, view: int) -> list[tuple[str, float]]:
        other = held_out(view, len(self.cameras))
        return [("silhouette_iou", self._iou(V, F, view)), ("silhouette_iou_held_out", self._iou(V, F, other))]

    def _iou(self, V: np.ndarray, F: np.ndarray, view: int) -> float:
        return self._once((V, F, view), lambda: silhouette_iou(V, F, self.cameras[view], self.masks[view]))

    def _once(self, key: tuple, score):
        digest = hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in key)).digest()
        if digest not in self.known:
            self.known[digest] = score()
        return self.known[digest]


def surface_of(dataset: Dataset, model_id: str) -> Surface:
    """V (n, 3), F (m, 3) of a model."""
    mesh = dataset.mesh(model_id)
    return mesh.V, mesh.F
