"""Songs from a manifest already on this computer: JSON lines, one song a row (distill/songs.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill import audio
from distill.errors import FolderError, SongError
from distill.songs import Song, read_manifest


@dataclass(frozen=True)
class Settings:
    """`path` of the manifest, relative to $DISTILL_DATA if that is set, else to the current folder.

    `split` keeps "train" or "held-out" songs only; `hours` stops after that much sound, in the manifest's
    order (songs without audio count as nothing).
    """

    path: str
    hours: float | None = None
    split: str | None = None

    def load(self) -> list[Song]:
        """The songs. Raises FolderError when the manifest is missing, SongError when it leaves nothing."""
        place = Path(os.environ.get("DISTILL_DATA", "")) / self.path
        if not place.is_file():
            raise FolderError(
                f"{place}: no such manifest; render songs first, or set DISTILL_DATA to their folder"
            )
        songs = [song for song in read_manifest(place) if self.split in (None, song.split)]
        if self.hours is not None:
            songs = list(_until(songs, 3600 * self.hours))
        if not songs:
            raise SongError(f"{place}: no song of split {self.split!r}; check split and hours")
        return songs


def _until(songs: list[Song], seconds: float) -> Iterator[Song]:
    for song in songs:
        if seconds <= 0:
            return
        yield song
        seconds -= audio.seconds(song.audio) if song.audio is not None else 0.0
