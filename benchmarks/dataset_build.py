"""What a dataset costs: wall time, memory and disk of a whole build, and whether a model costs the
same in a large corpus as in a small one.

    python benchmarks/dataset_build.py [--quick] [--corpus FOLDER] [--size 224] [--workers 2]

Builds 100 models and then all of them, 24 views each, and plans the models of ShapeNetCore from some
of them that are made like ShapeNet's.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import psutil
from rendering import N_VIEWS, default_corpus

from i2m_lib.dataset import build
from i2m_lib.dataset.dataset import Dataset
from i2m_lib.dataset.plan import SHAPENET_MODELS, shapenet_cost
from i2m_lib.dataset.shapenet import Corpus, ModelSource

TOLERANCE = 0.2


class Memory(threading.Thread):
    """Watches the resident memory of this process and its children: `peaks` in bytes, one a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks, self._done = [], threading.Event()

    def run(self) -> None:
        this = psutil.Process()
        while not self._done.wait(1.0):
            total = 0
            for process in (this, *this.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it has ended
                    continue
            self.peaks.append(total)

    def stop(self) -> list[int]:
        self._done.set()
        self.join()
        return self.peaks or [psutil.Process().memory_info().rss]


def spread(models: list[ModelSource], n: int) -> list[ModelSource]:
    """n of them, evenly, so that few models are like all of them."""
    return [models[i * len(models) // n] for i in range(min(n, len(models)))]


def measure(corpus: Path, out: Path, n: int | None, size: int, workers: int) -> dict[str, float]:
    """Builds n models (None for all) into `out`: models, seconds, peak and rising memory, bytes on disk."""
    choose = Corpus.choose
    Corpus.choose = lambda self, *_, **__: spread(self.models, n) if n else self.models
    memory, start = Memory(), time.perf_counter()
    memory.start()
    try:
        dataset = build.build_dataset(
            corpus, out, n_views=N_VIEWS, image_size=size, n_surface=10_000, seed=0, workers=workers, progress=False
        )
    finally:
        Corpus.choose = choose
    seconds, peaks = time.perf_counter() - start, memory.stop()
    half = len(peaks) // 2
    return {
        "models": len(dataset.models),
        "seconds": seconds,
        "peak": max(peaks),
        "rise": max(peaks[half:]) - max(peaks[:half] or peaks),
        "disk": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 and 32 models")
    parser.add_argument("--corpus", type=Path, default=default_corpus())
    parser.add_argument("--size", type=int, default=224, help="pixels along each side")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments.corpus, Path(folder) / "warm", 4, arguments.size, arguments.workers)
        for n in (8, 32) if arguments.quick else (100, None):
            out = Path(folder) / str(n)
            results.append(measure(arguments.corpus, out, n, arguments.size, arguments.workers))
            print(
                "{models} models: {seconds:.1f} s, {0:.3f} s a model, peak {1:.2f} GB in all processes "
                "({2:+.2f} GB in the second half), {3:.0f} MB on disk".format(
                    results[-1]["seconds"] / results[-1]["models"],
                    *(results[-1][key] / 1e9 for key in ("peak", "rise")),
                    results[-1]["disk"] / 1e6,
                    **results[-1],
                ),
                flush=True,
            )
        plan = shapenet_cost(Dataset.open(out))
    few, many = results
    each = [result["seconds"] / result["models"] for result in results]
    change = each[1] / each[0] - 1
    print(
        f"A model costs {change:+.0%} among {many['models']} as among {few['models']} (target: within {TOLERANCE:.0%})"
    )
    hours = SHAPENET_MODELS * (plan.mesh_seconds + plan.view_seconds).mean() / arguments.workers / 3600
    memory, disk = many["peak"] / 1e9, SHAPENET_MODELS * plan.bytes.mean() / 1e9
    print(
        f"The plan for {SHAPENET_MODELS:,} models, {N_VIEWS} views of {arguments.size} px: {hours:.1f} h with "
        f"{arguments.workers} workers, {memory:.1f} GB of memory, {disk:.0f} GB of disk"
    )


if __name__ == "__main__":
    main()
