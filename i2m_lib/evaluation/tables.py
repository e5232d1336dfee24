"""Tables of results, kept beside the key of what made them."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from i2m_lib.artefacts import Key, keep, sha256
from i2m_lib.dataset.dataset import Dataset
from i2m_lib.files import save_parquet
from i2m_lib.graph.template_graph import TemplateGraph


def inputs_of(dataset: Dataset, run: str | Path) -> dict[str, str]:
    """Digests of what a network's answers to a dataset depend on."""
    graph, model = TemplateGraph.load(Path(run) / "graph"), Path(run) / "model.safetensors"
    return {"dataset": dataset.digest, "graph": graph.digest, "model": sha256(model)}


def kept_table(path: Path, key: Key, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The parquet table at `path`, made anew if it has another key."""
    keep(path, key, lambda: save_parquet(path, make()))
    return pd.read_parquet(path)
