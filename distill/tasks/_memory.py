"""Does the singer remember instead of sing? Lines sung freely, searched for in the training songs.

The singer gets words and no score, so tune and codes are its own: the words of held-out lines, and
those of lines that it learnt, which tempt it most. Beside both stand the held-out songs themselves,
which nobody learnt from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distill.errors import DistillError
from distill.folders import Json
from distill.singing import copies
from distill.singing.singer import Singer
from distill.singing.take import Take
from distill.songs import Line, Song
from distill.tasks._sample import everywhere
from distill.writing.prompts import Coded

LINES = 8  # sung with held-out words, and as many with learnt ones
HELD_OUT, LEARNT, CONTROL = "held_out_words", "learnt_words", "held_out_songs"


def remembered(
    singer: Singer,
    songs: Sequence[Song],
    held_out_songs: Sequence[Song],
    train: Sequence[Coded],
    held_out: Sequence[Coded],
    seed: int,
) -> Json:
    """{"lines", "codes": see copies.of_codes, "melodies": see copies.of_melodies}, each share by
    row: takes on held-out words, takes on learnt words, the held-out songs."""
    takes = {HELD_OUT: _sung(singer, held_out_songs, seed), LEARNT: _sung(singer, songs, seed)}
    codes = {row: [take.codes_FS.numpy() for take in taken] for row, taken in takes.items()}
    codes[CONTROL] = [item.codes_FS.numpy() for item in held_out]
    rate = singer.codec.format.frame_rate
    melodies = {row: list(map(_own_melody, taken)) for row, taken in takes.items()}
    melodies[CONTROL] = list(_melodies(held_out_songs))
    return {
        "lines": {row: len(taken) for row, taken in takes.items()},
        "codes": copies.of_codes(codes, _in_any_order(train), rate),
        "melodies": copies.of_melodies(melodies, _melodies(songs)),
    }


def _sung(singer: Singer, songs: Sequence[Song], seed: int) -> list[Take]:
    """Takes of some lines' words, spread over the songs; what cannot be sung is left out."""
    lines = [(line, song) for song in songs for line in song.lines]
    count = min(LINES, len(lines))
    takes: list[Take] = []
    known = singer.about.voices
    for number in range(count):
        line, song = lines[number * len(lines) // count]
        voice = song.voice if song.voice in known else None
        try:
            takes += singer.sing_lines([Line(line.text)], song.style, voice, seed + number)
        except DistillError:  # too long, or without a word
            continue
    return takes


def _in_any_order(train: Sequence[Coded]) -> Iterator[Any]:
    """The codes of passages, drawn without order: of large data a fair sample comes first."""
    for index in everywhere(len(train)):
        yield train[index].codes_FS.numpy()


def _own_melody(take: Take) -> list[tuple[float, float, float]]:
    return [(start, end, midi) for start, end, midi in take.notes if midi is not None]


def _melodies(songs: Sequence[Song]) -> Iterator[list[tuple[float, float, float]]]:
    """The notes of each line."""
    for song in songs:
        for line in song.lines:
            yield [(n.start, n.end, n.midi) for n in line.notes if n.midi is not None]
