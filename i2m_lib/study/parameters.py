"""The parameters of the notebooks and of the files that set them, strictly: papermill would run
with the default where a name is misspelt.

A parameter file has a section `shared`, for every notebook that knows the name, and one for each
notebook. `--set name=value` goes before both.
"""

import ast
import difflib
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from types import NoneType

import nbformat
import yaml

SHARED, SET = "shared", "--set"
TYPES = {
    **{"int": [int], "float": [float, int], "bool": [bool]},
    **{"str": [str], "list": [list], "None": [NoneType]},
}


class StudyError(Exception):
    """One sentence for the person at the terminal."""


def notebook_parameters(path: Path) -> dict[str, tuple[str, object]]:
    """Name -> (annotation, default) from the notebook's cell tagged `parameters`."""
    # papermill.inspect_notebook overlooks annotations with a bar, such as `int | None`, and lines
    # with a second equals sign, even in their comment.
    cells = nbformat.read(path, as_version=4).cells
    source = "\n".join(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    return {
        node.target.id: (ast.unparse(node.annotation), ast.literal_eval(node.value))
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign)
    }


def load_parameters(path: Path, settings: Iterable[str] = ()) -> dict[str, dict]:
    """The sections of a parameter file, and `settings`, texts name=value, as section `--set`.
    Raises StudyError for a file that cannot be read or has another form."""
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise StudyError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(sections, dict):
        raise StudyError(f"{path} holds no section, such as `{SHARED}:`.")
    sections = {section: values or {} for section, values in sections.items()}
    for section, values in sections.items():
        if not isinstance(values, dict):
            raise StudyError(f"{path}: {section} holds {values!r}, not lines `name: value`.")
    return sections | {SET: dict(_setting(text) for text in settings)}


def _setting(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    try:
        typed = yaml.safe_load(value)
    except yaml.YAMLError:
        equals = ""
    if not equals:
        raise StudyError(f"{SET} wants name=value, the value as in yaml, not {text!r}.")
    return name, typed


def check_parameters(sections: dict[str, dict], notebooks: dict[str, Path]) -> dict[str, dict[str, object]]:
    """All parameters of each notebook, by its stem: the defaults, changed by `shared`, by its own
    section and by `--set`. Raises StudyError for a section or a name that no notebook knows, and
    for a value of the wrong type."""
    known = {stem: notebook_parameters(path) for stem, path in notebooks.items()}
    anywhere = {"run"}.union(*known.values())
    _refuse_unknown("section", sections, {SHARED, SET, *known})
    for section, values in sections.items():
        _refuse_unknown(f"parameter in {section}", values, known.get(section, anywhere))
    chosen = {}
    for stem, parameters in known.items():
        chosen[stem] = {name: default for name, (_, default) in parameters.items()}
        for section in (SHARED, stem, SET):
            values = sections.get(section, {})
            for name in values.keys() & parameters.keys():
                _refuse_misfit(f"{section}: {name}", values[name], parameters[name][0])
                chosen[stem][name] = values[name]
    return chosen


def _refuse_unknown(what: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known) or sorted(set(known) - {SET})
            raise StudyError(f"Unknown {what}: {name}. Known: {', '.join(close) or 'none'}.")


def _refuse_misfit(what: str, value: object, annotation: str) -> None:
    if not fits(value, annotation):
        raise StudyError(
            f"{what} is {value!r}, but the notebook wants {annotation} (in yaml, quote a text of "
            "digits, and write 1.0e-3 for 1e-3)."
        )


def fits(value: object, annotation: str) -> bool:
    """Whether a yaml value suits an annotation of int, float, str, bool, None, list or list[...],
    or several of these joined by bars. An int is a float too; a bool is no int."""
    for option in annotation.split(" | "):
        name, _, element = option.removesuffix("]").partition("[")
        if type(value) in TYPES.get(name, []):
            return not element or all(fits(item, element) for item in value)
    return False


def run_name(sections: dict[str, dict]) -> str:
    """The name of the run, the same in all notebooks and safe as that of a folder."""
    for section, values in sections.items():
        if section not in (SHARED, SET) and "run" in values:
            raise StudyError(f"`run` belongs in section {SHARED}, not in {section}.")
    run = (sections.get(SHARED, {}) | sections.get(SET, {})).get("run")
    if not isinstance(run, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", run):
        raise StudyError(
            f"run = {run!r} cannot name a folder of results/: start with a letter or digit and "
            "use letters, digits, dots, dashes and underscores."
        )
    return run
