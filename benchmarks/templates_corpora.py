"""Corpora that the benchmarks of the templates room measure on, built once into data/."""

import os
import resource

# One core means one core: set before numpy is imported.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from i2m_lib.dataset.build import build_dataset  # noqa: E402
from i2m_lib.dataset.dataset import Dataset  # noqa: E402
from i2m_lib.paths import project_root  # noqa: E402

CORPORA = {"shared": "../shared/corpus/ShapeNetCore.v2", "embedded": "data/corpus"}


def corpus(name: str, *, max_models: int | None = None, categories: list[str] | None = None) -> Dataset:
    """The dataset of a corpus, with 4,096 samples a shape and no views to speak of; the embedded one where the shared
    one is absent."""
    root = project_root()
    if not (root / CORPORA[name]).is_dir():
        print(f"{CORPORA[name]} is absent: the embedded corpus is measured instead.")
        name = "embedded"
    out = root / "data" / "-".join(["benchmark", name, str(max_models or "all"), *(categories or [])])
    options = {"n_views": 1, "image_size": 32, "n_surface": 4096, "seed": 0, "workers": 2, "progress": False}
    return build_dataset(root / CORPORA[name], out, categories=categories, max_models=max_models, **options)


def peak_memory() -> float:
    """Of this process and, if larger, of any one of its finished workers, in GB (Linux counts in kB)."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20
