import os
import shutil
import subprocess
import sys
from pathlib import Path

import i2m_lib

IMPORT_ALL = """
import importlib, pkgutil, i2m_lib
names = [m.name for m in pkgutil.walk_packages(i2m_lib.__path__, "i2m_lib.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names), i2m_lib.__file__)
from i2m_lib.paths import project_root
project_root()
"""


def test_an_installed_wheel_imports_and_says_what_it_lacks(tmp_path):
    """There is no pyproject.toml above it."""
    shutil.copytree(Path(i2m_lib.__file__).parent, tmp_path / "i2m_lib", ignore=shutil.ignore_patterns("__pycache__"))
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, env=environ, cwd=tmp_path)
    n, where = done.stdout.split()
    assert int(n) > 50 and Path(where).is_relative_to(tmp_path)
    assert "FileNotFoundError" in done.stderr and "pip install -e ." in done.stderr
