"""The parameters of the notebooks, checked strictly: papermill runs with the default where a name is misspelt.

A parameter file has a section `shared`, for every notebook that knows the name, and one for each notebook. Settings
name=value of the command line, the section `--set`, override both.
"""

import ast
import difflib
import re
from collections.abc import Iterable
from pathlib import Path

import nbformat
import yaml

SHARED, SET = "shared", "--set"


class StudyError(Exception):
    """One sentence for the person at the terminal."""


class _Loader(yaml.SafeLoader):
    """yaml without octal and sexagesimal integers: 03001627 and 12:30 are text."""

    def integer(self, node: yaml.Node) -> int | str:
        return int(node.value) if re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", node.value) else node.value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.integer)


def notebook_parameters(path: Path) -> dict[str, tuple[str, object]]:
    """Name -> (annotation, default) from the notebook's cell tagged `parameters`."""
    # papermill.inspect_notebook overlooks annotations with a bar, such as `int | None`, and lines with a second equals
    # sign, even in their comment.
    cells = nbformat.read(path, as_version=4).cells
    source = "\n".join(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.AnnAssign)]
    return {node.target.id: (ast.unparse(node.annotation), ast.literal_eval(node.value)) for node in assigned}


def load_parameters(path: Path) -> dict[str, dict]:
    """The sections of a parameter file. Raises StudyError for a file that cannot be read or has another form."""
    try:
        sections = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, yaml.YAMLError) as error:
        raise StudyError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(sections, dict) or not all(isinstance(values, dict | None) for values in sections.values()):
        raise StudyError(f"{path} must hold sections, such as `{SHARED}:`, of lines `name: value`.")
    return {section: values or {} for section, values in sections.items()}


def parse_settings(settings: Iterable[str]) -> dict[str, object]:
    """The values of texts name=value, typed as in yaml. Raises StudyError for another text."""
    values = {}
    for text in settings:
        name, _, value = text.partition("=")
        try:
            values[name] = yaml.load(value, _Loader)
        except yaml.YAMLError:
            name = text
        if name == text:
            raise StudyError(f"A setting is name=value, with the value as in yaml, not {text!r}.")
    return values


def check_parameters(sections: dict[str, dict], notebooks: dict[str, Path]) -> dict[str, dict[str, object]]:
    """All parameters of each notebook, by its stem: the defaults, overridden by `shared`, its own section and `--set`.
    Raises StudyError for a section or name that no notebook knows, and for a value of the wrong type."""
    known, chosen = {stem: notebook_parameters(path) for stem, path in notebooks.items()}, {}
    anywhere = {"run"}.union(*known.values())
    names = {SHARED: anywhere, **known, SET: anywhere}
    for section, values in sections.items():
        _refuse_unknown("section", [section], names)
        _refuse_unknown(f"parameter in {section}", values, names[section])
    for stem, parameters in known.items():
        given = {**sections.get(SHARED, {}), **sections.get(stem, {}), **sections.get(SET, {})}
        chosen[stem] = {name: given.get(name, default) for name, (_, default) in parameters.items()}
        for name, value in chosen[stem].items():
            if not fits(value, parameters[name][0]):
                cure = "in yaml, quote a text of digits, and write 1.0e-3 for 1e-3"
                raise StudyError(f"{stem}: {name} is {value!r}, but it must be {parameters[name][0]} ({cure}).")
    return chosen


def _refuse_unknown(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known) or sorted(set(known) - {SET})
            raise StudyError(f"Unknown {what}: {name}. Known: {', '.join(close) or 'none'}.")


def fits(value: object, annotation: str) -> bool:
    """Whether a yaml value suits an annotation of int, float, str, bool, None, list or list[...], or several of these
    joined by bars. An int is a float too; a bool is no int."""
    kind = type(value).__name__.removesuffix("Type")  # of None, NoneType
    for option in annotation.split(" | "):
        name, _, element = option.removesuffix("]").partition("[")
        if kind == name or (kind, name) == ("int", "float"):
            return not element or all(fits(item, element) for item in value)
    return False


def run_name(sections: dict[str, dict]) -> str:
    """The name of the run, the same in all notebooks and safe as that of a folder. Raises StudyError."""
    if misplaced := [s for s, values in sections.items() if "run" in values and s not in (SHARED, SET)]:
        raise StudyError(f"`run` belongs in section {SHARED}, not in {misplaced[0]}.")
    run = (sections.get(SHARED, {}) | sections.get(SET, {})).get("run")
    if not isinstance(run, str) or not re.fullmatch(r"[^\W_][\w.-]*", run):
        rule = "start with a letter or digit and use letters, digits, dots, dashes and underscores"
        raise StudyError(f"run = {run!r} cannot name a folder of results/: {rule}.")
    if run.lower() == "reference":
        raise StudyError("run = 'reference' would overwrite the committed results: choose another name.")
    return run
