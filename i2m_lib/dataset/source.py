"""One model's files, in a folder or a zip: read in place, and nothing outside the model's folder."""

import posixpath
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

MAX_FILE_BYTES = 256 * 2**20
MAX_EXPANSION = 200


class CorpusError(ValueError):
    """The corpus cannot be read: the message names the file and the cure."""


@dataclass(frozen=True)
class ModelSource:
    """Where one model lies. `entry` is the posix path of its obj inside `container`, which is a
    zip or a synset folder; `layout` is 'v1' or 'v2'."""

    synset: str
    model_id: str
    layout: str
    container: Path
    entry: str

    @property
    def folder(self) -> str:
        """The model's own folder inside the container; v2 keeps textures beside `models/`."""
        parent = posixpath.dirname(self.entry)
        return posixpath.dirname(parent) if self.layout == "v2" else parent

    def read(self, name: str) -> bytes:
        """Bytes of the file `name`, relative to the obj. Raises CorpusError if it leaves the
        model's folder or is suspiciously large, FileNotFoundError if there is none."""
        name = name.replace("\\", "/")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(self.entry), name))
        if not posixpath.join(".", path).startswith(posixpath.join(".", self.folder, "")):
            raise CorpusError(f"{self.container}: {name} leaves the folder of {self.model_id}: copy the file into it.")
        if self.container.suffix == ".zip":
            return _read_member(self.container, path)
        return _read_file(self.container, self.folder, path)


@lru_cache(maxsize=64)
def open_zip(path: Path) -> zipfile.ZipFile:
    """Kept open: the directory of a large zip takes seconds to read. Raises CorpusError if `path`
    is no zip, or has an entry that would leave the folder it is unpacked in."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise CorpusError(f"{path} is no readable zip ({error}): download it again.") from error
    for name in archive.namelist():
        if name.startswith("/") or ".." in name.split("/"):
            raise CorpusError(f"{path} has the entry {name!r}, which leaves its folder: do not trust this zip.")
    return archive


def _read_member(container: Path, path: str) -> bytes:
    archive = open_zip(container)
    try:
        info = archive.getinfo(path)
    except KeyError:
        raise FileNotFoundError(f"{container} has no {path}") from None
    _check_size(f"{container}: {path}", info.file_size)
    if info.file_size > MAX_EXPANSION * max(info.compress_size, 1):
        raise CorpusError(f"{container}: {path} expands more than {MAX_EXPANSION} times; remove it if it is real.")
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise CorpusError(f"{container}: {path} cannot be unpacked ({error}): download the zip again.") from error


def _read_file(container: Path, folder: str, path: str) -> bytes:
    file = container / path
    # The synset folder itself may be a link: whoever set up the corpus chose it.
    if not file.resolve().is_relative_to(container.resolve() / folder):
        raise CorpusError(f"{file} is a link that leaves the folder of its model: copy the file there instead.")
    if file.is_dir():
        raise CorpusError(f"{file} is a folder where a file should be: put the file in its place.")
    _check_size(str(file), file.stat().st_size)
    return file.read_bytes()


def _check_size(what: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES // 2**20
        raise CorpusError(f"{what} has {size / 2**20:.0f} MB, more than {limit}: simplify it.")
