"""How every notebook is written. What it computes is tested by nbval, as pyproject.toml says."""

import ast

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from i2m_lib.paths import project_root
from i2m_lib.study.parameters import check_parameters, fits, load_parameters, notebook_parameters, run_name

MAX_LINES, MAX_FUNCTION_LINES = 14, 5
NOTEBOOKS = {path.stem: path for path in sorted(project_root().glob("notebooks/*.ipynb"))}
PARAMETER_FILES = sorted(project_root().glob("params/*.yaml"))


@pytest.fixture(params=NOTEBOOKS.values(), ids=NOTEBOOKS.keys(), scope="module")
def path(request):
    return request.param


@pytest.fixture(scope="module")
def notebook(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


@pytest.fixture(scope="module")
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def tree(cell) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(cell.source))


def test_it_is_a_valid_python3_notebook_whose_cells_have_ids(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.get("id") for cell in notebook.cells]
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_parameters_are_commented_literals_in_the_first_code_cell(path, code):
    assert [i for i, cell in enumerate(code) if "parameters" in tags(cell)] == [0]
    assert all(isinstance(statement, ast.AnnAssign) for statement in tree(code[0]).body)
    lines = code[0].source.splitlines()
    assert [lines[s.end_lineno - 1] for s in tree(code[0]).body if not comment(lines, s)] == []
    for name, (annotation, default) in notebook_parameters(path).items():
        assert fits(default, annotation), f"{name}: {annotation} = {default!r}"


def comment(lines: list[str], statement: ast.stmt) -> bool:
    return "#" in lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode()


def test_only_checked_cells_keep_their_output(code):
    for cell in code:
        assert not cell.outputs or "keep_output" in tags(cell), cell.source
        assert not cell.outputs or cell.execution_count, cell.source


def test_a_few_cells_are_checked(code):
    checked = [cell for cell in code if "nbval-check-output" in tags(cell)]
    assert 2 <= len(checked) <= 4
    for cell in checked:
        assert "keep_output" in tags(cell), cell.source
        assert cell.outputs, f"run this cell and keep its output:\n{cell.source}"


def test_cells_are_short_and_define_little(code):
    for cell in code:
        # The parameters take a line each.
        assert "parameters" in tags(cell) or len(cell.source.splitlines()) <= MAX_LINES, cell.source
        for node in ast.walk(tree(cell)):
            assert not isinstance(node, ast.ClassDef), cell.source
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, cell.source


def test_it_ends_with_what_it_claims_and_claims_nothing_before(code):
    claims = [any(isinstance(node, ast.Assert) for node in ast.walk(tree(cell))) for cell in code]
    assert claims == [False] * (len(code) - 1) + [True]


@pytest.mark.skipif(not NOTEBOOKS, reason="there are no notebooks yet")
@pytest.mark.parametrize("file", PARAMETER_FILES, ids=lambda file: file.name)
def test_parameter_files_suit_the_notebooks(file):
    sections = load_parameters(file)
    assert check_parameters(sections, NOTEBOOKS)
    assert run_name(sections)
