"""Which songs are kept from training, for tasks that make or judge sound."""

from __future__ import annotations

from collections.abc import Sequence

from distill.audio.codec_format import CodecFormat
from distill.songs import Song
from distill.sources import Source
from distill.sources.embedded import Settings as EmbeddedSongs


def has_split(source: Source) -> bool:
    """Whether a source keeps songs apart by a setting of its own."""
    return hasattr(source, "split")


def embedded_held_out(source: Source, format: CodecFormat | None) -> list[Song]:
    """The embedded held-out songs, for a source that keeps them apart by a `split` setting.

    None for other sources, nor for a codec of tracks, which these songs lack.
    """
    if not has_split(source):
        return []
    if format is not None and format.tracks:
        words = "these songs keep none apart, and the embedded ones have no tracks; so none are"
        print(f"held out: {words}", flush=True)
        return []
    if not isinstance(source, EmbeddedSongs):
        words = "these songs keep none apart, so the embedded held-out songs are taken"
        print(f"held out: {words}", flush=True)
    return EmbeddedSongs(split="held-out").load()


def divided(songs: Sequence[Song], apart: bool) -> tuple[list[Song], list[Song]]:
    """(to learn from, held out), each recording once.

    A song whose lines alone are held out is heard whole, so it counts as learnt from; where no
    recording is held out, nor `apart` in a split of the source, every tenth is, or the last.
    """
    splits: dict[str, set[str]] = {}
    first: dict[str, Song] = {}
    for song in songs:
        for path in [*song.tracks.values()][:1]:
            splits.setdefault(path, set()).add(song.split)
            first.setdefault(path, song)
    held = {path for path, names in splits.items() if "train" not in names}
    if not held and not apart:
        held = set(sorted(first)[9::10] or sorted(first)[1:][-1:])
    return [first[p] for p in first if p not in held], [first[p] for p in first if p in held]
