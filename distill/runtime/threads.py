"""How long torch's threads look around for work before they sleep.

By default an OpenMP thread spins for some milliseconds wherever the others are not ready yet. On a
machine whose cores all belong to one program that is fastest; where another program uses one of
them, the others spin while they wait for the thread that has no core, and a step takes three times
as long. Spinning a thirtieth of that costs 3 % on an idle machine (3,412 against 3,532 tokens/s of
the quickstart on two cores) and gives 32 % on a busy one (1,386 against 1,047).
"""

from __future__ import annotations

import os

VARIABLE, SPINS = "GOMP_SPINCOUNT", "10000"


def share_cores() -> None:
    """To be called before torch is imported; what the user has said stays."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(VARIABLE, SPINS)
