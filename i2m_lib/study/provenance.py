"""What a run was made of: code, parameters, machine, versions, dataset, time."""

import hashlib
import json
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import joblib
import pandas as pd


def read_provenance(folder: Path) -> dict:
    """provenance.json of a run, or one without notebooks if the run has none."""
    path = folder / "provenance.json"
    return json.loads(path.read_text()) if path.is_file() else {"notebooks": {}}


def provenance(run: str, environment: dict, notebooks: dict[str, dict], root: Path) -> dict:
    """The content of provenance.json. `environment` is that of the latest session; `notebooks`
    has, by stem and in order, parameters, started, finished and seconds."""
    parameters = [notebook["parameters"] for notebook in notebooks.values()]
    dataset = next((p["dataset"] for p in parameters if "dataset" in p), None)
    return {
        "run": run,
        **environment,
        "dataset_sha256": dataset and dataset_sha256(root / Path(dataset).expanduser()),
        "started": min(notebook["started"] for notebook in notebooks.values()),
        "finished": max(notebook["finished"] for notebook in notebooks.values()),
        "seconds": round(sum(notebook["seconds"] for notebook in notebooks.values()), 1),
        "notebooks": notebooks,
    }


def environment(root: Path) -> dict:
    """Code, machine and versions, at the time of the call."""
    return {
        "git": git_state(root),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device(),
        "cores": joblib.cpu_count(),
        "versions": versions(),
    }


def git_state(root: Path) -> dict:
    """The commit, and whether files other than results differ from it; both None outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", root, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        sha = git("rev-parse", "HEAD")
        return {"sha": sha, "dirty": bool(git("status", "--porcelain", "--", ".", ":!results"))}
    except (OSError, subprocess.CalledProcessError):
        return {"sha": None, "dirty": None}


def device() -> str:
    """The name of the GPU that torch would use, else of the processor."""
    import torch  # Here, because it takes seconds, and a mistake should be told at once.

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The installed version of each package that this project depends on."""
    required = [line for line in metadata.requires("i2m_lib") or [] if "extra ==" not in line]
    names = [re.match(r"[\w.-]+", line)[0] for line in required]
    return {name: metadata.version(name) for name in names}


def dataset_sha256(folder: Path) -> str | None:
    """A digest of the models, with their files' own digests, and of what the dataset was built
    with; None if it is not there. Files with computed numbers are left out, since their last bits
    differ between machines."""
    if not (folder / "models.parquet").is_file():
        return None
    columns = ["synset", "model_id", "split", "status", "sha256"]
    models = pd.read_parquet(folder / "models.parquet", columns=columns)
    text = models.to_csv(index=False) + (folder / "build.json").read_text()
    return hashlib.sha256(text.encode()).hexdigest()


def changes(new: dict, old: dict, *, ignored: set[str] = frozenset()) -> list[str]:
    """A clause for each parameter in which two notebooks' parameters differ."""
    return [
        f"{name} is {new.get(name)!r}, there {old.get(name)!r}"
        for name in sorted((new.keys() | old.keys()) - ignored)
        if new.get(name) != old.get(name)
    ]
