"""The ladder: each method's answer for a test shape, from a random shape to the representation's ceiling.

Methods that see an image answer once a view and predict the category. `random_shape` and `mean_shape` are told it,
and the oracles know the test shape itself.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from i2m_lib.dataset.views import Dataset
from i2m_lib.reconstruct import Reconstruction, Reconstructor
from i2m_lib.templates.graph import TemplateGraph
from i2m_lib.templates.registration import Target, chamfer
from i2m_lib.templates.represent import oracle_fit, oracle_template, prepare

from .protocols import Protocol

Surface = tuple[np.ndarray, np.ndarray]  # V (n, 3), F (m, 3)
# Nearest-shape searches compare few samples with all shapes, then many samples with the few best.
FEW_SAMPLES, N_BEST = 512, 5


@dataclass(frozen=True)
class Shapes:
    """Training shapes that recognition may answer with: model_ids (n,), synsets (n,), samples S (n, k, 3)."""

    model_ids: np.ndarray
    synsets: np.ndarray
    S: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, model_ids: list[str]) -> "Shapes":
        synsets = dataset.models.set_index("model_id").synset.loc[model_ids].to_numpy()
        return cls(np.array(model_ids), synsets, np.stack([dataset.mesh(m).S for m in model_ids]))

    def nearest(self, S: np.ndarray) -> str:
        """The shape with the lowest Chamfer-L1 to samples S (k, 3)."""
        few, all_of = Target.of(S[:FEW_SAMPLES]), Target.of(S)
        best = np.argsort([chamfer(x[:FEW_SAMPLES], few) for x in self.S])[:N_BEST]
        return self.model_ids[min(best, key=lambda i: chamfer(self.S[i], all_of))]

    def medoid(self) -> str:
        """The shape with the lowest mean Chamfer-L1 to all others, on few samples."""
        few = [Target.of(x[:FEW_SAMPLES]) for x in self.S]
        n = len(few)
        distances = np.zeros((n, n))
        for i in range(n):
            for j in range(i):
                distances[i, j] = distances[j, i] = chamfer(few[i].points, few[j])
        return self.model_ids[distances.sum(1).argmin()]


def retrieve(reconstructor: Reconstructor, dataset: Dataset, images: torch.Tensor) -> list[str]:
    """For each image (b, 4, h, w) the training model that has the view with the nearest code."""
    train = dataset.views[dataset.views.model_id.isin(dataset.select("train").model_id)]
    codes = torch.cat(
        [
            reconstructor.codes(load_images(dataset, rows))
            for rows in np.array_split(train["index"].to_numpy(), len(train) // 1024 + 1)
        ]
    )
    nearest = (reconstructor.codes(images) @ codes.T).argmax(1)
    return train.model_id.to_numpy()[nearest.numpy()].tolist()


def load_images(dataset: Dataset, index: np.ndarray) -> torch.Tensor:
    """Views by their index: (b, 4, h, w) uint8."""
    return torch.from_numpy(np.asarray(dataset.images[index])).permute(0, 3, 1, 2)


def from_image(reconstruction: Reconstruction) -> dict[str, Surface]:
    """The rungs of our own method: the selected template, deformed, and combined with its neighbours."""
    template, d = reconstruction.template, reconstruction.d
    vertices = {
        "template": template.V,
        "template_ffd": template.decode(d),
        "image2mesh": reconstruction.V,
    }
    return {method: (V, template.F) for method, V in vertices.items()}


@lru_cache(maxsize=1)
def _context(dataset_path: Path, run: Path) -> tuple[Dataset, TemplateGraph, Shapes]:
    """Read once a process."""
    dataset = Dataset.open(dataset_path)
    return (
        dataset,
        TemplateGraph.load(run / "graph"),
        Shapes.of(dataset, dataset.select("train").model_id.tolist()),
    )


def evaluate(
    dataset: Dataset,
    run: str | Path,
    *,
    protocol: Protocol,
    split: str,
    n_views: int,
    seed: int,
    workers: int = -1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores every method of the ladder on one split, `n_views` views a shape.

    Returns:
        scores (method, protocol, split, synset, category, model_id, view, metric, value; view is -1 where a method
        sees none), and predictions, a row a view: what was recognised and which model retrieved.
    """
    run = Path(run)
    models = dataset.select(split)
    views = dataset.views[dataset.views.model_id.isin(models.model_id) & (dataset.views.view < n_views)]
    images = load_images(dataset, views["index"].to_numpy())
    reconstructor = Reconstructor.load(run)
    answers = reconstructor.predict(images)
    retrieved = retrieve(reconstructor, dataset, images)
    predictions = views.assign(
        retrieved=retrieved,
        template=[r.template.model_id for r in answers],
        predicted=[r.category for r in answers],
        probability=[r.category_probabilities[r.category] for r in answers],
        predicted_azimuth=[r.azimuth for r in answers],
        predicted_elevation=[r.elevation for r in answers],
    )
    _, _, shapes = _context(dataset.path, run)
    medoids = {
        s: Shapes(*(x[shapes.synsets == s] for x in vars(shapes).values())).medoid() for s in np.unique(shapes.synsets)
    }
    tasks = []
    for row in models.itertuples():
        mine = np.flatnonzero(views.model_id == row.model_id)
        by_view = {int(views.view.iloc[i]): (answers[i], retrieved[i]) for i in mine}
        tasks.append(delayed(_score)(row, dataset.path, run, by_view, medoids[row.synset], protocol, seed))
    scores = pd.concat(Parallel(n_jobs=workers)(tasks), ignore_index=True)
    return scores.assign(protocol=protocol.name, split=split), predictions


def _score(row, dataset_path, run, by_view, medoid: str, protocol: Protocol, seed: int) -> pd.DataFrame:
    """All methods on one test shape."""
    dataset, graph, shapes = _context(dataset_path, run)
    truth = dataset.mesh(row.model_id)
    rng = np.random.default_rng([seed, row.Index])
    same = shapes.model_ids[shapes.synsets == row.synset]
    whole = {
        "random_shape": _surface(dataset, rng.choice(same)),
        "mean_shape": _surface(dataset, medoid),
        "oracle_nearest": _surface(dataset, shapes.nearest(truth.S)),
    }
    templates = graph.of(row.synset)
    sources = prepare(templates, seed)
    best = templates[oracle_template(sources, truth.S)]
    i, d, a = oracle_fit(templates, sources, truth.S)
    whole["oracle_template"] = best.V, best.F
    whole["oracle_ffd"] = templates[i].decode(d, a), templates[i].F

    target = protocol.prepare(truth.V, truth.F, seed)
    results = {(method, -1): target.score(*surface, seed) for method, surface in whole.items()}
    results["floor", -1] = target.floor(seed)
    for view, (answer, retrieved) in by_view.items():
        rungs = from_image(answer) | {"image_retrieval": _surface(dataset, retrieved)}
        results |= {(method, view): target.score(*surface, seed) for method, surface in rungs.items()}
    rows = [
        (method, view, metric, value) for (method, view), scores in results.items() for metric, value in scores.items()
    ]
    table = pd.DataFrame(rows, columns=["method", "view", "metric", "value"])
    return table.assign(synset=row.synset, category=row.category, model_id=row.model_id)


def _surface(dataset: Dataset, model_id: str) -> Surface:
    mesh = dataset.mesh(model_id)
    return mesh.V, mesh.F
