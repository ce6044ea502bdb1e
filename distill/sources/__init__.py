"""Where songs come from. Each file is a kind: its `Settings` holds what a recipe may say, its
`load()` gives Songs.

A source that reads other people's files also has `scan()`: it gives each song as it is found, and
in place of one that cannot be used a Refusal, so that one bad file does not stop the others;
`load()` raises at the first. Neither decodes sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    """A song that cannot be used: its name (an id or a file), and where, what and what to do in one
    line."""

    name: str
    reason: str


def loaded(found: Iterable[tuple[str, Song | DistillError]]) -> list[Song]:
    """All songs, or the first error raised."""
    songs = []
    for _, one in found:
        if isinstance(one, DistillError):
            raise one
        songs.append(one)
    return songs


def scanned(found: Iterable[tuple[str, Song | DistillError]]) -> Iterator[Song | Refusal]:
    """Song by song, a Refusal in place of each error."""
    for name, one in found:
        yield Refusal(name, str(one)) if isinstance(one, DistillError) else one
