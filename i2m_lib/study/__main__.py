"""python -m i2m_lib.study params/demo.yaml: see `runner`."""

import sys

from .runner import main

sys.exit(main())
