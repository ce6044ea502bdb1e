"""Bands to hear the lessons through: plucked, bowed and blown notes, drums, of sines and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distill.curation.steps._alignment.hearing import RATE

SECONDS = 14.0
_SHARE = {  # of the bands in which somebody plays it
    "pluck": 0.5, "pad": 0.35, "organ": 0.2, "bass": 0.6, "lead": 0.3, "drums": 0.55, "strum": 0.4,
}  # fmt: skip
_TOP_HERTZ, _MOST_PARTIALS = 7000, 16


def band(rng: np.random.Generator) -> NDArray[np.float32]:
    """Chords in some key and tempo by a random choice of players: wave_W at 16 kHz, of SECONDS."""
    wave_W = np.zeros(int(RATE * (SECONDS + 4)))
    beat, root = 60 / rng.uniform(65, 160), int(rng.integers(40, 52))
    roots, third = root + rng.choice([0, 2, 3, 5, 7, 8, 9, 10], 4), 3 if rng.random() < 0.5 else 4
    players = [name for name, share in _SHARE.items() if rng.random() < share] or ["strum"]
    for number in range(int(SECONDS / beat)):
        base = int(roots[number // 4 % 4])
        chord = np.array([base, base + third, base + 7, base + 12])
        for player in players:
            for delay, sound_W in _played(rng, player, number, chord, beat):
                rest_W = wave_W[int((number * beat + delay) * RATE) :]
                rest_W[: len(sound_W)] += rng.uniform(0.7, 1.0) * sound_W[: len(rest_W)]
    count = int(RATE * SECONDS)
    wave_W = wave_W[:count] + rng.uniform(0, 0.05) * rng.standard_normal(count)
    return (wave_W * 0.3 / (np.percentile(np.abs(wave_W), 99.5) + 1e-9)).astype(np.float32)


Sounds = list[tuple[float, NDArray[np.float64]]]  # (seconds after the beat, wave)


def _played(
    rng: np.random.Generator, player: str, number: int, chord: NDArray[np.int64], beat: float
) -> Sounds:
    """What a player does on a beat."""
    sounds: Sounds = []
    if player == "bass":
        midi = chord[0] - (12 if number % 2 == 0 else 5)
        sounds = [(0.0, 1.2 * note(rng, midi, beat, "bass"))]
    elif player == "pluck":
        for delay in (0, 0.5 * beat):
            sounds.append((delay, 0.6 * note(rng, rng.choice(chord) + 12, 1.5 * beat, "pluck")))
    elif player == "strum":
        for midi in chord:
            delay = 0.012 * rng.random()
            plucked_W = note(rng, midi + rng.choice([0, 12]), 1.2 * beat, "pluck")
            sounds.append((delay, 0.35 * plucked_W))
    elif player in ("pad", "organ"):
        held = chord[:3] if number % 4 == 0 else ()
        sounds = [(0.0, 0.25 * note(rng, midi + 12, 4 * beat, player)) for midi in held]
    elif player == "lead":
        midi = rng.choice(chord) + rng.choice([12, 14, 17, 24])
        if rng.random() < 0.7:
            sounds = [(0.0, 0.5 * note(rng, midi, beat * rng.choice([0.5, 1, 2]), "lead"))]
    else:
        sounds = _drums(rng, number, beat)
    return sounds


def _drums(rng: np.random.Generator, number: int, beat: float) -> Sounds:
    time_W = np.arange(RATE // 4) / RATE
    noise = rng.standard_normal((3, len(time_W)))
    hertz_W = 45 + 115 * np.exp(-20 * time_W)
    kick_W = 1.5 * np.sin(2 * np.pi * np.cumsum(hertz_W) / RATE) * np.exp(-12 * time_W)
    snare_W = 0.5 * np.sin(380 * np.pi * time_W) * np.exp(-22 * time_W)
    snare_W += 0.4 * noise[0] * np.exp(-rng.uniform(10, 25) * time_W)
    hat_W, late_hat_W = (
        0.2 * np.diff(row, prepend=0.0) * np.exp(-rng.uniform(20, 80) * time_W) for row in noise[1:]
    )
    return [(0.0, kick_W if number % 2 == 0 else snare_W), (0.0, hat_W), (0.5 * beat, late_hat_W)]


def note(rng: np.random.Generator, midi: float, seconds: float, kind: str) -> NDArray[np.float64]:
    """One note of up to 16 partials; a plucked one dies away, a lead may tremble like a voice."""
    hertz = 440.0 * 2 ** ((float(midi) - 69) / 12)
    time_W = np.arange(int(seconds * RATE)) / RATE
    tilt = {"pluck": 1.1, "bass": 1.3, "organ": 0.8}.get(kind, rng.uniform(0.6, 1.5))
    decay = {"pluck": rng.uniform(1, 5), "bass": 1.5}.get(kind, 0.0)
    tremble = 0.006 if kind == "lead" and rng.random() < 0.6 else 0.0
    bend_W = np.cumsum(1 + tremble * np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * time_W))
    phase_W = bend_W * 2 * np.pi * hertz / RATE
    wave_W = np.zeros(len(time_W))
    for partial in range(1, max(1, int(min(_MOST_PARTIALS, _TOP_HERTZ / hertz))) + 1):
        level = rng.uniform(0.3, 1.0) * partial**-tilt
        sine_W = np.sin(partial * phase_W + rng.uniform(0, 6.28))
        wave_W += level * sine_W * np.exp(-decay * partial**0.5 * time_W)
    rise = min(len(wave_W), int({"pad": 0.12, "lead": 0.04}.get(kind, 0.006) * RATE))
    fall = min(len(wave_W), int(0.04 * RATE))
    wave_W[:rise] *= np.linspace(0, 1, rise)
    wave_W[len(wave_W) - fall :] *= np.linspace(1, 0, fall)
    return wave_W
