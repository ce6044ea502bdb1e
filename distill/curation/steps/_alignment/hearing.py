"""What is sung at each moment of a recording: a small network that knows the classes of `phones`.

It was taught (scripts/train_aligner.py) on synthesised singing with exact truth: espeak-ng speaking
seven languages in thirty timbres, stretched and re-pitched to sing by WORLD, half buried in
synthesised bands. So "none" means a band as well as silence, and it hears singing that its lyrics
never named. 31,000 parameters in int8 (`embedded/aligner`), pure NumPy here.

A log-mel spectrogram every 20 ms goes in, levelled per band over the loud part of the song, so that
neither gain nor a fixed filter matters. Stereo is first thinned to its middle, where voices are
mixed.
"""

from __future__ import annotations

import functools

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from distill.audio.resampling import resample_array
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
    """Log-probability of each sound class, logp_TC; frame t is centred at t * 20 ms."""
    return classify(normalise(mel_power(sound)))


def mel_power(sound: Sound) -> NDArray[np.float32]:
    """Power in 40 mel bands, mel_TB; of two channels that of their middle (`middle_power`)."""
    channels = [resample_array(wave_W, sound.sample_rate, RATE) for wave_W in sound.wave_CW[:2]]
    wave_CW = np.pad(np.stack(channels), ((0, 0), (WINDOW // 2, WINDOW // 2)))
    count = (wave_CW.shape[1] - WINDOW) // HOP + 1
    frames = np.lib.stride_tricks.sliding_window_view(wave_CW, WINDOW, axis=1)[:, ::HOP][:, :count]
    window = np.hanning(WINDOW).astype(np.float32)
    rows = []
    for at in range(0, count, _ROWS):
        power_TF = middle_power(np.fft.rfft(frames[:, at : at + _ROWS] * window, axis=2))
        rows.append(power_TF.astype(np.float32) @ _bands())
    return np.concatenate(rows)


def middle_power(spectrum_CTF: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Power of the stereo middle, without what is in one channel only; of a mono one, its own."""
    power_CTF = spectrum_CTF.real**2 + spectrum_CTF.imag**2
    if len(power_CTF) == 1:
        return power_CTF[0]
    both = (spectrum_CTF[0] * spectrum_CTF[1].conj()).real
    likeness = np.clip(2.0 * both / (power_CTF.sum(0) + 1e-12), 0.0, 1.0)
    return likeness**2 * power_CTF.mean(0)


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
    """The network: a layer in, dilated depthwise-separable ones beside a shortcut, a layer out."""
    state_TW = np.maximum(_linear("in", seen_TB), 0.0)
    for layer in range(sum(name.startswith("deep") for name in _weights()) // 2):
        reach, taps_WK = 2**layer, _weights()[f"deep.{layer}.weight"]
        count, taps = len(state_TW), taps_WK.shape[1]
        padded = np.pad(state_TW, ((taps // 2 * reach, taps // 2 * reach), (0, 0)))
        parts = (padded[k * reach : k * reach + count] * taps_WK[:, k] for k in range(taps))
        mixed_TW = sum(parts) + _weights()[f"deep.{layer}.bias"]
        state_TW = state_TW + np.maximum(_linear(f"wide.{layer}", mixed_TW), 0.0)
    out_TC = _linear("out", state_TW)
    out_TC = out_TC - out_TC.max(1, keepdims=True)
    return (out_TC - np.log(np.exp(out_TC).sum(1, keepdims=True))).astype(np.float32)


def _linear(layer: str, in_TX: NDArray[np.float32]) -> NDArray[np.float32]:
    return in_TX @ _weights()[f"{layer}.weight"].T + _weights()[f"{layer}.bias"]


@functools.cache
def prior() -> NDArray[np.float32]:
    """Log share of each class in what the network was taught on, log_C."""
    return _weights()["prior"]


@functools.cache
def _weights() -> dict[str, NDArray[np.float32]]:
    """Read once; a matrix is stored as int8 rows and one scale a row."""
    stored = safetensors.numpy.load(WEIGHTS.read_bytes())
    weights = {name: array.astype(np.float32) for name, array in stored.items()}
    for name in [name for name in weights if name.endswith(".scale")]:
        weights[name.removesuffix(".scale")] *= weights.pop(name)[:, None]
    return weights
