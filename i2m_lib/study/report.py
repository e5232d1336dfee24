"""The results table, for the terminal and for README.md.

python -m i2m_lib.study.report            rewrites README.md from results/reference
python -m i2m_lib.study.report --check    exits 1 if README.md does not show what is there
"""

import argparse
import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from i2m_lib.files import whole
from i2m_lib.paths import project_root
from i2m_lib.scoring.statistics import (
    category_mean,
    gap_closed,
    per_shape,
    spread_of_runs,
    summarise,
    without_near_duplicates,
)

from .provenance import read_provenance

BASELINE, OURS = "image_retrieval", "image2mesh"
PUBLISHED = "learning_ffd", "image2mesh_paper"  # re-implemented here
TOLD = {  # all methods in the order of tables, by what each is told of an object
    "the category": ["random_shape", "mean_shape"],
    "the image": [BASELINE, "cluster_classifier", "template", "template_ffd", OURS],
    "the image and the category": ["learning_ffd", "image2mesh_paper", "paper split"],
    "the true shape": ["oracle_template", "oracle_nearest", "oracle_ffd", "floor"],
}
LADDER = {method: told for told, methods in TOLD.items() for method in methods}
HEADER = (
    f"method|told|trained|Chamfer-L1 ×100|instance mean|difference to {BASELINE}|F@1 %|normal consistency|IoU|win rate"
)
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the ladder's order, others after it."""
    methods = list(methods)
    return [m for m in LADDER if m in methods] + [m for m in methods if m not in LADDER]


def results_table(summary: pd.DataFrame) -> str:
    """A markdown table of the category means in `summary` (see `statistics.summarise`): a row for each method, with its
    steps and seconds of training where the summary has them. Beside that of Chamfer-L1 stands its mean of all shapes;
    the difference is in Chamfer-L1; the win rate is the share of shapes whose Chamfer-L1 is below the baseline's.
    Raises ValueError if `summary` has no category mean of Chamfer-L1."""
    rows = summary[summary["group"] == "category_mean"].set_index(["metric", "method"])
    if "chamfer_l1" not in rows.index.get_level_values("metric"):
        raise ValueError("The summary has no category_mean of chamfer_l1: run 04_evaluation.")
    chamfer, by_shape = rows.loc["chamfer_l1"], _chamfer(summary, "instance_mean")["mean"]
    lines = [HEADER.split("|"), ["---", "---", *["---:"] * 8]]
    for method in in_order(chamfer.index):
        lines.append(_row(method, chamfer.loc[method], by_shape.get(method), rows["mean"]))
    return _markdown(lines)


def category_table(summary: pd.DataFrame) -> str:
    """A markdown table of Chamfer-L1 ×100 in each category: shapes, our method, the baseline and the difference."""
    lines = [["category", "shapes", OURS, BASELINE, "difference"], ["---", *["---:"] * 4]]
    for category in sorted(summary.loc[~summary["group"].str.endswith("_mean"), "group"].unique()):
        rows = _chamfer(summary, category)
        ours, base = rows.loc[OURS], rows.loc[BASELINE]
        cells = (_interval("{:.2f} [{:.2f}, {:.2f}]", row) for row in (ours, base))
        change = _interval("{:+.2f} [{:+.2f}, {:+.2f}]", ours, "difference")
        lines.append([category, str(int(ours["n_shapes"])), *cells, change])
    return _markdown(lines)


def _chamfer(summary: pd.DataFrame, group: str) -> pd.DataFrame:
    return summary[(summary["metric"] == "chamfer_l1") & (summary["group"] == group)].set_index("method")


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(method: str, chamfer: pd.Series, by_shape: float | None, means: pd.Series) -> list[str]:
    cells = [
        *(method, LADDER.get(method, "–").replace("the ", "")),
        _text("{:,.0f} steps, {:,.0f} s", chamfer.get("steps") or None, chamfer.get("training")),
        _interval("{:.2f} [{:.2f}, {:.2f}]", chamfer),
        _text("{:.2f}", by_shape and 100 * by_shape),
        _interval("{:+.2f} [{:+.2f}, {:+.2f}]", chamfer, "difference"),
        _text("{:.1f}", means.get(("f_1", method))),
        _text("{:.3f}", means.get(("normal_consistency", method))),
        _text("{:.3f}", means.get(("iou", method))),
        _text("{:.0f} %", 100 * chamfer["win_rate"]),
    ]
    if method == BASELINE:
        cells[5] = cells[-1] = "–"
    return [f"**{cell}**" for cell in cells] if method == OURS else cells


def _interval(form: str, row: pd.Series, of: str = "") -> str:
    names = [f"{of}_low", f"{of}_high"] if of else ["low", "high"]
    return _text(form, *100 * row[[of or "mean", *names]])


def _text(form: str, *values: float | None) -> str:
    return "–" if any(map(pd.isna, values)) else form.format(*values).replace("-", "−")


def iou_line(summary: pd.DataFrame) -> str:
    """A sentence on the shapes that IoU leaves out, or nothing where there is no IoU."""
    n = summary[summary["group"] == "category_mean"].groupby("metric")["n_shapes"].first()
    if "iou" not in n:
        return ""
    refused = f"{1 - n['iou'] / n['chamfer_l1']:.0%} are refused, as some answer or the shape itself has no inside"
    return f"IoU is of {n['iou']} of {n['chamfer_l1']} shapes: {refused}."


def budget_line(summary: pd.DataFrame) -> str:
    """A sentence that says what published methods were trained on here, or nothing where there are none or the summary
    does not say."""
    rows = _chamfer(summary, "category_mean").reindex(columns=["steps", "training"]).dropna()
    here = [method for method in PUBLISHED if method in rows.index]
    if not here:
        return ""
    times = " and ".join(f"{x:.1f}" for x in rows.loc[here, "training"] / rows.loc[OURS, "training"])
    are = "are re-implementations" if len(here) > 1 else "is a re-implementation"
    return f"{' and '.join(here)} {are} at this budget: {times} times the training time of {OURS}."


def combination_line(scores: pd.DataFrame) -> str:
    """A sentence on what the predicted linear combination adds to the deformed template, with a paired interval."""
    both = scores[scores["method"].isin(["template_ffd", OURS]) & (scores["metric"] == "chamfer_l1")]
    if both["method"].nunique() < 2:
        return ""
    row = _chamfer(summarise(both, baseline="template_ffd", seed=0), "category_mean").loc[OURS]
    share = row["difference"] / (row["mean"] - row["difference"])
    change = _interval("{:+.3f} [{:+.3f}, {:+.3f}]", row, "difference") + _text(" ({:+.1%})", share)
    return f"The linear combination changes Chamfer-L1 ×100 by {change}."


def near_duplicates_line(scores: pd.DataFrame) -> str:
    """A sentence with both numbers, without and with near-duplicates of training or validation shapes, if there are
    any."""
    kept, by = without_near_duplicates(scores), ["category", "model_id"]
    n_out = len(scores.drop_duplicates(by)) - len(kept.drop_duplicates(by))
    if not n_out:
        return ""
    tables = [per_shape(part, "chamfer_l1")[[OURS, BASELINE]] for part in (kept, scores)]
    (ours, base), (ours_all, base_all) = (100 * category_mean(t, t.index.get_level_values("category")) for t in tables)
    what = f"{n_out} test shapes that are nearly shapes of training or validation are left out: with them, {OURS}"
    return f"{what} scores {ours_all:.2f}, not {ours:.2f}, and {BASELINE} {base_all:.2f}, not {base:.2f}."


def commits_of(provenance: dict) -> str:
    """The commits that made a run: `commit 0123456`, and what is not clean about them."""
    first, *more = (commit[:7] for commit in provenance["commits"])
    commits = f"mixed commits ({', '.join([first, *more])})" if more else f"commit {first}"
    return commits + " with uncommitted changes" * provenance["dirty"]


def run_line(provenance: dict) -> str:
    """One sentence on the run that made the numbers; its time is that of a run by one commit."""
    notebooks = provenance["notebooks"].values()
    date, seconds = max(n["finished"] for n in notebooks)[:10], sum(n["seconds"] for n in notebooks)
    time = f" in {seconds:.0f} s" if len(provenance["commits"]) == 1 else ""
    machine = f"{provenance['device']}, {provenance['cores']} cores"
    scope = "Category means on the test split, with 95 % intervals over shapes."
    return f"Run `{provenance['run']}` of {date} on {machine},{time} by {commits_of(provenance)}. {scope}"


def expected_readme(root: Path) -> str:
    """README.md as results/reference would have it. Raises FileNotFoundError or ValueError."""
    reference = root / "results" / "reference"
    longer = "The model that `Reconstructor.load()` gives trained longer, on more views, and is judged in more:"
    pretrained = _shown(reference / "pretrained", TOLD["the image"])
    by_category = category_table(pd.read_parquet(reference / "summary.parquet"))
    parts = [_shown(reference) + _seeds_line(reference), by_category, longer, pretrained]
    results = "\n".join([BEGIN, "\n\n".join(parts), END])
    readme = (root / "README.md").read_text(encoding="utf-8")
    text, n = re.subn(f"(?s){BEGIN}.*{END}", lambda _: results, readme)
    if n != 1:
        raise ValueError(f"README.md needs a line {BEGIN} and, below it, a line {END}.")
    return text


def _seeds_line(reference: Path) -> str:
    """A sentence on the runs beside the reference that differ in their seed only, if there are any."""
    others = {path.parent.name: path for path in sorted(reference.glob("seed*/scores.parquet"))}
    if not others:
        return ""
    paths = {"reference": reference / "scores.parquet"} | others
    runs = {name: without_near_duplicates(pd.read_parquet(path)) for name, path in paths.items()}
    means = 100 * spread_of_runs(runs, "chamfer_l1").loc[[OURS, BASELINE], list(runs)]
    first, *rest = (f"{ours:.2f} against {theirs:.2f}" for ours, theirs in zip(*means.to_numpy(), strict=True))
    return f" {OURS} scores {first} by {BASELINE}; with other seeds, {', '.join(rest)}."


def _shown(run: Path, methods: Collection[str] = ()) -> str:
    """The table of a run, or of some of its methods, and what else there is to say of it."""
    summary, scores = (pd.read_parquet(run / f"{name}.parquet") for name in ("summary", "scores"))
    kept = without_near_duplicates(scores)
    closed, low, high = gap_closed(kept, method=OURS, seed=0)
    gap = f"{OURS} closes {closed:.0%} [{low:.0%}, {high:.0%}] of the gap from {BASELINE} to oracle_ffd."
    table = results_table(summary[summary["method"].isin(methods)] if methods else summary)
    lines = run_line(read_provenance(run)), gap, "" if methods else budget_line(summary), combination_line(kept)
    lines += iou_line(summary), near_duplicates_line(scores)
    return f"{table}\n\n{' '.join(filter(None, lines))}"


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
    stale = check and text != readme.read_text(encoding="utf-8")
    if not check:
        with whole(readme) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(f"README.md {'is stale: run `python -m i2m_lib.study.report`' if stale else 'shows results/reference'}.")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
