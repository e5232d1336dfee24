import json
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from i2m_lib.study import runner
from i2m_lib.study.parameters import StudyError, check_parameters, fits, load_parameters, notebook_parameters, run_name
from i2m_lib.study.provenance import dataset_sha256

FIRST = """run: str = "smoke"  # 1 = the first
dataset: str = "data/smoke"
n: int | None = None  # None: all
rate: float = 0.1
synsets: list[str] = [
    "03001627",
]"""
SECOND = 'run: str = "smoke"\nfactor: int = 2'
WRITE = "from pathlib import Path\nPath(f'results/{run}/text').write_text(f'{n} {rate}')\nprint('hi')"
READ = (
    "from pathlib import Path\ntext = Path(f'results/{run}/text').read_text()\n"
    "if factor == 0:\n    raise ValueError('the factor\\nis nothing')\nprint(text, factor)\n"
    "assert factor > 0, 'the factor\\nis too small'"
)


def write_notebook(path: Path, parameters: str, code: str) -> None:
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), new_code_cell(code)]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of two notebooks, of which the second reads what the first wrote."""
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks" / "01_first.ipynb", FIRST, WRITE)
    write_notebook(tmp_path / "notebooks" / "02_second.ipynb", SECOND, READ)
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    row = {"synset": "1", "model_id": "a", "split": "test", "status": "ok", "sha256": "0"}
    pd.DataFrame([row]).to_parquet(tmp_path / "data" / "tiny" / "models.parquet")
    (tmp_path / "data" / "tiny" / "build.json").write_text("{}")
    (tmp_path / "demo.yaml").write_text("shared: {run: tiny, dataset: data/tiny}\n01_first: {n: 3}\n02_second:\n")
    return tmp_path


@pytest.fixture
def check(root: Path):
    """Checks sections given by keyword against the two notebooks."""
    notebooks = runner.find_notebooks(root)
    return lambda **sections: check_parameters(sections, notebooks)


def test_parameters_are_found_where_papermill_overlooks_them(root):
    assert notebook_parameters(root / "notebooks" / "01_first.ipynb") == {
        "run": ("str", "smoke"),
        "dataset": ("str", "data/smoke"),
        "n": ("int | None", None),
        "rate": ("float", 0.1),
        "synsets": ("list[str]", ["03001627"]),
    }


def test_settings_go_before_sections_before_shared_before_defaults(root, check):
    sections = {"shared": {"rate": 0.2, "n": 1}, "01_first": {"rate": 0.3, "n": 2}}
    chosen = check(**sections, **{"--set": {"rate": 0.4}})
    assert chosen["01_first"] == {
        **{"run": "smoke", "dataset": "data/smoke", "n": 2, "rate": 0.4},
        "synsets": ["03001627"],
    }
    assert chosen["02_second"] == {"run": "smoke", "factor": 2}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"01_first": {"rte": 1}}, "Unknown parameter in 01_first: rte. Known: rate"),
        ({"shared": {"facto": 1}}, "Unknown parameter in shared: facto. Known: factor"),
        ({"--set": {"Rate": 1}}, "Unknown parameter in --set: Rate. Known: rate"),
        ({"02_second": {"rate": 1.0}}, "Unknown parameter in 02_second: rate. Known: factor, run"),
        ({"02_secnd": {}}, "Unknown section: 02_secnd. Known: 02_second"),
        ({"01_first": {"n": 1.5}}, r"01_first: n is 1.5, but the notebook wants int \| None"),
        ({"01_first": {"rate": "1e-3"}}, "write 1.0e-3"),
        ({"01_first": {"synsets": [788375]}}, "quote a text of digits"),
        ({"shared": {"factor": True}}, "factor is True, but the notebook wants int"),
    ],
)
def test_what_no_notebook_knows_is_refused(check, sections, message):
    with pytest.raises(StudyError, match=message):
        check(**sections)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        *[(1, "float", True), (1.0, "int", False), (True, "int", False), (None, "str", False)],
        *[(None, "int | None", True), ([], "list", True), ([1, 2.0], "list[float]", True)],
        *[([["a"]], "list[list[str]]", True), ("ab", "list[str]", False), (1, "Path", False)],
    ],
)
def test_fits(value, annotation, expected):
    assert fits(value, annotation) is expected


@pytest.mark.parametrize("run", ["../x", "a/b", "a\\b", ".", "..", ".x", "-x", "", "a b", 7, None])
def test_a_run_that_names_no_plain_folder_is_refused(run):
    with pytest.raises(StudyError, match="cannot name a folder"):
        run_name({"shared": {"run": run}})


def test_a_run_of_one_notebook_only_is_refused():
    with pytest.raises(StudyError, match="belongs in section shared"):
        run_name({"shared": {"run": "a"}, "01_first": {"run": "b"}})


def test_settings_are_typed_as_in_yaml(root):
    sections = load_parameters(root / "demo.yaml", ["a=1", "b=[x, 2]", "c=d=e", "f=", "g=no"])
    assert sections["--set"] == {"a": 1, "b": ["x", 2], "c": "d=e", "f": None, "g": False}
    assert sections["02_second"] == {}


@pytest.mark.parametrize("text", ["", "[]", "shared: 3", "a: {", "a: [1"])
def test_a_file_without_sections_is_refused(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(StudyError, match=r"bad\.yaml"):
        load_parameters(tmp_path / "bad.yaml")


@pytest.mark.parametrize("setting", ["a", "a=["])
def test_a_setting_without_a_value_is_refused(root, setting):
    with pytest.raises(StudyError, match="wants name=value"):
        load_parameters(root / "demo.yaml", [setting])


def test_a_missing_file_or_folder_is_told(tmp_path, capsys):
    assert runner.main([str(tmp_path / "no.yaml")], tmp_path) == 1
    assert capsys.readouterr().err.startswith(f"study: {tmp_path / 'no.yaml'} cannot be read")
    with pytest.raises(StudyError, match="holds no notebook"):
        runner.find_notebooks(tmp_path)


def test_a_study_runs_fails_and_resumes(root, capsys):
    demo, folder = str(root / "demo.yaml"), root / "results" / "tiny"

    assert runner.main([demo, "--from", "02"], root) == 1
    assert "has no finished 01_first: start with --from 01" in capsys.readouterr().err
    assert runner.main([demo, "--from", "07"], root) == 1
    assert "begins none of 01_first, 02_second" in capsys.readouterr().err
    assert not folder.exists()

    assert runner.main([demo, "--set", "factor=0"], root) == 1
    output = capsys.readouterr()
    assert "01_first ...\nhi\n01_first took" in output.out
    assert "02_second failed in cell [3] with ValueError: the factor. See" in output.err
    assert f"-m i2m_lib.study {demo} --from 02 --set factor=0\n" in output.err
    assert "Traceback" not in output.err
    names = {path.name for path in folder.iterdir()}
    assert names == {"01_first.ipynb", "02_second.failed.ipynb", "text", "provenance.json"}

    assert runner.main([demo, "--from", "02", "--set", "n=4"], root) == 1
    assert "ran with other parameters (n is 4, there 3)" in capsys.readouterr().err

    assert runner.main([demo, "--from", "02", "--set", "factor=5"], root) == 0
    output = capsys.readouterr().out
    assert "3 0.1 5" in output
    assert "has no scores.parquet" in output
    assert not (folder / "02_second.failed.ipynb").exists()
    check_record(root, json.loads((folder / "provenance.json").read_text()))
    assert str(root) not in (folder / "02_second.ipynb").read_text()


def test_a_study_goes_on_past_a_claim_in_vain(root, capsys):
    write_notebook(root / "notebooks" / "03_third.ipynb", SECOND, "print('last')")
    demo, folder = str(root / "demo.yaml"), root / "results" / "tiny"
    assert runner.main([demo, "--set", "factor=-1"], root) == 1
    output = capsys.readouterr()
    assert "3 0.1 -1" in output.out and "last" in output.out
    assert f"02_second claims in vain: the factor is too small. See {folder / '02_second.ipynb'}." in output.err
    assert {path.name for path in folder.glob("*.ipynb")} == {"01_first.ipynb", "02_second.ipynb", "03_third.ipynb"}
    assert runner.main([demo, "--from", "03", "--set", "factor=-1"], root) == 1  # it still does not hold
    assert runner.main([demo, "--from", "02"], root) == 0


def check_record(root: Path, record: dict) -> None:
    """The provenance of the study above after its resumption."""
    assert list(record["notebooks"]) == ["01_first", "02_second"]
    assert record["notebooks"]["02_second"]["parameters"] == {"run": "tiny", "factor": 5}
    assert record["notebooks"]["01_first"]["parameters"]["n"] == 3
    seconds = [notebook["seconds"] for notebook in record["notebooks"].values()]
    assert record["seconds"] == pytest.approx(sum(seconds))
    assert min(seconds) > 0
    assert record["started"] < record["finished"]
    assert record["run"] == "tiny"
    assert record["git"] == {"sha": None, "dirty": None}
    assert record["versions"]["numpy"] == np.__version__
    assert record["cores"] >= 1
    assert record["device"]
    assert record["dataset_sha256"] == dataset_sha256(root / "data" / "tiny")


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
    assert runner.category_means(scores())["test", "floor", "chamfer_l1"] == pytest.approx(0.03)


def test_compare_names_what_differs_and_only_that():
    assert runner.compare(scores(), scores()) == []
    assert runner.compare(scores(floor=0.0209), scores()) == []
    assert runner.compare(scores(floor=0.022), scores()) == [
        "chamfer_l1 of floor on test is 0.033, there 0.03 (+10.0%)."
    ]
    assert runner.compare(scores(floor=1e-5), scores(floor=3e-5)) == []
    only = scores()[lambda table: table.method != "floor"]
    assert runner.compare(only, scores()) == ["Only there: floor on test."]


def test_the_reference_is_compared_if_the_dataset_is_its(tmp_path):
    record = {
        "dataset_sha256": "a",
        "notebooks": {"01_first": {"parameters": {"n": 3, "run": "x"}}},
    }
    runs = tmp_path / "new", tmp_path / "reference"
    for run in runs:
        assert "has no scores.parquet" in runner.against_reference(*runs)[0]
        run.mkdir()
        scores().to_parquet(run / "scores.parquet")
        (run / "provenance.json").write_text(json.dumps(record))
    nothing = "Nothing differs from the reference beyond 5 %."
    assert runner.against_reference(*runs) == [nothing]

    record["notebooks"]["01_first"]["parameters"] = {"n": 4, "run": "y"}
    (runs[0] / "provenance.json").write_text(json.dumps(record))
    assert runner.against_reference(*runs) == ["In 01_first, n is 4, there 3.", nothing]

    (runs[0] / "provenance.json").write_text(json.dumps(record | {"dataset_sha256": "b"}))
    assert "another one" in runner.against_reference(*runs)[0]
