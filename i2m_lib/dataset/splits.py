"""Which models are for training, validation and test: official lists, one's own, or a random split by seed."""

import csv
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from .source import CorpusError

SPLITS = ("train", "val", "test")

# (synset, model_id) -> split. Ids that have the same split under all their synsets, or no synset, are found under
# ("", model_id) too: a corpus may hold a model under another synset.
SplitList = dict[tuple[str, str], str]


def hashed(*key: str | int) -> int:
    """64 bits that depend on nothing but `key`."""
    return int.from_bytes(hashlib.sha256(":".join(map(str, key)).encode()).digest()[:8])


def hashed_split(model_id: str, seed: int) -> str:
    """'train', 'val' or 'test' with chances 70/10/20."""
    share = hashed(seed, model_id) / 2**64
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"


def listed_split(splits: SplitList, synset: str, model_id: str) -> str | None:
    """The split of one model; None if it is not listed."""
    return splits.get((synset, model_id)) or splits.get(("", model_id))


def read_splits(path: str | Path) -> SplitList:
    """Reads ShapeNet's all.csv, any csv with the columns modelId and split, or 3D-R2N2's json, where 117 ids have one
    split under one synset and another under a second. Raises CorpusError if the file is none of these or gives a model
    two splits."""
    path = Path(path)
    try:
        rows = list(_rows_of_r2n2(path) if path.suffix == ".json" else _rows_of_csv(path))
    except (OSError, UnicodeError, csv.Error, json.JSONDecodeError) as error:
        raise CorpusError(f"{path} cannot be read as a list of splits ({error}): download it again.") from error
    splits: SplitList = {}
    by_id = defaultdict(set)
    for synset, model_id, split in rows:
        if split not in SPLITS:
            raise CorpusError(f"{path}: model {model_id} has the split {split!r}; write train, val or test.")
        if splits.setdefault((synset, model_id), split) != split:
            raise CorpusError(f"{path}: model {model_id} has two splits: keep one of its rows.")
        by_id[model_id].add(split)
    for model_id, found in by_id.items():
        if len(found) == 1:
            splits[("", model_id)] = found.pop()
    return splits


def _rows_of_csv(path: Path) -> Iterator[tuple[str, str, str]]:
    """Synset, model_id and split."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"modelId", "split"} <= set(reader.fieldnames or ()):
            raise CorpusError(f"{path} needs the columns modelId and split.")
        for row in reader:
            synset = row.get("synsetId") or ""
            yield synset and synset.zfill(8), row["modelId"], row["split"]  # Spreadsheets drop zeros.


def _rows_of_r2n2(path: Path) -> list[tuple[str, str, str]]:
    categories = json.loads(path.read_text(encoding="utf-8-sig"))
    try:
        return [(c["taxonomy_id"], str(i), split) for c in categories for split in SPLITS for i in c[split]]
    except (KeyError, TypeError) as error:
        why = f"({error!r}): each category needs taxonomy_id, train, val and test"
        raise CorpusError(f"{path} is not 3D-R2N2's list {why}.") from error


def trained_categories(models: Iterable[tuple[str, str]]) -> set[str]:
    """The categories that have training models, of the (category, split) of models: a study is of these alone. Raises
    CorpusError if they lack a split, as templates and network come from train, choices from val, results from test."""
    models = list(models)
    trained = {category for category, split in models if split == "train"}
    counts = Counter(split for category, split in models if category in trained)
    if missing := [split for split in SPLITS if not counts[split]]:
        found = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
        cure = "take at least 3 models of each category (max_models), or move some by a file of splits"
        raise CorpusError(
            f"A study needs models of each split, but has none for {' and '.join(missing)} ({found}): {cure}."
        )
    return trained


def read_template_ids(path: str | Path) -> dict[str, list[str]]:
    """synset -> model ids in their order, from a text file with a line `<synset> (name)` before the ids of each
    category, one a line. Raises CorpusError if an id comes before any synset or twice, or a category has none."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise CorpusError(f"{path} cannot be read as a list of template ids ({error}).") from error
    ids, listed = {}, None
    for line in filter(None, map(str.strip, lines)):
        if header := re.fullmatch(r"(\d{8})(?:\s+\(.*\))?", line):
            listed = ids.setdefault(header[1], [])
        elif listed is None:
            raise CorpusError(f"{path}: {line!r} comes before any synset; begin with a line '<synset> (name)'.")
        elif line in listed:
            raise CorpusError(f"{path}: template {line} is listed twice: remove one of the lines.")
        else:
            listed.append(line)
    if empty := [synset for synset, listed in ids.items() if not listed]:
        raise CorpusError(f"{path} lists no template for {', '.join(empty)}: add some or remove the line.")
    return ids
