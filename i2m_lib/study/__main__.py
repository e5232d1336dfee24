"""python -m i2m_lib.study params/demo.yaml: see `runner`."""

from .runner import main

raise SystemExit(main())
