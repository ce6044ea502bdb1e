"""What every exporter needs of a song's files: names for any disk and archive, and a new folder."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from distill.errors import FolderError, SongError
from distill.folders import atomic_folder, sha256_bytes
from distill.songs import Song


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """An empty folder that becomes `folder` at the end. FolderError where something is."""
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderError(f"{folder}: holds something already; export to a new folder")
    with atomic_folder(folder) as filling:
        yield filling


def key_of(id: str) -> str:
    """A song's id as a name without dots, slashes or anything odd, that no other id has."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", id).strip("-")[:60] or "song"
    return plain if plain == id else f"{plain}-{sha256_bytes(id.encode())[:8]}"


def each(songs: Iterable[Song]) -> Iterator[tuple[str, Song]]:
    """Songs with their keys. Raises SongError for a repeated id, FolderError for missing files."""
    seen: set[str] = set()
    for song in songs:
        if song.id.casefold() in seen:
            raise SongError(f"song {song.id}: two songs share this id; rename one of them")
        seen.add(song.id.casefold())
        for name, path in song.tracks.items():
            if not Path(path).is_file():
                text = f"{path}: the {name} of song {song.id} is not there"
                raise FolderError(f"{text}; restore it or leave it out")
        yield key_of(song.id), song


def track_name(key: str, track: str, path: str) -> str:
    """The name of a track's copy: KEY.flac of the recording, KEY.vocals.flac of a stem."""
    return f"{key}{'' if track == 'audio' else f'.{track}'}{Path(path).suffix.lower()}"


def put(source: str | Path, copy: Path, link: bool = False) -> None:
    """A copy of a file, or a second name for it (a hard link) where the disk allows."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    if link:
        try:
            os.link(Path(source).resolve(), copy)
            return
        except OSError:
            pass  # another disk
    shutil.copyfile(source, copy)


class Closing(Protocol):
    """A file that is open."""

    def close(self) -> None: ...


Shard = TypeVar("Shard", bound=Closing)


class Shards(Generic[Shard]):
    """Shards of at most `most` bytes (a larger song has one alone), each of one split. create:
    opens the shard of a split and number. counts: how many there are by split."""

    def __init__(self, create: Callable[[str, int], Shard], most: int) -> None:
        self.create, self.most = create, most
        self.counts: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._open: dict[str, Shard] = {}

    def __enter__(self) -> Shards[Shard]:
        return self

    def __exit__(self, *_: object) -> None:
        for shard in self._open.values():
            shard.close()

    def room(self, split: str, size: int) -> Shard:
        """The shard of a split that the next `size` bytes go into."""
        if split in self._open and self._sizes[split] + size > self.most:
            self._open.pop(split).close()
        if split not in self._open:
            self._open[split] = self.create(split, self.counts[split])
            self.counts[split] += 1
            self._sizes[split] = 0
        self._sizes[split] += size
        return self._open[split]
