"""What it takes to score many predictions under the headline protocol.

    python benchmarks/scoring.py [--quick] [--workers 2]

Each model of the embedded corpus is predicted by others of its category, drawn at random: every prediction has a ground
truth to prepare, as in a test set. Wall time, and the largest memory of any one process.
"""

import argparse
import time

import numpy as np
from joblib import Parallel, delayed
from templates_corpora import corpus, peak_memory

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.scoring.protocols import PROTOCOLS

N_SHAPENET = 10_266  # test models of ShapeNetCore.v2


def pairs(data: Dataset, n: int) -> list[tuple[str, str]]:
    """n pairs of models (predicted, true), two of one category each."""
    rng = np.random.default_rng(0)
    of = {synset: rows.model_id.to_numpy() for synset, rows in data.models.groupby("synset")}
    truths = data.models.sample(n, replace=n > len(data.models), random_state=0)
    return [(rng.choice(of[row.synset][of[row.synset] != row.model_id]), row.model_id) for row in truths.itertuples()]


def score(data: Dataset, predicted: str, true: str) -> tuple[float, float]:
    """Chamfer-L1 of one model against another, and the peak memory of this process so far, in GB."""
    mesh, truth = data.mesh(predicted), data.mesh(true)
    found = PROTOCOLS["canonical"].prepare(truth.V, truth.F, 0).score(mesh.V, mesh.F, 0)
    return found["chamfer_l1"], peak_memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="40 predictions instead of 1,000")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    data = corpus("embedded", max_models=12 if given.quick else None)
    todo = pairs(data, 40 if given.quick else 1000)
    start = time.perf_counter()
    chamfers, memory = zip(*Parallel(n_jobs=given.workers)(delayed(score)(data, *pair) for pair in todo), strict=True)
    seconds = time.perf_counter() - start
    print(f"mean Chamfer-L1 {np.mean(chamfers):.4f}; {1000 * seconds / len(todo):.0f} ms a prediction")
    print(
        f"{len(todo):,} predictions at {PROTOCOLS['canonical'].n_samples:,} samples on {given.workers} processes: "
        f"{seconds:.0f} s, {max(memory):.2f} GB each; ShapeNet's {N_SHAPENET:,} test models would take "
        f"{seconds / len(todo) * N_SHAPENET / 60:.0f} min"
    )


if __name__ == "__main__":
    main()
