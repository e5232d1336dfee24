"""What templates can represent: the best answers there are, found with the shape itself in hand."""

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from i2m_lib.dataset.meshes import sample_surface
from i2m_lib.dataset.views import Dataset, Mesh

from .compact import fit_weights
from .graph import Template, TemplateGraph
from .registration import N_SAMPLES, Source, Target, chamfer, fit_cost, fit_ffd

N_LADDER = 16384


def prepare(templates: list[Template], seed: int) -> list[Source]:
    """Templates made ready for registration."""
    return [Source.of(t.V, t.F, rng=np.random.default_rng(seed)) for t in templates]


def oracle_template(sources: list[Source], S: np.ndarray) -> int:
    """Index of the template that is nearest, undeformed, to samples S (k, 3)."""
    target = Target.of(S[:N_SAMPLES])
    return int(np.argmin([chamfer(source.S, target) for source in sources]))


def oracle_fit(templates: list[Template], sources: list[Source], S: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Index of a template, lattice displacements d (32, 3) and weights a (E,) that come nearest to samples S (k, 3):
    what a perfect network would answer."""
    target = Target.of(S[:N_SAMPLES])
    fits = [fit_ffd(source, target) for source in sources]
    i = int(np.argmin([fit_cost(s, d, target) for s, d in zip(sources, fits, strict=True)]))
    return i, fits[i], fit_weights(templates[i], sources[i], fits[i], target)


def representation_ladder(
    dataset: Dataset, graph: TemplateGraph, *, split: str, seed: int, workers: int = -1
) -> pd.DataFrame:
    """Chamfer-L1, in canonical units at 16,384 samples, of the best that templates can do for each shape of a split.

    Methods: oracle_template, the nearest template; oracle_lattice, the template whose lattice fits best, fitted;
    oracle_ffd, that and its neighbours combined; floor, two samplings of the shape itself.

    Returns:
        The columns of scores.parquet, with protocol "representation".
    """
    models = dataset.select(split)
    models = models[models.synset.isin(graph.synsets)]
    rows = Parallel(n_jobs=workers)(
        delayed(_ladder)(graph.of(m.synset), dataset.mesh(m.model_id), seed) for m in models.itertuples()
    )
    table = models[["synset", "category", "model_id"]].reset_index(drop=True).join(pd.DataFrame(rows))
    tidy = table.melt(["synset", "category", "model_id"], var_name="method")
    return tidy.assign(protocol="representation", split=split, view=-1, metric="chamfer_l1")


def _ladder(templates: list[Template], mesh: Mesh, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    target = Target.of(sample_surface(mesh.V, mesh.F, N_LADDER, rng)[0])
    sources = prepare(templates, seed)
    nearest = templates[oracle_template(sources, mesh.S)]
    i, d, a = oracle_fit(templates, sources, mesh.S)
    best = templates[i]
    surfaces = {
        "oracle_template": (nearest.V, nearest.F),
        "oracle_lattice": (best.decode(d), best.F),
        "oracle_ffd": (best.decode(d, a), best.F),
        "floor": (mesh.V, mesh.F),
    }
    return {name: chamfer(sample_surface(V, F, N_LADDER, rng)[0], target) for name, (V, F) in surfaces.items()}
