"""Songs from a manifest already on this computer: JSON lines, one song a row (distill/songs.py)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from distill.audio import files as audio_files
from distill.errors import DistillError, FolderError, SongError
from distill.songs import Song, manifest_songs
from distill.sources import Refusal, loaded, scanned


@dataclass(frozen=True)
class Settings:
    """`path` of the manifest, relative to $DISTILL_DATA if that is set, else to the current folder;
    or of a folder, which means its manifest.jsonl and those of the folders inside it, by name.

    `split` keeps "train" or "held-out" songs only; `hours` stops after that much sound, in the
    manifest's order (songs without audio count as nothing).
    """

    path: str
    hours: float | None = None
    split: str | None = None

    def load(self) -> list[Song]:
        """The songs. Raises FolderError when the manifest is missing, SongError for a bad row or
        where none is left."""
        songs = loaded(self._rows())
        if not songs:
            raise SongError(f"{self._path}: no song of split {self.split!r}; check split and hours")
        return songs

    def scan(self) -> Iterator[Song | Refusal]:
        """The songs, with a Refusal in place of each row that is none."""
        return scanned(self._rows())

    @property
    def _path(self) -> Path:
        return Path(os.environ.get("DISTILL_DATA", "")) / Path(self.path).expanduser()

    def _rows(self) -> Iterator[tuple[str, Song | DistillError]]:
        paths = [self._path]
        if self._path.is_dir():
            pattern = "manifest.jsonl"
            paths = sorted([*self._path.glob(pattern), *self._path.glob(f"*/{pattern}")])
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
