"""What the accompaniment is played on: sums of decaying harmonics, and three drums.

A string plucked at a share p of its length has the harmonics sin(k pi p) / k, and the higher ones
die sooner; stiff strings (piano) are slightly sharp in theirs. Every tone is computed once per
instrument and pitch, exactly in tune (equal temperament, A4 = 440 Hz), and then cut to the notes
that need it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RELEASE_SECONDS = 0.05
DRUM_SECONDS = 0.25
TOP_HERTZ = 9_000.0
SILENT = 0.003  # a harmonic that a plucked string hardly has
Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Instrument:
    """How a tone is made."""

    harmonics: int  # how many
    pluck: float  # where the string is struck; 0: amplitudes k^-1.4 instead
    decay: float  # nepers a second of the first harmonic
    damping: float  # how much faster high ones die
    stiffness: float = 0.0  # inharmonicity B of a piano string
    detune: float = 0.0  # cents between two voices in unison
    attack: float = 0.003  # seconds
    seconds: float = 2.5  # how long it can sound
    level: float = 1.0


INSTRUMENTS = {
    "guitar": Instrument(24, 0.21, 1.6, 0.35),
    "piano": Instrument(18, 0.12, 1.1, 0.5, stiffness=0.0004),
    "harp": Instrument(14, 0.45, 1.8, 0.25),
    "bass": Instrument(10, 0.3, 1.3, 0.6, attack=0.008, level=1.5),
    "pad": Instrument(9, 0.0, 0.0, 0.0, detune=7.0, attack=0.2, seconds=6.0, level=0.5),
    "organ": Instrument(6, 0.0, 0.0, 0.0, attack=0.02, seconds=6.0, level=0.4),
}


@functools.lru_cache(maxsize=512)
def tone(name: str, midi: int, rate: int) -> Wave:
    """A tone at its full length; its peak is the instrument's level, be it low or high."""
    played = INSTRUMENTS[name]
    time_W = np.arange(round(played.seconds * rate)) / rate
    hertz = 440.0 * 2.0 ** ((midi - 69) / 12)
    wave_W = np.zeros(len(time_W))
    for k in range(1, played.harmonics + 1):
        harmonic_hertz = hertz * k * math.sqrt(1 + played.stiffness * k * k)
        if harmonic_hertz >= TOP_HERTZ:
            break
        loud = abs(math.sin(math.pi * k * played.pluck)) / k if played.pluck else k**-1.4
        if played.pluck and loud < SILENT:
            continue
        fade_W = np.exp(-played.decay * (1 + played.damping * (k - 1)) * time_W)
        for cents in (-played.detune / 2, played.detune / 2) if played.detune else (0.0,):
            turn = 2 * np.pi * harmonic_hertz * 2 ** (cents / 1200)
            phase = 1.7 * k * k  # spread, so that they do not all peak at the start
            wave_W += loud * fade_W * np.sin(turn * time_W + phase)
    wave_W *= np.minimum(1.0, time_W / played.attack)
    return (wave_W * (played.level / np.abs(wave_W).max())).astype(np.float32)


def note(name: str, midi: int, seconds: float, rate: int) -> Wave:
    """A tone that is let go after `seconds`."""
    wave_W = tone(name, midi, rate)
    held, fading = round(seconds * rate), round(RELEASE_SECONDS * rate)
    wave_W = wave_W[: held + fading].copy()
    tail = len(wave_W) - held
    if tail > 0:
        wave_W[held:] *= np.linspace(1, 0, fading, dtype=np.float32)[:tail]
    return wave_W


@functools.cache
def drum(name: str, rate: int) -> Wave:
    """A kick, snare or hat: a falling sine, a sine with noise, differentiated noise."""
    time_W = np.arange(round(DRUM_SECONDS * rate)) / rate
    noise_W = np.random.default_rng(len(name)).standard_normal(len(time_W))
    if name == "kick":
        # from 160 to 45 Hz, with a time constant of 1/40 s
        turns_W = 45 * time_W + (160 - 45) / 40 * (1 - np.exp(-40 * time_W))
        wave_W = np.sin(2 * np.pi * turns_W) * np.exp(-12 * time_W)
    elif name == "snare":
        wave_W = 0.5 * np.sin(2 * np.pi * 190 * time_W) * np.exp(-22 * time_W)
        wave_W += 0.24 * noise_W * np.exp(-18 * time_W)
    else:
        wave_W = 0.3 * np.diff(noise_W, prepend=0.0) * np.exp(-70 * time_W)
    fade_W = np.minimum(1, (time_W[-1] - time_W) / 0.02)
    return (wave_W * fade_W).astype(np.float32)
