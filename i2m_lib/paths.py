"""Where the project lies: notebooks, tests and the study runner each start in another folder."""

from functools import cache
from pathlib import Path


@cache
def project_root() -> Path:
    """The nearest folder above this package that holds pyproject.toml. Raises FileNotFoundError."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").is_file():
            return folder
    raise FileNotFoundError(
        f"No pyproject.toml above {__file__}: install the project with `pip install -e .`, "
        "which leaves the package beside its notebooks, params and data."
    )


def resolve(path: str | Path) -> Path:
    """`path` from the project root; an absolute one, or one with ~, stands for itself."""
    return project_root() / Path(path).expanduser()
