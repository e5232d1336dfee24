"""Runs the notebooks in order with one parameter file, then compares with the reference run.

    python -m i2m_lib.study params/demo.yaml --set run=second seed=1
    python -m i2m_lib.study params/demo.yaml --from 03

Executed notebooks, their results and provenance.json lie in results/<run>/. `make study` passes its RUN, CORPUS and SET
by the environment, as STUDY_RUN, STUDY_CORPUS and STUDY_SET, so that the shell changes nothing in them.
"""

import argparse
import contextlib
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from i2m_lib.artefacts import key_file, made_by
from i2m_lib.paths import project_root

from .parameters import SET, StudyError, check_parameters, load_parameters, parse_settings, run_name
from .provenance import file_entries, notebook_key, read_provenance, save_provenance, written
from .reference import against_reference
from .report import results_table


def make_settings(environ: Mapping[str, str]) -> dict[str, object]:
    """The settings that `make study` passes: SET as it stands, and folders for the dataset and results of RUN, which
    without a name of its own has that of the folder CORPUS. Raises StudyError."""
    run, corpus, settings = (environ.get(f"STUDY_{name}", "").strip() for name in ("RUN", "CORPUS", "SET"))
    if corpus and not run:
        run = re.sub(r"\W+", "-", Path(corpus).expanduser().absolute().name).strip("-_")
    values = {"run": run, "dataset": f"data/{run}-dataset" if corpus else f"data/{run}"} if run else {}
    values |= {"corpus_root": corpus} if corpus else {}
    # A space separates two settings where a name and an equals sign follow: values may hold spaces.
    return values | parse_settings(re.split(r"\s+(?=[A-Za-z]\w*=)", settings) if settings else [])


def run_study(sections: dict[str, dict], root: Path, start: str = "") -> Path:
    """Runs notebooks/NN_*.ipynb from the one whose name begins with `start`; returns results/<run>. Where a claim in
    the last cell of a notebook does not hold, that is recorded and the next notebooks run. Raises StudyError if a
    parameter is wrong, an earlier notebook has not run with the same parameters, or a notebook fails."""
    notebooks = {path.stem: path for path in sorted(root.glob("notebooks/[0-9][0-9]_*.ipynb"))}
    parameters = check_parameters(sections, notebooks)
    folder = root / "results" / run_name(sections)
    for values in parameters.values():
        _check_dataset_folder(values, root)
    todo = [stem for stem in notebooks if stem[: len(start)] >= start]
    if not todo or not todo[0].startswith(start):
        raise StudyError(f"--from {start} begins none of {', '.join(notebooks)}.")
    done = _already_done(folder, [stem for stem in notebooks if stem not in todo], parameters)
    files = read_provenance(folder)["files"]
    for stem in todo:  # Otherwise those of an older run would outlive a failure of this one.
        (folder / f"{stem}.ipynb").unlink(missing_ok=True)
        (folder / f"{stem}.failed.ipynb").unlink(missing_ok=True)
    for stem in todo:
        print(f"{stem} ...", flush=True)
        before, entry = written(folder), {"parameters": parameters[stem], **made_by()}
        entry["started"] = entry.pop("time")
        began, unmet = time.monotonic(), run_notebook(notebooks[stem], folder, parameters[stem], root)
        seconds = round(time.monotonic() - began, 1)
        done[stem] = entry | {"finished": made_by()["time"], "seconds": seconds, "unmet": unmet}
        files = file_entries(folder, before, files, stem, done[stem])
        save_provenance(folder, done, files, root)
        print(f"{stem} took {seconds:.0f} s", flush=True)
    return folder


def _check_dataset_folder(parameters: dict, root: Path) -> None:
    """Refuses to write a dataset where a corpus or anything else lies."""
    if {"dataset", "corpus_root"} <= parameters.keys():
        dataset, corpus = ((root / Path(parameters[n]).expanduser()).resolve() for n in ("dataset", "corpus_root"))
        nested = corpus in (dataset, *dataset.parents) or dataset in corpus.parents
        if nested or (dataset.is_dir() and any(dataset.iterdir()) and not key_file(dataset).is_file()):
            cure = "choose another folder by dataset= or RUN=, or move this one away"
            raise StudyError(
                f"{dataset} holds a corpus or other files without a dataset's key, or lies in one: {cure}."
            )


def _already_done(folder: Path, stems: list[str], parameters: dict[str, dict]) -> dict[str, dict]:
    """What provenance.json says of the notebooks that have run before."""
    record = read_provenance(folder)["notebooks"]
    for stem in stems:
        if stem not in record or not (folder / f"{stem}.ipynb").is_file():
            raise StudyError(f"{folder} has no finished {stem}: start with --from {stem[:2]}.")
        asked, found = (notebook_key(stem, values) for values in (parameters[stem], record[stem]["parameters"]))
        if changed := asked.differences(found):
            cure = f"start with --from {stem[:2]}, or give the run another name"
            raise StudyError(f"{stem} in {folder} ran with other parameters ({'; '.join(changed)}): {cure}.")
    return {stem: record[stem] for stem in stems}


def run_notebook(source: Path, folder: Path, parameters: dict, root: Path) -> str:
    """Executes `source`, in `root`, to a notebook of the same name in `folder`, and returns the claim that does not
    hold, or "". What it prints is shown at once. One that fails is kept as NAME.failed.ipynb, and raises StudyError."""
    running, failed = (folder / f"{source.stem}.{state}.ipynb" for state in ("running", "failed"))
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    options = {"kernel_name": "python3", "progress_bar": False, "store_widget_state": False, "stdout_file": sys.stdout}
    options["extra_arguments"] = ["--log-level=CRITICAL"]  # of the kernel
    unmet = ""
    try:
        with contextlib.chdir(root):  # Papermill writes both paths into the notebook.
            paths = source.relative_to(root), running.relative_to(root)
            papermill.execute_notebook(*paths, parameters, **options)
    except (PapermillExecutionError, DeadKernelError, KeyboardInterrupt) as error:
        # Only the last cell of a notebook asserts anything; another may call a library that does.
        if getattr(error, "ename", "") != "AssertionError" or "assert " not in error.source:
            if running.is_file():  # Not if it ended before the first save.
                running.replace(failed)
            cure = f"See {failed}; resume by FROM={source.stem[:2]} or --from {source.stem[:2]}"
            raise StudyError(f"{source.stem} {_reason(error)}. {cure}, with the same parameters.") from error
        unmet = " ".join(error.evalue.split()) or "no message"
    running.replace(folder / source.name)
    return unmet


def _reason(error: BaseException) -> str:
    if isinstance(error, PapermillExecutionError):
        message = (error.evalue.strip().splitlines() or ["no message"])[0].removesuffix(".")
        return f"failed in cell [{error.exec_count}] with {error.ename}: {message}"
    dead = isinstance(error, DeadKernelError)
    return "lost its kernel, which may have run out of memory" if dead else "was interrupted"


def main(arguments: list[str] | None = None, root: Path | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m i2m_lib.study")
    parser.add_argument("parameters", type=Path, help="a file of params/")
    parser.add_argument("--from", dest="start", default="", metavar="NN", help="resume there")
    parser.add_argument(SET, nargs="+", action="extend", default=[], metavar="NAME=VALUE")
    given = parser.parse_args(arguments)
    root = root or project_root()
    try:
        settings = make_settings(os.environ) | parse_settings(given.set)
        folder = run_study({**load_parameters(given.parameters), SET: settings}, root, given.start)
    except StudyError as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    if (folder / "summary.parquet").is_file():
        print("\n" + results_table(pd.read_parquet(folder / "summary.parquet")) + "\n")
    print(*against_reference(folder, root / "results" / "reference"), sep="\n")
    print(f"Results are in {folder}.")
    unmet = {stem: entry["unmet"] for stem, entry in read_provenance(folder)["notebooks"].items() if entry["unmet"]}
    for stem, claim in unmet.items():
        print(f"study: a claim of {stem} does not hold: {claim}. See {folder / stem}.ipynb.", file=sys.stderr)
    return int(bool(unmet))
