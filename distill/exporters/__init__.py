"""Where songs go. Each file is a format; its `export` writes a new folder, whole or not at all.

A song that a format cannot hold is left out and named in what `export` gives back; nothing else
stops an export but a file that is not there. What is written never overwrites: the folder must not
exist yet, or be empty.
"""

from __future__ import annotations

from typing import NamedTuple


class LeftOut(NamedTuple):
    """A song that was not written, and why."""

    id: str
    reason: str
