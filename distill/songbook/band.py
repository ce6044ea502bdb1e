"""Accompaniment: what each style plays in a bar, on the same grid of steps as the voice.

    guitar   bass note and strummed chords        pad    held chords over a bass
    piano    broken chords over octaves           harp   rolling arpeggios up and down
    band     drums, bass, and short chords on the guitar

A style yields Strokes, in ticks; `play` puts their sounds on the grid. Nothing here looks at the
tune: the chords were chosen for it (`harmony`).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill.songbook import instruments
from distill.songbook.bars import Bars, Chord
from distill.songbook.scores import Setting
from distill.songbook.singing import GRID_SECONDS

STRUM_SECONDS = 0.014  # from string to string
FLAT = 1e-9  # below any peak there is


class Stroke(NamedTuple):
    """A sound in a bar: an instrument's pitch for some ticks, or a drum."""

    tick: int  # of the bar, at which it begins
    ticks: int
    instrument: str
    midi: int  # 0: a drum
    loud: float
    late: float = 0.0  # seconds behind the grid, for strums


def _voicing(chord: Chord, lowest: int) -> list[int]:
    """The triad in close position from `lowest` up, whatever tone is lowest there."""
    return sorted(lowest + (pitch - lowest) % 12 for pitch in chord)


def _root(chord: Chord, lowest: int = 36) -> int:
    return lowest + (chord[0] - lowest) % 12


def _strum(tick: int, ticks: int, chord: Chord, loud: float, up: bool = False) -> Iterator[Stroke]:
    strings = [_root(chord, 43), *_voicing(chord, 52), _voicing(chord, 64)[0]]
    for number, midi in enumerate(reversed(strings[1:]) if up else strings):
        yield Stroke(tick, ticks, "guitar", midi, loud, number * STRUM_SECONDS)


def guitar(bars: Bars, chord: Chord, rng: random.Random) -> Iterator[Stroke]:
    """A bass note on the bar, strummed chords on the beats, now and then an upstroke between."""
    beat = bars.beat_ticks
    yield Stroke(0, bars.ticks, "guitar", _root(chord, 40), 0.9)
    yield from _strum(0, beat, chord, 0.35)
    for k in range(1, bars.beats):
        if bars.metre == "4/4" and k == 2:
            yield Stroke(k * beat, 2 * beat, "guitar", _root(chord, 40) + 7, 0.7)
        yield from _strum(k * beat, beat, chord, 0.5)
        if rng.random() < 0.4:
            half = 4 if beat == 6 else 2
            yield from _strum(k * beat + half, beat - half, chord, 0.3, up=True)


def piano(bars: Bars, chord: Chord, rng: random.Random) -> Iterator[Stroke]:
    """Eighths through the chord, over its root in octaves."""
    root, tones = _root(chord), _voicing(chord, 55)
    yield Stroke(0, bars.ticks, "piano", root, 0.8)
    yield Stroke(0, bars.ticks, "piano", root + 12, 0.5)
    order = (0, 2, 1, 2) if bars.beat_ticks == 4 else (0, 1, 2)
    for k, tick in enumerate(range(0, bars.ticks, 2)):
        loud = 0.55 if tick % bars.beat_ticks == 0 else 0.4
        yield Stroke(tick, 4, "piano", tones[order[k % len(order)]], loud)


def pad(bars: Bars, chord: Chord, rng: random.Random) -> Iterator[Stroke]:
    """The chord held for the bar, its root below on the bar and in its middle."""
    for midi in _voicing(chord, 55):
        yield Stroke(0, bars.ticks, "pad", midi, 0.6)
    middle = 2 * bars.beat_ticks if bars.beats == 4 else bars.ticks
    yield Stroke(0, middle, "bass", _root(chord), 0.7)
    if middle < bars.ticks:
        yield Stroke(middle, middle, "bass", _root(chord), 0.6)


def harp(bars: Bars, chord: Chord, rng: random.Random) -> Iterator[Stroke]:
    """An arpeggio in eighths, up two octaves and down again."""
    rising = [_root(chord, 40), *_voicing(chord, 52), *_voicing(chord, 64)]
    strings = [*rising, *reversed(rising[1:-1])]
    for k, tick in enumerate(range(0, bars.ticks, 2)):
        yield Stroke(tick, 6, "harp", strings[k % len(strings)], 0.7 if k == 0 else 0.5)


def band(bars: Bars, chord: Chord, rng: random.Random) -> Iterator[Stroke]:
    """Kick on the bar and its middle, snare between, hats in eighths; a walking bass; chords."""
    beat, low = bars.beat_ticks, _root(chord, 33)
    for k in range(bars.beats):
        drum = "kick" if k == 0 or (bars.beats == 4 and k == 2) else "snare"
        yield Stroke(k * beat, beat, drum, 0, 0.9 if drum == "kick" else 0.5)
        yield Stroke(k * beat, beat, "bass", low if k % 2 == 0 else low + rng.choice((0, 7)), 0.7)
        if k:
            yield from _strum(k * beat, max(1, beat // 3), chord, 0.3)
    for tick in range(0, bars.ticks, 2):
        yield Stroke(tick, 2, "hat", 0, 0.35 if tick % beat == 0 else 0.22)


STYLES: dict[str, Callable[[Bars, Chord, random.Random], Iterator[Stroke]]] = {
    "guitar": guitar, "piano": piano, "pad": pad, "band": band, "harp": harp,
}  # fmt: skip


def play(setting: Setting, rate: int, seed: str) -> NDArray[np.float32]:
    """The whole accompaniment, from the first bar to the end of the last chord; peak at most 1."""
    wave_W = np.zeros(round(setting.steps * GRID_SECONDS * rate), np.float32)
    if setting.accompaniment == "none":
        return wave_W
    rng = random.Random(zlib.crc32(f"band:{seed}".encode()))
    bars, last = setting.bars, len(setting.chords) - 1
    for bar, chord in enumerate(setting.chords):
        strokes = STYLES[setting.accompaniment](bars, chord, rng)
        if bar == last:  # the song ends on one long chord
            strokes = (stroke for stroke in list(strokes) if stroke.tick == 0)
        for stroke in strokes:
            tick = bar * bars.ticks + stroke.tick
            ticks = bars.ticks if bar == last else stroke.ticks
            start, stop = bars.step(tick) * GRID_SECONDS, bars.step(tick + ticks) * GRID_SECONDS
            if stroke.midi:
                sound_W = instruments.note(stroke.instrument, stroke.midi, stop - start, rate)
            else:
                sound_W = instruments.drum(stroke.instrument, rate)
            first = round((start + stroke.late) * rate)
            sound_W = sound_W[: max(0, len(wave_W) - first)]
            loud = np.float32(stroke.loud * (0.9 + 0.2 * rng.random()))  # as a hand would
            wave_W[first : first + len(sound_W)] += loud * sound_W
    return wave_W / max(FLAT, float(np.abs(wave_W).max()))
