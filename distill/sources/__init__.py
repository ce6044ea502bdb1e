"""Where songs come from. Each file is a kind: its `Settings` holds what a recipe may say, its
`load()` gives Songs.

A source that reads other people's files also has `scan()`: song by song, a Refusal in place of one
that cannot be used, so that one bad file does not stop the others; `load()` raises at the first.
Neither decodes sound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from distill.errors import DistillError
from distill.songs import Song


class Source(Protocol):
    """The `Settings` of every source."""

    def load(self) -> list[Song]:
        """All songs. Raises SongError or LyricsError at the first that cannot be used."""
        ...


@runtime_checkable
class Scanned(Source, Protocol):
    """A source that reads other people's files."""

    def scan(self) -> Iterator[Song | Refusal]:
        """Song by song as they are found, a Refusal in place of each that cannot be used."""
        ...


class Refusal(NamedTuple):
    """A song that cannot be used: its id or file, and where, what and what to do in one line."""

    name: str
    reason: str


Rows = Iterator[tuple[str, Song | DistillError]]  # each song by name, or why it is none


class Imported(ABC):
    """What the sources share that read other people's files: `load` and `scan` by `_rows`."""

    @abstractmethod
    def _rows(self) -> Rows:
        """Each song, or the error that stands in its place, by name."""

    def load(self) -> list[Song]:
        """All songs in order. FolderError, SettingsError: nothing there, wrong settings; or a
        refusal."""
        songs = []
        for _, song in self._rows():
            if isinstance(song, DistillError):
                raise song
            songs.append(song)
        return songs

    def scan(self) -> Iterator[Song | Refusal]:
        """Song by song, a Refusal for each that cannot be used; as `load` for the folder itself."""
        for name, song in self._rows():
            yield Refusal(name, str(song)) if isinstance(song, DistillError) else song
