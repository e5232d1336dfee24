"""What each model's files hold, so that a build notices a file that was mended or changed since.

A file in a zip is known by the size and CRC that the zip's directory lists. A file in a folder is read for its CRC only
if names, sizes or times in the model's folder are not the recorded ones. The content of a model is made of names, sizes
and CRCs alone: a corpus may be moved, copied or unpacked.
"""

import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from i2m_lib.files import save_parquet

from .source import CorpusError, ModelSource

# <synset>/<model_id> -> stamp, the digest of names, sizes and times ("" if a file cannot be read), and content.
Fingerprints = dict[str, tuple[str, str]]


def fingerprints(sources: Iterable[ModelSource], renderings: str | Path, recorded: Fingerprints) -> Fingerprints:
    """Of each source, with its folder in `renderings` if they are given; as `recorded` where the stamp is the same."""
    found = {}
    for source in sources:
        places = [source]
        if renderings:
            entry = f"{source.original_id}/rendering/renderings.txt"
            places.append(ModelSource(source.synset, source.original_id, "v1", Path(renderings) / source.synset, entry))
        files = sorted((i, *file) for i, place in enumerate(places) for file in place.files())
        stamp = _digest(files)
        if recorded.get(source.name, ("",))[0] == stamp:
            found[source.name] = recorded[source.name]
            continue
        crcs = [_crc(places[i], name) if crc is None else crc for i, name, _, _, crc in files]
        content = _digest((*file[:3], crc) for file, crc in zip(files, crcs, strict=True))
        # A file may become readable while its size and time stay the same.
        found[source.name] = "" if None in crcs else stamp, content
    return found


def _crc(source: ModelSource, name: str) -> int | None:
    try:
        return zlib.crc32(source.read(name))
    except (OSError, CorpusError):
        return None


def _digest(files: Iterable[tuple]) -> str:
    return hashlib.sha256(repr(list(files)).encode()).hexdigest()[:32]


def changed(old: Fingerprints, new: Fingerprints) -> list[str]:
    """The models whose contents differ, and those that only one of the two knows."""
    return sorted({name for name, _ in {(n, c) for n, (_, c) in old.items()} ^ {(n, c) for n, (_, c) in new.items()}})


def read_fingerprints(path: Path) -> Fingerprints:
    """From a file of `save_fingerprints`; none if it is not there."""
    rows = pd.read_parquet(path).itertuples() if path.is_file() else []
    return {f"{row.synset}/{row.model_id}": (row.stamp, row.content) for row in rows}


def save_fingerprints(path: Path, found: Fingerprints) -> None:
    """A parquet table with a row for each model."""
    rows = [(*name.split("/"), *fingerprint) for name, fingerprint in found.items()]
    save_parquet(path, pd.DataFrame(rows, columns=["synset", "model_id", "stamp", "content"]))
