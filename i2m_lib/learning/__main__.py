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

from .device import default_device, process_group
from .settings import Settings
from .train import train


def _value(text: str) -> object:
    """A number or list as in json; anything else is text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def main(dataset: str, run: str, *assignments: str) -> None:
    """Trains with the settings NAME=VALUE."""
    settings = Settings.of({name: _value(text) for name, _, text in (a.partition("=") for a in assignments)})
    data, graph, fits = Dataset.open(dataset), TemplateGraph.load(f"{run}/graph"), Fits.load_all(f"{run}/fits")
    with process_group(default_device()):
        train(data, graph, fits, run, settings, device=default_device())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
