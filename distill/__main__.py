"""`python -m distill VERB ...` is the same as the command `distill VERB ...`."""

from __future__ import annotations

import sys

from distill.cli import main

if __name__ == "__main__":
    sys.exit(main())
