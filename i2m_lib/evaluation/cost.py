"""What an answer costs: seconds, memory and training of methods that see an image, each in a process of its own."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from i2m_lib.artefacts import device
from i2m_lib.dataset.dataset import Dataset, Views, load_images
from i2m_lib.learning.device import default_device
from i2m_lib.reconstruction.memory import Memory

from .ladder import PUBLISHED, RUNGS, rung
from .method import Method, Network, methods_table
from .recognition import Clusters, classifier, recognition

STATUS = Path("/proc/self/status")


def load_method(dataset: Dataset, run: Path, name: str, **search: int) -> Method:
    """A method of the ladder that sees an image, with what `ladder_methods` keeps in `run`; `search` as in
    `Reconstructor.load`."""
    if name in PUBLISHED:
        return PUBLISHED[name].load(run)
    network = Network(run, str(default_device()), **search)
    if name in RUNGS:
        return rung(name, network)
    memory = Memory.load(run, network.reconstructor, dataset)
    choose = memory.retrieve if name == "image_retrieval" else classifier(memory, Clusters.load(run))
    return recognition(name, dataset, network, choose)


# By the method's name in the table: functions (dataset, run) -> method.
LOADERS = {
    "image2mesh": partial(load_method, name="image2mesh"),
    "image2mesh_refined": partial(load_method, name="image2mesh", top_k=3, refinement=20),
    **{name: partial(load_method, name=name) for name in ("image_retrieval", "cluster_classifier", *PUBLISHED)},
}


def measure(
    dataset: Dataset, run: str | Path, loaders: Mapping[str, Callable], *, n_images: int = 8, workers: int = 1
) -> pd.DataFrame:
    """Lets each method answer `n_images` views one by one, `workers` methods at once, on one core each without a GPU.
    A row a method: seconds (an image), loading (seconds before the first), peak_mb (highest resident memory, NaN where
    the system does not tell), gpu_mb (0 without one), device, told, and training (seconds), views and steps."""
    views = dataset.true_views.iloc[np.linspace(0, len(dataset.true_views) - 1, n_images).astype(int)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        jobs = [pool.submit(_measure, name, load, dataset.path, Path(run), views) for name, load in loaders.items()]
        return pd.concat([job.result() for job in jobs], ignore_index=True)


def _measure(
    name: str, load: Callable[[Dataset, Path], Method], path: Path, run: Path, views: pd.DataFrame
) -> pd.DataFrame:
    torch.set_num_threads(1)
    dataset, start = Dataset.open(path), time.perf_counter()
    method = load(dataset, run)
    loading = time.perf_counter() - start
    rows = [views.iloc[[i]].reset_index(drop=True) for i in range(len(views))]
    shown = [Views(row, load_images(dataset, row["index"].to_numpy())) for row in rows]
    method.answer(replace(shown[0]))  # the first answer includes what is computed only once
    start = time.perf_counter()
    for one in shown:
        method.answer(one)
    seconds = (time.perf_counter() - start) / len(shown)
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    measured = {"seconds": seconds, "loading": loading, "peak_mb": peak_mb(), "gpu_mb": gpu, "device": device()}
    budget = methods_table([method]).drop(columns=["method", "device"]).rename(columns={"seconds": "training"})
    return pd.DataFrame([{"method": name, **measured}]).join(budget)


def peak_mb() -> float:
    """The highest resident memory of this process so far, in MiB; NaN where there is no /proc."""
    if not STATUS.is_file():
        return np.nan
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
