"""Files that are whole or not there: written under a temporary name, then moved into place."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it if the block succeeds and removed if it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """A compressed npz without pickle."""
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def save_parquet(path: str | Path, table: pd.DataFrame) -> None:
    """A parquet table without its index."""
    with whole(path) as temporary:
        table.to_parquet(temporary, index=False)


def save_json(path: str | Path, content: dict) -> None:
    """Indented json."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
