from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from i2m_lib.study.parameters import (
    StudyError,
    check_parameters,
    fits,
    load_parameters,
    notebook_parameters,
    parse_settings,
    run_name,
)

FIRST = """run: str = "smoke"  # 1 = the first
n: int | None = None  # None: all
rate: float = 0.1
synsets: list[str] = [
    "03001627",
]"""
SECOND = 'run: str = "smoke"\nfactor: int = 2'


@pytest.fixture
def notebooks(tmp_path: Path) -> dict[str, Path]:
    """Two notebooks that hold nothing but parameters."""
    paths = {stem: tmp_path / f"{stem}.ipynb" for stem in ("01_first", "02_second")}
    for path, text in zip(paths.values(), (FIRST, SECOND), strict=True):
        nbformat.write(new_notebook(cells=[new_code_cell(text, metadata={"tags": ["parameters"]})]), path)
    return paths


@pytest.fixture
def check(notebooks):
    """Checks sections given by keyword against the two notebooks."""
    return lambda **sections: check_parameters(sections, notebooks)


def test_parameters_are_found_where_papermill_overlooks_them(notebooks):
    assert notebook_parameters(notebooks["01_first"]) == {
        "run": ("str", "smoke"),
        "n": ("int | None", None),
        "rate": ("float", 0.1),
        "synsets": ("list[str]", ["03001627"]),
    }


def test_settings_override_sections_override_shared_override_defaults(check):
    sections = {"shared": {"rate": 0.2, "n": 1}, "01_first": {"rate": 0.3, "n": 2}}
    chosen = check(**sections, **{"--set": {"rate": 0.4}})
    assert chosen["01_first"] == {"run": "smoke", "n": 2, "rate": 0.4, "synsets": ["03001627"]}
    assert chosen["02_second"] == {"run": "smoke", "factor": 2}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"01_first": {"rte": 1}}, "Unknown parameter in 01_first: rte. Known: rate"),
        ({"shared": {"facto": 1}}, "Unknown parameter in shared: facto. Known: factor"),
        ({"--set": {"Rate": 1}}, "Unknown parameter in --set: Rate. Known: rate"),
        ({"02_second": {"rate": 1.0}}, "Unknown parameter in 02_second: rate. Known: factor, run"),
        ({"02_secnd": {}}, "Unknown section: 02_secnd. Known: 02_second"),
        ({"01_first": {"n": 1.5}}, r"01_first: n is 1.5, but it must be int \| None"),
        ({"01_first": {"rate": "1e-3"}}, "write 1.0e-3"),
        ({"01_first": {"synsets": [788375]}}, "quote a text of digits"),
        ({"shared": {"factor": True}}, "02_second: factor is True, but it must be int"),
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


@pytest.mark.parametrize("run", ["../x", "a/b", "a\\b", ".", "..", ".x", "-x", "_x", "", "a b", 7, None])
def test_a_run_that_names_no_plain_folder_is_refused(run):
    with pytest.raises(StudyError, match="cannot name a folder"):
        run_name({"shared": {"run": run}})


@pytest.mark.parametrize("run", ["reference", "Reference"])
def test_no_run_overwrites_the_reference(run):
    with pytest.raises(StudyError, match="would overwrite the committed results: choose another name"):
        run_name({"shared": {"run": "demo"}, "--set": {"run": run}})


def test_a_run_may_be_named_in_any_script():
    assert run_name({"shared": {"run": "Größe-2.v2"}}) == "Größe-2.v2"


def test_a_run_of_one_notebook_only_is_refused():
    with pytest.raises(StudyError, match="belongs in section shared, not in 01_first"):
        run_name({"shared": {"run": "a"}, "01_first": {"run": "b"}})


def test_settings_are_typed_as_in_yaml():
    settings = parse_settings(["a=1", "b=[x, 2]", "c=d=e", "f=", "g=no", "h=1.0e-3", "i=-0"])
    assert settings == {"a": 1, "b": ["x", 2], "c": "d=e", "f": None, "g": False, "h": 0.001, "i": 0}


def test_digits_that_are_no_decimal_integer_are_text():
    assert parse_settings(["a=[03001627, 04379243, 0]", "b=12:30", "c=0x1F"]) == {
        **{"a": ["03001627", "04379243", 0], "b": "12:30", "c": "0x1F"}
    }


@pytest.mark.parametrize("setting", ["a", "a=["])
def test_a_setting_without_a_value_is_refused(setting):
    with pytest.raises(StudyError, match="A setting is name=value"):
        parse_settings([setting])


def test_an_empty_section_holds_nothing(tmp_path):
    (tmp_path / "demo.yaml").write_text("shared: {run: tiny, categories: [03001627]}\n02_second:\n")
    sections = load_parameters(tmp_path / "demo.yaml")
    assert sections == {"shared": {"run": "tiny", "categories": ["03001627"]}, "02_second": {}}


@pytest.mark.parametrize("text", ["", "[]", "shared: 3", "a: {", "a: [1"])
def test_a_file_without_sections_is_refused(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(StudyError, match=r"bad\.yaml"):
        load_parameters(tmp_path / "bad.yaml")
