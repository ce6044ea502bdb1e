"""Where each sung unit may start and end along the sound: how likely every path is.

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

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FRAME_SECONDS = 0.02
REACH = 4  # at most this many states forward in one step
GAP = len(CLASSES)  # the column between lines: no voice, or singing that is not in the lyrics
_BLOCK = 128  # frames between kept forward rows
_LEAST = 1e-300  # a sum to divide by, where nothing is possible
_STAY_VOWEL, _STAY_CONSONANT, _STAY_PAUSE, _STAY_GAP = 0.95, 0.75, 0.9, 0.99
_SKIP_CONSONANT, _SKIP_PAUSE, _SKIP_GAP = 0.02, 0.97, 0.7


@dataclass(frozen=True)
class Chain:
    """The S states of a song's lyrics, and its U units among them. class_S: what is heard. stay_S:
    probability of staying for one more frame. enter_KS: factor for entering a state from 1 .. REACH
    before it. first_U, last_U: a unit's first and last state; vowel_U: the state of its first vowel
    (its first one where it has none); line_U: its line."""

    class_S: Ints
    stay_S: Floats
    enter_KS: Floats
    first_U: Ints
    last_U: Ints
    vowel_U: Ints
    line_U: Ints


def chain(lines: Sequence[Sequence[tuple[str, ...]]]) -> Chain:
    """The chain of lines of units, each its classes (`phones.pronounce`); () is a pause."""
    states: list[tuple[int, float, float]] = [(GAP, _STAY_GAP, _SKIP_GAP)]  # class, stay, skip
    edges: list[tuple[int, int, int, int]] = []  # first state, last, vowel, line
    for number, units in enumerate(lines):
        for index, unit in enumerate(units):
            if index:
                states.append((NONE, _STAY_PAUSE, _SKIP_PAUSE))
            first, vowel = len(states), -1
            for sound in unit or ("none",):
                if sound in VOWELS:
                    vowel = len(states) if vowel < 0 else vowel
                    states.append((INDEX[sound], 0.0, 0.0))  # a vowel lasts at least two frames
                    states.append((INDEX[sound], _STAY_VOWEL, 0.0))
                else:
                    states.append((INDEX[sound], _STAY_CONSONANT, _SKIP_CONSONANT))
            edges.append((first, len(states) - 1, first if vowel < 0 else vowel, number))
        states.append((GAP, _STAY_GAP, _SKIP_GAP))
    classes, stay, skip = zip(*states, strict=True)
    first_U, last_U, vowel_U, line_U = np.array(edges, np.int64).reshape(-1, 4).T
    stay_S = np.array(stay)
    enter_KS = _entries(stay_S, np.array(skip))
    return Chain(np.array(classes, np.int64), stay_S, enter_KS, first_U, last_U, vowel_U, line_U)


def _entries(stay_S: Floats, skip_S: Floats) -> Floats:
    """The factors for entering each state: leave one before it, skip those between."""
    enter_KS = np.zeros((REACH, len(stay_S)))
    for reach in range(REACH):
        for at in range(reach + 1, len(stay_S)):
            between = skip_S[at - reach : at].prod()
            here = 1.0 - skip_S[at] if skip_S[at] else 1.0
            enter_KS[reach, at] = between * (1.0 - stay_S[at - reach - 1]) * here
    return enter_KS


@dataclass(frozen=True)
class Passing:
    """passed_TB: probability that boundary b (before a state) has been passed by frame t.
    occupied_TC: that of each sound class and (last) of a gap. log_evidence: nats of the song."""

    passed_TB: NDArray[np.float32]
    occupied_TC: NDArray[np.float32]
    log_evidence: float


def passing(loglik_TC: NDArray[np.float32], lyrics: Chain, boundaries_B: Ints) -> Passing:
    """Forward-backward over log likelihoods; the gap is last. boundaries_B: states; S: the end."""
    frames, states = len(loglik_TC), len(lyrics.class_S)
    weight_TC = np.exp(loglik_TC.astype(np.float64) - loglik_TC.max(1, keepdims=True))
    kept, evidence = _kept_rows(loglik_TC, weight_TC, lyrics)
    back_S = np.zeros(states)
    back_S[-1] = 1.0
    for reach in range(1, min(REACH, states)):
        back_S[-1 - reach] = lyrics.enter_KS[reach - 1, -1]
    passed_TB = np.zeros((frames, len(boundaries_B)), np.float32)
    occupied_TC = np.zeros((frames, GAP + 1), np.float32)
    for block in range((frames - 1) // _BLOCK, -1, -1):
        at, end = block * _BLOCK, min((block + 1) * _BLOCK, frames)
        rows = [kept[block]]
        for t in range(at + 1, end):
            row_S = _forward(rows[-1], lyrics) * weight_TC[t][lyrics.class_S]
            rows.append(row_S / max(row_S.sum(), _LEAST))
        for t in range(end - 1, at - 1, -1):
            here_S = rows[t - at] * back_S
            here_S /= max(here_S.sum(), _LEAST)
            later_S = np.append(here_S[::-1].cumsum()[::-1], 0.0)
            passed_TB[t] = later_S[boundaries_B]
            occupied_TC[t] = np.bincount(lyrics.class_S, here_S, GAP + 1)
            back_S = _backward(back_S * weight_TC[t][lyrics.class_S], lyrics)
            back_S /= max(back_S.max(), _LEAST)
    return Passing(passed_TB, occupied_TC, evidence)


def _kept_rows(
    loglik_TC: NDArray[np.float32], weight_TC: Floats, lyrics: Chain
) -> tuple[Floats, float]:
    """The forward row at the start of every block, and the log evidence of the song."""
    states = len(lyrics.class_S)
    row_S = np.zeros(states)
    row_S[0] = 1.0
    for reach in range(min(REACH, states - 1)):
        row_S[reach + 1] = lyrics.enter_KS[reach, reach + 1]
    kept = np.zeros((len(loglik_TC) // _BLOCK + 1, states), np.float64)
    evidence = 0.0
    for t in range(len(loglik_TC)):
        row_S = (_forward(row_S, lyrics) if t else row_S) * weight_TC[t][lyrics.class_S]
        total = max(row_S.sum(), _LEAST)
        evidence += float(np.log(total) + loglik_TC[t].max())
        row_S /= total
        if t % _BLOCK == 0:
            kept[t // _BLOCK] = row_S
    return kept, evidence


def _forward(row_S: Floats, lyrics: Chain) -> Floats:
    next_S = row_S * lyrics.stay_S
    for reach in range(min(REACH, len(row_S) - 1)):
        next_S[reach + 1 :] += row_S[: -reach - 1] * lyrics.enter_KS[reach, reach + 1 :]
    return next_S


def _backward(row_S: Floats, lyrics: Chain) -> Floats:
    next_S = row_S * lyrics.stay_S
    for reach in range(min(REACH, len(row_S) - 1)):
        next_S[: -reach - 1] += row_S[reach + 1 :] * lyrics.enter_KS[reach, reach + 1 :]
    return next_S
