"""The files of a build that is under way, and how they become views.npy. A kill at any moment costs no more than the
models that were being made."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .source import CorpusError

BATCH = 64  # parts that lie on disk twice while they are packed


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turns a full disk, or a folder that cannot be written, into a CorpusError with the cure."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        cure = "free space or set its permissions and run again, which goes on from here; or choose another folder"
        raise CorpusError(f"{out} cannot be written ({error.strerror or error}): {cure}.") from error


def check_space(out: Path, needed: int) -> None:
    """Raises CorpusError if the disk of the folder `out` has less than `needed` bytes left."""
    free, cure = shutil.disk_usage(out).free, "free space, choose another folder, or ask for fewer or smaller views"
    if free < needed:
        sizes = f"has {free / 1e9:.1f} GB left, but the views need {needed / 1e9:.1f} GB"
        raise CorpusError(f"{out} {sizes}: {cure}.")


def remove_leftovers(out: Path) -> None:
    """Removes the temporary files of writers that were killed."""
    for path in out.rglob(".[0-9]*.*"):  # as i2m_lib.files names them
        path.unlink(missing_ok=True)


def pack_views(path: Path, parts: Sequence[Path], counts: Sequence[int], size: int) -> None:
    """Joins `parts`, each with the bytes of as many views (size,size,4) as `counts` says, into the npy file `path`.
    Each part is removed once it is packed, so that the disk does not hold all views twice; a part that is missing was
    packed by an earlier run. Raises CorpusError if it was not."""
    if path.is_file():
        return
    unfinished = path.with_name(f".{path.name}")
    offsets = np.cumsum([0, *counts]) * size * size * 4
    header = {"descr": "|u1", "fortran_order": False, "shape": (int(sum(counts)), size, size, 4)}
    with unfinished.open("r+b" if unfinished.is_file() else "w+b") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start, end = file.tell(), os.fstat(file.fileno()).st_size
        for first in range(0, len(parts), BATCH):
            batch = parts[first : first + BATCH]
            for i, part in enumerate(batch, first):
                if part.is_file():
                    file.seek(start + offsets[i])
                    file.write(part.read_bytes())
                elif start + offsets[i + 1] > end:
                    raise CorpusError(f"{part} is gone: delete {path.parent} and build it again.")
            file.flush()
            os.fsync(file.fileno())  # before the parts go: a power cut could otherwise take both
            for part in batch:
                part.unlink(missing_ok=True)
    unfinished.replace(path)
