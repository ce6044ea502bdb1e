"""Tempo and beats of a recording, after Ellis (2007, "Beat Tracking by Dynamic Programming").

How much louder each band becomes gives one onset curve. Its autocorrelation peaks at the beat, its
multiples and its parts; of these the one counts that a listener would tap, near two a second. The
beats are the row of moments with the strongest onsets whose distances stay near that period. One
tempo a song is assumed: a song that changes its tempo gets a low confidence, not two tempos.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

RATE = 16_000  # Hz
HOP_SECONDS = 0.01
HOP = round(RATE * HOP_SECONDS)
WINDOW = 640  # samples: 40 ms, so that low drums and bass have a place of their own
SIZE = 1024
BAND_EDGES_HZ = np.geomspace(40, 7600, 25)
BLOCK = 1024  # frames at a time: memory does not grow with the song
FLOOR_DB = 60.0  # below a band's loud frames
SMOOTH_FRAMES, LAG_SMOOTH_FRAMES = 1.0, 1.5  # of the bands' levels; of onsets, for their lags
AROUND_FRAMES = 100  # an onset counts by how far it is above so much around it
SLOWEST_BPM, FASTEST_BPM = 40.0, 220.0
TAPPED_BPM, TAPPED_OCTAVES = 115.0, 0.9  # where people tap, and how far they stray from it
ANY_OCTAVES = 2.0  # the same while only the kind of beat is looked for, not its octave
# price of a beat that comes at e times its time, in mean onset strengths (Ellis's alpha)
TIGHT = 100.0
MULTIPLES = (1.0, 0.6, 0.3, 0.6)  # how much the autocorrelation counts at 1, 2, 3 and 4 beats
FARTHEST_BEATS = 10  # lags of the autocorrelation, at the slowest tempo
FINEST_BEATS = 16  # on which the period is refined,
FINER, FINER_STEPS = 0.025, 201  # by at most this part of it, in so many steps
FURTHER = 1.03  # of a period: a lag that long must lie inside the autocorrelation
LEAST_ONSET = 0.5  # of the beats' RMS, or a beat at the ends is none


class Rhythm(NamedTuple):
    """tempo_bpm: beats a minute. beats: their moments (seconds). confidence: 0 to 1, how much of
    the onset curve comes back after each of the next beats."""

    tempo_bpm: float
    beats: tuple[float, ...]
    confidence: float


def rhythm(wave_W: NDArray[np.float32]) -> Rhythm | None:
    """Tempo and beats of wave_W (RATE Hz); None without onset or for less than four slow beats."""
    onset_F = onsets(wave_W)
    if len(onset_F) < 4 * 60 / SLOWEST_BPM / HOP_SECONDS or not onset_F.any():
        return None
    back_L = autocorrelation(onset_F)
    period = tapped(back_L)
    frames = beats(onset_F, period)
    again = np.mean([_at(back_L, period * beat) for beat in (1, 2, 4)])
    confidence = float(np.clip(again, 0, 1))
    moments = tuple(round(float(frame) * HOP_SECONDS, 3) for frame in frames)
    return Rhythm(60 / (period * HOP_SECONDS), moments, confidence)


def onsets(wave_W: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much louder the bands become, in deviations above the neighbourhood: onset_F >= 0."""
    padded = np.pad(wave_W, (WINDOW // 2, WINDOW))
    frames_FW = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[: len(wave_W) + 1 : HOP]
    window_W = np.hanning(WINDOW).astype(np.float32)
    edges = np.unique(np.round(BAND_EDGES_HZ * SIZE / RATE).astype(int))
    level_FB = np.empty((len(frames_FW), len(edges) - 1))
    for start in range(0, len(frames_FW), BLOCK):
        power_FB = np.abs(fft.rfft(frames_FW[start : start + BLOCK] * window_W, SIZE)) ** 2
        level_FB[start : start + BLOCK] = np.add.reduceat(power_FB, edges, axis=1)[:, :-1]
    loud_B = np.percentile(level_FB, 98, axis=0)
    if not loud_B.max() > 0:
        return np.zeros(len(frames_FW))
    floor = 10 ** (-FLOOR_DB / 10)
    level_FB = 10 * np.log10(level_FB + floor * np.maximum(loud_B, floor * loud_B.max()))
    level_FB = gaussian_filter1d(level_FB, SMOOTH_FRAMES, axis=0, mode="nearest")
    rise_F = np.zeros(len(level_FB))
    rise_F[1:-1] = np.maximum(0.0, level_FB[2:] - level_FB[:-2]).mean(1)
    onset_F = np.maximum(0.0, rise_F - uniform_filter1d(rise_F, AROUND_FRAMES, mode="nearest"))
    return onset_F / max(float(onset_F.std()), 1e-9)


def autocorrelation(onset_F: NDArray[np.float64]) -> NDArray[np.float64]:
    """The onset curve against itself later, 1 at lag 0, free of its mean."""
    centred_F = gaussian_filter1d(onset_F - onset_F.mean(), LAG_SMOOTH_FRAMES)
    count = len(centred_F)
    size = fft.next_fast_len(2 * count)
    back_L = fft.irfft(np.abs(fft.rfft(centred_F, size)) ** 2, size)[:count]
    back_L = back_L / np.arange(count, 0, -1) * count
    longest = min(count // 2, round(FARTHEST_BEATS * 60 / SLOWEST_BPM / HOP_SECONDS))
    return back_L[: longest + 1] / max(back_L[0], 1e-9)


def tapped(back_L: NDArray[np.float64]) -> float:
    """The period (frames) that a listener would tap: first what repeats best, then its octave."""
    bpm_P = np.geomspace(SLOWEST_BPM, FASTEST_BPM, 600)
    likely_P = _strength(back_L, bpm_P) * _taste(bpm_P, ANY_OCTAVES)
    likeliest = float(bpm_P[int(np.argmax(likely_P))])
    octaves = (likeliest / 2, likeliest, 2 * likeliest)
    bpm_3 = np.array([bpm for bpm in octaves if SLOWEST_BPM <= bpm <= FASTEST_BPM])
    tapped_3 = _strength(back_L, bpm_3) * _taste(bpm_3, TAPPED_OCTAVES)
    best = 60 / float(bpm_3[int(np.argmax(tapped_3))]) / HOP_SECONDS
    finer_P = best * np.linspace(1 - FINER, 1 + FINER, FINER_STEPS)
    lags = [n for n in range(1, FINEST_BEATS + 1) if n * best * FURTHER < len(back_L) - 1]
    if not lags:
        return best
    return float(finer_P[int(np.argmax(sum(_at(back_L, n * finer_P) for n in lags)))])


def _strength(back_L: NDArray[np.float64], bpm_P: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of the onset curve comes back after 1 to 4 beats, for each tempo; never below 0."""
    period_P = 60 / bpm_P / HOP_SECONDS
    again_MP = [weight * _at(back_L, n * period_P) for n, weight in enumerate(MULTIPLES, 1)]
    return np.maximum(np.sum(again_MP, axis=0), 1e-9)


def _taste(bpm_P: NDArray[np.float64], octaves: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * (np.log2(bpm_P / TAPPED_BPM) / octaves) ** 2))


def _at(back_L: NDArray[np.float64], lag: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The autocorrelation between its lags; 0 beyond."""
    return np.asarray(np.interp(lag, np.arange(len(back_L)), back_L, right=0.0))


def beats(onset_F: NDArray[np.float64], period: float) -> list[int]:
    """The frames of the beats: the best row of onsets that keeps to the period (equation 3)."""
    width = max(1.0, period / 32)
    curve_F = gaussian_filter1d(onset_F, width, mode="constant") * width
    curve_F = curve_F / max(float(curve_F.std()), 1e-9)
    nearest, furthest = round(period / 2), round(2 * period)
    step_D = np.arange(nearest, furthest + 1)
    price_D = TIGHT * np.log(step_D / period) ** 2
    best_F = np.concatenate([np.zeros(furthest), curve_F])
    before_F = np.full(len(curve_F), -1)
    for frame in range(len(curve_F)):
        earlier = best_F[frame + furthest - step_D] - price_D
        best = int(earlier.argmax())
        if frame >= step_D[best]:
            before_F[frame] = frame - step_D[best]
        best_F[frame + furthest] += earlier[best]
    last = max(0, len(curve_F) - furthest)
    way = [last + int(best_F[last + furthest :].argmax())]
    while before_F[way[-1]] >= 0:
        way.append(int(before_F[way[-1]]))
    return _sounding(way[::-1], curve_F)


def _sounding(frames: list[int], curve_F: NDArray[np.float64]) -> list[int]:
    """Without the beats before the first onset and behind the last, which only the period wants."""
    strength = curve_F[frames]
    enough = np.flatnonzero(strength > LEAST_ONSET * np.sqrt((strength**2).mean()))
    return frames[enough[0] : enough[-1] + 1] if len(enough) else frames
