"""What limits a trained network: its answers with one part after the other replaced by the right one.

Only for shapes with fits: 02_template_graph fits those of training and validation, `build.fit_split` any.
"""

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from i2m_lib.dataset.dataset import Dataset, views_of
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.surfaces import sample_surface
from i2m_lib.graph.fits import Fits
from i2m_lib.reconstruction.reconstructor import Reconstructor
from i2m_lib.reconstruction.search import used_weights
from i2m_lib.scoring.statistics import category_mean

N_SAMPLES = 4096


class Distances:
    """Chamfer-L1 to the models of a dataset, in units of their longest edge, on a few thousand samples: enough to
    compare answers on validation, not to publish."""

    def __init__(self, dataset: Dataset, seed: int = 0):
        self.dataset, self.seed, self.targets = dataset, seed, {}

    def __call__(self, V: np.ndarray, F: np.ndarray, model_id: str) -> float:
        if model_id not in self.targets:
            mesh = self.dataset.mesh(model_id)
            self.targets[model_id] = Target.of(mesh.S[:N_SAMPLES]), np.ptp(mesh.V, axis=0).max()
        target, edge = self.targets[model_id]
        points = sample_surface(V, F, len(target.points), np.random.default_rng(self.seed))[0]
        return chamfer(points, target) / edge

    def of_all(self, surfaces: list, model_ids: list[str], workers: int = -1) -> np.ndarray:
        """(n,) the distance of each surface (V, F) to the model of the same place, on all cores."""
        rows = pd.Series(np.arange(len(model_ids))).groupby(np.asarray(model_ids), sort=False).indices
        tasks = (delayed(_distances)(self.dataset, self.seed, m, [surfaces[i] for i in at]) for m, at in rows.items())
        values = np.empty(len(surfaces))
        for at, found in zip(rows.values(), Parallel(n_jobs=workers)(tasks), strict=True):
            values[at] = found
        return values

    def mean(self, answers: list, views: pd.DataFrame) -> float:
        """Category mean over answers with V and F, one for each of the views."""
        values = [self(r.V, r.F, m) for r, m in zip(answers, views.model_id, strict=True)]
        return category_mean(values, views.synset)


def _distances(dataset: Dataset, seed: int, model_id: str, surfaces: list) -> list[float]:
    distances = Distances(dataset, seed)
    return [distances(V, F, model_id) for V, F in surfaces]


def limits(
    dataset: Dataset,
    reconstructor: Reconstructor,
    fits: dict[str, Fits],
    *,
    split: str = "val",
    n_views: int = 1,
    workers: int = 1,
) -> pd.DataFrame:
    """Chamfer-L1 of answers `as predicted`, and with the right `template` (its deformation as predicted), the right
    `deformation` or the right `weights` of the predicted template, or `all` of them: columns synset, model_id, and one
    for each. What is right for a template of another category is not known; such answers stay as predicted.
    """
    views, images = views_of(dataset, split, n_views)
    swapped = [_swap(reconstructor, fits[v.synset], i, v) for v, i in zip(views.itertuples(), images, strict=True)]
    names = list(swapped[0])
    surfaces, model_ids = [answers[n] for answers in swapped for n in names], views.model_id.repeat(len(names)).tolist()
    values = Distances(dataset).of_all(surfaces, model_ids, workers).reshape(len(views), len(names))
    return views[["synset", "model_id"]].join(pd.DataFrame(values, columns=names))


def _swap(reconstructor: Reconstructor, fits: Fits, image: torch.Tensor, view) -> dict:
    """Surfaces (V, F) of one view's answers."""
    templates = reconstructor.graph.templates
    out = reconstructor.outputs(image[None])
    slots = [i for i, t in enumerate(templates) if t.synset == view.synset]
    row = fits.model_ids.tolist().index(view.model_id)
    best = slots[int(fits.cost[row].argmin())]
    said = int(out["logits"][0].argmax())

    def predicted(t: int) -> tuple[np.ndarray, np.ndarray]:
        d = reconstructor.model.lattice(out["y"][0, [t]], torch.tensor([t]))[0]
        return d.double().numpy(), used_weights(templates[t], out["weights"][0, t].double().numpy())

    def right(t: int) -> tuple[np.ndarray, np.ndarray]:
        if t not in slots:
            return predicted(t)
        k = slots.index(t)
        return fits.d[row, k].astype(float), fits.weights[row, k, : len(templates[t].neighbours)].astype(float)

    (d, a), (right_d, right_a) = predicted(said), right(said)
    answers = {
        "as predicted": (said, d, a),
        "template": (best, *predicted(best)),
        "deformation": (said, right_d, a),
        "weights": (said, d, right_a),
        "all": (best, *right(best)),
    }
    return {name: (templates[t].decode(d, a), templates[t].F) for name, (t, d, a) in answers.items()}
