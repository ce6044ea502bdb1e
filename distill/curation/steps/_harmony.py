"""The key of a recording: how loud each pitch class is, against what is usual in each key.

Chroma: the strongest partials of a frame, each counted for the pitch class it lies nearest to,
after the recording's own tuning is found, and less and less for the tones whose second, third and
fourth harmonic it may be (Gomez 2006, "Tonal description of music audio signals"): else a voice
alone is heard a fifth too high. Key: the correlation of the song's mean chroma with 24 profiles
(Krumhansl 1990), here those that Albrecht and Shanahan (2013, "The use of large corpora to train a
new type of key-finding algorithm", Music Perception 31) counted in 490 scores.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

RATE = 8_000  # Hz
WINDOW = 4096  # samples, half a second: semitones are apart from 70 Hz up
HOP = 1024
LOWEST_HZ, HIGHEST_HZ = 65.0, 2000.0
BLOCK = 256  # frames at a time: memory does not grow with the song
HARMONICS, FALL = 4, 0.6
FLOOR_DB = 50.0  # below the frame's strongest partial a peak is left out
SILENT = -4.0  # natural logarithm of the least partial
AHEAD = 0.08  # of the next key, in correlation: 63 % of the confidence
NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MAJOR = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
MINOR = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)


class Key(NamedTuple):
    """name: "C major", "F# minor". confidence: 0 to 1, how far it is ahead of the next best key."""

    name: str
    confidence: float


def key(chroma_C: NDArray[np.float64]) -> Key | None:
    """The key that fits the pitch classes best; None where there are none."""
    if not chroma_C.sum() > 0 or np.ptp(chroma_C) == 0:
        return None
    profiles = [np.roll(shape, tonic) for shape in (MAJOR, MINOR) for tonic in range(12)]
    fit_K = np.array([np.corrcoef(chroma_C, profile_C)[0, 1] for profile_C in profiles])
    order = np.argsort(-fit_K)
    best = int(order[0])
    ahead = float(fit_K[best] - fit_K[order[1]])
    confidence = float(np.clip(fit_K[best], 0, 1) * (1 - np.exp(-ahead / AHEAD)))
    return Key(f"{NAMES[best % 12]} {'major' if best < 12 else 'minor'}", confidence)


def chroma(wave_W: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much each pitch class (C first) sounds in wave_W (RATE Hz), a share of 1: chroma_C."""
    midi_N, weight_N = partials(wave_W)
    if not len(midi_N):
        return np.zeros(12)
    off = np.angle((weight_N * np.exp(2j * np.pi * midi_N)).sum()) / (2 * np.pi)
    chroma_C = np.zeros(12)
    for harmonic in range(1, HARMONICS + 1):
        root_N = np.round(midi_N - off - 12 * np.log2(harmonic)).astype(int) % 12
        chroma_C += np.bincount(root_N, weight_N * FALL ** (harmonic - 1), 12)
    return chroma_C / chroma_C.sum()


def partials(wave_W: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(midi_N, weight_N): the spectral peaks of all frames, with their amplitude."""
    padded = np.pad(wave_W, (WINDOW // 2, WINDOW))
    frames_FW = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[: len(wave_W) + 1 : HOP]
    window_W = np.hanning(WINDOW).astype(np.float32)
    first, last = (round(hz * WINDOW / RATE) for hz in (LOWEST_HZ, HIGHEST_HZ))
    midis, weights = [np.zeros(0)], [np.zeros(0)]
    for start in range(0, len(frames_FW), BLOCK):
        level_FB = np.log(np.abs(fft.rfft(frames_FW[start : start + BLOCK] * window_W)) + 1e-7)
        below_FB, above_FB = level_FB[:, first - 1 : last - 1], level_FB[:, first + 1 : last + 1]
        inner_FB = level_FB[:, first:last]
        peak_FB = (inner_FB > below_FB) & (inner_FB >= above_FB)
        floor_F1 = inner_FB.max(1, keepdims=True) - FLOOR_DB / 20 * np.log(10)
        rows, bins = np.nonzero(peak_FB & (inner_FB > np.maximum(floor_F1, SILENT)))
        before, here, after = (level_FB[rows, bins + first + step] for step in (-1, 0, 1))
        offset = 0.5 * (before - after) / np.minimum(before - 2 * here + after, -1e-6)
        hz = (bins + first + offset) * RATE / WINDOW
        midis.append(69 + 12 * np.log2(hz / 440))
        weights.append(np.exp(here))
    return np.concatenate(midis), np.concatenate(weights)
