"""The songs inside the package: enough to try every stage with no download.

`embedded/songs/` holds songs of the songbook (see its card.md): `manifest.jsonl` to train on, and
`held-out.jsonl`, with words and melodies that no training song has, to evaluate on.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from distill.config.ranges import Checked, at_least
from distill.folders import package_path
from distill.songs import Song, read_manifest

HOME = package_path("songs")
_MANIFESTS = {"train": "manifest.jsonl", "held-out": "held-out.jsonl"}


@dataclasses.dataclass(frozen=True)
class Settings(Checked):
    """Which of the embedded songs: those to train on or those held out; `songs` of them, or all."""

    split: Literal["train", "held-out"] = "train"
    songs: int | None = at_least(1, default=None)

    def load(self) -> list[Song]:
        """The songs, audio paths absolute. Raises FolderError if the package lost them."""
        return read_manifest(HOME / _MANIFESTS[self.split])[: self.songs]
