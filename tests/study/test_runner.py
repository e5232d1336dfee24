import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from i2m_lib.artefacts import Key, made_by, record
from i2m_lib.paths import project_root
from i2m_lib.study import runner
from i2m_lib.study.parameters import StudyError
from i2m_lib.study.provenance import notebook_key

FIRST = 'run: str = "smoke"\ndataset: str = "data/smoke"\ncorpus_root: str = "data/corpus"\nn: int | None = None'
SECOND = 'run: str = "smoke"\nfactor: int = 2'
WRITE = (
    "from pathlib import Path\nfolder = Path(f'results/{run}')\n(folder / 'text').write_text(f'{n}')\n"
    "(folder / 'checkpoint.json').write_text('{}')\nprint('hi')"
)
READ = (
    "from pathlib import Path\ntext = Path(f'results/{run}/text').read_text()\n"
    "if factor == 0:\n    raise ValueError('the factor\\nis nothing')\nprint(text, factor)\n"
    "Path(f'results/{run}/product').write_text('x')\n"
    "assert factor > 0, 'the factor\\nis too small'"
)
DATASET = Key("dataset", 1)
MAKER = {"commit": "abc", "dirty": True, "device": "A chip"}


def write_notebook(path: Path, parameters: str, code: str) -> None:
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), new_code_cell(code)]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), path)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two notebooks, of which the second reads what the first wrote."""
    monkeypatch.setattr(runner, "made_by", lambda: made_by() | MAKER)
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks" / "01_first.ipynb", FIRST, WRITE)
    write_notebook(tmp_path / "notebooks" / "02_second.ipynb", SECOND, READ)
    for name in ("corpus", "tiny"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "file").write_text("")
    record(tmp_path / "data" / "tiny", DATASET)
    (tmp_path / "demo.yaml").write_text("shared: {run: tiny, dataset: data/tiny}\n01_first: {n: 3}\n02_second:\n")
    return tmp_path


def test_a_missing_file_is_told(tmp_path, capsys):
    assert runner.main([str(tmp_path / "no.yaml")], tmp_path) == 1
    assert capsys.readouterr().err.startswith(f"study: {tmp_path / 'no.yaml'} cannot be read")


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
    assert "resume by FROM=02 or --from 02, with the same parameters." in output.err
    assert "Traceback" not in output.err
    names = {path.name for path in folder.iterdir()}
    assert names == {"01_first.ipynb", "02_second.failed.ipynb", "text", "checkpoint.json", "provenance.json"}

    assert runner.main([demo, "--from", "02", "--set", "n=4"], root) == 1
    assert "ran with other parameters (n is 3, not 4)" in capsys.readouterr().err

    assert runner.main([demo, "--from", "02", "--set", "factor=5"], root) == 0
    output = capsys.readouterr().out
    assert "3 5" in output
    assert "has no scores.parquet" in output
    assert not (folder / "02_second.failed.ipynb").exists()
    check_record(json.loads((folder / "provenance.json").read_text()))
    assert str(root) not in (folder / "02_second.ipynb").read_text()


def check_record(content: dict) -> None:
    """The provenance of the study above after its resumption."""
    assert (content["run"], content["commits"], content["dirty"]) == ("tiny", ["abc"], True)
    assert content["dataset"] == DATASET.digest
    assert content["versions"]["numpy"] == np.__version__
    assert content["cores"] >= 1
    notebooks = content["notebooks"]
    assert list(notebooks) == ["01_first", "02_second"]
    assert notebooks["02_second"]["parameters"] == {"run": "tiny", "factor": 5}
    assert notebooks["01_first"]["started"] <= notebooks["01_first"]["finished"]
    assert {name: notebooks["01_first"][name] for name in ("commit", "dirty", "device")} == MAKER
    assert list(content["files"]) == ["01_first.ipynb", "02_second.ipynb", "product", "text"]
    for stem, names in {"01_first": ["01_first.ipynb", "text"], "02_second": ["02_second.ipynb", "product"]}.items():
        for name in names:
            entry = content["files"][name]
            assert entry["key"] == notebook_key(stem, notebooks[stem]["parameters"]).digest
            assert (entry["time"], entry["seconds"]) == (notebooks[stem]["finished"], notebooks[stem]["seconds"])


def test_a_study_goes_on_past_a_claim_that_does_not_hold(root, capsys):
    write_notebook(root / "notebooks" / "03_third.ipynb", SECOND, "print('last')")
    demo, folder = str(root / "demo.yaml"), root / "results" / "tiny"
    assert runner.main([demo, "--set", "factor=-1"], root) == 1
    output = capsys.readouterr()
    assert "3 -1" in output.out and "last" in output.out
    told = "a claim of 02_second does not hold: the factor is too small."
    assert f"{told} See {folder / '02_second.ipynb'}." in output.err
    assert {path.name for path in folder.glob("*.ipynb")} == {"01_first.ipynb", "02_second.ipynb", "03_third.ipynb"}
    assert runner.main([demo, "--from", "03", "--set", "factor=-1"], root) == 1  # it still does not hold
    assert runner.main([demo, "--from", "02"], root) == 0


def test_an_assertion_of_a_library_is_a_failure(root):
    path, folder = root / "notebooks" / "03_third.ipynb", root / "results" / "tiny"
    write_notebook(path, SECOND, "import numpy as np\nnp.testing.assert_equal(1, 2)")
    with pytest.raises(StudyError, match=r"03_third failed in cell \[2\] with AssertionError"):
        runner.run_notebook(path, folder, {}, root)
    assert (folder / "03_third.failed.ipynb").is_file()


@pytest.mark.parametrize("dataset", ["data/corpus", "data", "data/corpus/new", "data/other"])
def test_no_dataset_is_built_in_the_folder_of_a_corpus(root, dataset):
    shutil.copytree(root / "data" / "corpus", root / "data" / "other")  # another corpus, say
    with pytest.raises(
        StudyError, match=r"holds a corpus or other files .*: choose another folder by dataset= or RUN="
    ):
        runner.run_study({"shared": {"run": "tiny", "dataset": dataset}}, root)
    assert not (root / "results").exists()


def made(**environ: str) -> dict:
    return runner.make_settings({f"STUDY_{name}": value for name, value in environ.items()})


def test_a_run_and_a_corpus_name_folders_of_their_own():
    assert made() == made(RUN="", SET=" ") == {}
    assert made(RUN="second") == {"run": "second", "dataset": "data/second"}
    path = "/x/my ShapeNetCore.v2/"
    expected = {"run": "my-ShapeNetCore-v2", "dataset": "data/my-ShapeNetCore-v2-dataset", "corpus_root": path}
    assert made(CORPUS=path) == expected
    assert made(CORPUS="/x/corpus")["dataset"] == "data/corpus-dataset"
    assert made(CORPUS="/x/møbler (små)")["run"] == "møbler-små"
    assert made(CORPUS=path, RUN="big") == {"run": "big", "dataset": "data/big-dataset", "corpus_root": path}
    assert made(RUN="second", SET="dataset=data/demo")["dataset"] == "data/demo"


def test_settings_of_make_keep_quotes_and_spaces():
    text = " categories=['03001627', \"04379243\"]  sizes=[1, 2]\nscheduler=tcp://a:1 splits=my file.csv "
    assert made(SET=text) == {
        "categories": ["03001627", "04379243"],
        "sizes": [1, 2],
        "scheduler": "tcp://a:1",
        "splits": "my file.csv",
    }
    with pytest.raises(StudyError, match="A setting is name=value"):
        made(SET="factor")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_passes_everything_as_it_stands(tmp_path):
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    (tmp_path / "stub.py").write_text(code)
    (tmp_path / "installed").write_text("")
    values = {
        "CORPUS": "/x/my $HOME #1 ShapeNetCore.v2",
        "SET": "categories=['03001627'] a=\"b c\" d=`$(e)`",
        "RUN": "größe",
        "PARAMS": "params/my demo.yaml",
    }
    given = [f"{name}={value}" for name, value in values.items()]
    stub = [f"PY='{sys.executable}' '{tmp_path / 'stub.py'}'", f"INSTALLED={tmp_path / 'installed'}"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-s", "-C", project_root(), "study", *given, *stub, "FROM=03"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environ).stdout
    arguments, passed = json.loads(output.splitlines()[-1])
    assert arguments == ["-m", "i2m_lib.study", values["PARAMS"], "--from", "03"]
    assert {name: passed[f"STUDY_{name}"] for name in ("RUN", "CORPUS", "SET")} == {
        name: values[name] for name in ("RUN", "CORPUS", "SET")
    }
