import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from i2m_lib.study import report

README = f"# Title\n{report.BEGIN}\noutdated\n{report.END}\nend\n"
PROVENANCE = {
    **{"run": "demo", "device": "A chip", "cores": 2, "commits": ["0123456789"], "dirty": False},
    "notebooks": {
        "01_first": {"finished": "2026-05-01T12:00:00+00:00", "seconds": 60.0},
        "02_second": {"finished": "2026-05-02T00:01:00+00:00", "seconds": 1.2},
    },
}


@pytest.fixture
def summary() -> pd.DataFrame:
    """Four methods out of order, the baseline and one from outside the ladder among them."""
    methods = ["mine", "floor", "image2mesh", "image_retrieval"]
    row = {"group": "category_mean", "n_shapes": 9, "win_rate": 0.75}
    row |= {"difference": -0.004, "difference_low": -0.005, "difference_high": 0.001}
    means = {"chamfer_l1": 0.02, "f_1": 31.26, "normal_consistency": 0.8126, "iou": 0.5}
    table = pd.DataFrame(
        {"metric": metric, "method": method, "mean": mean, "low": 0.9 * mean, "high": 1.1 * mean}
        for metric, mean in means.items()
        for method in methods
    ).assign(**row)
    others = [table.assign(group=g, mean=m) for g, m in {"chair": 7.0, "instance_mean": 0.03}.items()]
    return pd.concat([table, *others], ignore_index=True)


@pytest.fixture
def root(tmp_path: Path, summary: pd.DataFrame) -> Path:
    reference = tmp_path / "results" / "reference"
    values = {"image_retrieval": 2.0, "image2mesh": 1.5, "oracle_ffd": 1.0}
    scores = pd.DataFrame({"method": values.keys(), "value": values.values()}).assign(
        metric="chamfer_l1", protocol="canonical", split="test", synset="1", category="chair", model_id="a", view=0
    )
    for run in (reference, reference / "pretrained"):
        run.mkdir(parents=True)
        summary.to_parquet(run / "summary.parquet")
        scores.to_parquet(run / "scores.parquet")
        (run / "provenance.json").write_text(json.dumps(PROVENANCE))
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def test_methods_stand_in_the_order_of_the_ladder():
    assert report.in_order(["mine", "floor", "random_shape"]) == ["random_shape", "floor", "mine"]
    assert report.in_order(reversed(report.LADDER)) == list(report.LADDER)


def test_the_ladder_has_every_method_and_what_it_is_told(dataset, tiny_run):
    from i2m_lib.evaluation.ladder import PUBLISHED, ladder_methods
    from i2m_lib.evaluation.paper_split import METHOD, NAME

    told = {m.name: m.told for m in ladder_methods(dataset, tiny_run.folder, seed=0, workers=1)}
    told |= {name: method.told for name, method in PUBLISHED.items()}
    assert tuple(PUBLISHED) == report.PUBLISHED
    assert told | {NAME: PUBLISHED[METHOD].told} == report.LADDER


def test_the_table_follows_the_ladder(summary):
    lines = report.results_table(summary).splitlines()
    firsts = [line.split("|")[1].strip() for line in lines]
    assert firsts == ["method", "---", "image_retrieval", "**image2mesh**", "floor", "mine"]
    assert len({line.count("|") for line in lines}) == 1


def test_the_table_shows_category_means(summary):
    retrieval, _, floor, mine = report.results_table(summary).splitlines()[2:6]
    assert retrieval == "| image_retrieval | image | – | 2.00 [1.80, 2.20] | 3.00 | – | 31.3 | 0.813 | 0.500 | – |"
    change = "−0.40 [−0.50, +0.10]"
    assert floor == f"| floor | true shape | – | 2.00 [1.80, 2.20] | 3.00 | {change} | 31.3 | 0.813 | 0.500 | 75 % |"
    assert mine.startswith("| mine | – | – | 2.00")


def test_the_table_shows_what_methods_were_trained_for(summary):
    steps, seconds = summary.method.map({"image2mesh": 3520}), summary.method.map({"image2mesh": 314.4})
    lines = report.results_table(summary.assign(steps=steps.fillna(0), training=seconds.fillna(0))).splitlines()
    assert [line.split("|")[3].strip() for line in lines[2:]] == ["–", "**3,520 steps, 314 s**", "–", "–"]


def test_published_methods_are_called_re_implementations_at_their_budget(summary):
    rows = summary.assign(method=summary.method.replace("mine", "learning_ffd"))
    assert report.budget_line(rows) == report.budget_line(summary.assign(steps=1, training=1.0)) == ""
    times = rows.assign(steps=9, training=rows.method.map({"learning_ffd": 30.0}).fillna(20.0))
    said = "learning_ffd is a re-implementation at this budget: 1.5 times the training time of image2mesh."
    assert report.budget_line(times) == said


def test_what_was_not_measured_is_a_dash(summary):
    summary = summary[(summary.metric == "chamfer_l1") & (summary.group == "category_mean")].assign(win_rate=np.nan)
    assert report.results_table(summary).splitlines()[4].endswith("2.20] | – | −0.40 [−0.50, +0.10] | – | – | – | – |")
    assert report.iou_line(summary) == ""


def test_categories_stand_beside_one_another(summary):
    table = report.category_table(summary).splitlines()
    assert table[0] == "| category | shapes | image2mesh | image_retrieval | difference |"
    change = "−0.40 [−0.50, +0.10]"
    assert table[2:] == [f"| chair | 9 | 700.00 [1.80, 2.20] | 700.00 [1.80, 2.20] | {change} |"]


def test_the_shapes_that_iou_leaves_out_are_told(summary):
    fewer = summary.assign(n_shapes=summary.n_shapes.where(summary.metric != "iou", 6))
    assert report.iou_line(fewer).startswith("IoU is of 6 of 9 shapes: 33% are refused")


def scored(**values: list[float]) -> pd.DataFrame:
    """Chamfer-L1 of shapes of one category, a list a method."""
    rows = [(m, str(i), x, i == 0) for m, column in values.items() for i, x in enumerate(column)]
    table = pd.DataFrame(rows, columns=["method", "model_id", "value", "near_duplicate"])
    return table.assign(metric="chamfer_l1", protocol="canonical", split="test", synset="1", category="chair", view=0)


def test_what_the_combination_adds_is_the_paired_difference():
    scores = scored(template_ffd=[0.02, 0.04], image2mesh=[0.019, 0.039])
    line = "The linear combination changes Chamfer-L1 ×100 by −0.100 [−0.100, −0.100] (−3.3%)."
    assert report.combination_line(scores) == line
    assert report.combination_line(scores[scores.method == "image2mesh"]) == ""


def test_near_duplicates_are_told_with_both_numbers():
    scores = scored(image2mesh=[0.01, 0.03, 0.05], image_retrieval=[0.0, 0.06, 0.06])
    line = report.near_duplicates_line(scores)
    assert line.startswith("1 test shapes that are nearly shapes of training or validation are left out")
    assert line.endswith("image2mesh scores 3.00, not 4.00, and image_retrieval 4.00, not 6.00.")
    assert report.near_duplicates_line(scores.drop(columns="near_duplicate")) == ""


def test_a_summary_without_category_means_is_refused(summary):
    with pytest.raises(ValueError, match="run 04_evaluation"):
        report.results_table(summary[summary.group == "chair"])


def test_readme_is_rewritten_between_its_markers_once(root, capsys):
    assert report.main(["--check"], root) == 1
    assert (root / "README.md").read_text() == README
    assert report.main([], root) == 0
    text = (root / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# Title\n<!-- results -->\n| method |")
    assert text.endswith("\n<!-- /results -->\nend\n")
    assert "Run `demo` of 2026-05-02 on A chip, 2 cores, in 61 s by commit 0123456. Category means" in text
    assert text.count("image2mesh closes 50% [50%, 50%] of the gap from image_retrieval to oracle_ffd.") == 2
    assert text.count("| floor |") == 1
    assert "outdated" not in text
    assert report.main(["--check"], root) == 0


def test_a_run_of_several_commits_is_called_so():
    assert report.commits_of(PROVENANCE | {"dirty": True}) == "commit 0123456 with uncommitted changes"
    mixed = PROVENANCE | {"commits": ["0123456789", "abcdef0123"]}
    assert report.commits_of(mixed) == "mixed commits (0123456, abcdef0)"
    # Its notebooks found some results already made, so the sum of their times is not that of a run.
    assert "on A chip, 2 cores, by mixed commits (0123456, abcdef0)." in report.run_line(mixed)


def test_other_seeds_are_told_beside_the_reference(root):
    assert "seed" not in report.expected_readme(root)
    for name, change in {"seed1": 0.5, "seed2": -0.5}.items():
        (root / "results" / "reference" / name).mkdir()
        scores = pd.read_parquet(root / "results" / "reference" / "scores.parquet")
        moved = scores.assign(value=scores.value + change)
        moved.to_parquet(root / "results" / "reference" / name / "scores.parquet")
    others = "with other seeds, 200.00 against 250.00, 100.00 against 150.00."
    sentence = f"image2mesh scores 150.00 against 200.00 by image_retrieval; {others}"
    assert sentence in report.expected_readme(root)


@pytest.mark.parametrize("text", ["nothing", report.BEGIN, report.END + report.BEGIN])
def test_a_readme_without_markers_is_refused(root, text, capsys):
    (root / "README.md").write_text(text)
    assert report.main([], root) == 1
    assert "README.md needs a line" in capsys.readouterr().err


def test_the_readme_is_current():
    assert report.main(["--check"]) == 0
