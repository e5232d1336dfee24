"""Reads corpora in ShapeNetCore's layouts: per-synset folders or zips, v2 or v1, with splits.

v2   <synset>/<model_id>/models/model_normalized.obj     front -Z
v1   <synset>/<model_id>/model.obj                       front +X
"""

import hashlib
import json
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path

from .source import CorpusError, ModelSource, open_zip
from .splits import SPLITS, hashed, hashed_split, listed_split, read_splits

OBJ_OF_LAYOUT = {"v2": "models/model_normalized.obj", "v1": "model.obj"}
EXPECTED = " or ".join(f"<synset>/<model_id>/{obj} ({layout})" for layout, obj in OBJ_OF_LAYOUT.items())
SYNSET = re.compile(r"\d{8}")
# Zips of a whole version have one more folder on top.
ENTRY = re.compile(r"(?:[^/]+/)??(?P<synset>\d{8})/(?P<model_id>[^/]+)/(?P<file>.+)")


@dataclass(frozen=True)
class Corpus:
    """All models under `root`. A model_id is a key: a model that ShapeNet lists under several synsets is in `models`
    once, under the first, and in `repeated` under the others. Other models of the same id, as in corpora that number
    the models of each category, get the id `<synset>-<id>`."""

    root: Path
    models: list[ModelSource]  # sorted by synset, model_id
    repeated: list[ModelSource]
    categories: dict[str, str]  # synset -> one-word name
    splits: dict[str, str]  # model_id -> train, val or test
    split_list: str  # the file's name, or 'seeded'
    n_unlisted: int  # models that the list lacks
    n_absent: int  # ids listed for the corpus's synsets that it lacks

    @classmethod
    def open(cls, root: str | Path, *, split_seed: int, splits: str | Path = "") -> "Corpus":
        """Reads the lists of `root`, not the meshes. `splits` is a file for `splits.read_splits`; by default all.csv
        where there is one. Models that it does not list, or all without a list, are split 70/10/20 by a hash of
        `split_seed` and model_id."""
        root = Path(root)
        _check_root(root)
        path = Path(splits) if splits else root / "all.csv"
        listed = read_splits(path) if splits or path.is_file() else {}
        found = {}
        for source in _sources(root):
            found.setdefault(source.name, source)
        models, repeated = _distinct([found[name] for name in sorted(found)])
        synsets = {source.synset: None for source in models}
        by_list = {source.model_id: listed_split(listed, source.synset, source.original_id) for source in models}
        if listed and not any(by_list.values()):
            ids = f"its ids are like {next(iter(listed))[1]!r}, the folders' names like {models[0].original_id!r}"
            raise CorpusError(f"{path} lists no model of {root}: {ids}; write both alike, or take the list away.")
        held = synsets if any(synset for synset, _ in listed) else {""}
        return cls(
            root=root,
            models=models,
            repeated=repeated,
            categories=_names(root, list(synsets)),
            splits={i: split or hashed_split(i, split_seed) for i, split in by_list.items()},
            split_list=path.name if listed else "seeded",
            n_unlisted=list(by_list.values()).count(None) if listed else 0,
            n_absent=len({i for synset, i in listed if synset in held} - {source.original_id for source in models}),
        )

    def choose(self, categories: list[str] | None, max_models: int | None, *, seed: int) -> list[ModelSource]:
        """The models of `categories` (names or synsets; None for all), at most `max_models` of each. A limited choice
        is random by `seed`, keeps the shares of the splits, and has a model of each split if there are three."""
        known = {*self.categories, *self.categories.values()}
        wanted = known if categories is None else set(categories)
        for name in sorted(wanted - known):
            raise CorpusError(f"{self.root} has no category {name!r}, only {sorted(known)}.")
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


def _distinct(sources: list[ModelSource]) -> tuple[list[ModelSource], list[ModelSource]]:
    """The models, and those that are under another synset too: the same id and the same obj."""
    count, models, repeated = Counter(source.model_id for source in sources), [], []
    ids: dict[str, dict[bytes | str, str]] = {}
    for source in sources:
        known = ids.setdefault(source.model_id, {})
        content = _obj_of(source) if count[source.model_id] > 1 else b""
        if content in known:
            repeated.append(replace(source, model_id=known[content]))
            continue
        known[content] = f"{source.synset}-{source.model_id}" if known else source.model_id
        models.append(replace(source, model_id=known[content]))
    return models, repeated


def _obj_of(source: ModelSource) -> bytes | str:
    """Its digest; another word for each obj that cannot be read."""
    try:
        return hashlib.sha256(source.read(posixpath.basename(source.entry))).digest()
    except (OSError, CorpusError):
        return source.synset


def _sources(root: Path) -> Iterator[ModelSource]:
    """Folders before zips, so that an unpacked copy wins."""
    paths = sorted(root.iterdir()) if root.is_dir() else []
    folders = (path for path in paths if SYNSET.fullmatch(path.name) and path.is_dir())
    zips = (path for path in paths if path.suffix == ".zip" and re.match(r"\d{8}\.|ShapeNetCore", path.name))
    yield from chain(*map(_in_folder, folders), *map(_in_zip, zips))


def _in_folder(synset: Path) -> Iterator[ModelSource]:
    """Every folder is a model; one without an obj will be quarantined."""
    for model in synset.iterdir():
        if model.is_dir() and not model.name.startswith("."):
            if not model.name.isprintable():
                raise CorpusError(f"{synset} holds a folder {model.name!a}, which is no name in UTF-8: rename it.")
            layout = _layout(lambda obj, model=model: (model / obj).exists())
            yield ModelSource(synset.name, model.name, layout, synset, f"{model.name}/{OBJ_OF_LAYOUT[layout]}")


def _in_zip(path: Path) -> Iterator[ModelSource]:
    """The models of the synset that names the zip, or of all."""
    names = open_zip(path).namelist()
    models: dict[tuple[str, str], dict[str, str]] = {}
    for m in filter(None, map(ENTRY.fullmatch, names)):
        if path.stem == m["synset"] or not SYNSET.fullmatch(path.stem):
            models.setdefault((m["synset"], m["model_id"]), {})[m["file"]] = m[0]
    if not models:
        first = f"begins with {names[0]}" if names else "is empty"
        raise CorpusError(f"{path} holds no model but {first}: expected {EXPECTED}; unpack zips inside of it.")
    for (synset, model_id), files in models.items():
        layout = _layout(files.__contains__)
        obj = OBJ_OF_LAYOUT[layout]
        yield ModelSource(synset, model_id, layout, path, files.get(obj, f"{synset}/{model_id}/{obj}"))


def _layout(holds: Callable[[str], bool]) -> str:
    return next((layout for layout, obj in OBJ_OF_LAYOUT.items() if holds(obj)), "v2")


def _check_root(root: Path) -> None:
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder: give the folder that holds the synsets (03001627, ...).")
    holds_models = next(_sources(root), None)
    # A zip that was unpacked where it lay has its version's folder beside it.
    for child in sorted(root.glob("ShapeNetCore*" if holds_models else "*")):
        if next(_sources(child), None):
            raise CorpusError(f"{root} is one level too high: give {child}.")
    if holds_models:
        return
    for folder in (root.resolve(), *root.resolve().parents[:2]):
        if SYNSET.fullmatch(folder.name):
            raise CorpusError(f"{root} is inside the synset {folder.name}, too low: give {folder.parent}.")
    raise CorpusError(f"{root} holds no model: expected {EXPECTED}, in folders or in <synset>.zip.")


def _names(root: Path, synsets: list[str]) -> dict[str, str]:
    """synset -> its first name in taxonomy.json that is one word, with the synset where several have that name; the
    synset where there is none."""
    known = _read_taxonomy(root / "taxonomy.json")
    names = [known.get(synset, synset) for synset in synsets]
    return {s: name if names.count(name) == 1 else f"{name}_{s}" for s, name in zip(synsets, names, strict=True)}


def _read_taxonomy(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        nodes = json.loads(path.read_text(encoding="utf-8-sig"))
        names = {node["synsetId"]: node["name"].split(",") for node in nodes}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{path} is not ShapeNet's taxonomy ({error!r}): download it again.") from error
    return {
        synset: next((n for n in all_ if " " not in n), all_[0].replace(" ", "_")) for synset, all_ in names.items()
    }
