"""What each model's files hold, so that a build notices a file that was mended or changed since.

A file in a zip is known by the size and CRC that the zip's directory lists. A file in a folder is read for its CRC only
if names, sizes or times in the model's folder are not the recorded ones. The content of a model is made of names, sizes
and CRCs alone: a corpus may be moved, copied or unpacked.
"""

import hashlib
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from i2m_lib.files import save_parquet

from .source import CorpusError, ModelSource

COLUMNS = ["synset", "model_id", "stamp", "content"]
READ = re.compile(r".*\.(obj|mtl|txt|png|jpe?g|gif|bmp|tiff?|tga|dds|webp|p[gp]m)", re.IGNORECASE)

# <synset>/<model_id> -> stamp, the digest of names, sizes and times ("" if a file cannot be read), and content.
Fingerprints = dict[str, tuple[str, str]]


def fingerprints(sources: Iterable[ModelSource], renderings: str | Path, recorded: Fingerprints) -> Fingerprints:
    """Of each source, with its folder in `renderings` if they are given. The content is the recorded one where the
    stamp is."""
    found = {}
    for source in sources:
        files = [(*file, source) for file in source.files()]
        if renderings:
            entry = f"{source.model_id}/rendering/renderings.txt"
            drawn = ModelSource(source.synset, source.model_id, "v1", Path(renderings) / source.synset, entry)
            files += [(*file, drawn) for file in drawn.files()]
        files = sorted((file for file in files if READ.fullmatch(file[0])), key=lambda file: file[:2])
        stamp = _digest(file[:4] for file in files)
        if recorded.get(source.name, ("",))[0] == stamp:
            found[source.name] = recorded[source.name]
            continue
        crcs = [_crc(place, name) if crc is None else crc for name, _, _, crc, place in files]
        content = _digest((*file[:2], crc) for file, crc in zip(files, crcs, strict=True))
        # A file may become readable while its size and time stay the same.
        found[source.name] = "" if None in crcs else stamp, content
    return found


def _crc(source: ModelSource, name: str) -> int | None:
    try:
        return zlib.crc32(source.read(name))
    except (OSError, CorpusError):
        return None


def _digest(lines: Iterable) -> str:
    return hashlib.sha256("\n".join(map(repr, lines)).encode()).hexdigest()[:32]


def changed(old: Fingerprints, new: Fingerprints) -> list[str]:
    """The models whose contents differ, and those that only one of the two knows."""
    return sorted(name for name in old.keys() | new.keys() if old.get(name, ("", ""))[1] != new.get(name, ("", ""))[1])


def read_fingerprints(path: Path) -> Fingerprints:
    """From a file of `save_fingerprints`; none if it is not there."""
    rows = pd.read_parquet(path).itertuples() if path.is_file() else []
    return {f"{row.synset}/{row.model_id}": (row.stamp, row.content) for row in rows}


def save_fingerprints(path: Path, found: Fingerprints) -> None:
    """A parquet table with a row for each model."""
    save_parquet(path, pd.DataFrame([(*name.split("/"), *value) for name, value in found.items()], columns=COLUMNS))
