"""Artefacts and their keys: everything made is keyed by what made it.

    key = Key("graph", VERSION, {"n_templates": 12, "seed": 0}, {"dataset": key_of(dataset_folder)})
    keep(folder, key, lambda: build(folder))

A key names a stage, the version of its code, its parameters and the keys of its inputs. It lies beside the artefact: in
`key.json` of a folder, in `NAME.key.json` of a file. An artefact with the same key is used again, a half-made one is
continued, and one with another key is made anew or refused; none is taken for another.
"""

import fcntl
import hashlib
import json
import logging
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from .files import save_json
from .paths import project_root

log = logging.getLogger(__name__)
FILE_SUFFIXES = (".parquet", ".npz", ".json", ".safetensors")


class StaleError(ValueError):
    """An artefact was made of something else than what is asked for; the message is one sentence with the cure."""


@dataclass(frozen=True)
class Key:
    """What makes an artefact: `stage`, `version` of its code, `parameters` that change its content, as json holds them,
    and `inputs` {name: digest of the input's key}."""

    stage: str
    version: int
    parameters: dict = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "parameters", json.loads(json.dumps(self.parameters, default=str)))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits; equal for equal keys."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: "Key") -> list[str]:
        """A clause for each thing in which an artefact of key `other` differs from what this one asks for."""
        if self.stage != other.stage:
            return [f"it is of stage {other.stage}, not {self.stage}"]
        clauses = [f"version is {other.version}, not {self.version}"] if self.version != other.version else []
        for name in sorted(self.parameters.keys() | other.parameters.keys()):
            old, new = other.parameters.get(name), self.parameters.get(name)
            clauses += [f"{name} is {_short(old)}, not {_short(new)}"] if old != new else []
        names = sorted(self.inputs.keys() | other.inputs.keys())
        return clauses + [f"its {n} is another" for n in names if self.inputs.get(n) != other.inputs.get(n)]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def key_file(path: str | Path) -> Path:
    """Where the key of an artefact lies, which is a file if it has one of FILE_SUFFIXES, else a folder."""
    path = Path(path)
    return path.with_name(f"{path.name}.key.json") if path.suffix in FILE_SUFFIXES else path / "key.json"


def read_key(path: str | Path, *, finished: bool = True) -> Key | None:
    """The key of an artefact; None if it has none or, unless `finished` is False, is half made."""
    content = _read(path)
    if content is None or (finished and not content["finished"]):
        return None
    return Key(**content["key"])


def key_of(path: str | Path) -> str:
    """The digest of a finished artefact's key, as `Key.inputs` holds it.

    Raises:
        StaleError: the artefact is missing, half made, or has no key.
    """
    key = read_key(path)
    if key is None:
        raise StaleError(f"{path} is missing or unfinished, or an earlier version made it: run its notebook again.")
    return key.digest


def require(path: str | Path, key: Key, cure: str) -> None:
    """Raises StaleError, ending in the sentence `cure`, unless `path` is a finished artefact of that key."""
    found = read_key(path)
    if found is None:
        raise StaleError(f"{path} is missing or unfinished: {cure}.")
    if differing := key.differences(found):
        raise StaleError(f"{path} was made of something else ({'; '.join(differing)}): {cure}.")


def keep(
    path: str | Path, key: Key, make: Callable[[], None], *, refuse: bool = False, continues: tuple[str, ...] = ()
) -> bool:
    """Has `path`, a folder or a file, hold the artefact of `key`, by calling `make` if it does not yet; returns whether
    it was called. A folder that is half made with the same key is left for `make` to continue; `continues` names inputs
    that may differ there, for `make` finds and redoes what they change. One process at a time works on an artefact: a
    second waits.

    Raises:
        StaleError: `path` holds something else, and `refuse` is set or nothing tells that this program made it.
    """
    path = Path(path)
    with locked(path):
        content = _read(path)
        if content is None and path.is_dir() and any(path.iterdir()):
            raise StaleError(f"{path} holds files without a key: choose another folder, or delete this one.")
        found = None if content is None else Key(**content["key"])
        if found and not content["finished"]:
            found = replace(found, inputs=found.inputs | {n: key.inputs[n] for n in continues})
        if found and (differing := key.differences(found)):
            why = f"{path} was made of something else ({'; '.join(differing)})"
            if refuse:
                raise StaleError(f"{why}: choose another folder, or delete this one to make it anew.")
            log.info("%s: it is made anew", why)
            remove(path)
        elif found and content["finished"] and path.exists():
            return False
        started = time.perf_counter()
        _write(path, key, finished=False)
        make()
        _write(path, key, finished=True, seconds=round(time.perf_counter() - started, 1), **made_by())
        return True


def record(path: str | Path, key: Key, seconds: float | None = None) -> None:
    """Writes the key of an artefact that has just been made in some other way than by `keep`."""
    _write(Path(path), key, finished=True, seconds=seconds, **made_by())


def remove(path: Path) -> None:
    """Deletes an artefact and its key."""
    key_file(path).unlink(missing_ok=True)
    if path.is_dir():
        for child in path.iterdir():
            shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits, and says so, while another process works on the artefact at `path`; a killed one leaves no lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process is making {path}: waiting for it to end.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: str | Path) -> dict | None:
    file = key_file(path)
    return json.loads(file.read_text()) if file.is_file() else None


def _write(path: Path, key: Key, **more: object) -> None:
    save_json(key_file(path), {"key": asdict(key), "digest": key.digest, **more})


def made_by() -> dict:
    """Commit, dirty flag, device and time, as provenance records them."""
    return {**git_state(project_root()), "device": device(), "time": datetime.now(UTC).isoformat(timespec="seconds")}


def git_state(root: Path) -> dict:
    """The commit, and whether files other than results differ from it (dirty); both None outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", root, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--", ".", ":!results"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


@cache
def device() -> str:
    """The name of the GPU that torch would use, else of the processor."""
    import torch  # Here, because it takes seconds, and a mistake should be told at once.

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()


def sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
