"""Runs the notebooks in order with one parameter file, then compares with the reference run.

    python -m i2m_lib.study params/demo.yaml --set run=second seed=1
    python -m i2m_lib.study params/demo.yaml --from 03

Executed notebooks, their results and provenance.json lie in results/<run>/.
"""

import argparse
import contextlib
import logging
import os
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from i2m_lib.files import save_json
from i2m_lib.paths import project_root

from .parameters import SET, StudyError, check_parameters, load_parameters, run_name
from .provenance import changes, environment, provenance, read_provenance
from .report import results_table

COMPARED = ["chamfer_l1", "f_1", "normal_consistency"]
TOLERANCE = 0.05
SMALLEST = 1e-3  # Differences are relative to the reference, or to this if that is smaller.
MEANS = {"workers"}  # Parameters that change no result,
PLACES = {"run", "dataset", "corpus_root"}  # and those that do only by what lies there.


class NotebookError(StudyError):
    """A notebook did not reach its end. `stem` is its name without the suffix."""

    def __init__(self, stem: str, sentence: str):
        super().__init__(f"{stem} {sentence}")
        self.stem = stem


def find_notebooks(root: Path) -> dict[str, Path]:
    """notebooks/NN_name.ipynb by stem, in order. Raises StudyError if there is none."""
    paths = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise StudyError(f"{root / 'notebooks'} holds no notebook named like 01_name.ipynb.")
    return {path.stem: path for path in paths}


def run_study(sections: dict[str, dict], root: Path, start: str = "") -> Path:
    """Runs the notebooks from the one whose name begins with `start`; returns results/<run>. A claim that does not hold
    ends its notebook, whose last cell it is, and is recorded; the next notebooks run.

    Raises StudyError if a parameter is wrong, or an earlier notebook has not run with the same
    ones; NotebookError if a notebook fails.
    """
    notebooks = find_notebooks(root)
    parameters = check_parameters(sections, notebooks)
    run = run_name(sections)
    folder = root / "results" / run
    todo = [stem for stem in notebooks if stem[: len(start)] >= start]
    if not todo or not todo[0].startswith(start):
        raise StudyError(f"--from {start} begins none of {', '.join(notebooks)}.")
    done = _already_done(folder, [stem for stem in notebooks if stem not in todo], parameters)
    here = environment(root)
    for stem in todo:  # Otherwise those of an older run would outlive a failure of this one.
        (folder / f"{stem}.ipynb").unlink(missing_ok=True)
        (folder / f"{stem}.failed.ipynb").unlink(missing_ok=True)
    for stem in todo:
        print(f"{stem} ...", flush=True)
        entry = {"parameters": parameters[stem], "started": _now()}
        seconds, unmet = run_notebook(notebooks[stem], folder, parameters[stem], root)
        entry |= {"finished": _now(), "seconds": round(seconds, 1), "unmet": unmet}
        done[stem] = entry | {key: here[key] for key in ("git", "device")}
        save_json(folder / "provenance.json", provenance(run, here, done, root))
        print(f"{stem} took {seconds:.0f} s", flush=True)
    return folder


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _already_done(folder: Path, stems: list[str], parameters: dict[str, dict]) -> dict[str, dict]:
    """What provenance.json says of the notebooks before the one to start from."""
    record = read_provenance(folder)["notebooks"]
    for stem in stems:
        if stem not in record or not (folder / f"{stem}.ipynb").is_file():
            raise StudyError(f"{folder} has no finished {stem}: start with --from {stem[:2]}.")
        if changed := changes(parameters[stem], record[stem]["parameters"], ignored=MEANS):
            raise StudyError(
                f"{stem} in {folder} ran with other parameters ({'; '.join(changed)}): start with "
                f"--from {stem[:2]}, or give the run another name."
            )
    return {stem: record[stem] for stem in stems}


def run_notebook(source: Path, folder: Path, parameters: dict, root: Path) -> tuple[float, str]:
    """Executes `source`, in `root`, to a notebook of the same name in `folder`, and returns the
    seconds it took and the claim that does not hold, or "". What it prints is shown at once. One
    that does not reach its end is kept as NAME.failed.ipynb, and raises NotebookError."""
    running = folder / f"{source.stem}.running.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    started, unmet = time.monotonic(), ""
    try:
        with contextlib.chdir(root):  # Papermill writes both paths into the notebook.
            papermill.execute_notebook(
                source.relative_to(root),
                running.relative_to(root),
                parameters,
                kernel_name="python3",
                progress_bar=False,
                stdout_file=sys.stdout,
                store_widget_state=False,
                extra_arguments=["--log-level=CRITICAL"],  # of the kernel
            )
    except (PapermillExecutionError, DeadKernelError, KeyboardInterrupt) as error:
        if not (unmet := _claim(error)):
            failed = folder / f"{source.stem}.failed.ipynb"
            if running.is_file():  # Not if it ended before the first save.
                running.replace(failed)
            raise NotebookError(source.stem, f"{_reason(error)}. See {failed}.") from error
    running.replace(folder / source.name)
    return time.monotonic() - started, unmet


def _claim(error: BaseException) -> str:
    """What a notebook's last cell claims in vain, if that is the error: notebooks assert nothing else."""
    if isinstance(error, PapermillExecutionError) and error.ename == "AssertionError":
        return " ".join(error.evalue.split()) or "no message"
    return ""


def _reason(error: BaseException) -> str:
    if isinstance(error, PapermillExecutionError):
        message = (error.evalue.strip().splitlines() or ["no message"])[0].removesuffix(".")
        return f"failed in cell [{error.exec_count}] with {error.ename}: {message}"
    if isinstance(error, DeadKernelError):
        return "lost its kernel, which may have run out of memory"
    return "was interrupted"


def compare(new: pd.DataFrame, reference: pd.DataFrame, tolerance: float = TOLERANCE) -> list[str]:
    """A sentence for each method's category mean of a metric of `COMPARED` that differs between
    two tables of scores by more than the share `tolerance`, and for what only one of them has."""
    means = pd.DataFrame({"here": category_means(new), "there": category_means(reference)})
    lines, alone = [], means[means.isna().any(axis=1)]
    for where, rows in alone.groupby(alone.here.isna().map({True: "there", False: "here"})):
        names = {f"{method} on {split}": None for split, method, _ in rows.index}
        lines.append(f"Only {where}: {', '.join(names)}.")
    for (split, method, metric), row in means.drop(alone.index).iterrows():
        name = f"{metric} of {method} on {split}"
        share = (row.here - row.there) / max(abs(row.there), SMALLEST)
        if abs(share) > tolerance:
            lines.append(f"{name} is {row.here:.4g}, there {row.there:.4g} ({share:+.1%}).")
    return lines


def category_means(scores: pd.DataFrame) -> pd.Series:
    """Mean over views, over a category's models, then over categories, of the canonical protocol:
    a number for each split, method and metric of `COMPARED`."""
    rows = scores[(scores["protocol"] == "canonical") & scores["metric"].isin(COMPARED)]
    by = ["split", "method", "metric", "category", "model_id"]
    values = rows.groupby(by, observed=True)["value"].mean()
    for levels in (by[:4], by[:3]):
        values = values.groupby(level=levels, observed=True).mean()
    return values


def against_reference(folder: Path, reference: Path, tolerance: float = TOLERANCE) -> list[str]:
    """What the scores of a run say beside those of the reference run, in sentences."""
    for run in (folder, reference):
        if not (run / "scores.parquet").is_file():
            return [f"{run} has no scores.parquet, so nothing is compared with the reference."]
    new, old = read_provenance(folder), read_provenance(reference)
    if new.get("dataset_sha256") != old.get("dataset_sha256"):
        return ["The dataset is another one than the reference's, so no scores are compared."]
    lines = []
    for stem in sorted(new["notebooks"].keys() | old["notebooks"].keys()):
        pair = [p["notebooks"].get(stem, {}).get("parameters", {}) for p in (new, old)]
        lines += [f"In {stem}, {change}." for change in changes(*pair, ignored=MEANS | PLACES)]
    scores = [pd.read_parquet(run / "scores.parquet") for run in (folder, reference)]
    same = [f"Nothing differs from the reference beyond {100 * tolerance:g} %."]
    return lines + (compare(*scores, tolerance) or same)


def main(arguments: list[str] | None = None, root: Path | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m i2m_lib.study")
    parser.add_argument("parameters", type=Path, help="a file of params/")
    parser.add_argument("--from", dest="start", default="", metavar="NN", help="resume there")
    parser.add_argument(SET, nargs="+", action="extend", default=[], metavar="NAME=VALUE")
    given = parser.parse_args(arguments)
    root = root or project_root()
    try:
        folder = run_study(load_parameters(given.parameters, given.set), root, given.start)
    except StudyError as error:
        print(f"study: {error}", file=sys.stderr)
        if isinstance(error, NotebookError):
            print(f"Resume with: {_resume(given, error.stem[:2])}", file=sys.stderr)
        return 1
    if (folder / "summary.parquet").is_file():
        print("\n" + results_table(pd.read_parquet(folder / "summary.parquet")) + "\n")
    print(*against_reference(folder, root / "results" / "reference"), sep="\n")
    print(f"Results are in {folder}.")
    unmet = {stem: entry.get("unmet") for stem, entry in read_provenance(folder)["notebooks"].items()}
    for stem, claim in unmet.items():
        if claim:
            print(f"study: {stem} claims in vain: {claim}. See {folder / stem}.ipynb.", file=sys.stderr)
    return int(any(unmet.values()))


def _resume(given: argparse.Namespace, number: str) -> str:
    command = [os.path.relpath(sys.executable), "-m", "i2m_lib.study", str(given.parameters)]
    command += ["--from", number]
    return shlex.join(command + ([SET, *given.set] if given.set else []))


if __name__ == "__main__":
    sys.exit(main())
