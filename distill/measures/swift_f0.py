"""Are the notes in tune, by a second ear?

SwiftF0 (Nieradzik 2025, arXiv:2508.18440; a small network, MIT) tracks the pitch, and notes are
judged as `pitch` judges them. One tracker's fault in a voice (an octave, a creak) is seldom the
other's: the share of notes of which both say the same stands beside it, and where it is low the
figures of `pitch` are of the tracker more than of the singer.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.measures import Details, Figures, Performance, Sheet
from distill.measures._notes import (
    FRAME_SECONDS,
    HIGHEST_HZ,
    LOWEST_HZ,
    in_tune,
    off_by,
    summary,
    track_of,
)
from distill.measures._waves import at_rate

FIGURES = {
    "in_tune_swift_f0": "share of notes within 50 cents of the score, by a second tracker",
    "trackers_agree": "share of notes that both trackers hear in tune, or both do not",
}

VOICED = 0.5  # of its confidence, as its authors say


def absent() -> str | None:
    """Why nothing can be measured here, and what to do; None where it can."""
    if importlib.util.find_spec("swift_f0") is None:
        return 'measures.swift_f0: swift_f0 is not installed; pip install "distill[judge]"'
    return None


def measure(performance: Performance, others: Sequence[Sheet]) -> tuple[Figures, Details]:
    """Notes in tune of one line. Details: signed `cents` a note, null unsung."""
    midi_F = track(performance.wave_W, performance.sample_rate)
    cents = [off_by(midi_F, *note) for note in performance.notes]
    first_F = track_of(performance)
    ours = [in_tune(value) for value in cents]
    theirs = [in_tune(off_by(first_F, *note)) for note in performance.notes]
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    figures = {"in_tune_swift_f0": (sum(ours), len(ours)), "trackers_agree": (same, len(ours))}
    return figures, {"cents": [None if value is None else round(value, 1) for value in cents]}


summarise = summary


def track(wave_W: NDArray[np.floating], sample_rate: int) -> NDArray[np.float64]:
    """Pitch in MIDI units every 5 ms, NaN where unvoiced: the nearest of its frames of 16 ms."""
    from swift_f0 import SAMPLE_RATE

    wave_W = at_rate(np.asarray(wave_W, dtype=np.float32), sample_rate, SAMPLE_RATE)
    if not len(wave_W):
        return np.empty(0)
    heard = _tracker().detect(wave_W, SAMPLE_RATE, LOWEST_HZ, HIGHEST_HZ)
    voiced_F = heard.confidence >= VOICED
    midi_F = np.where(voiced_F, 69 + 12 * np.log2(np.maximum(heard.pitch_hz, 1) / 440), np.nan)
    times_F = np.arange(0, len(wave_W) / SAMPLE_RATE, FRAME_SECONDS)
    between = (heard.timestamps[1:] + heard.timestamps[:-1]) / 2
    return midi_F[np.searchsorted(between, times_F)]


@functools.cache
def _tracker() -> Any:
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1)
