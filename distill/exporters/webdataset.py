"""WebDataset shards: tar files in which a song's files stand together under one name.

    folder/train-000000.tar:   KEY.flac  KEY.vocals.flac  KEY.accompaniment.flac  KEY.json
                               KEY2.flac ...

The JSON is a row of our manifest, its paths the names in the shard. Sound goes in as it is (.flac
after curation). The same songs give the same bytes: no times, owners or modes of this computer are
kept.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from distill.errors import SettingsError
from distill.exporters import LeftOut
from distill.exporters._files import Shards, each, new_folder, track_name
from distill.songs import VERSION, Song, to_json

BLOCK = 512  # of a tar: a head, and content filled up to whole blocks
END = 2 * BLOCK  # of a tar: nothing


def export(
    songs: Iterable[Song], folder: str | Path, shard_bytes: int = 1_000_000_000
) -> list[LeftOut]:
    """Write songs into shards of at most `shard_bytes` (a larger song has one alone), each of one
    split; leaves none out. Raises SettingsError for a limit below 1, FolderError as every
    exporter."""
    if shard_bytes < 1:
        raise SettingsError(f"shard_bytes is {shard_bytes}; give 1 or more")
    with new_folder(folder) as filling:

        def create(split: str, number: int) -> tarfile.TarFile:
            path = filling / f"{split}-{number:06d}.tar"
            return tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)

        with Shards(create, shard_bytes - END) as shards:
            for key, song in each(songs):
                members = _members(song, key)
                split = "".join(c if c.isalnum() or c in "-_" else "-" for c in song.split)
                size = sum(BLOCK + -(-length // BLOCK) * BLOCK for _, length, _ in members)
                shard = shards.room(split, size)
                for name, length, source in members:
                    _add(shard, name, length, source)
    return []


def _members(song: Song, key: str) -> list[tuple[str, int, Path | bytes]]:
    """(name, bytes, where from) of a song's files in a shard, the JSON last."""
    files = {track: track_name(key, track, path) for track, path in song.tracks.items()}
    row = {"version": VERSION, **to_json(song.with_tracks(files))}
    text = json.dumps(row, ensure_ascii=False).encode()
    paths = [(files[track], Path(path)) for track, path in song.tracks.items()]
    sound = [(name, path.stat().st_size, path) for name, path in paths]
    return [*sound, (f"{key}.json", len(text), text)]


def _add(shard: tarfile.TarFile, name: str, length: int, source: Path | bytes) -> None:
    head = tarfile.TarInfo(name)
    head.size, head.mode = length, 0o644
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        shard.addfile(head, file)
