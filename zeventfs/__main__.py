"""`python -m zeventfs` is the command line."""

import sys

from zeventfs.cli import main

__all__: list[str] = []

sys.exit(main())
