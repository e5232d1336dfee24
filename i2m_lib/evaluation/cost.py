"""What an answer costs: seconds, memory and training, for every method that sees an image.

Each method is measured in a process of its own, which loads the run, answers image after image, and does nothing else.
"""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from i2m_lib.dataset.dataset import Dataset, load_images
from i2m_lib.learning.device import default_device
from i2m_lib.published.published import PUBLISHED, TRAINED_IN
from i2m_lib.reconstruction.memory import Memory
from i2m_lib.reconstruction.reconstructor import Reconstructor
from i2m_lib.study.provenance import device, read_provenance

from .recognition import Clusters, classifier

# How `Reconstructor.load` is called; recognition needs the network as well, for its codes.
SETTINGS = {
    "image2mesh": {},
    "image2mesh_refined": {"top_k": 3, "refinement": 20},
    "image_retrieval": {},
    "cluster_classifier": {},
}
STATUS = Path("/proc/self/status")


def measure(
    dataset: Dataset,
    run: str | Path,
    memory: str | Path,
    clusters: Clusters,
    *,
    n_images: int = 8,
    published: bool = False,
    workers: int = 1,
) -> pd.DataFrame:
    """Answers `n_images` views one after the other by each method, `workers` methods at a time, each on one core where
    there is no GPU.

    Args:
        memory: the file that `Memory.save` wrote.
        published: measure the published methods too; the run must have trained them.

    Returns:
        A row a method: seconds (an image), loading (seconds before the first), peak_mb (resident memory at its highest,
        NaN where the system does not tell), gpu_mb (0 without one), the seconds of `preparation`, and device. The
        published methods run on the CPU.
    """
    views = dataset.true_views
    views = views.iloc[np.linspace(0, len(views) - 1, n_images).astype(int)]
    methods = [*SETTINGS, *(PUBLISHED if published else ())]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        jobs = [pool.submit(_measure, m, dataset.path, Path(run), Path(memory), clusters, views) for m in methods]
        return pd.DataFrame([job.result() for job in jobs]).assign(device=device())


def _measure(method: str, dataset_path: Path, run: Path, memory: Path, clusters: Clusters, views: pd.DataFrame) -> dict:
    torch.set_num_threads(1)
    dataset, start = Dataset.open(dataset_path), time.perf_counter()
    answer = answerer(method, run, memory, clusters)
    loading = time.perf_counter() - start
    images, synsets = load_images(dataset, views["index"].to_numpy()), views.synset.tolist()
    answer(images[:1], synsets[:1])  # the first one pays for what is made once
    start = time.perf_counter()
    for image, synset in zip(images, synsets, strict=True):
        answer(image[None], [synset])
    seconds = (time.perf_counter() - start) / len(images)
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    measured = {"method": method, "seconds": seconds, "loading": loading, "peak_mb": peak_mb(), "gpu_mb": gpu}
    return measured | preparation(run, method)


def answerer(method: str, run: Path, memory: Path, clusters: Clusters):
    """What answers images (b, 4, h, w) uint8, of categories that the published methods are told, by a method."""
    if method in PUBLISHED:
        network = PUBLISHED[method].load(run)
        return lambda images, synsets: [r.V for r in network.predict(images, synsets)]
    reconstructor = Reconstructor.load(run, str(default_device()), **SETTINGS[method])
    if method.startswith("image2mesh"):
        return lambda images, _: [r.V for r in reconstructor.predict(images)]
    known = Memory.load(memory)
    if method == "image_retrieval":
        return lambda images, _: known.retrieve(reconstructor.codes(images))
    classify = classifier(known, clusters)
    return lambda images, _: classify(reconstructor.codes(images))


def peak_mb() -> float:
    """The highest resident memory of this process so far, in MiB; NaN where there is no /proc."""
    if not STATUS.is_file():
        return np.nan
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def preparation(run: str | Path, method: str) -> dict[str, float]:
    """Seconds that the run spent before the method could answer: `graph` and `training`; NaN where it recorded none.
    Recognition uses no template, but the codes of a network that learnt from them."""
    run = Path(run)
    seconds = read_provenance(run)["notebooks"].get("02_template_graph", {}).get("seconds", np.nan)
    histories = sorted((run / TRAINED_IN.get(method, "training")).rglob("history.parquet"))
    training = sum(pd.read_parquet(path).seconds.sum() for path in histories) if histories else np.nan
    return {"graph": seconds, "training": training}
