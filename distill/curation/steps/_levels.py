"""Levels over time, and runs of equal samples: what several steps look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SILENT_PEAK = 3e-5  # about one step of 16-bit PCM, -90 dBFS


def frame_decibels(wave_W: NDArray[np.float32], frame: int) -> NDArray[np.float64]:
    """RMS of each whole frame of `frame` samples, in dB of full scale (-200 for nothing at all)."""
    whole = len(wave_W) // frame * frame
    power_F = np.square(wave_W[:whole].reshape(-1, frame), dtype=np.float64).mean(1)
    return 10 * np.log10(np.maximum(power_F, 1e-20))


def loud_decibels(decibels_F: NDArray[np.float64]) -> float:
    """The level of the loud parts: what the loudest twentieth of the frames exceeds."""
    return float(np.percentile(decibels_F, 95)) if len(decibels_F) else -200.0


def equal_runs(
    wave_W: NDArray[np.float32], least: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where at least `least` samples in a row are equal: starts_R and lengths_R."""
    if len(wave_W) < least:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    same = np.empty(len(wave_W) + 1, np.int8)
    same[0] = same[-1] = 0
    same[1:-1] = wave_W[1:] == wave_W[:-1]  # same[i]: sample i equals the one before
    change = np.diff(same)
    # the first of the run: the sample before the first equal one
    starts = np.flatnonzero(change == 1)
    ends = np.flatnonzero(change == -1)
    lengths = ends - starts + 1
    return starts[lengths >= least].astype(np.int64), lengths[lengths >= least].astype(np.int64)
