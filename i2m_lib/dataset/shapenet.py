"""Reads corpora in ShapeNetCore's layouts: per-synset folders or zips, v2 or v1, with splits.

v2   <synset>/<model_id>/models/model_normalized.obj     front -Z
v1   <synset>/<model_id>/model.obj                       front +X
"""

import csv
import hashlib
import json
import posixpath
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

ENTRY = re.compile(r"(?P<synset>\d{8})/(?P<model_id>[\w.-]+)/(?P<obj>models/model_normalized\.obj|model\.obj)")
OBJ_OF_LAYOUT = {"v2": "models/model_normalized.obj", "v1": "model.obj"}
SPLITS = ("train", "val", "test")
MAX_FILE_BYTES = 256 * 2**20
MAX_EXPANSION = 200


class CorpusError(ValueError):
    """The corpus cannot be read: the message names the file and the cure."""


@lru_cache(maxsize=64)
def _open_zip(path: Path) -> zipfile.ZipFile:
    """Kept open: the directory of a large zip takes seconds to read."""
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise CorpusError(f"{path} is no readable zip ({error}): download it again.") from error


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
            raise CorpusError(f"{self.container}: {name} leaves the folder of {self.model_id}.")
        if self.container.suffix == ".zip":
            return _read_member(self.container, path)
        return _read_file(self.container / path, self.container / self.folder)


def _read_member(container: Path, path: str) -> bytes:
    archive = _open_zip(container)
    try:
        info = archive.getinfo(path)
    except KeyError:
        raise FileNotFoundError(f"{container} has no {path}") from None
    _check_size(f"{container}: {path}", info.file_size)
    if info.file_size > MAX_EXPANSION * max(info.compress_size, 1):
        raise CorpusError(f"{container}: {path} expands more than {MAX_EXPANSION} times; remove it if it is real.")
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise CorpusError(f"{container}: {path} cannot be unpacked ({error}).") from error


def _read_file(path: Path, folder: Path) -> bytes:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CorpusError(f"{path} is a link that leaves {folder}: copy the file there instead.")
    _check_size(str(path), path.stat().st_size)
    return path.read_bytes()


def _check_size(what: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES // 2**20
        raise CorpusError(f"{what} has {size / 2**20:.0f} MB, more than {limit}: simplify it.")


@dataclass(frozen=True)
class Corpus:
    """All models under `root`. A model_id is a key: where ShapeNet lists a model under several
    synsets, `models` holds it once, under the first, and `repeated` holds the others."""

    root: Path
    models: list[ModelSource]  # sorted by synset, model_id
    repeated: list[ModelSource]
    categories: dict[str, str]  # synset -> one-word name
    splits: dict[str, str]  # model_id -> train, val or test

    @classmethod
    def open(cls, root: str | Path, *, split_seed: int) -> "Corpus":
        """Reads the lists of `root`, not the meshes. Splits come from all.csv where there is one;
        models that it does not list are split 70/10/20 by a hash of `split_seed` and model_id."""
        root = Path(root)
        _check_root(root)
        found = {}
        for source in _sources(root):
            found.setdefault((source.synset, source.model_id), source)
        first, repeated = {}, []
        for _, source in sorted(found.items()):
            if first.setdefault(source.model_id, source) is not source:
                repeated.append(source)
        names, listed = _read_taxonomy(root), _read_splits(root)
        return cls(
            root=root,
            models=list(first.values()),
            repeated=repeated,
            categories={synset: names.get(synset, synset) for synset, _ in sorted(found)},
            splits={i: listed.get(i) or hashed_split(i, split_seed) for i in first},
        )

    def choose(self, categories: list[str] | None, max_models: int | None, *, seed: int) -> list[ModelSource]:
        """The models of `categories` (names or synsets; None for all), at most `max_models` of
        each. A limited choice is random by `seed`, keeps the shares of the splits, and has a
        model of each split if there are three."""
        known = {*self.categories, *self.categories.values()}
        for name in categories or []:
            if name not in known:
                raise CorpusError(f"{self.root} has no category {name!r}, only {sorted(known)}.")
        wanted = known if categories is None else set(categories)
        return [
            source
            for synset, group in groupby(self.models, key=lambda source: source.synset)
            if {synset, self.categories[synset]} & wanted
            for source in self._spread(list(group), max_models, seed)
        ]

    def _spread(self, models: list[ModelSource], limit: int | None, seed: int) -> list[ModelSource]:
        """Gives the models of each split places evenly from 0 to 1, and takes the first `limit`."""
        places = []
        for order, split in enumerate(SPLITS):
            group = [source for source in models if self.splits[source.model_id] == split]
            group.sort(key=lambda source: hashed("choose", seed, source.model_id))
            places += [(rank / len(group), order, source) for rank, source in enumerate(group)]
        chosen = sorted(places, key=lambda place: place[:2])[:limit]
        return sorted((source for *_, source in chosen), key=lambda source: source.model_id)


def _sources(root: Path) -> Iterator[ModelSource]:
    """Folders before zips, and v2 before v1, so that an unpacked copy wins."""
    paths = sorted(root.iterdir()) if root.is_dir() else []
    for folder in (p for p in paths if re.fullmatch(r"\d{8}", p.name) and p.is_dir()):
        for layout, obj in OBJ_OF_LAYOUT.items():
            for model in folder.iterdir():
                if (model / obj).is_file():
                    entry = f"{model.name}/{obj}"
                    yield ModelSource(folder.name, model.name, layout, folder, entry)
    for path in (p for p in paths if re.fullmatch(r"\d{8}\.zip", p.name)):
        matches = [m for m in map(ENTRY.fullmatch, _open_zip(path).namelist()) if m]
        for layout, obj in OBJ_OF_LAYOUT.items():
            for m in matches:
                if m["obj"] == obj and m["synset"] == path.stem:
                    yield ModelSource(m["synset"], m["model_id"], layout, path, m[0])


def _check_root(root: Path) -> None:
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder: give the folder that holds the synsets (03001627, ...).")
    for child in sorted(root.glob("ShapeNetCore*")):
        if next(_sources(child), None):
            raise CorpusError(f"{root} is one level too high: give {child}.")
    if not next(_sources(root), None):
        raise CorpusError(
            f"{root} holds no model: expected <synset>/<model_id>/models/model_normalized.obj (v2) "
            "or <synset>/<model_id>/model.obj (v1), in folders or in <synset>.zip."
        )


def hashed(*key: str | int) -> int:
    """64 bits that depend on nothing but `key`."""
    return int.from_bytes(hashlib.sha256(":".join(map(str, key)).encode()).digest()[:8])


def hashed_split(model_id: str, seed: int) -> str:
    """'train', 'val' or 'test' with chances 70/10/20."""
    share = hashed(seed, model_id) / 2**64
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"


def _read_taxonomy(root: Path) -> dict[str, str]:
    """synset -> its first name that is one word; empty without taxonomy.json."""
    path = root / "taxonomy.json"
    if not path.is_file():
        return {}
    try:
        nodes = json.loads(path.read_text(encoding="utf-8"))
        names = {node["synsetId"]: node["name"].split(",") for node in nodes}
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path} is not ShapeNet's taxonomy ({error!r}): download it again.") from error
    return {
        synset: next((n for n in all_names if " " not in n), all_names[0].replace(" ", "_"))
        for synset, all_names in names.items()
    }


def _read_splits(root: Path) -> dict[str, str]:
    """model_id -> split; empty without all.csv."""
    path = root / "all.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"modelId", "split"} <= rows[0].keys():
        raise CorpusError(f"{path} needs the columns modelId and split.")
    for row in rows:
        if row["split"] not in SPLITS:
            raise CorpusError(f"{path}: model {row['modelId']} has the split {row['split']!r}.")
    return {row["modelId"]: row["split"] for row in rows}
