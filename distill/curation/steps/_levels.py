"""Levels over time, and runs of equal samples: what several steps look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SILENT_PEAK = 3e-5  # about one step of 16-bit PCM, -90 dBFS
NOTHING_DB = -200.0


def frame_decibels(wave_W: NDArray[np.float32], frame: int) -> NDArray[np.float64]:
    """RMS of each full frame of `frame` samples, in dB of full scale (-200 for nothing at all)."""
    frames_FW = wave_W[: len(wave_W) // frame * frame].reshape(-1, frame)
    power_F = np.square(frames_FW, dtype=np.float64).mean(1)
    return 10 * np.log10(np.maximum(power_F, 10 ** (NOTHING_DB / 10)))


def loud_decibels(decibels_F: NDArray[np.float64]) -> float:
    """The level of the loud parts: what the loudest twentieth of the frames exceeds."""
    return float(np.percentile(decibels_F, 95)) if len(decibels_F) else NOTHING_DB


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
    starts_R = np.flatnonzero(change == 1)  # the sample before the first that equals one
    lengths_R = np.flatnonzero(change == -1) - starts_R + 1
    long_R = lengths_R >= least
    return starts_R[long_R].astype(np.int64), lengths_R[long_R].astype(np.int64)
