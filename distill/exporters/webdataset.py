"""WebDataset shards: tar files in which the files of a song stand together under one name, read
front to back.

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
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from distill.errors import SettingsError
from distill.exporters import LeftOut
from distill.exporters._files import each, new_folder, with_tracks
from distill.songs import VERSION, Song, to_json

BLOCK = 512  # of a tar: a head, and content filled up to whole blocks


def export(
    songs: Iterable[Song], folder: str | Path, shard_bytes: int = 1_000_000_000
) -> list[LeftOut]:
    """Write songs into shards of at most `shard_bytes` (a larger song has one alone), those of each
    split apart.

    Leaves none out. Raises SettingsError for a limit below 1, FolderError as every exporter.
    """
    if shard_bytes < 1:
        raise SettingsError(f"shard_bytes is {shard_bytes}; give 1 or more")
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    open_shards: dict[str, tarfile.TarFile] = {}
    with new_folder(folder) as place:
        try:
            for key, song in each(songs):
                members = _members(song, key)
                split = "".join(
                    letter if letter.isalnum() or letter in "-_" else "-" for letter in song.split
                )
                size = sum(BLOCK + -(-length // BLOCK) * BLOCK for _, length, _ in members)
                if split in open_shards and sizes[split] + size + 2 * BLOCK > shard_bytes:
                    open_shards.pop(split).close()
                if split not in open_shards:
                    path = place / f"{split}-{counts[split]:06d}.tar"
                    open_shards[split] = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed below
                    counts[split] += 1
                    sizes[split] = 0
                sizes[split] += size
                for name, length, source in members:
                    _add(open_shards[split], name, length, source)
        finally:
            for shard in open_shards.values():
                shard.close()
    return []


def _members(song: Song, key: str) -> list[tuple[str, int, Path | bytes]]:
    """(name, bytes, where from) of a song's files in a shard, the JSON last."""
    files = {}
    members: list[tuple[str, int, Path | bytes]] = []
    for track, source in song.tracks.items():
        path = Path(source)
        files[track] = f"{key}{'' if track == 'audio' else f'.{track}'}{path.suffix.lower()}"
        members.append((files[track], path.stat().st_size, path))
    row = {"version": VERSION, **to_json(with_tracks(song, files))}
    text = json.dumps(row, ensure_ascii=False).encode()
    return [*members, (f"{key}.json", len(text), text)]


def _add(shard: tarfile.TarFile, name: str, length: int, source: Path | bytes) -> None:
    head = tarfile.TarInfo(name)
    head.size, head.mode = length, 0o644
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        shard.addfile(head, file)
