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

from distill.songbook.bars import Bars, Key

SHORTEST, LONGEST = 3, 30  # steps: 0.12 s and 1.2 s
BREATH_STEPS = 7  # at least 0.28 s between the last note of a line and the first of the next
Chord = tuple[int, int, int]


@dataclass(frozen=True)
class Beat:
    """What rhythm must know of a syllable: its stress, how many consonants follow before the next
    vowel, and whether its word ends with it."""

    stressed: bool
    crowd: int
    last_of_word: bool


@dataclass(frozen=True)
class Rhythm:
    """First and last tick of each syllable, from the line's first bar line (negative: pickup), and
    its bars."""

    spans: tuple[tuple[int, int], ...]
    bars: int


def least_steps(crowd: int) -> int:
    """Steps that a syllable needs for its words to be heard: 0.16 s, more where consonants crowd."""
    return 4 + max(0, crowd - 1)


def rhythm(
    beats: list[Beat], bars: Bars, rng: random.Random, lively: bool, wanted_bars: int = 0
) -> Rhythm:
    """A rhythm for a line; of `wanted_bars` bars if that is possible, else of the fewest that hold
    it."""
    best: tuple[float, Rhythm] | None = None
    for _ in range(14):
        trial, cost = _try(beats, bars, rng, lively)
        cost += 3.0 * abs(trial.bars - wanted_bars) if wanted_bars else 0.0
        cost += 3.0 * (1 - trial.spans[-1][1] / (trial.bars * bars.ticks))  # silence at its end
        if best is None or cost < best[0]:
            best = cost, trial
    assert best is not None
    return best[1]


def fits(beats: list[Beat], found: Rhythm, bars: Bars) -> bool:
    """Whether other words can be sung to a rhythm."""
    return len(beats) == len(found.spans) and all(
        bars.step(stop) - bars.step(start) >= least_steps(beat.crowd)
        for beat, (start, stop) in zip(beats, found.spans, strict=True)
    )


def _try(beats: list[Beat], bars: Bars, rng: random.Random, lively: bool) -> tuple[Rhythm, float]:
    beat = bars.beat_ticks
    lengths = (2, 3, 4, 6, 8) if beat == 4 else (2, 4, 6, 8)
    if beat == 4 and bars.beat_steps >= 14:
        lengths = (1, *lengths)
    # plain: the usual length; a half beat, or a whole one in fast songs. Most notes should stay
    # below 0.45 s
    plain = 2 if bars.beat_steps * 2 / beat >= 7 or rng.random() < 0.25 else 4
    plain = 4 if bars.beat_steps * 2 / beat < 5 else plain
    pickup = (
        0
        if beats[0].stressed or not beats[1].stressed or rng.random() < 0.2
        else _pickup_ticks(bars)
    )
    at, cost, spans = -pickup, 0.0, []
    uneven = 0.9 if lively else 0.5
    for index, syllable in enumerate(beats[:-1]):
        later = beats[index + 1]
        best_length, least, kept = 0, float("inf"), 0.0
        for length in lengths:
            steps = bars.step(at + length) - bars.step(at)
            if steps < least_steps(syllable.crowd) or steps > LONGEST:
                continue
            on_beat, on_bar = (at + length) % beat == 0, (at + length) % bars.ticks == 0
            off = 1.4 * (later.stressed and not on_beat) + 0.5 * (not later.stressed and on_beat)
            off -= 0.4 * (later.stressed and on_bar)
            off += (
                0.35 * abs(length - plain) / plain
                + 1.2 * (steps * 0.04 > 0.55)
                + 0.8 * (length == 1)
            )
            draw = off + uneven * rng.random()
            if draw < least:
                best_length, least, kept = length, draw, off
        if not best_length:  # very crowded, or a very slow beat: the shortest that is long enough
            best_length = next(n for n in range(1, 40) if bars.step(at + n) - bars.step(at) >= 9)
            kept = 3.0
        spans.append((at, at + best_length))
        cost += kept
        at += best_length
        if syllable.last_of_word and 2 < index < len(beats) - 3 and rng.random() < 0.06:
            at += -at % beat or 2  # a rest, to the next beat
    last = max(2, beat - at % beat if at % beat else beat)
    while bars.step(at + last) - bars.step(at) < 9:
        last += beat // 2
    while rng.random() < 0.4 and bars.step(at + last + beat // 2) - bars.step(at) <= 22:
        last += beat // 2
    while bars.step(at + last) - bars.step(at) > LONGEST:
        last -= 1
    spans.append((at, at + last))
    # the next line's pickup
    room = bars.step(at + last) + BREATH_STEPS + bars.step(_pickup_ticks(bars))
    return Rhythm(tuple(spans), -(-room // bars.step(bars.ticks))), cost / len(beats)


def _pickup_ticks(bars: Bars) -> int:
    """Half a beat, or in a fast song a whole one; in 6/8 the last eighth."""
    return 2 if bars.step(2) >= 5 else 4


@dataclass(frozen=True)
class Range:
    """The pitches a song moves in, MIDI."""

    lowest: int
    highest: int


def choose_range(lowest: int, highest: int, rng: random.Random) -> Range:
    """9 to 16 semitones within a voice, rather low in it: the higher the pitch, the fewer words are
    understood."""
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
    at = start
    for index, (tick, _) in enumerate(spans):
        chord = chords[max(0, min(len(chords) - 1, tick // bars.ticks))]
        ladder = _ladder(key, chord, within)
        tones = [midi for midi in ladder if midi % 12 in chord] or ladder
        if at is None:
            at = rng.choice(_near(tones, (within.lowest + within.highest) // 2, 6))
        elif index == len(spans) - 1:
            homes = [m for m in tones if m % 12 == key.tonic % 12] if ends_home else []
            at = _nearest(homes or tones, at, rng)
        else:
            draw = rng.random()
            if rng.random() < 0.2 or at <= within.lowest + 1 or at >= within.highest - 1:
                drift = 1 if at <= within.lowest + 1 else -1 if at >= within.highest - 1 else -drift
            if draw < (0.16 if lively else 0.07):
                at = rng.choice(_near(tones, at, 12))  # a leap, up to an octave
            elif draw < 0.28:
                at = _nearest(ladder, at, rng, 0.0)  # the note again
            else:
                at = _step(ladder, at, drift * (2 if rng.random() < 0.15 else 1))
            if tick % bars.beat_ticks == 0 and at % 12 not in chord:
                at = _nearest(tones, at, rng)
        pitches.append(at)
    return pitches


def melisma(
    span: tuple[int, int], midi: int, later: int, bars: Bars, key: Key, chord: Chord, within: Range,
    rng: random.Random,
) -> list[tuple[int, int, int]]:  # fmt: skip
    """The notes (first tick, last tick, MIDI) of a syllable that is sung on two or three."""
    start, stop = span
    ladder = _ladder(key, chord, within)
    side = 1 if later >= midi else -1
    turn = [midi, _step(ladder, midi, side), midi, _step(ladder, midi, -side)]
    cuts = [start, (start + stop + 1) // 2, stop]
    if stop - start >= 4 and rng.random() < 0.4:
        cuts = [start, stop - 2, stop - 1, stop]
    lengths = [bars.step(b) - bars.step(a) for a, b in itertools.pairwise(cuts)]
    if min(lengths) < SHORTEST:
        return [(start, stop, midi)]
    return [(a, b, turn[k]) for k, (a, b) in enumerate(itertools.pairwise(cuts))]


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
    place = min(range(len(ladder)), key=lambda k: (abs(ladder[k] - midi), k))
    return ladder[max(0, min(len(ladder) - 1, place + steps))]
