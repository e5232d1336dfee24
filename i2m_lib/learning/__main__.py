"""Training without a notebook, on one or several processes:

    torchrun --nproc-per-node 4 -m i2m_lib.learning data/shapenet results/shapenet epochs=60 batch_size=256 lr=1e-3

Takes the dataset, the run with its graph and fits, and settings by name; 03_training then finds the training done.
"""

import json
import logging
import sys

from i2m_lib.dataset.dataset import Dataset
from i2m_lib.graph.fits import Fits
from i2m_lib.graph.template_graph import TemplateGraph

from .device import default_device
from .distributed import process_group
from .settings import Settings
from .train import train


def main(dataset: str, run: str, *assignments: str) -> None:
    """Values are numbers or lists as in json; anything else is text."""
    settings = {}
    for name, _, value in (text.partition("=") for text in assignments):
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    settings = Settings.of(settings)
    data, graph, fits = Dataset.open(dataset), TemplateGraph.load(f"{run}/graph"), Fits.load_all(f"{run}/fits")
    device = default_device()
    with process_group(device):
        train(data, graph, fits, run, settings, device=device)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
