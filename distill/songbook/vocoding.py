"""From a spectral envelope, an aperiodicity and a pitch to sound, many pulses at once.

This is WORLD's synthesis (Morise et al., 2016, doi:10.1587/transinf.2015EDP7457): a minimum-phase
pulse at every period, its power shared between the pulse and noise by the aperiodicity. pyworld
makes pulse after pulse, so that a soprano takes five times as long as a bass; here all pulses of a
line are made together, and the speed does not depend on the pitch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from distill.songbook.voice import FRAME_SECONDS

NOISE_HOP = 128  # samples, after which the noise is filtered anew
LEAST_PULSE, LEAST_NOISE = 1e-6, 1e-5  # shares of power and of amplitude, for their logarithms
Floats = NDArray[np.floating]
Voicing = NDArray[np.bool_]
Spectra = NDArray[np.complex64]


def synthesize(
    log_power_FQ: Floats, noise_FQ: Floats, hertz_F: Floats, voiced_F: Voicing, rate: int, seed: int
) -> NDArray[np.float32]:
    """A wave exactly as long as its rows of 5 ms. log_power: natural log of power; noise: share of
    the amplitude, 0 to 1 (1 where unvoiced); hertz: pitch, also where unvoiced."""
    quefrency_FW = irfft(0.5 * log_power_FQ.astype(np.float32), axis=1)
    half = quefrency_FW.shape[1] // 2
    # all of the cepstrum at positive times is minimum phase (Oppenheim and Schafer, 1975)
    quefrency_FW[:, 1:half] *= 2
    quefrency_FW[:, half + 1 :] = 0
    tract_FQ = rfft(quefrency_FW, axis=1)  # complex log
    noise_FQ = noise_FQ.astype(np.float32)
    count = round(len(hertz_F) * FRAME_SECONDS * rate)
    wave_W = np.zeros(count + 2 * half, np.float32)
    pulse_FQ = tract_FQ + 0.5 * np.log(np.maximum(1 - noise_FQ**2, LEAST_PULSE))
    _pulses(pulse_FQ, hertz_F, voiced_F, rate, wave_W)
    _noise(tract_FQ + np.log(np.maximum(noise_FQ, LEAST_NOISE)), rate, seed, wave_W)
    return wave_W[:count]


def _pulses(
    tract_FQ: Spectra, hertz_F: Floats, voiced_F: Voicing, rate: int, wave_W: Floats
) -> None:
    """Adds one response for each period that begins in a voiced row."""
    frame = FRAME_SECONDS * rate
    size = 2 * (tract_FQ.shape[1] - 1)
    middles_F = (np.arange(len(hertz_F)) + 0.5) * frame
    step_W = np.interp(np.arange(len(wave_W) - size), middles_F, hertz_F) / rate
    phase_W = np.cumsum(step_W)
    behind_N = np.flatnonzero(np.diff(np.floor(phase_W))) + 1  # the first sample of each period
    at_N = behind_N - (phase_W[behind_N] % 1) / step_W[behind_N]
    row_N = np.clip(at_N / frame - 0.5, 0, len(hertz_F) - 1)
    voiced_N = voiced_F[np.round(row_N).astype(int)]
    at_N, row_N, step_N = at_N[voiced_N], row_N[voiced_N], step_W[behind_N[voiced_N]]
    if not len(at_N):
        return
    low_N = row_N.astype(int)
    high_N = np.minimum(low_N + 1, len(hertz_F) - 1)
    part_N1 = (row_N - low_N).astype(np.float32)[:, None]
    first_N = at_N.astype(int)
    turn_Q = -1j * np.pi * np.arange(tract_FQ.shape[1]) / (tract_FQ.shape[1] - 1)
    log_NQ = tract_FQ[low_N] * (1 - part_N1) + tract_FQ[high_N] * part_N1
    # the part of a sample that it comes late
    log_NQ += np.outer(at_N - first_N, turn_Q).astype(np.complex64)
    # fewer pulses are louder: power stays
    log_NQ -= 0.5 * np.log(step_N).astype(np.float32)[:, None]
    spectrum_NQ = np.exp(log_NQ)
    spectrum_NQ[:, 0] = 0
    for first, response_W in zip(first_N.tolist(), irfft(spectrum_NQ, axis=1), strict=True):
        wave_W[first : first + size] += response_W


def _noise(tract_FQ: Spectra, rate: int, seed: int, wave_W: Floats) -> None:
    """Adds white noise, filtered as the rows say."""
    size = 2 * (tract_FQ.shape[1] - 1)
    rows = (len(wave_W) - size) // NOISE_HOP + 1
    white_W = np.random.default_rng(seed).standard_normal((rows + 1) * NOISE_HOP, dtype=np.float32)
    window_W = np.hanning(2 * NOISE_HOP + 1)[:-1].astype(np.float32)
    windows_NW = np.lib.stride_tricks.sliding_window_view(white_W, 2 * NOISE_HOP)
    pieces_NW = windows_NW[::NOISE_HOP] * window_W
    # the piece begins a hop before
    middles_N = np.arange(rows) * NOISE_HOP / (FRAME_SECONDS * rate) - 0.5
    near_N = np.clip(np.round(middles_N), 0, len(tract_FQ) - 1).astype(int)
    filtered_NW = irfft(rfft(pieces_NW, size, axis=1) * np.exp(tract_FQ[near_N]), axis=1)
    blocks = size // NOISE_HOP
    sum_NW = np.zeros((rows + blocks, NOISE_HOP), np.float32)
    for block in range(blocks):
        sum_NW[block : block + rows] += filtered_NW[:, block * NOISE_HOP : (block + 1) * NOISE_HOP]
    noise_W = sum_NW.ravel()[NOISE_HOP:][: len(wave_W)]
    wave_W[: len(noise_W)] += noise_W
