"""The committed reference run: how another run compares with it, and how a run becomes it.

python -m i2m_lib.study.reference demo    results/demo becomes results/reference; README.md shows it
    --mixed                               although files were made by several commits or with uncommitted changes

Runs named seed* become its further seeds, and results/pretrained, if there is one, the model that
`Reconstructor.load()` gives.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

import pandas as pd

from i2m_lib.artefacts import sha256
from i2m_lib.files import save_json
from i2m_lib.paths import project_root
from i2m_lib.scoring.statistics import category_mean

from . import report
from .parameters import StudyError
from .provenance import FILE, notebook_key, read_provenance

COMPARED = ["chamfer_l1", "f_1", "normal_consistency"]
TOLERANCE = 0.05  # relative to the reference,
SMALLEST = 1e-3  # or to this if that is smaller
PLACES = {"run", "dataset", "corpus_root"}  # parameters that name only where something lies
COPIED = {  # what the reference keeps of a run, with the keys of artefacts
    "run": r"[^/]+\.parquet(\.key\.json)?|figures/.+",
    "seed": r"scores\.parquet(\.key\.json)?",
    "pretrained": r"(history|scores|summary)\.parquet(\.key\.json)?|(figures|graph)/.+|model\..+",
}


def against_reference(folder: Path, reference: Path) -> list[str]:
    """How the scores of a run compare with those of the reference run, in sentences."""
    for run in (folder, reference):
        if not (run / "scores.parquet").is_file():
            return [f"{run} has no scores.parquet, so nothing is compared with the reference."]
    new, old = read_provenance(folder), read_provenance(reference)
    lines = []
    if not old.get("dataset"):
        lines = ["The reference was made before datasets had keys, so it may be of another dataset."]
    elif new.get("dataset") != old["dataset"]:
        return ["The dataset is another one than the reference's, so no scores are compared."]
    for stem in sorted(new["notebooks"].keys() | old["notebooks"].keys()):
        known, asked = (p["notebooks"].get(stem, {}).get("parameters", {}) for p in (old, new))
        differing = notebook_key(stem, known, PLACES).differences(notebook_key(stem, asked, PLACES))
        lines += [f"In {stem}, {change}." for change in differing]
    scores = [pd.read_parquet(run / "scores.parquet") for run in (folder, reference)]
    return lines + (compare(*scores) or [f"Nothing differs from the reference beyond {100 * TOLERANCE:g} %."])


def compare(new: pd.DataFrame, reference: pd.DataFrame) -> list[str]:
    """A sentence for the methods that only one of two tables of scores has, and for each category mean that differs by
    more than TOLERANCE."""
    means, lines = pd.DataFrame({"here": canonical_means(new), "there": canonical_means(reference)}), []
    for place, other in (("here", "there"), ("there", "here")):
        alone = means[means[other].isna()].index.droplevel("metric").unique()
        lines += [f"Only {place}: {', '.join(f'{method} on {split}' for split, method in alone)}."] * (len(alone) > 0)
    shares = (means.here - means.there) / means.there.abs().clip(lower=SMALLEST)
    for (split, method, metric), share in shares[shares.abs() > TOLERANCE].items():
        here, there = means.loc[(split, method, metric)]
        lines.append(f"{metric} of {method} on {split} is {here:.4g}, there {there:.4g} ({share:+.1%}).")
    return lines


def canonical_means(scores: pd.DataFrame) -> pd.Series:
    """Category mean for each split, method and metric of COMPARED, under the canonical protocol."""
    rows = scores[(scores["protocol"] == "canonical") & scores["metric"].isin(COMPARED)]
    by = ["split", "method", "metric"]
    shapes = rows.groupby([*by, "category", "model_id"], observed=True)["value"].mean().reset_index()
    return shapes.groupby(by).apply(lambda shape: category_mean(shape["value"], shape["category"]))


def make_reference(run: str, root: Path, *, mixed: bool = False) -> None:
    """results/<run>, seed* and pretrained replace results/reference, which keeps its pretrained model if none was
    trained here. Raises StudyError for a run that is not evaluated, has files that are not as recorded, or is not of
    one commit without changes, unless `mixed` allows it."""
    results = root / "results"
    new, old = results / ".reference", results / "reference"
    shutil.rmtree(new, ignore_errors=True)
    _copy(results / run, new, COPIED["run"], mixed)
    for folder in sorted(results.glob("seed*")):
        _copy(folder, new / folder.name, COPIED["seed"], mixed)
    if (results / "pretrained" / "summary.parquet").is_file():
        _copy(results / "pretrained", new / "pretrained", COPIED["pretrained"], mixed)
    elif (old / "pretrained").is_dir():
        shutil.copytree(old / "pretrained", new / "pretrained")
    shutil.rmtree(old, ignore_errors=True)
    new.rename(old)


def _copy(folder: Path, target: Path, pattern: str, mixed: bool) -> None:
    provenance = read_provenance(folder)
    if "summary.parquet" not in provenance["files"]:
        raise StudyError(f"{folder} has no summary.parquet that its provenance.json records: run the study first.")
    if not mixed and (len(provenance["commits"]) > 1 or provenance["dirty"]):
        cure = "run it anew from one commit without changes, or take it as it is by MIXED=1"
        raise StudyError(f"{folder} was made by {report.commits_of(provenance)}: {cure}.")
    provenance["files"] = {name: e for name, e in provenance["files"].items() if re.fullmatch(pattern, name)}
    for name, entry in provenance["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != entry["sha256"]:
            raise StudyError(f"{folder / name} is not the file that provenance.json records: run its notebook again.")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / name, target / name)
    save_json(target / FILE, provenance)


def main(arguments: list[str] | None = None, root: Path | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m i2m_lib.study.reference")
    parser.add_argument("run", help="a folder of results/")
    parser.add_argument("--mixed", action="store_true", help="take what several commits or uncommitted changes made")
    given = parser.parse_args(arguments)
    root = root or project_root()
    try:
        make_reference(given.run, root, mixed=given.mixed)
    except StudyError as error:
        print(f"reference: {error}", file=sys.stderr)
        return 1
    return report.main([], root)


if __name__ == "__main__":
    sys.exit(main())
