"""Tunes in bars: where each syllable falls, and on which pitch.

Rhythm is found by trial: a line's syllables get lengths of 0.12 to 1.2 s so that stressed ones fall
on beats, crowded consonants have room, and the line fills whole bars with a breath at its end; the
best of some random trials is kept. A weak first syllable may come before the bar (a pickup).
Pitches walk along the scale, mostly by step, to chord tones on the beats and home at the end; now
and then they leap, and a long syllable may have several notes (a melisma).
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from distill.songbook.bars import Bars, Chord, Key
from distill.songbook.singing import GRID_SECONDS

SHORTEST, LONGEST = 3, 30  # steps: 0.12 s and 1.2 s
BREATH_STEPS = 7  # at least 0.28 s between the last note of a line and the first of the next
_TRIALS = 14
_CROWDED_STEPS = 9  # what any syllable fits into, and the least for the last one of a line
_LAST_STEPS = 22  # up to which a line's last note may grow
# what a trial costs, by syllable: a stressed one off the beat, a weak one on it, less on a bar;
# a length unlike the usual one, a long note, a sixteenth, a length for want of another
_OFF_BEAT, _WEAK_ON_BEAT, _ON_BAR = 1.4, 0.5, 0.4
_UNUSUAL, _LONG, _SIXTEENTH, _FORCED = 0.35, 1.2, 0.8, 3.0
_LONG_SECONDS = 0.55
_BARS_OFF, _SILENT_END = 3.0, 3.0  # by line: each bar more or less than wanted; its silent share
_REACH = 6  # semitones from the middle of the range in which a tune begins


@dataclass(frozen=True)
class Beat:
    """What rhythm must know of a syllable."""

    stressed: bool
    crowd: int  # consonants before the next vowel
    last_of_word: bool


@dataclass(frozen=True)
class Rhythm:
    """When a line's syllables are sung, and its bars."""

    spans: tuple[tuple[int, int], ...]  # first, last tick from the first bar line on; < 0: pickup
    bars: int


def least_steps(crowd: int) -> int:
    """Steps in which a syllable can be understood: 0.16 s, more where consonants crowd."""
    return 4 + max(0, crowd - 1)


def rhythm(
    beats: list[Beat], bars: Bars, rng: random.Random, lively: bool, wanted_bars: int = 0
) -> Rhythm:
    """A rhythm for a line; of `wanted_bars` bars if possible, else of the fewest that hold it."""
    trials = []
    for _ in range(_TRIALS):
        trial, cost = _try(beats, bars, rng, lively)
        cost += _BARS_OFF * abs(trial.bars - wanted_bars) if wanted_bars else 0.0
        cost += _SILENT_END * (1 - trial.spans[-1][1] / (trial.bars * bars.ticks))
        trials.append((cost, trial))
    return min(trials, key=lambda trial: trial[0])[1]


def fits(beats: list[Beat], rhythm: Rhythm, bars: Bars) -> bool:
    """Whether other words can be sung to a rhythm."""
    return len(beats) == len(rhythm.spans) and all(
        bars.step(stop) - bars.step(start) >= least_steps(beat.crowd)
        for beat, (start, stop) in zip(beats, rhythm.spans, strict=True)
    )


def _try(beats: list[Beat], bars: Bars, rng: random.Random, lively: bool) -> tuple[Rhythm, float]:
    """A random rhythm, and its cost by syllable."""
    usual = _usual_ticks(bars, rng)
    pickup = not beats[0].stressed and beats[1].stressed and rng.random() >= 0.2
    tick, cost, spans = -_pickup_ticks(bars) if pickup else 0, 0.0, []
    for index, (syllable, later) in enumerate(itertools.pairwise(beats)):
        length, off = _draw_length(tick, syllable, later, bars, usual, 0.9 if lively else 0.5, rng)
        spans.append((tick, tick + length))
        cost += off
        tick += length
        if syllable.last_of_word and 2 < index < len(beats) - 3 and rng.random() < 0.06:
            tick += -tick % bars.beat_ticks or 2  # a rest, to the next beat
    stop = tick + _last_ticks(tick, bars, rng)
    spans.append((tick, stop))
    # the next line's pickup has room in the last bar too
    steps = bars.step(stop) + BREATH_STEPS + bars.step(_pickup_ticks(bars))
    return Rhythm(tuple(spans), -(-steps // bars.step(bars.ticks))), cost / len(beats)


def _usual_ticks(bars: Bars, rng: random.Random) -> int:
    """The usual length: a half beat, or a whole one in fast songs; most notes stay below 0.45 s."""
    half_steps = bars.beat_steps * 2 / bars.beat_ticks
    usual = 2 if half_steps >= 7 or rng.random() < 0.25 else 4
    return 4 if half_steps < 5 else usual


def _draw_length(
    tick: int, syllable: Beat, later: Beat, bars: Bars, usual: int, uneven: float,
    rng: random.Random,
) -> tuple[int, float]:  # fmt: skip
    """Ticks of a syllable that begins at `tick`, and their cost; `uneven`: how much is chance."""
    lengths: tuple[int, ...] = (2, 3, 4, 6, 8) if bars.beat_ticks == 4 else (2, 4, 6, 8)
    if bars.beat_ticks == 4 and bars.beat_steps >= 14:
        lengths = (1, *lengths)
    draws = []
    for length in lengths:
        steps = bars.step(tick + length) - bars.step(tick)
        if not least_steps(syllable.crowd) <= steps <= LONGEST:
            continue
        on_beat = (tick + length) % bars.beat_ticks == 0
        on_bar = (tick + length) % bars.ticks == 0
        off = _OFF_BEAT * (later.stressed and not on_beat)
        off += _WEAK_ON_BEAT * (not later.stressed and on_beat)
        off -= _ON_BAR * (later.stressed and on_bar)
        long = steps * GRID_SECONDS > _LONG_SECONDS
        unusual = _UNUSUAL * abs(length - usual) / usual
        off += unusual + _LONG * long + _SIXTEENTH * (length == 1)
        draws.append((off + uneven * rng.random(), length, off))
    if draws:
        return min(draws, key=lambda draw: draw[0])[1:]
    # very crowded, or a very slow beat: the shortest that is long enough
    steps_after = (bars.step(tick + length) - bars.step(tick) for length in itertools.count(1))
    return next(k for k, steps in enumerate(steps_after, 1) if steps >= _CROWDED_STEPS), _FORCED


def _last_ticks(tick: int, bars: Bars, rng: random.Random) -> int:
    """Ticks of a line's last syllable: to the next beat, or half a beat more, and again."""

    def steps(ticks: int) -> int:
        return bars.step(tick + ticks) - bars.step(tick)

    beat = bars.beat_ticks
    ticks = max(2, beat - tick % beat)
    while steps(ticks) < _CROWDED_STEPS:
        ticks += beat // 2
    while rng.random() < 0.4 and steps(ticks + beat // 2) <= _LAST_STEPS:
        ticks += beat // 2
    while steps(ticks) > LONGEST:
        ticks -= 1
    return ticks


def _pickup_ticks(bars: Bars) -> int:
    """Half a beat, or in a fast song a whole one; in 6/8 the last eighth."""
    return 2 if bars.step(2) >= 5 else 4


@dataclass(frozen=True)
class Range:
    """The pitches a song moves in, MIDI."""

    lowest: int
    highest: int


def choose_range(lowest: int, highest: int, rng: random.Random) -> Range:
    """9 to 16 semitones within a voice, rather low in it: higher words are understood less well."""
    width = min(highest - lowest, rng.randint(9, 16))
    start = min(rng.randint(lowest, highest - width) for _ in range(2))
    return Range(start, start + width)


def tune(
    spans: tuple[tuple[int, int], ...], bars: Bars, key: Key, chords: list[Chord], within: Range,
    rng: random.Random, lively: bool, start: int | None = None, ends_home: bool = False,
) -> list[int]:  # fmt: skip
    """A MIDI pitch for each syllable of a line; `chords` has one per bar of the line."""
    pitches: list[int] = []
    drift = rng.choice((-1, 1))
    midi = start
    for index, (tick, _) in enumerate(spans):
        chord = chords[max(0, min(len(chords) - 1, tick // bars.ticks))]
        ladder = _ladder(key, chord, within)
        tones = [tone for tone in ladder if tone % 12 in chord] or ladder
        if midi is None:
            midi = rng.choice(_near(tones, (within.lowest + within.highest) // 2, _REACH))
        elif index == len(spans) - 1:
            homes = [tone for tone in tones if tone % 12 == key.tonic % 12] if ends_home else []
            midi = _nearest(homes or tones, midi, rng)
        else:
            draw = rng.random()
            low, high = midi <= within.lowest + 1, midi >= within.highest - 1
            if rng.random() < 0.2 or low or high:
                drift = 1 if low else -1 if high else -drift
            if draw < (0.16 if lively else 0.07):
                midi = rng.choice(_near(tones, midi, 12))  # a leap, up to an octave
            elif draw < 0.28:
                midi = _nearest(ladder, midi, rng, 0.0)  # the note again
            else:
                midi = _step(ladder, midi, drift * (2 if rng.random() < 0.15 else 1))
            if tick % bars.beat_ticks == 0 and midi % 12 not in chord:
                midi = _nearest(tones, midi, rng)
        pitches.append(midi)
    return pitches


def melisma(
    span: tuple[int, int], midi: int, later: int, bars: Bars, key: Key, chord: Chord, within: Range,
    rng: random.Random,
) -> list[tuple[int, int, int]]:  # fmt: skip
    """Two or three notes (first tick, last tick, MIDI) of a syllable; `later`: the next pitch."""
    start, stop = span
    ladder = _ladder(key, chord, within)
    side = 1 if later >= midi else -1
    turn = [midi, _step(ladder, midi, side), midi]
    cuts = [start, (start + stop + 1) // 2, stop]
    if stop - start >= 4 and rng.random() < 0.4:
        cuts = [start, stop - 2, stop - 1, stop]
    spans = list(itertools.pairwise(cuts))
    if min(bars.step(last) - bars.step(first) for first, last in spans) < SHORTEST:
        return [(start, stop, midi)]
    return [(*notes, pitch) for notes, pitch in zip(spans, turn, strict=False)]


def _ladder(key: Key, chord: Chord, within: Range) -> list[int]:
    classes = {(key.tonic + step) % 12 for step in key.scale}
    if key.mode == "minor" and (key.tonic + 11) % 12 in chord:  # the raised leading tone
        classes = (classes - {(key.tonic + 10) % 12}) | {(key.tonic + 11) % 12}
    return [midi for midi in range(within.lowest, within.highest + 1) if midi % 12 in classes]


def _near(pitches: list[int], midi: int, reach: int) -> list[int]:
    near = [pitch for pitch in pitches if abs(pitch - midi) <= reach and pitch != midi]
    return near or pitches


def _nearest(pitches: list[int], midi: int, rng: random.Random, blur: float = 1.0) -> int:
    return min(pitches, key=lambda pitch: (abs(pitch - midi) + blur * rng.random(), pitch))


def _step(ladder: list[int], midi: int, steps: int) -> int:
    """So many steps up from the ladder's pitch that is nearest."""
    nearest = min(range(len(ladder)), key=lambda k: (abs(ladder[k] - midi), k))
    return ladder[max(0, min(len(ladder) - 1, nearest + steps))]
