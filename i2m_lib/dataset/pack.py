"""The files of a build that is under way, and how they become views.npy. A kill at any moment costs
no more than the models that were being made."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from i2m_lib.files import whole

from .source import CorpusError

BATCH = 64  # parts that lie on disk twice while they are packed
TEMPORARY = re.compile(r"\.\d+\..+")  # as i2m_lib.files names them


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turns a full disk, or a folder that cannot be written, into a CorpusError with the cure."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise CorpusError(
            f"{out} cannot be written ({why}): free space or set its permissions and run again, "
            "which goes on from here; or choose another folder."
        ) from error


def check_space(out: Path, needed: int) -> None:
    """Raises CorpusError if the disk of the folder `out` has less than `needed` bytes left."""
    free = shutil.disk_usage(out).free
    if free < needed:
        raise CorpusError(
            f"{out} has {free / 1e9:.1f} GB left, but the views need {needed / 1e9:.1f} GB: free "
            "space, choose another folder, or ask for fewer or smaller views."
        )


def remove_leftovers(out: Path) -> None:
    """Removes the temporary files of writers that were killed."""
    for path in out.rglob(".*"):
        if TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def save_part(path: Path, images: np.ndarray) -> None:
    """The bytes of a model's views (n,size,size,4)."""
    # Not np.save, which tells of a full disk without saying so.
    with whole(path) as temporary, temporary.open("wb") as file:
        file.write(np.ascontiguousarray(images).data)


def pack_views(path: Path, parts: Sequence[Path], counts: Sequence[int], size: int) -> None:
    """Joins `parts`, each with the bytes of as many views (size,size,4) as `counts` says, into the
    npy file `path`, and removes them on the way, so that the disk need not hold the views twice.
    A part that is gone was packed by a run that was killed later."""
    if path.is_file():
        return
    unfinished = path.with_name(f".{path.name}")
    offsets = np.cumsum([0, *counts]) * size * size * 4
    with unfinished.open("r+b" if unfinished.is_file() else "w+b") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (int(sum(counts)), size, size, 4)}
        )
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
            os.fsync(file.fileno())  # or a power cut could take both
            for part in batch:
                part.unlink(missing_ok=True)
    unfinished.replace(path)
