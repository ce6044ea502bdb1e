"""Songs from a manifest already on this computer: JSON lines, one song a row (distill/songs.py)."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from distill.audio import files as audio_files
from distill.errors import FolderError, SongError
from distill.songs import Song, manifest_songs
from distill.sources import Imported, Rows


@dataclass(frozen=True)
class Settings(Imported):
    """`path` of a manifest, from $DISTILL_DATA or here; or of a folder that has some, by name.

    `split` keeps "train" or "held-out" songs only; `hours` stops after that much sound, in order.
    """

    path: str
    hours: float | None = None
    split: str | None = None

    def load(self) -> list[Song]:
        """The songs. FolderError for a missing manifest, SongError for a bad row or no song."""
        songs = super().load()
        if not songs:
            raise SongError(f"{self._path}: no song of split {self.split!r}; check split and hours")
        return songs

    @property
    def _path(self) -> Path:
        return Path(os.environ.get("DISTILL_DATA", "")) / Path(self.path).expanduser()

    def _rows(self) -> Rows:
        paths = [self._path]
        if self._path.is_dir():
            patterns = ("manifest.jsonl", "*/manifest.jsonl")
            paths = sorted(path for pattern in patterns for path in self._path.glob(pattern))
        if not paths or not paths[0].is_file():
            advice = "render songs first, or set DISTILL_DATA to their folder"
            raise FolderError(f"{self._path}: no such manifest; {advice}")
        left = math.inf if self.hours is None else 3600 * self.hours
        for where, song in chain.from_iterable(map(manifest_songs, paths)):
            if left <= 0:
                return
            if isinstance(song, SongError):
                yield where, song
            elif self.split in (None, song.split):
                yield where, song
                if self.hours is not None and song.audio is not None:
                    left -= audio_files.seconds(song.audio)
