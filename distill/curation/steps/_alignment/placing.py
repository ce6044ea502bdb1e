"""Lyrics onto a stretch of sound: every unit's start and end, and how sure they look.

Two ways in, one way out: `Singing` hears sound classes and weighs all paths (`path`), `Spelling`
has a CTC model's characters and takes the best one (`ctc`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill.curation.steps._alignment import confidence, ctc, hearing, path, phones

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Lines = Sequence[Sequence[str]]  # the units of each line
SCALE = 0.2  # neighbouring frames say nearly the same: counted in full they would be far too sure
PRIOR_SHARE = 0.25  # how much of a class's share in the teaching songs is taken off
UNWRITTEN_NATS = 2.0  # singing that fits so much better elsewhere is not in the lyrics
MOST_CELLS = 2**28  # frames times boundaries, four bytes each: 20 minutes of 1,500 words
LEAST_NATS = -7.0  # no single frame rules a sound out
LEAST_FRAMES = 1e-3  # of singing, to divide by
SOUND_SECONDS = 0.15  # how long a sound is held on the average


@dataclass(frozen=True)
class Placed:
    """N units or lines: seconds (vowel_N: of the first vowel), and what `confidence` looks at."""

    start_N: Floats
    vowel_N: Floats
    end_N: Floats
    sure_N: Floats
    seen_NX: Floats


@dataclass(frozen=True)
class Placement:
    """The units of all lines in order, and the lines."""

    words: Placed
    lines: Placed


class _Spans(NamedTuple):
    """Units or lines: seconds, which boundary is their start, how many sounds they have."""

    start_N: Floats
    vowel_N: Floats
    stop_N: Floats
    column_N: Ints
    size_N: Floats


class Singing:
    """A song heard by the network of `hearing`."""

    def __init__(self, logp_TC: NDArray[np.float32]) -> None:
        self.logp_TC = logp_TC
        loglik_TC = np.maximum(logp_TC - PRIOR_SHARE * hearing.prior(), LEAST_NATS)
        other_T = loglik_TC[:, : phones.NONE].max(1) - UNWRITTEN_NATS
        gap_T = np.maximum(loglik_TC[:, phones.NONE], other_T)
        self.loglik_TC = (SCALE * np.column_stack([loglik_TC, gap_T])).astype(np.float32)

    def place(self, lines: Lines, language: str, begin: float, end: float) -> Placement | None:
        """All lines between two moments (seconds); None where they do not fit or are too many."""
        first = max(0, round(begin / path.FRAME_SECONDS))
        last = min(len(self.loglik_TC), round(end / path.FRAME_SECONDS) + 1)
        read = phones.pronounce([unit for line in lines for unit in line], language)
        sounds = [[read[unit] for unit in line] for line in lines]
        needed = sum(2 * sum(s in phones.VOWELS for s in unit) for line in sounds for unit in line)
        if last - first <= needed or 3 * sum(map(len, sounds)) * (last - first) > MOST_CELLS:
            return None
        states = path.chain(sounds)
        edges = np.concatenate([states.first_U, states.vowel_U, states.last_U + 1])
        passing = path.passing(self.loglik_TC[first:last], states, edges)
        times_B = first * path.FRAME_SECONDS + medians(passing.passed_TB) * path.FRAME_SECONDS
        start, vowel, stop = times_B.reshape(3, -1)
        stop = np.maximum(stop, vowel + path.FRAME_SECONDS)
        opens = np.flatnonzero(np.diff(states.line_U, prepend=-1))
        closes = np.append(opens[1:], len(start)) - 1
        size_U = np.array([max(1, len(unit)) for line in sounds for unit in line], float)
        of_words = _Spans(start, vowel, stop, np.arange(len(start)), size_U)
        sizes = np.add.reduceat(size_U, opens)
        of_lines = _Spans(start[opens], vowel[opens], stop[closes], opens, sizes)
        begin = first * path.FRAME_SECONDS
        heard = _heard(self.logp_TC[first:last], passing)
        words = _placed(passing, heard, of_words, begin, states.line_U)
        return Placement(words, _placed(passing, heard, of_lines, begin))


def _heard(logp_TC: NDArray[np.float32], passing: path.Passing) -> Floats:
    """By frame, summed up to it: agreement in nats (at most 0), voice heard, singing expected."""
    held_TC = np.maximum(logp_TC, LEAST_NATS).astype(np.float64)
    sings_T = 1.0 - passing.occupied_TC[:, phones.NONE :].sum(1)
    sung_TC = passing.occupied_TC[:, : phones.NONE]
    agree_T = (sung_TC * (held_TC[:, : phones.NONE] - held_TC.max(1, keepdims=True))).sum(1)
    voice_T = sings_T * (1.0 - np.exp(held_TC[:, phones.NONE]))
    columns_TX = np.column_stack([agree_T, voice_T, sings_T])
    return np.cumsum(np.vstack([np.zeros(3), columns_TX]), axis=0)


def _placed(
    passing: path.Passing, heard: Floats, spans: _Spans, begin: float, line_N: Ints | None = None
) -> Placed:
    """Spans of a stretch that begins at a second. line_N: the line that each word stands in, whose
    agreement is seen beside its own; lines see their neighbours'."""
    words, last = line_N is not None, len(heard) - 1
    within = confidence.WORD_SECONDS if words else confidence.LINE_SECONDS
    mass = masses(passing.passed_TB[:, spans.column_N], spans.start_N - begin, within)
    a = np.round((spans.start_N - begin) / path.FRAME_SECONDS).astype(int).clip(0, last)
    b = np.round((spans.stop_N - begin) / path.FRAME_SECONDS).astype(int).clip(a, last)
    fit_N, voice_N, sung_N = (heard[b] - heard[a]).T
    sung_N = np.maximum(sung_N, LEAST_FRAMES)
    agree_N = fit_N / sung_N
    if line_N is not None:
        near_N = (np.bincount(line_N, fit_N) / np.bincount(line_N, sung_N))[line_N]
    else:  # a line among strangers is in doubt
        padded = np.concatenate([agree_N[:1], agree_N, agree_N[-1:]])
        near_N = (padded[:-2] + padded[2:]) / 2
    song_N = np.full(len(agree_N), heard[-1, 0] / max(heard[-1, 2], LEAST_FRAMES))
    seconds_N = np.maximum(spans.stop_N - spans.start_N, path.FRAME_SECONDS)
    pace_N = np.log(seconds_N / spans.size_N / SOUND_SECONDS)
    voiced_N = voice_N / sung_N
    columns = [confidence.logit(mass), agree_N, near_N, song_N, voiced_N, pace_N, pace_N**2]
    seen_NX = np.column_stack(columns)
    weights = confidence.WORD_WEIGHTS if words else confidence.LINE_WEIGHTS
    sure_N = confidence.sure(seen_NX, weights)
    return Placed(spans.start_N, spans.vowel_N, spans.stop_N, sure_N, seen_NX)


def medians(passed_TB: NDArray[np.float32]) -> Floats:
    """The frame, with its fraction, at which each boundary is as likely passed as not; in order."""
    count, columns = len(passed_TB), np.arange(passed_TB.shape[1])
    rising_TB = np.maximum.accumulate(passed_TB, axis=0)
    at = np.minimum((rising_TB < 0.5).sum(0), count - 1)
    high = rising_TB[at, columns]
    low = np.where(at > 0, rising_TB[np.maximum(at - 1, 0), columns], 0.0)
    part = np.where(high > low, (0.5 - low) / np.maximum(high - low, 1e-9), 1.0).clip(0.0, 1.0)
    frames = np.where(rising_TB[-1] < 0.5, count, at - 1 + part + 0.5)
    return frames.clip(0, count)


def masses(passed_TN: NDArray[np.float32], start_N: Floats, within: float) -> Floats:
    """Probability that each boundary is passed within so many seconds of its start."""
    count, columns = passed_TN.shape[0], np.arange(passed_TN.shape[1])
    high = np.clip(np.round((start_N + within) / path.FRAME_SECONDS).astype(int), 0, count - 1)
    low = np.round((start_N - within) / path.FRAME_SECONDS).astype(int)
    before = np.where(low >= 0, passed_TN[np.clip(low, 0, count - 1), columns], 0.0)
    return np.clip(passed_TN[high, columns] - before, 0.0, 1.0).astype(np.float64)


class Spelling:
    """A song heard by a CTC model."""

    def __init__(self, heard: ctc.Heard) -> None:
        self.heard = heard

    def place(self, lines: Lines, language: str, begin: float, end: float) -> Placement | None:
        """As `Singing.place`; confidence: the mean probability of a word's characters."""
        logp_TV, step, tokens, blank = self.heard
        first, last = max(0, round(begin / step)), min(len(logp_TV), round(end / step) + 1)
        spelled = [ctc.spell(unit, tokens) for line in lines for unit in line]
        if not any(spelled):
            return None
        ids, owners = _joined(spelled, tokens.get("|"))
        path_T = ctc.force(logp_TV[first:last], np.array(ids), blank)
        if path_T is None:
            return None
        # what stands behind the last is what a blank, -1, finds
        owner_T = np.append(owners, -1)[path_T]
        logp_T = logp_TV[np.arange(first, last), np.append(ids, 0)[path_T]]
        chance_T = np.where(path_T >= 0, np.exp(logp_T), 0.0)
        start, stop, sure = _stretches(owner_T, chance_T, len(spelled), first, step)
        sizes = np.array([len(line) for line in lines])
        closes = np.cumsum(sizes) - 1
        opens = closes + 1 - sizes
        line_sure = np.add.reduceat(sure, opens) / sizes
        words = Placed(start, start, stop, sure, np.zeros((len(start), 0)))
        begins, seen_LX = start[opens], np.zeros((len(opens), 0))
        return Placement(words, Placed(begins, begins, stop[closes], line_sure, seen_LX))


def _joined(spelled: Sequence[list[int]], between: int | None) -> tuple[list[int], list[int]]:
    """The characters of all units, and whose each is; `between` units, if any, nobody's (-1)."""
    ids: list[int] = []
    owners: list[int] = []
    for number, letters in enumerate(spelled):
        if ids and letters and between is not None:
            ids.append(between)
            owners.append(-1)
        ids += letters
        owners += [number] * len(letters)
    return ids, owners


def _stretches(
    owner_T: Ints, chance_T: Floats, count: int, first: int, step: float
) -> tuple[Floats, Floats, Floats]:
    """Start, end, mean probability of each unit; an unspelled one is between neighbours, at 0."""
    start, stop, sure = np.full(count, np.nan), np.full(count, np.nan), np.zeros(count)
    for number in range(count):
        frames = np.flatnonzero(owner_T == number)
        if len(frames):
            start[number] = (first + frames[0]) * step
            stop[number] = (first + frames[-1] + 1) * step
            sure[number] = chance_T[frames].mean()
    known = np.flatnonzero(~np.isnan(start))
    missing = np.flatnonzero(np.isnan(start))
    start[missing] = np.interp(missing, known, stop[known])
    stop[missing] = start[missing] + step
    return start, stop, sure
