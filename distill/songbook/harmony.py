"""Chords, one a bar: drawn before a tune is written over them, or fitted to a tune there is."""

from __future__ import annotations

import itertools
import random

from distill.songbook.bars import Key

PROGRESSIONS = {  # degrees, 0 is the tonic's
    "major": ((0, 4, 5, 3), (0, 3, 4, 0), (0, 5, 3, 4), (0, 3, 0, 4), (0, 1, 4, 0), (0, 2, 3, 4),
              (0, 0, 4, 0)),
    "minor": ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 4), (0, 3, 0, 4), (0, 5, 3, 4), (0, 0, 4, 0)),
}  # fmt: skip
_FITTING = {"major": (0, 4, 3, 5, 1), "minor": (0, 4, 3, 6, 5, 2)}  # the likelier first
_LESS_LIKELY = 0.1  # ticks that a chord must hold more than the one before it in that order
_OFF_BEAT = 0.7  # what a tick counts of a note that begins beside the beat


def degrees(mode: str, lines: list[int], close: int, rng: random.Random) -> list[list[int]]:
    """A chord for each bar of each line; home again from bar `close` of the last one on."""
    cycle = itertools.cycle(rng.choice(PROGRESSIONS[mode]))
    rows = [list(itertools.islice(cycle, bars)) for bars in lines]
    rows[-1][close:] = [0] * (lines[-1] - close)
    if close:
        rows[-1][close - 1] = rng.choice((4, 4, 3))
    elif len(rows) > 1:
        rows[-2][-1] = 4
    return rows


def fit(notes: list[tuple[int, int, int]], ticks: int, bars: int, key: Key) -> list[int]:
    """The degree that fits most of each bar of a tune (first tick, last tick, MIDI); on a tie the
    likelier one."""

    def sung(first: int, degree: int) -> float:
        return sum(
            (1.0 if start % 4 == 0 else _OFF_BEAT)
            * max(0, min(stop, first + ticks) - max(start, first))
            for start, stop, midi in notes
            if midi % 12 in key.chord(degree)
        )

    ranked = list(enumerate(_FITTING[key.mode]))
    return [
        max(ranked, key=lambda pair: sung(bar * ticks, pair[1]) - _LESS_LIKELY * pair[0])[1]
        for bar in range(bars)
    ]
