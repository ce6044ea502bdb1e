"""Where along the sound each sung unit may start and end: not one path, but how likely every path
is.

A song's lyrics are a chain of states, one a sound class, left to right: gap, words with pauses that
may be left out, gap, ... A state is stayed in for as long as the singer holds it; consonants may be
swallowed. The forward-backward algorithm (Rabiner, 1989) over all ways through the chain gives, for
the boundary before any state, the probability that the singer has passed it by each frame: a
distribution function over time. Its median is the time with the least expected absolute error,
medians come in order by themselves, and the probability mass around the median says how sure it is.

Linear probabilities, scaled frame by frame, in blocks: memory grows with the song's length but not
with length times lyrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.curation.steps._alignment.phones import CLASSES, INDEX, NONE, VOWELS

FRAME_SECONDS = 0.02
REACH = 4  # at most this many states forward in one step
GAP = len(CLASSES)  # the column between lines: no voice, or singing that is not in the lyrics
_BLOCK = 128  # frames between kept forward rows
_STAY_VOWEL, _STAY_CONSONANT, _STAY_PAUSE, _STAY_GAP = 0.95, 0.75, 0.9, 0.99
_SKIP_CONSONANT, _SKIP_PAUSE, _SKIP_GAP = 0.02, 0.97, 0.7


@dataclass(frozen=True)
class Chain:
    """The states of a song's lyrics, S of them, and where its units begin and end among them.

    class_S: what is heard. stay_S: probability of staying for one more frame. enter_KS: factor for
    entering a state from 1 .. REACH states before it. first_U, last_U: first and last state of
    every unit; line_U: the line it stands in; vowel_U: the state of its first vowel (its first
    state where it has none).
    """

    class_S: NDArray[np.int64]
    stay_S: NDArray[np.float64]
    enter_KS: NDArray[np.float64]
    first_U: NDArray[np.int64]
    last_U: NDArray[np.int64]
    vowel_U: NDArray[np.int64]
    line_U: NDArray[np.int64]


def chain(lines: Sequence[Sequence[tuple[str, ...]]], open_ends: bool = True) -> Chain:
    """The chain of lines of units, each unit its classes (`phones.pronounce`); a unit without
    classes is a pause."""
    class_S: list[int] = []
    stay_S: list[float] = []
    skip_S: list[float] = []
    first, last, vowel, line_of = [], [], [], []

    def state(sound: int, stay: float, skip: float) -> None:
        class_S.append(sound)
        stay_S.append(stay)
        skip_S.append(skip)

    state(GAP, _STAY_GAP, _SKIP_GAP)
    for number, units in enumerate(lines):
        for place, unit in enumerate(units):
            if place:
                state(NONE, _STAY_PAUSE, _SKIP_PAUSE)
            first.append(len(class_S))
            line_of.append(number)
            vowel.append(-1)
            for sound in unit or ("none",):
                if sound in VOWELS:
                    vowel[-1] = len(class_S) if vowel[-1] < 0 else vowel[-1]
                    state(INDEX[sound], 0.0, 0.0)  # a vowel lasts at least two frames
                    state(INDEX[sound], _STAY_VOWEL, 0.0)
                else:
                    state(INDEX[sound], _STAY_CONSONANT, _SKIP_CONSONANT)
            last.append(len(class_S) - 1)
            vowel[-1] = first[-1] if vowel[-1] < 0 else vowel[-1]
        state(GAP, _STAY_GAP, _SKIP_GAP)
    stay, skip = np.array(stay_S), np.array(skip_S)
    enter_KS = np.zeros((REACH, len(stay)))
    for reach in range(REACH):
        for at in range(reach + 1, len(stay)):
            between = skip[at - reach : at]
            enter_KS[reach, at] = (
                between.prod()
                * (1.0 - stay[at - reach - 1])
                * (1.0 - skip[at] if skip[at] else 1.0)
            )
    ints = [np.array(row, np.int64) for row in (class_S, first, last, vowel, line_of)]
    return Chain(ints[0], stay, enter_KS, ints[1], ints[2], ints[3], ints[4])


@dataclass(frozen=True)
class Passing:
    """passed_TB: probability that boundary b (before a state) has been passed by frame t;
    log_evidence: nats of the song.

    occupied_TC: how likely the singer is at each sound class, and (last column) between lines, at
    each frame."""

    passed_TB: NDArray[np.float32]
    occupied_TC: NDArray[np.float32]
    log_evidence: float


def passing(
    score_TC: NDArray[np.float32], lyrics: Chain, boundaries_B: NDArray[np.int64]
) -> Passing:
    """Forward-backward over log scores of the classes and, last column, the gap. boundaries_B:
    states; S means the end of the last one."""
    frames, states = len(score_TC), len(lyrics.class_S)
    weight_TC = np.exp(score_TC.astype(np.float64) - score_TC.max(1, keepdims=True))
    starts = np.zeros(states)
    starts[0] = 1.0
    for reach in range(min(REACH, states - 1)):
        if lyrics.enter_KS[reach, reach + 1]:
            starts[reach + 1] = lyrics.enter_KS[reach, reach + 1]
    kept = np.zeros((frames // _BLOCK + 1, states), np.float64)
    row, evidence = np.zeros(0), 0.0
    for t in range(frames):
        row = starts if t == 0 else _forward(row, lyrics)
        row = row * weight_TC[t][lyrics.class_S]
        total = row.sum()
        evidence += float(np.log(max(total, 1e-300)) + score_TC[t].max())
        row /= max(total, 1e-300)
        if t % _BLOCK == 0:
            kept[t // _BLOCK] = row
    back = np.zeros(states)
    back[-1] = 1.0
    for reach in range(1, min(REACH, states)):
        back[-1 - reach] = lyrics.enter_KS[reach - 1, -1]
    passed_TB = np.zeros((frames, len(boundaries_B)), np.float32)
    occupied_TC = np.zeros((frames, GAP + 1), np.float32)
    for block in range((frames - 1) // _BLOCK, -1, -1):
        at, end = block * _BLOCK, min((block + 1) * _BLOCK, frames)
        rows = [kept[block]]
        for t in range(at + 1, end):
            row = _forward(rows[-1], lyrics) * weight_TC[t][lyrics.class_S]
            rows.append(row / max(row.sum(), 1e-300))
        for t in range(end - 1, at - 1, -1):
            here = rows[t - at] * back
            here /= max(here.sum(), 1e-300)
            later = np.append(here[::-1].cumsum()[::-1], 0.0)
            passed_TB[t] = later[boundaries_B]
            occupied_TC[t] = np.bincount(lyrics.class_S, here, GAP + 1)
            back = _backward(back * weight_TC[t][lyrics.class_S], lyrics)
            back /= max(back.max(), 1e-300)
    return Passing(passed_TB, occupied_TC, evidence)


def _forward(row_S: NDArray[np.float64], lyrics: Chain) -> NDArray[np.float64]:
    out = row_S * lyrics.stay_S
    for reach in range(min(REACH, len(row_S) - 1)):
        out[reach + 1 :] += row_S[: -reach - 1] * lyrics.enter_KS[reach, reach + 1 :]
    return out


def _backward(row_S: NDArray[np.float64], lyrics: Chain) -> NDArray[np.float64]:
    out = row_S * lyrics.stay_S
    for reach in range(min(REACH, len(row_S) - 1)):
        out[: -reach - 1] += row_S[reach + 1 :] * lyrics.enter_KS[reach, reach + 1 :]
    return out
