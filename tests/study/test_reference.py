import json

import pandas as pd
import pytest

from i2m_lib.artefacts import sha256
from i2m_lib.study import reference
from i2m_lib.study.parameters import StudyError


def scores(**changed: float) -> pd.DataFrame:
    """Two methods, two categories of unequal size, two views; 0.02, or `changed`."""
    return pd.DataFrame(
        {
            **{"method": method, "protocol": "canonical", "split": "test", "category": category},
            **{"model_id": f"{category}{i}", "view": view, "metric": "chamfer_l1"},
            "value": changed.get(method, 0.02) * (1 + (category == "chair")),
        }
        for method in ("image2mesh", "floor")
        for category, n in {"chair": 3, "table": 1}.items()
        for i in range(n)
        for view in range(2)
    )


def test_means_are_over_categories():
    assert reference.canonical_means(scores())["test", "floor", "chamfer_l1"] == pytest.approx(0.03)


def test_compare_names_what_differs_and_only_that():
    assert reference.compare(scores(), scores()) == []
    assert reference.compare(scores(floor=0.0209), scores()) == []
    assert reference.compare(scores(floor=0.022), scores()) == [
        "chamfer_l1 of floor on test is 0.033, there 0.03 (+10.0%)."
    ]
    assert reference.compare(scores(floor=1e-5), scores(floor=3e-5)) == []
    only = scores()[lambda table: table.method != "floor"]
    assert reference.compare(only, scores()) == ["Only there: floor on test."]
    assert reference.compare(scores(), only) == ["Only here: floor on test."]


def test_a_run_is_compared_with_the_reference_if_the_dataset_is_the_same(tmp_path):
    record = {"dataset": "a", "notebooks": {"01_first": {"parameters": {"n": 3, "run": "x", "workers": 1}}}}
    runs = tmp_path / "new", tmp_path / "reference"
    for run in runs:
        assert "has no scores.parquet" in reference.against_reference(*runs)[0]
        run.mkdir()
        scores().to_parquet(run / "scores.parquet")
        (run / "provenance.json").write_text(json.dumps(record))
    nothing = "Nothing differs from the reference beyond 5 %."
    assert reference.against_reference(*runs) == [nothing]

    record["notebooks"]["01_first"]["parameters"] = {"n": 4, "run": "y", "workers": 2}
    (runs[0] / "provenance.json").write_text(json.dumps(record))
    assert reference.against_reference(*runs) == ["In 01_first, n is 4, not 3.", nothing]

    (runs[0] / "provenance.json").write_text(json.dumps(record | {"dataset": "b"}))
    assert "another one" in reference.against_reference(*runs)[0]

    (runs[1] / "provenance.json").write_text(json.dumps(record | {"dataset": None}))
    unknown = "The reference was made before datasets had keys, so it may be of another dataset."
    assert reference.against_reference(*runs) == [unknown, nothing]


def write_run(folder, *names, **changed) -> None:
    """A run with these files, and provenance of them."""
    files = {}
    for name in ("summary.parquet", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{folder.name} {name}")
        files[name] = {"sha256": sha256(folder / name)}
    content = {"run": folder.name, "commits": ["abc"], "dirty": False, "notebooks": {}, "files": files}
    (folder / "provenance.json").write_text(json.dumps(content | changed))


def tree(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def recorded(folder) -> set[str]:
    return set(json.loads((folder / "provenance.json").read_text())["files"])


@pytest.fixture
def results(tmp_path):
    results = tmp_path / "results"
    names = ["scores.parquet", "scores.parquet.key.json", "figures/a.png", "fits/1.npz", "training/history.parquet"]
    write_run(results / "demo", *names, "04_evaluation.ipynb")
    write_run(results / "seed1", "scores.parquet", "figures/a.png")
    write_run(results / "reference" / "pretrained", "model.safetensors")
    (results / "reference" / "old.parquet").write_text("of an earlier reference")
    return results


def test_a_run_becomes_the_reference(results):
    reference.make_reference("demo", results.parent)
    folder = results / "reference"
    main = {"summary.parquet", "scores.parquet", "scores.parquet.key.json", "figures/a.png"}
    seed, kept = {"seed1/scores.parquet"}, {"pretrained/model.safetensors", "pretrained/summary.parquet"}
    records = {f"{name}provenance.json" for name in ("", "seed1/", "pretrained/")}
    assert tree(folder) == main | seed | kept | records
    assert recorded(folder) == main
    assert recorded(folder / "seed1") == {"scores.parquet"}
    assert (folder / "scores.parquet").read_text() == "demo scores.parquet"
    assert not (results / ".reference").exists()

    write_run(results / "pretrained", "model.json", "model.safetensors", "graph/key.json", "memory.npz")
    reference.make_reference("demo", results.parent)
    assert recorded(folder / "pretrained") == tree(results / "pretrained") - {"provenance.json", "memory.npz"}


@pytest.mark.parametrize(
    ("changed", "made_by"),
    [
        ({"commits": ["abc", "def"]}, r"mixed commits \(abc, def\)"),
        ({"dirty": True}, "commit abc with uncommitted changes"),
    ],
)
@pytest.mark.parametrize("run", ["demo", "seed1", "pretrained"])
def test_what_is_mixed_or_dirty_becomes_the_reference_only_if_told(results, run, changed, made_by):
    write_run(results / run, "scores.parquet", **changed)
    before = tree(results / "reference")
    with pytest.raises(StudyError, match=f"{run} was made by {made_by}: run it anew .* MIXED=1"):
        reference.make_reference("demo", results.parent)
    assert tree(results / "reference") == before
    reference.make_reference("demo", results.parent, mixed=True)
    assert not (results / "reference" / "old.parquet").exists()


def test_a_file_that_is_not_as_recorded_is_refused(results, capsys):
    (results / "demo" / "figures" / "a.png").write_text("by hand")
    assert reference.main(["demo", "--mixed"], results.parent) == 1
    assert "a.png is not the file that provenance.json records" in capsys.readouterr().err
    assert reference.main(["nothing"], results.parent) == 1
    assert "nothing has no summary.parquet" in capsys.readouterr().err
    assert (results / "reference" / "old.parquet").exists()
