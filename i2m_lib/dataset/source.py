"""One model's files, in a folder or a zip: read in place, and nothing outside the model's folder."""

import posixpath
import re
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

MAX_FILE_BYTES = 256 * 2**20
MAX_EXPANSION = 200
# Files that are read; hidden ones are not.
KINDS = re.compile(r"(.*/)?[^./][^/]*\.(obj|mtl|txt|png|jpe?g|gif|bmp|tiff?|tga|dds|webp|p[gp]m)", re.IGNORECASE)


class CorpusError(ValueError):
    """The corpus cannot be read: the message names the file and the cure."""


@dataclass(frozen=True)
class ModelSource:
    """Where one model lies. `entry` is the posix path of its obj inside `container`, which is a zip or a synset folder;
    `layout` is 'v1' or 'v2'."""

    synset: str
    model_id: str
    layout: str
    container: Path
    entry: str

    @property
    def name(self) -> str:
        return f"{self.synset}/{self.model_id}"

    @property
    def original_id(self) -> str:
        """By which lists and renderings know the model: the name of its folder."""
        return posixpath.basename(self.folder)

    @property
    def folder(self) -> str:
        """The model's own folder inside the container; v2 keeps textures beside `models/`."""
        parent = posixpath.dirname(self.entry)
        return posixpath.dirname(parent) if self.layout == "v2" else parent

    def read(self, name: str) -> bytes:
        """Bytes of the file `name`, relative to the obj. Raises CorpusError if it lies outside the model's folder or is
        suspiciously large, FileNotFoundError if there is none."""
        if (path := self._path(name)) is None:
            raise CorpusError(f"{self.container}: {name} leaves the folder of {self.model_id}: copy the file into it.")
        if self.container.suffix == ".zip":
            return _read_member(self.container, path)
        return _read_file(self.container, self.folder, path)

    def find(self, name: str) -> bytes:
        """As `read`, of a file as an obj or mtl names it: in quotes or not, in the letter case of a disk that ignores
        it, or by a path on the disk of whoever made the model, in place of which a file beside the obj will do."""
        path = posixpath.normpath(name.strip('"').replace("\\", "/"))
        if re.match("[A-Za-z]:", path) or self._path(path) is None:
            path = posixpath.basename(path)
        try:
            return self.read(path)
        except FileNotFoundError:
            alike = [file for file, *_ in self.files() if file.lower() == path.lower()]
            if len(alike) != 1:
                raise
            return self.read(alike[0])

    def _path(self, name: str) -> str | None:
        """Inside the container; None if it leaves the model's folder."""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(self.entry), name.replace("\\", "/")))
        inside = posixpath.join(".", path).startswith(posixpath.join(".", self.folder, ""))
        return path if inside else None

    def files(self) -> Iterator[tuple[str, int, int, int | None]]:
        """Of each file in the model's folder that may be read: its path relative to the obj, its size in bytes, and its
        time of modification in ns (0 in a zip) and CRC-32 (None in a folder)."""
        start = posixpath.dirname(self.entry)
        if self.container.suffix == ".zip":
            names, entries = _entries(open_zip(self.container))
            first, end = (bisect_left(names, self.folder + c) for c in "/0")  # 0 follows /
            for entry in entries[first:end]:
                yield posixpath.relpath(entry.filename, start), entry.file_size, 0, entry.CRC
            return
        for path in (self.container / self.folder).rglob("*"):
            if KINDS.fullmatch(path.name) and path.is_file():
                stat = path.stat()
                yield posixpath.relpath(path, self.container / start), stat.st_size, stat.st_mtime_ns, None


def open_zip(path: Path) -> zipfile.ZipFile:
    """Kept open until the file changes, because reading the directory of a large zip takes seconds. Raises CorpusError
    if `path` is no zip, or has an entry that would leave the folder it is unpacked in."""
    stat = path.stat() if path.exists() else None
    return _open_zip(path, stat and (stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=64)
def _open_zip(path: Path, _state: tuple | None) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise CorpusError(f"{path} is no readable zip ({error}): download it again.") from error
    for entry in archive.infolist():
        # Windows programs write a\b, others ./a/b.
        name = entry.filename = entry.filename.replace("\\", "/").removeprefix("./")
        if name.startswith("/") or ".." in name.split("/"):
            raise CorpusError(f"{path} has the entry {name!r}, which leaves its folder: do not trust this zip.")
    archive.NameToInfo = {entry.filename: entry for entry in archive.infolist()}
    return archive


@lru_cache(maxsize=64)
def _entries(archive: zipfile.ZipFile) -> tuple[list[str], list[zipfile.ZipInfo]]:
    """The files that are read, by name."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.filename)
    entries = [entry for entry in entries if KINDS.fullmatch(entry.filename)]
    return [entry.filename for entry in entries], entries


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
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise CorpusError(f"{container}: {path} cannot be unpacked ({error}): download the zip again.") from error


def _read_file(container: Path, folder: str, path: str) -> bytes:
    file = container / path
    # The synset folder itself may be a link: whoever set up the corpus chose it.
    if not file.resolve().is_relative_to(container.resolve() / folder):
        raise CorpusError(f"{file} is a link that leaves the folder of its model: copy the file there instead.")
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder where a file should be")
    _check_size(str(file), file.stat().st_size)
    return file.read_bytes()


def _check_size(what: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise CorpusError(f"{what} has {size / 2**20:.0f} MB, more than {MAX_FILE_BYTES // 2**20}: simplify it.")
