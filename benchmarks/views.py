"""How fast packed views reach the training loop: random batches, read as `Batches` does by one thread, from a warm
page cache.

    python benchmarks/views.py [--quick] [--size 128]

A view of 128 pixels has 64 KiB, so 20,000 a second are 1.3 GB/s. Each byte is copied once, from the page cache into new
memory. The cost is less the copy than the new pages, 16 a view, which the kernel clears and maps: the gathering alone,
into memory that is there already, is printed beside it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from i2m_lib.dataset.dataset import STRETCH, Dataset
from i2m_lib.learning.batches import ViewDataset

TARGET = 20_000  # views a second
PER_MODEL = 16


def make_dataset(path: Path, n_views: int, size: int) -> Dataset:
    """Random pixels in a dataset's form."""
    shape = (n_views, size, size, 4)
    views = np.lib.format.open_memmap(path / "views.npy", mode="w+", dtype=np.uint8, shape=shape)
    noise = np.random.default_rng(0).integers(0, 256, shape[1:], np.uint8)
    for i in range(n_views):
        views[i] = noise + np.uint8(i % 251)
    views.flush()
    models = [f"m{i}" for i in range(n_views // PER_MODEL)]
    manifest = pd.DataFrame({"synset": "03001627", "model_id": models, "split": "train", "status": "ok"})
    rows = pd.DataFrame({"model_id": np.repeat(models, PER_MODEL), "azimuth": 0.0, "elevation": 0.0})
    rows[STRETCH] = 1.0
    return Dataset(path, manifest, rows.assign(index=range(n_views)))


def gathered_per_second(views: ViewDataset) -> float:
    """Views a second that one core gathers at random into the same memory again and again."""
    n = len(views) // 128 * 128
    images = views.dataset.images
    out = np.empty((128, *images.shape[1:]), np.uint8)
    rates = []
    for _ in range(2):  # the first maps the pages
        start = time.process_time()
        for batch in np.random.default_rng(1).permutation(n).reshape(-1, 128):
            np.take(images, batch, axis=0, out=out, mode="clip")
        rates.append(n / (time.process_time() - start))
    return rates[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="0.25 GB of views instead of 2 GB")
    parser.add_argument("--size", type=int, default=128, help="pixels along each side")
    parser.add_argument("--batch", type=int, default=256)
    arguments = parser.parse_args()
    n_views = (4096 if arguments.quick else 32768) * 128**2 // arguments.size**2 // 128 * 128
    with tempfile.TemporaryDirectory() as folder:
        views = ViewDataset(make_dataset(Path(folder), n_views, arguments.size), "train")
        rates, cpu = [], time.process_time()
        for epoch in range(4):
            start, order = time.perf_counter(), torch.randperm(len(views)).split(arguments.batch)
            seen = sum(len(views.read(rows)["image"]) for rows in order)
            if epoch:  # the first warms the cache
                rates.append(seen / (time.perf_counter() - start))
        cpu = 1e6 * (time.process_time() - cpu) / (4 * n_views)
        alone = gathered_per_second(views)
    gigabytes = np.array([max(rates), alone]) * 4 * arguments.size**2 / 1e9
    print(f"epochs of {n_views} views: {', '.join(f'{rate:,.0f}' for rate in rates)} views/s")
    print(f"{cpu:.0f} microseconds of CPU a view")
    print(f"one core gathers {alone:,.0f} views/s ({gigabytes[1]:.1f} GB/s) into memory that is there already")
    print(f"{max(rates):,.0f} RGBA views/s of {arguments.size} px ({gigabytes[0]:.1f} GB/s); target {TARGET:,}")


if __name__ == "__main__":
    main()
