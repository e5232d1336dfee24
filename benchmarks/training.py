"""Whether training waits for its data: the loop with views that are read, cropped and augmented, against the same
loop fed with one batch that lies ready on the device.

    python benchmarks/training.py [--quick] [--image-size 112] [--size 64] [--batch 32]

Both loops take turns, so that whatever else the machine does slows both. Views are random pixels and targets random
numbers: the work is the same.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from i2m_lib.artefacts import Key
from i2m_lib.dataset.dataset import STRETCH, Dataset
from i2m_lib.learning.batches import Batches, ViewDataset
from i2m_lib.learning.device import autocast, default_device, has_bfloat16
from i2m_lib.learning.losses import image2mesh_loss
from i2m_lib.learning.networks import Image2Mesh
from i2m_lib.learning.settings import Settings
from i2m_lib.learning.targets import Targets, models_of
from i2m_lib.learning.train import new_model
from i2m_lib.learning.trainer import Schedule, Trainer

TARGET = 0.85
T, W, K, E, PER_MODEL = 84, 12, 24, 6, 16


def make_views(path: Path, n: int, size: int) -> ViewDataset:
    """n views of random pixels with a mask in the middle."""
    shape = (n, size, size, 4)
    images = np.lib.format.open_memmap(path / "views.npy", mode="w+", dtype=np.uint8, shape=shape)
    rng = np.random.default_rng(0)
    for image in images:
        image[:] = rng.integers(0, 256, (size, size, 4), np.uint8)
        image[..., 3] = 0
        image[size // 8 : -size // 8, size // 5 : -size // 5, 3] = 255
    images.flush()
    models = [f"m{i}" for i in range(n // PER_MODEL)]
    manifest = pd.DataFrame({"synset": "03001627", "model_id": models, "split": "train", "status": "ok"})
    rows = pd.DataFrame({"model_id": np.repeat(models, PER_MODEL), "azimuth": 30.0, "elevation": 20.0})
    rows[STRETCH] = 1.0
    return ViewDataset(Dataset(path, manifest, rows.assign(index=range(n))), "train")


def random_targets(n: int) -> Targets:
    """For n models of one category."""
    torch.manual_seed(0)
    return Targets(
        slots=torch.arange(W).repeat(n, 1),
        q=torch.full((n, W), 1 / W),
        parts=torch.randn(n, W, 3, K),
        origin=torch.randn(T, K),
        extent=torch.full((n, 3), 3**-0.5),
        weights=torch.rand(n, W, E),
        weighted=torch.ones(n, W, dtype=torch.bool),
        gram=torch.eye(E).repeat(T, 1, 1),
        means=torch.zeros(T, 32, 3),
        axes=torch.randn(T, K, 32, 3),
        y_variance=1.0,
        residual_variance=1.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 turns of 5 steps instead of 10 of 20")
    parser.add_argument("--image-size", type=int, default=112, help="pixels of a view")
    parser.add_argument("--size", type=int, default=64, help="pixels of the network's input")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--node", default="layer3")
    arguments = parser.parse_args()
    device, turns, steps = default_device(), *((4, 5) if arguments.quick else (10, 20))
    settings = Settings(1, arguments.batch, 1e-4, backbone=arguments.backbone, node=arguments.node, size=arguments.size)
    with tempfile.TemporaryDirectory() as folder:
        n = max(turns * steps, 20) * arguments.batch // PER_MODEL * PER_MODEL
        views = make_views(Path(folder), n, arguments.image_size)
        targets = random_targets(len(models_of(views.dataset))).to(device)
        model = new_model(settings, targets).to(device, memory_format=torch.channels_last).train()

        def step(network: Image2Mesh, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            with autocast(device, model):
                out = network(batch["image"].contiguous(memory_format=torch.channels_last))
            return image2mesh_loss(out, batch, targets)

        trainer = Trainer(model, step, lambda *_: [], Schedule(1, 1e-4), folder, Key("benchmark", 1))
        batches = Batches(views, settings, device, epoch=0)
        resident = batches[0]

        def train(source) -> float:
            start = time.perf_counter()
            for batch in source:
                trainer.update(sum(step(model, batch).values()))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return time.perf_counter() - start

        train([resident] * steps)  # warms up
        seconds = np.array(
            [
                (train([resident] * steps), train(batches[i] for i in range(turn * steps, (turn + 1) * steps)))
                for turn in range(turns)
            ]
        )
    images = steps * arguments.batch
    fed, read = images / np.median(seconds, 0)
    ratio = float(np.median(seconds[:, 0] / seconds[:, 1]))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, {'bfloat16' if has_bfloat16(device) else 'float32'}; medians of {turns} turns of {images} images")
    print(f"resident batch: {fed:,.0f} images/s")
    print(f"with its data:  {read:,.0f} images/s, {ratio:.0%} of the resident batch's speed; target {TARGET:.0%}")


if __name__ == "__main__":
    main()
