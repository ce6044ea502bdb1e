"""The pitch of a voice, frame by frame: autocorrelation, and the cheapest way through its peaks.

Boersma (1993, "Accurate short-term analysis of the fundamental frequency", IFA Proceedings 17): the
autocorrelation of a windowed frame, divided by the window's own, peaks at the period with a height
that is the harmonic share of the frame. A few peaks a frame are candidates; one Viterbi pass over
the song pays for jumps and for voicing that comes and goes, so that an octave is left only where
the sound insists. bench/music.py measures it on voices whose pitch is known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from distill.audio.resampling import resample_array

Floats = NDArray[np.float64]
RATE = 16_000  # Hz
HOP_SECONDS = 0.01
HOP = round(RATE * HOP_SECONDS)
WINDOW = 768  # 48 ms: three periods of 62.5 Hz
SIZE = 2048  # of the transform: window and longest lag fit without wrapping
# lags per sample, by a longer inverse transform; above 500 Hz a sample is more than 50 cents
FINER = 2
LOWEST_HZ, HIGHEST_HZ = 62.5, 1100.0
CANDIDATES = 5
VOICING = 0.45  # harmonic share from which a frame is rather voiced
SILENCE = 0.02  # of the song's loud frames' peak: below it a frame is rather unvoiced
LOUD_PERCENTILE = 99  # of frames' peaks, so that one click sets no scale
OCTAVE = 0.02  # favour for an octave higher, else every period's double ties with it
JUMP = 0.5  # cost of an octave between neighbouring frames
TURN = 0.2  # cost of voicing that begins or ends
NO_PEAK, WORST = -1.0, -9.0  # the worth of a lag that is no peak, while lags are compared and after
BLOCK = 512  # frames at a time: memory does not grow with the song


class Pitch(NamedTuple):
    """Frames of HOP_SECONDS: midi_F, NaN where unvoiced; strength_F, harmonic share 0 to 1."""

    midi_F: Floats
    strength_F: Floats


def at_rate(wave_W: NDArray[np.floating], sample_rate: int) -> NDArray[np.float32]:
    """The wave at the tracker's RATE."""
    wave_W = np.ascontiguousarray(wave_W, dtype=np.float32)
    return resample_array(wave_W, sample_rate, RATE)


def track(wave_W: NDArray[np.float32]) -> Pitch:
    """The pitch of wave_W (RATE Hz), one frame every HOP samples, the first centred on sample 0."""
    frames_FW = _frames(wave_W)
    hz_FK, height_FK, unvoiced_F = _candidates(frames_FW, _loud(wave_W))
    chosen_F = _cheapest_way(np.log2(np.maximum(hz_FK, 1.0)), height_FK, unvoiced_F)
    voiced_F = chosen_F < CANDIDATES
    at = np.arange(len(chosen_F)), np.where(voiced_F, chosen_F, 0)
    hz_F, height_F = hz_FK[at], height_FK[at]
    midi_F = np.where(voiced_F, 69 + 12 * np.log2(np.maximum(hz_F, 1.0) / 440), np.nan)
    return Pitch(midi_F, np.where(voiced_F, np.clip(height_F, 0, 1), 0.0))


def _frames(wave_W: NDArray[np.float32]) -> NDArray[np.float32]:
    """Overlapping frames, as a view: frames_FW."""
    padded = np.pad(wave_W, (WINDOW // 2, WINDOW))
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[: len(wave_W) + 1 : HOP]


def _loud(wave_W: NDArray[np.float32]) -> float:
    """The peak that the loudest hundredth of 10 ms exceeds."""
    peaks_F = np.abs(wave_W[: len(wave_W) // HOP * HOP]).reshape(-1, HOP).max(1)
    return float(np.percentile(peaks_F, LOUD_PERCENTILE)) if len(peaks_F) else 0.0


def _candidates(frames_FW: NDArray[np.float32], loud: float) -> tuple[Floats, Floats, Floats]:
    """(hz_FK, height_FK, unvoiced_F): peaks of each frame, and the worth of calling it unvoiced."""
    window_W = np.hanning(WINDOW + 2)[1:-1].astype(np.float32)
    count, finest = len(frames_FW), RATE * FINER
    first, last = int(finest / HIGHEST_HZ), int(np.ceil(finest / LOWEST_HZ)) + 1
    window_L = fft.irfft(np.abs(fft.rfft(window_W, SIZE)) ** 2, SIZE * FINER)[: last + 1]
    window_L = window_L / window_L[0]
    bonus_L = (OCTAVE * np.log2(finest / LOWEST_HZ / np.arange(first, last))).astype(np.float32)
    hz_FK, height_FK = np.zeros((count, CANDIDATES)), np.zeros((count, CANDIDATES))
    unvoiced_F = np.zeros(count)
    for start in range(0, count, BLOCK):
        block = slice(start, start + BLOCK)
        part_FW = frames_FW[block]
        part_FW = part_FW - part_FW.mean(1, keepdims=True)
        power_FB = np.abs(fft.rfft(part_FW * window_W, SIZE)) ** 2
        auto_FL = fft.irfft(power_FB, SIZE * FINER)[:, : last + 1]
        auto_FL = auto_FL / (np.maximum(auto_FL[:, :1], 1e-9) * window_L)
        before_FL, after_FL = auto_FL[:, first - 1 : last - 1], auto_FL[:, first + 1 :]
        middle_FL = auto_FL[:, first:last]
        is_peak_FL = (middle_FL > before_FL) & (middle_FL >= after_FL)
        worth_FL = np.where(is_peak_FL, middle_FL + bonus_L, NO_PEAK)
        best_FK = np.argpartition(-worth_FL, CANDIDATES, axis=1)[:, :CANDIDATES]
        rows_F1 = np.arange(len(part_FW))[:, None]
        hz_FK[block] = finest / (best_FK + first + _summit(auto_FL, rows_F1, best_FK + first))
        height_FK[block] = worth_FL[rows_F1, best_FK]
        quiet_F = np.abs(part_FW).max(1) / max(loud, 1e-9) / (SILENCE / (1 + VOICING))
        unvoiced_F[block] = VOICING + np.maximum(0.0, 2.0 - quiet_F)
    return hz_FK, height_FK, unvoiced_F


def _summit(
    auto_FL: NDArray[np.float32], rows_F1: NDArray[np.int64], lag_FK: NDArray[np.int64]
) -> NDArray[np.float32]:
    """How far beside its lag each peak's summit lies, by the parabola through three lags."""
    before, here, after = (auto_FL[rows_F1, lag_FK + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    slope = 0.5 * (before - after) / np.where(bend == 0, 1, bend)
    return np.clip(np.where(np.abs(bend) > 1e-9, slope, 0.0), -0.5, 0.5)


def _cheapest_way(octave_FK: Floats, height_FK: Floats, unvoiced_F: Floats) -> NDArray[np.int64]:
    """Viterbi: the candidate of each frame, or CANDIDATES for unvoiced."""
    count = len(octave_FK)
    voiced_FK = np.where(height_FK > NO_PEAK, height_FK, WORST)
    worth_FS = np.concatenate([voiced_FK, unvoiced_F[:, None]], axis=1)
    cost_FSS = np.full((max(0, count - 1), CANDIDATES + 1, CANDIDATES + 1), TURN)
    cost_FSS[:, :-1, :-1] = JUMP * np.abs(octave_FK[:-1, :, None] - octave_FK[1:, None, :])
    cost_FSS[:, -1, -1] = 0.0
    back_FS = np.zeros((count, CANDIDATES + 1), dtype=np.int64)
    total_S = worth_FS[0]
    columns = np.arange(CANDIDATES + 1)
    for frame in range(1, count):
        ways_SS = total_S[:, None] - cost_FSS[frame - 1]
        back = ways_SS.argmax(0)
        back_FS[frame] = back
        total_S = ways_SS[back, columns] + worth_FS[frame]
    chosen_F = np.zeros(count, dtype=np.int64)
    chosen_F[-1] = total_S.argmax()
    for frame in range(count - 1, 0, -1):
        chosen_F[frame - 1] = back_FS[frame, chosen_F[frame]]
    return chosen_F
