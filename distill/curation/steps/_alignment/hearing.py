"""What is sung at each moment of a recording: a small network that knows the sound classes of
`phones`.

It was taught on synthesised singing with exact truth (`learn.py`): espeak-ng speaking seven
languages in thirty timbres, stretched and re-pitched to sing by WORLD, half buried in synthesised
bands. So "none" means a band as well as silence, and it hears singing that its lyrics never named.
31,000 weights in int8 (`embedded/aligner`), pure NumPy here.

A log-mel spectrogram every 20 ms goes in, levelled per band over the loud part of the song, so that
neither gain nor a fixed filter matters. Stereo is first thinned to its middle, where voices are
mixed.
"""

from __future__ import annotations

import functools

import numpy as np
import safetensors.numpy
import soxr
from numpy.typing import NDArray

from distill.curation.steps import Sound
from distill.curation.steps._alignment.path import FRAME_SECONDS
from distill.folders import package_path

RATE = 16_000
HOP, WINDOW, BANDS = round(FRAME_SECONDS * RATE), 512, 40
LOWEST, HIGHEST = 60.0, 7600.0  # Hz
WEIGHTS = package_path("aligner/phones.safetensors")
_ROWS = 4096  # frames at once
_FLOOR, _LOUD = 1e-5, 0.01  # against the level that 5 % of the frames exceed
_SPREAD = 3.0  # nats; about the deviation of a log-mel band


def hear(sound: Sound) -> NDArray[np.float32]:
    """Log-probability of each sound class, logp_TC, every 20 ms; frame t is centred at t * 20 ms."""
    return classify(normalise(mel_power(sound)))


def mel_power(sound: Sound) -> NDArray[np.float32]:
    """Power in 40 mel bands, mel_TB. Of two channels only what both share equally is kept (about
    the middle)."""
    wave_CW = np.stack([_resample(channel, sound.sample_rate) for channel in sound.wave_CW[:2]])
    half = WINDOW // 2
    wave_CW = np.pad(wave_CW, ((0, 0), (half, half)))
    count = (wave_CW.shape[1] - WINDOW) // HOP + 1
    frames = np.lib.stride_tricks.sliding_window_view(wave_CW, WINDOW, axis=1)[:, ::HOP][:, :count]
    window = np.hanning(WINDOW).astype(np.float32)
    rows = []
    for at in range(0, count, _ROWS):
        power = middle_power(np.fft.rfft(frames[:, at : at + _ROWS] * window, axis=2))
        rows.append(power.astype(np.float32) @ _bands())
    return np.concatenate(rows)


def middle_power(spectrum_CTF: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Power of the middle of the stereo picture; of one channel, its power. What is in one channel
    only goes."""
    power_CTF = spectrum_CTF.real**2 + spectrum_CTF.imag**2
    if len(power_CTF) == 1:
        return power_CTF[0]
    both = (spectrum_CTF[0] * spectrum_CTF[1].conj()).real
    likeness = np.clip(2.0 * both / (power_CTF.sum(0) + 1e-12), 0.0, 1.0)
    return likeness**2 * power_CTF.mean(0)


def _resample(wave_W: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    return wave_W if rate == RATE else soxr.resample(wave_W, rate, RATE)


@functools.cache
def _bands() -> NDArray[np.float32]:
    """Triangles of equal area, equally wide in mel: [spectrum bin, band]."""

    def mel(hertz: float) -> float:
        return 2595.0 * float(np.log10(1.0 + hertz / 700.0))

    edges = 700.0 * (10.0 ** (np.linspace(mel(LOWEST), mel(HIGHEST), BANDS + 2) / 2595.0) - 1.0)
    hertz = np.arange(WINDOW // 2 + 1)[:, None] * RATE / WINDOW
    up = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    shape = np.maximum(0.0, np.minimum(up, down))
    return (shape / np.maximum(shape.sum(0), 1e-9)).astype(np.float32)


def normalise(mel_TB: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network sees: log power, each band's mean over the loud frames taken off."""
    total_T = mel_TB.mean(1)
    level = float(np.percentile(total_T, 95)) + 1e-12
    seen_TB = np.log(mel_TB / level + _FLOOR)
    loud_T = total_T > _LOUD * level
    base_B = seen_TB[loud_T].mean(0) if loud_T.any() else seen_TB.mean(0)
    return ((seen_TB - base_B) / _SPREAD).astype(np.float32)


def classify(seen_TB: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network: one layer into its width, some dilated depthwise-separable ones beside a
    shortcut, one out."""
    weights = _weights()
    state_TW = np.maximum(seen_TB @ weights["in.weight"].T + weights["in.bias"], 0.0)
    for layer in range(sum(name.startswith("deep") for name in weights) // 2):
        reach = 2**layer
        taps_WK = weights[f"deep.{layer}.weight"]
        padded = np.pad(state_TW, ((2 * reach, 2 * reach), (0, 0)))
        mixed_TW = sum(
            padded[k * reach : k * reach + len(state_TW)] * taps_WK[:, k] for k in range(5)
        )
        mixed_TW = mixed_TW + weights[f"deep.{layer}.bias"]
        state_TW = state_TW + np.maximum(
            mixed_TW @ weights[f"wide.{layer}.weight"].T + weights[f"wide.{layer}.bias"], 0.0
        )
    out_TC = state_TW @ weights["out.weight"].T + weights["out.bias"]
    out_TC = out_TC - out_TC.max(1, keepdims=True)
    return (out_TC - np.log(np.exp(out_TC).sum(1, keepdims=True))).astype(np.float32)


@functools.cache
def prior() -> NDArray[np.float32]:
    """Log share of each class in what the network was taught on, log_C."""
    return _weights()["prior"]


@functools.cache
def _weights() -> dict[str, NDArray[np.float32]]:
    """Read once; a matrix is stored as int8 rows and one scale a row."""
    stored = safetensors.numpy.load(WEIGHTS.read_bytes())
    weights = {
        name: value.astype(np.float32)
        for name, value in stored.items()
        if not name.endswith(".scale")
    }
    for name in [name for name in stored if name.endswith(".scale")]:
        weights[name.removesuffix(".scale")] *= stored[name].astype(np.float32)[:, None]
    return weights
