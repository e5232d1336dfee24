"""A small whole study, killed with all its processes (SIGKILL) at random moments: each resumes and ends with the same.

    python benchmarks/killed_study.py [--quick] [--first 0]

One study runs undisturbed. For each seed another is killed at a random moment of that time, and started again by the
same command. Scores, network and template graph must be the same bytes. It runs in a temporary folder, on Linux.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from i2m_lib.artefacts import sha256
from i2m_lib.paths import project_root

SETTINGS = (
    "categories=['cabinet','lamp'] max_models=4 n_views=2 n_varied=1 image_size=48 n_templates=2 ceiling_sizes=[1,2] "
    "epochs=2 batch_size=8 backbone=mobilenetv3_small_100 node='' weights='' frozen='' size=64 "
    "n_samples=1000 diagnosis_views=1 n_models=2 n_boot=100"
)
COMPARED = "scores.parquet", "model.safetensors", "graph/*.npz", "graph/edges.parquet", "graph/originals/*/*"
TOKEN = "KILLED_STUDY"


def start(root: Path, run: str) -> subprocess.Popen:
    """The study `run` of the project at `root`; its processes, and no others, have the run's name in TOKEN."""
    settings = f"{SETTINGS} corpus_root={project_root() / 'data/corpus'}"
    environ = os.environ | {"PYTHONPATH": str(root), "STUDY_RUN": run, "STUDY_SET": settings, TOKEN: run}
    command = [sys.executable, "-m", "i2m_lib.study", "params/demo.yaml"]
    with (root / f"{run}.log").open("ab") as log:
        return subprocess.Popen(command, cwd=root, env=environ, stdout=log, stderr=subprocess.STDOUT)


def finish(root: Path, run: str) -> float:
    """The seconds in which the study runs to its end. Raises RuntimeError, with what it printed last, if it fails."""
    began = time.perf_counter()
    if start(root, run).wait():
        raise RuntimeError(f"{run} failed: {(root / f'{run}.log').read_text()[-600:]}")
    return time.perf_counter() - began


def processes(run: str) -> list[int]:
    """Those that belong to a run: of the study, its kernel and its workers."""
    found, wanted = [], f"{TOKEN}={run}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [int(path.parent.name)] * (wanted in path.read_bytes().split(b"\0"))
        except OSError:  # It has ended, or is another's.
            continue
    return found


def kill(study: subprocess.Popen, run: str) -> None:
    """Ends all processes of a run at once."""
    while alive := processes(run):  # One may have started another meanwhile.
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    study.wait()


def digests(root: Path, run: str) -> dict[str, str]:
    """The sha256 of each file of COMPARED."""
    folder = root / "results" / run
    return {str(p.relative_to(folder)): sha256(p) for pattern in COMPARED for p in sorted(folder.glob(pattern))}


def killed(root: Path, run: str, moment: float) -> str | None:
    """The notebook in which the study `run` was killed, `moment` seconds after its start; None if it had ended."""
    study = start(root, run)
    try:
        study.wait(moment)
        return None
    except subprocess.TimeoutExpired:
        kill(study, run)
    begun = [line for line in (root / f"{run}.log").read_text().splitlines() if line.endswith(" ...")]
    return begun[-1].removesuffix(" ...") if begun else "before 01"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 kills instead of 20")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    n_kills, n_killed, failures, seed = 2 if arguments.quick else 20, 0, [], arguments.first
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("i2m_lib", "notebooks", "params"):
            shutil.copytree(project_root() / name, root / name)
        shutil.copy(project_root() / "pyproject.toml", root)
        seconds = finish(root, "whole")
        expected = digests(root, "whole")
        print(f"undisturbed: {seconds:.0f} s, {len(expected)} files compared")
        print(f"{'seed':>4s} {'killed after':>12s}  {'in':20s} {'resumed in':>10s}  ends with", flush=True)
        while n_killed < n_kills:
            run, moment = f"killed{seed}", np.random.default_rng(seed).uniform(0, seconds)
            if place := killed(root, run, moment):
                n_killed += 1
                again = finish(root, run)
                found = digests(root, run)
                differing = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
                failures += [f"seed {seed}: {', '.join(differing)}"] * bool(differing)
                end = f"{len(differing)} other files" if differing else "the same bytes"
                print(f"{seed:4d} {moment:10.1f} s  {place:20s} {again:8.0f} s  {end}", flush=True)
            for made in ("results", "data"):
                shutil.rmtree(root / made / run, ignore_errors=True)
            seed += 1
    print("\n".join(failures) or f"{n_killed} of {n_killed} killed studies ended with the same bytes")
    return bool(failures)


if __name__ == "__main__":
    raise SystemExit(main())
