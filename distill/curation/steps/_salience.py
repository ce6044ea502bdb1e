"""The pitch of a voice over a band, as far as it can be heard without taking the two apart.

Every candidate pitch is worth the sum of its harmonics in a spectrum that was made flat first
(Salamon and Gómez 2012, "Melody extraction from polyphonic music signals using pitch contour
characteristics", IEEE TASLP 20(6), in its plainest form); one Viterbi pass pays for what moves. A
voice is the source with many strong harmonics that glide, so it mostly wins where somebody sings;
elsewhere this follows an instrument. Good for looking at, too weak for a label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import uniform_filter1d

RATE = 16_000  # Hz
HOP_SECONDS = 0.02
HOP = round(RATE * HOP_SECONDS)
WINDOW = 1024  # 64 ms
SIZE = 4096
LOWEST_MIDI, HIGHEST_MIDI = 45.0, 84.0  # A2 to C6
STEPS = 5  # candidates a semitone
HARMONICS, DECAY = 12, 0.85
HIGHEST_HZ = 5_000.0
FLATTEN_BINS = 81  # 300 Hz: wider than the harmonics of a voice are apart, narrower than a formant
REACH = 8  # candidates that a frame may move, beyond which it counts as a leap
MOVE, LEAP = 0.04, 0.5
BLOCK = 512  # frames at a time
QUIET = 0.05  # of the level of loud frames, below which there is no pitch


def track(wave_W: NDArray[np.float32]) -> NDArray[np.float64]:
    """midi_F: predominant pitch of wave_W (RATE Hz), a frame every HOP samples, NaN if quiet."""
    padded_W = np.pad(wave_W, (WINDOW // 2, WINDOW))
    frames_FW = np.lib.stride_tricks.sliding_window_view(padded_W, WINDOW)[: len(wave_W) + 1 : HOP]
    blocks = (frames_FW[n : n + BLOCK] for n in range(0, len(frames_FW), BLOCK))
    salience_FC = np.concatenate(list(map(_salience, blocks)))
    level_F = np.sqrt(np.mean(frames_FW**2, axis=1))
    midi_C = LOWEST_MIDI + np.arange(salience_FC.shape[1]) / STEPS
    sounds_F = level_F > QUIET * np.percentile(level_F, 95)
    return np.where(sounds_F, midi_C[_smoothest(salience_FC)], np.nan)


def _salience(frames_FW: NDArray[np.float32]) -> NDArray[np.float64]:
    """The worth of each candidate pitch: its harmonics over their surroundings, weighted."""
    window_W = np.hanning(WINDOW).astype(np.float32)
    level_FH = np.log10(np.abs(fft.rfft(frames_FW * window_W, SIZE)) + 1e-4)
    flat_FH = np.maximum(level_FH - uniform_filter1d(level_FH, FLATTEN_BINS, axis=1), 0)
    hz_C = 440 * 2 ** ((np.arange(LOWEST_MIDI, HIGHEST_MIDI, 1 / STEPS) - 69) / 12)
    total_FC, weight_C = np.zeros((len(frames_FW), len(hz_C))), np.zeros(len(hz_C))
    for harmonic in range(1, HARMONICS + 1):
        bins_C = np.round(harmonic * hz_C * SIZE / RATE).astype(int)
        weights_C = DECAY ** (harmonic - 1) * (harmonic * hz_C < HIGHEST_HZ)
        total_FC += weights_C * flat_FH[:, np.minimum(bins_C, flat_FH.shape[1] - 1)]
        weight_C += weights_C
    return total_FC / weight_C


def _smoothest(salience_FC: NDArray[np.float64]) -> NDArray[np.int64]:
    """Viterbi: the candidate of each frame; a small move costs by its size, any other a leap."""
    count, candidates = salience_FC.shape
    moves = np.arange(-REACH, REACH + 1)
    costs_M1 = MOVE * np.abs(moves)[:, None]
    back_FC = np.zeros((count, candidates), dtype=np.int64)
    total_C = salience_FC[0]
    order_C = np.arange(candidates)
    for frame in range(1, count):
        padded = np.pad(total_C, REACH, constant_values=-np.inf)
        ways_MC = np.lib.stride_tricks.sliding_window_view(padded, candidates) - costs_M1
        best_C = ways_MC.argmax(0)
        near_C = ways_MC[best_C, order_C]
        far = int(total_C.argmax())
        leap_C = near_C < total_C[far] - LEAP
        back_FC[frame] = np.where(leap_C, far, order_C + moves[best_C])
        total_C = np.where(leap_C, total_C[far] - LEAP, near_C) + salience_FC[frame]
    chosen_F = np.zeros(count, dtype=np.int64)
    chosen_F[-1] = total_C.argmax()
    for frame in range(count - 1, 0, -1):
        chosen_F[frame - 1] = back_FC[frame, chosen_F[frame]]
    return chosen_F
