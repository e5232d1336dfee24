"""Whether a progress bar is of use."""

import os
import sys


def watched() -> bool:
    """Whether someone sees a bar move: in JupyterLab, whose server sets this name, or at a terminal. Under papermill
    it would freeze, and lines in the log tell enough."""
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ
