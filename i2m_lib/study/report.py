"""The results table, for the terminal and for README.md.

python -m i2m_lib.study.report            rewrites README.md from results/reference
python -m i2m_lib.study.report --check    exits 1 if README.md does not show what is there
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd

from i2m_lib.files import whole
from i2m_lib.paths import project_root
from i2m_lib.scoring.statistics import gap_closed, spread_of_runs

LADDER = [
    *["random_shape", "mean_shape", "image_retrieval", "cluster_classifier"],
    *["template", "template_ffd", "image2mesh"],
    *["learning_ffd", "image2mesh_paper"],
    *["oracle_template", "oracle_nearest", "oracle_ffd", "floor"],
]
BASELINE, OURS = "image_retrieval", "image2mesh"
LEARNT = LADDER[2:7]  # by our network, or from its codes
HEADER = [
    *["method", "Chamfer-L1 ×100", f"difference to {BASELINE}"],
    *["F@1 %", "normal consistency", "win rate"],
]
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the ladder's order, others after it."""
    methods = list(methods)
    return [m for m in LADDER if m in methods] + [m for m in methods if m not in LADDER]


def results_table(summary: pd.DataFrame) -> str:
    """A markdown table with a row for each method, in the ladder's order, others after it.

    `summary` has the columns metric, method, group, mean, low, high, difference, difference_low,
    difference_high and win_rate; shown are its rows of group 'category_mean'. The difference is
    the method's Chamfer-L1 minus the baseline's, the win rate the share of shapes it is lower for.
    Raises ValueError if `summary` has no such rows.
    """
    rows = summary[summary["group"] == "category_mean"].set_index(["metric", "method"])
    if "chamfer_l1" not in rows.index.get_level_values("metric"):
        raise ValueError("The summary has no category_mean of chamfer_l1: run 04_evaluation.")
    chamfer = rows.loc["chamfer_l1"]
    lines = [HEADER, ["---"] + ["---:"] * (len(HEADER) - 1)]
    lines += [_row(method, chamfer.loc[method], rows["mean"]) for method in in_order(chamfer.index)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(method: str, chamfer: pd.Series, means: pd.Series) -> list[str]:
    difference, wins = "–", "–"
    if method != BASELINE:
        columns = ["difference", "difference_low", "difference_high"]
        difference = _interval(*100 * chamfer[columns], sign="+")
        wins = _number(chamfer["win_rate"], "{:.0%}".format).replace("%", " %")
    cells = [
        method,
        _interval(*100 * chamfer[["mean", "low", "high"]]),
        difference,
        _number(means.get(("f_1", method)), "{:.1f}".format),
        _number(means.get(("normal_consistency", method)), "{:.3f}".format),
        wins,
    ]
    return [f"**{cell}**" for cell in cells] if method == OURS else cells


def _number(value: float | None, text: Callable[[float], str]) -> str:
    return "–" if pd.isna(value) else text(value).replace("-", "−")


def _interval(mean: float, low: float, high: float, sign: str = "") -> str:
    mean, low, high = (_number(v, f"{{:{sign}.2f}}".format) for v in (mean, low, high))
    return f"{mean} [{low}, {high}]"


def run_line(provenance: dict) -> str:
    """One sentence on the run that made the numbers."""
    date = datetime.fromisoformat(provenance["finished"]).date().isoformat()
    sha = provenance["git"]["sha"]
    commit = f", commit {sha[:7]}" if sha else ""
    return (
        f"Run `{provenance['run']}` of {date} on {provenance['device']}, {provenance['cores']} "
        f"cores, in {provenance['seconds']:.0f} s{commit}. Category means on the test split, "
        "with 95 % intervals over shapes."
    )


def with_results(readme: str, results: str) -> str:
    """`readme` with the results between its two markers. Raises ValueError."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md needs a line {BEGIN} and, below it, a line {END}.")
    return f"{before}{BEGIN}\n{results}\n{END}{after}"


def expected_readme(root: Path) -> str:
    """README.md as results/reference would have it. Raises FileNotFoundError or ValueError."""
    reference = root / "results" / "reference"
    longer = "The model that `Reconstructor.load()` gives trained longer, on more views, and is judged in more:"
    shown = [_shown(reference) + _seeds_line(reference), longer, _shown(reference / "pretrained", LEARNT)]
    return with_results((root / "README.md").read_text(encoding="utf-8"), "\n\n".join(shown))


def _seeds_line(reference: Path) -> str:
    """A sentence on the runs beside the reference that differ in their seed only, if there are any."""
    others = {path.parent.name: pd.read_parquet(path) for path in sorted(reference.glob("seed*/scores.parquet"))}
    if not others:
        return ""
    runs = {"reference": pd.read_parquet(reference / "scores.parquet")} | others
    means = 100 * spread_of_runs(runs, "chamfer_l1").loc[[OURS, BASELINE], list(runs)]
    first, *rest = (f"{ours:.2f} against {theirs:.2f}" for ours, theirs in zip(*means.to_numpy(), strict=True))
    return f" {OURS} scores {first} by {BASELINE}; with other seeds, {', '.join(rest)}."


def _shown(run: Path, methods: Sequence[str] = ()) -> str:
    """The table of a run, or of some of its methods, and what else there is to say of it."""
    summary, scores = (pd.read_parquet(run / f"{name}.parquet") for name in ("summary", "scores"))
    closed, low, high = gap_closed(scores, method=OURS, seed=0)
    gap = f"{OURS} closes {closed:.0%} [{low:.0%}, {high:.0%}] of the gap from {BASELINE} to oracle_ffd."
    table = results_table(summary[summary["method"].isin(methods)] if methods else summary)
    return f"{table}\n\n{run_line(json.loads((run / 'provenance.json').read_text()))} {gap}"


def main(arguments: list[str] | None = None, root: Path | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m i2m_lib.study.report")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    check = parser.parse_args(arguments).check
    readme = (root or project_root()) / "README.md"
    try:
        text = expected_readme(readme.parent)
    except (FileNotFoundError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    if text == readme.read_text(encoding="utf-8"):
        print("README.md shows results/reference.")
        return 0
    if check:
        print("README.md is stale: run `python -m i2m_lib.study.report`.", file=sys.stderr)
        return 1
    with whole(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print("README.md now shows results/reference.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
