"""Chords, one a bar: drawn first for songs whose tune is then written over them, or found for a
tune there is."""

from __future__ import annotations

import random

from distill.songbook.bars import Key

PROGRESSIONS = {  # degrees, 0 is the tonic's
    "major": (
        (0, 4, 5, 3),
        (0, 3, 4, 0),
        (0, 5, 3, 4),
        (0, 3, 0, 4),
        (0, 1, 4, 0),
        (0, 2, 3, 4),
        (0, 0, 4, 0),
    ),
    "minor": ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 4), (0, 3, 0, 4), (0, 5, 3, 4), (0, 0, 4, 0)),
}
_FITTING = {"major": (0, 4, 3, 5, 1), "minor": (0, 4, 3, 6, 5, 2)}  # the likelier first


def degrees(mode: str, lines: list[int], close: int, rng: random.Random) -> list[list[int]]:
    """A section's chords, one for each bar of each line (`lines` counts them). It begins at home
    and is there again from bar `close` of its last line on, coming from the fourth or fifth degree.
    """
    cycle = rng.choice(PROGRESSIONS[mode])
    found, at = [], 0
    for bars in lines:
        found.append([cycle[(at + bar) % len(cycle)] for bar in range(bars)])
        at += bars
    found[-1][close:] = [0] * (lines[-1] - close)
    if close:
        found[-1][close - 1] = rng.choice((4, 4, 3))
    elif len(found) > 1:
        found[-2][-1] = 4
    return found


def fit(notes: list[tuple[int, int, int]], ticks: int, bars: int, key: Key) -> list[int]:
    """Degrees for `bars` bars of a given tune (first tick, last tick, MIDI): in each the chord that
    most of the sung time belongs to, on a tie the likelier one. The tune's last bar is at home."""
    found = []
    for bar in range(bars):
        shares = {
            degree: sum(
                (1.0 if start % 4 == 0 else 0.7)
                * max(0, min(stop, (bar + 1) * ticks) - max(start, bar * ticks))
                for start, stop, midi in notes
                if midi % 12 in key.chord(degree)
            )
            for degree in _FITTING[key.mode]
        }
        found.append(
            max(shares, key=lambda degree: shares[degree] - 0.1 * _FITTING[key.mode].index(degree))
        )
    return found
