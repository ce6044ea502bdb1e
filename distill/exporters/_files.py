"""What every exporter needs of a song's files: names that any disk and any archive takes, and a new
folder."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.errors import FolderError, SongError
from distill.folders import atomic_folder, sha256_bytes
from distill.songs import Song


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `folder` when the block ends well. FolderError where
    something is."""
    place = Path(folder).expanduser()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise FolderError(f"{place}: holds something already; export to a new folder")
    with atomic_folder(place) as filling:
        yield filling


def key_of(id: str) -> str:
    """A song's id as a name without dots, slashes or anything odd, that no other id has."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", id).strip("-")[:60] or "song"
    return plain if plain == id else f"{plain}-{sha256_bytes(id.encode())[:8]}"


def each(songs: Iterable[Song]) -> Iterator[tuple[str, Song]]:
    """Every song with its key. Raises SongError for a second song of the same id, FolderError for
    files not there."""
    seen: set[str] = set()
    for song in songs:
        if song.id.casefold() in seen:
            raise SongError(f"song {song.id}: two songs share this id; rename one of them")
        seen.add(song.id.casefold())
        for name, path in song.tracks.items():
            if not Path(path).is_file():
                raise FolderError(
                    f"{path}: the {name} of song {song.id} is not there; restore it or leave it out"
                )
        yield key_of(song.id), song


def put(source: str | Path, place: Path, link: bool = False) -> None:
    """A copy of a file, or a second name for it (a hard link) where the disk allows."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if link:
        try:
            os.link(Path(source).resolve(), place)
            return
        except OSError:
            pass  # another disk
    shutil.copyfile(source, place)


def with_tracks(song: Song, paths: Mapping[str, Any]) -> Song:
    """The song with these files in place of its own."""
    return replace(song, **paths)
