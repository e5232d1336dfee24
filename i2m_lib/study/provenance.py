"""What a run was made of: its notebooks with their parameters, and for each file the code and machine that made it.

provenance.json of a run: run, commits, dirty, python, platform, device, cores, versions, dataset (digest of its key),
notebooks {stem: parameters, commit, dirty, device, started, finished, seconds, unmet (a claim that does not hold)} and
files {path in the run: sha256, key, commit, dirty, device, seconds, time}. Only the program writes it.
"""

import json
import platform
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import joblib

from i2m_lib.artefacts import Key, device, read_key, sha256
from i2m_lib.files import save_json

FILE = "provenance.json"
# Hidden files, and what a later step replaces or deletes.
UNRECORDED = re.compile(rf"(^|/)(\.|checkpoint|best_|parts/|{FILE}$)|\.(failed|running)\.ipynb$")


def read_provenance(folder: Path) -> dict:
    """provenance.json of a run, or one without notebooks and files if the run has none."""
    path = folder / FILE
    return {"notebooks": {}, "files": {}} | (json.loads(path.read_text()) if path.is_file() else {})


def notebook_key(stem: str, parameters: dict, ignored: Iterable[str] = ()) -> Key:
    """A key for what a notebook makes: its name and its parameters, except for those that change no result."""
    return Key(stem, 1, {name: value for name, value in parameters.items() if name not in {"workers", *ignored}})


def save_provenance(folder: Path, notebooks: dict[str, dict], files: dict[str, dict], root: Path) -> None:
    """Writes provenance.json with the machine and versions at the time of the call."""
    dataset = next((e["parameters"]["dataset"] for e in notebooks.values() if "dataset" in e["parameters"]), None)
    key = dataset and read_key(root / Path(dataset).expanduser())
    made = [*notebooks.values(), *files.values()]
    required = [line for line in metadata.requires("i2m_lib") or [] if "extra ==" not in line]
    packages = [re.match(r"[\w.-]+", line)[0] for line in required]
    content = {
        "run": folder.name,
        "commits": sorted({entry.get("commit") or "unknown" for entry in made}),
        "dirty": any(entry.get("dirty") for entry in made),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device(),
        "cores": joblib.cpu_count(),
        "versions": {name: metadata.version(name) for name in packages},
        "dataset": key and key.digest,
    }
    save_json(folder / FILE, content | {"notebooks": notebooks, "files": files})


def written(folder: Path) -> dict[str, int]:
    """{path in the run: when it was written, in ns} of the files that provenance records."""
    times = {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: time for name, time in times.items() if not UNRECORDED.search(name)}


def file_entries(folder: Path, before: dict[str, int], known: dict[str, dict], stem: str, notebook: dict) -> dict:
    """The entry of each file after a notebook has run, before which `written` was `before`, and the entries `known`.

    A file of an artefact has the key and the maker that its key file tells, whenever that was. Another file that was
    written since `before` is the notebook's; an unchanged one keeps its entry; one that was changed outside the study
    has none.
    """
    ours = {"key": notebook_key(stem, notebook["parameters"]).digest, "time": notebook["finished"]}
    ours |= {name: notebook[name] for name in ("commit", "dirty", "device", "seconds")}
    entries = {}
    for name, time in written(folder).items():
        digest = sha256(folder / name)
        if made := _artefact(folder, name):
            entries[name] = {"sha256": digest, **made}
        elif time != before.get(name):
            entries[name] = {"sha256": digest, **ours}
        elif known.get(name, {}).get("sha256") == digest:
            entries[name] = known[name]
    return entries


def _artefact(folder: Path, name: str) -> dict | None:
    """What the key file that covers a file tells: NAME.key.json beside it, or key.json in a folder of the run."""
    inner = [parent / "key.json" for parent in Path(name).parents[:-1]]
    for file in (f"{name.removesuffix('.key.json')}.key.json", *inner):
        content = json.loads((folder / file).read_text()) if (folder / file).is_file() else {"finished": False}
        if content["finished"]:
            return {"key": content["digest"]} | {
                n: content[n] for n in ("commit", "dirty", "device", "seconds", "time")
            }
    return None
