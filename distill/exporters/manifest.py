"""Our own form: `manifest.jsonl`, a song a line (see `songs`), and beside it the sound.

    folder/manifest.jsonl
    folder/audio/KEY.audio.flac, KEY.vocals.flac, KEY.accompaniment.flac

The source kind `manifest` reads it back to equal songs, but for where their files lie.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from distill.exporters import LeftOut
from distill.exporters._files import each, new_folder, put
from distill.songs import Song, manifest_row


def export(songs: Iterable[Song], folder: str | Path, link: bool = False) -> list[LeftOut]:
    """Write songs with copies of their sound (link: hard links, where the disk allows); leaves none
    out. Raises FolderError for a folder that is not empty and for missing sound, SongError for two
    songs of one id."""
    with (
        new_folder(folder) as filling,
        (filling / "manifest.jsonl").open("w", encoding="utf-8") as manifest,
    ):
        for key, song in each(songs):
            paths = {}
            for track, path in song.tracks.items():
                paths[track] = f"audio/{key}.{track}{Path(path).suffix.lower()}"
                put(path, filling / paths[track], link)
            manifest.write(manifest_row(song.with_tracks(paths), filling) + "\n")
    return []
