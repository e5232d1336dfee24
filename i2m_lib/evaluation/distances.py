"""A quick distance between answers and models: enough to compare answers, too coarse to publish."""

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.geometry.nearest import Target, chamfer
from i2m_lib.geometry.surfaces import Surface, sample_surface
from i2m_lib.scoring.statistics import category_mean

from .method import located, opened

N_SAMPLES = 4096


class Distances:
    """Chamfer-L1 on N_SAMPLES samples to models of a dataset, in units of their longest edges."""

    def __init__(self, dataset: Dataset, seed: int = 0):
        self.data, self.seed = located(dataset), seed

    def of_all(self, surfaces: list[Surface], model_ids: list[str], workers: int = -1) -> np.ndarray:
        """The distance (n,) of each surface V, F to the model of the same place."""
        places = pd.Series(range(len(surfaces))).groupby(np.asarray(model_ids)).indices
        tasks = (delayed(_of_model)(self.data, m, [surfaces[i] for i in at], self.seed) for m, at in places.items())
        values = np.empty(len(surfaces))
        for at, found in zip(places.values(), Parallel(n_jobs=workers)(tasks), strict=True):
            values[at] = found
        return values

    def mean(self, surfaces: list[Surface], views: pd.DataFrame) -> float:
        """The category mean over surfaces, one for each of the views."""
        return category_mean(self.of_all(surfaces, views.model_id, 1), views.synset)


def _of_model(data: tuple, model_id: str, surfaces: list[Surface], seed: int) -> list[float]:
    mesh = opened(*data).mesh(model_id)
    target, edge = Target.of(mesh.S[:N_SAMPLES]), np.ptp(mesh.V, axis=0).max()
    rngs = (np.random.default_rng(seed) for _ in surfaces)
    samples = (sample_surface(V, F, len(target.points), rng)[0] for (V, F), rng in zip(surfaces, rngs, strict=True))
    return [chamfer(points, target) / edge for points in samples]
