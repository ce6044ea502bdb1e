"""From a voice to its notes: where vowels begin, and the cheapest row of keys under the pitch.

A vowel begins where several bands of the voice grow louder together: consonants are weak where
vowels are strong. A row of keys is found by one Viterbi pass (after Mauch et al. 2015, Tony, and
Ryynanen & Klapuri 2006, with two kinds of state instead of trained ones): every frame pays for its
distance from the key it is under, every new note pays once, so vibrato and slides stay inside a
note and a step of a semitone that lasts does not. The price of a new note falls where a vowel
begins, which is how two notes on one key are told apart.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from distill.curation.steps import Sound
from distill.curation.steps._pitch import HOP, HOP_SECONDS, RATE, at_rate, track

BANDS_HZ = (200, 400, 600, 900, 1300, 1900, 2800, 4000)
VOWEL_WINDOW = 400  # samples, 25 ms
SIZE = 512  # of the transform
BLOCK = 1024  # frames at a time: memory does not grow with the song
SMOOTH_FRAMES = 2.0  # the bands' levels over time, before they are compared
FLOOR = 1e-4  # of a band's loud frames: what is softer is silence
RISE_FRAMES = 2  # a rise is the difference over twice this
MOST_DB = 20.0  # a rise out of silence counts no more than this
FULL_DB = 6.0  # mean rise over the bands that is a vowel for certain
LOWEST_KEY, HIGHEST_KEY = 34, 86
NEW_NOTE = 6.0  # semitone-frames: what one more note must save
FAR = 1.0  # semitones; further off costs no more, so that a tracker's slip is no note
UNVOICED = 0.25  # for a frame without pitch inside a note
MISSED = 1.0  # for a voiced frame outside of every note
SHORTEST_FRAMES = 10
LEAST_AGREED = 0.2  # of the frames' fractions of a semitone, 0 scattered to 1 all alike
VOWEL_WORTH, MOST_WORTH = 0.8, 1.2  # of a vowel's start and at most, in prices of a new note
# a gap this short is the next note's consonants, which sound inside the note before
LEGATO_FRAMES = 25


class Voice(NamedTuple):
    """A voice by frames of HOP_SECONDS. midi_F: pitch, NaN unvoiced. strength_F: harmonic share.
    vowel_F: how surely a vowel begins here, about 0 to 1 and more."""

    midi_F: NDArray[np.float64]
    strength_F: NDArray[np.float64]
    vowel_F: NDArray[np.float64]

    @property
    def voiced_F(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.midi_F)


class Found(NamedTuple):
    """A note in frames: first, the one after the last, its key (MIDI)."""

    first: int
    stop: int
    key: float


def listen(sound: Sound) -> Voice:
    """The voice in a track (all channels averaged)."""
    wave_W = at_rate(sound.mono(), sound.sample_rate)
    pitch = track(wave_W)
    return Voice(pitch.midi_F, pitch.strength_F, vowel_starts(wave_W))


def vowel_starts(wave_W: NDArray[np.float32]) -> NDArray[np.float64]:
    """How surely a vowel begins at each frame of wave_W (RATE Hz): mean rise / FULL_DB."""
    padded = np.pad(wave_W, (VOWEL_WINDOW // 2, VOWEL_WINDOW))
    frames_FW = np.lib.stride_tricks.sliding_window_view(padded, VOWEL_WINDOW)
    frames_FW = frames_FW[: len(wave_W) + 1 : HOP]
    window_W = np.hanning(VOWEL_WINDOW).astype(np.float32)
    edges = [round(hz * SIZE / RATE) for hz in BANDS_HZ]
    level_FB = np.empty((len(frames_FW), len(edges) - 1))
    for start in range(0, len(frames_FW), BLOCK):
        power_FB = np.abs(np.fft.rfft(frames_FW[start : start + BLOCK] * window_W, SIZE)) ** 2
        level_FB[start : start + BLOCK] = np.add.reduceat(power_FB, edges, axis=1)[:, :-1]
    level_FB = 10 * np.log10(level_FB + FLOOR * np.percentile(level_FB, 95, axis=0) + 1e-12)
    level_FB = gaussian_filter1d(level_FB, SMOOTH_FRAMES, axis=0, mode="nearest")
    ahead_FB = np.roll(level_FB, -RISE_FRAMES, axis=0)
    behind_FB = np.roll(level_FB, RISE_FRAMES, axis=0)
    rise_F = np.clip(ahead_FB - behind_FB, 0.0, MOST_DB).mean(1) / FULL_DB
    rise_F[:RISE_FRAMES] = rise_F[len(rise_F) - RISE_FRAMES :] = 0.0
    return rise_F


def tuning(midi_F: NDArray[np.float64]) -> float:
    """Semitones of the voice above the keys (circular mean, -0.5 to 0.5); 0 where unclear."""
    voiced = midi_F[~np.isnan(midi_F)]
    mean = np.exp(2j * np.pi * voiced).mean() if len(voiced) else 0.0
    return float(np.angle(mean) / (2 * np.pi)) if abs(mean) > LEAST_AGREED else 0.0


def transcribe(voice: Voice) -> list[Found]:
    """The notes of a voice of which nothing else is known."""
    highest_F = maximum_filter1d(voice.vowel_F, 2 * SHORTEST_FRAMES - 1)
    peaks_F = np.where(highest_F == voice.vowel_F, voice.vowel_F, 0)
    price_F = NEW_NOTE * (1 - np.minimum(VOWEL_WORTH * peaks_F, MOST_WORTH))
    notes = keys(voice, price_F, tuning(voice.midi_F))
    # what is too short to be sung is what a slide passes through
    return legato([note for note in notes if note.stop - note.first >= SHORTEST_FRAMES])


def keys(
    voice: Voice, price_F: NDArray[np.float64], off: float, starts: frozenset[int] | None = None
) -> list[Found]:
    """The cheapest row of notes. price_F: of a new one, in semitone-frames. off: see `tuning`. With
    `starts`, a note begins at each of these frames, and out of silence nowhere else."""
    midi_F, voiced_F = np.nan_to_num(voice.midi_F - off), voice.voiced_F
    key_K = np.arange(LOWEST_KEY, HIGHEST_KEY + 1, dtype=np.float64)
    silent = len(key_K)
    cost_FS = np.empty((len(midi_F), silent + 1))
    cost_FS[:, :silent] = np.minimum(np.abs(midi_F[:, None] - key_K), FAR)
    cost_FS[~voiced_F, :silent] = UNVOICED
    cost_FS[:, silent] = np.where(voiced_F, MISSED, 0.0)
    back_FS = np.empty(cost_FS.shape, dtype=np.int16)
    new_FS = np.zeros(cost_FS.shape, dtype=bool)
    state_S = np.arange(silent + 1, dtype=np.int16)
    total_S = cost_FS[0].copy()
    total_S[:silent] += NEW_NOTE
    new_FS[0, :silent] = True
    for frame in range(1, len(midi_F)):
        forced = starts is not None and frame in starts
        sung = int(total_S[:silent].argmin())
        from_sung = total_S[sung] + price_F[frame]
        from_rest = total_S[silent] + (price_F[frame] if starts is None or forced else np.inf)
        entry, source = (from_sung, sung) if from_sung <= from_rest else (from_rest, silent)
        begins_S = np.full(silent + 1, forced) | (entry < total_S)
        rest_source = sung if total_S[sung] < total_S[silent] else silent
        rest = total_S[rest_source]
        back_FS[frame] = np.where(begins_S, source, state_S)
        new_FS[frame] = begins_S
        total_S = np.where(begins_S, entry, total_S)
        total_S[silent], back_FS[frame, silent], new_FS[frame, silent] = rest, rest_source, False
        if forced:
            total_S[silent] = np.inf
        total_S = total_S + cost_FS[frame]
    return _runs(back_FS, new_FS, int(total_S.argmin()), key_K)


def _runs(
    back_FS: NDArray[np.int16], new_FS: NDArray[np.bool_], state: int, key_K: NDArray[np.float64]
) -> list[Found]:
    """Notes in order, read backwards along the cheapest way."""
    notes, stop = [], None
    for frame in range(len(back_FS) - 1, -1, -1):
        if state < len(key_K):
            stop = frame + 1 if stop is None else stop
            if new_FS[frame, state]:
                notes.append(Found(frame, stop, float(key_K[state])))
                stop = None
        state = int(back_FS[frame, state]) if frame else state
    return notes[::-1]


def legato(notes: list[Found]) -> list[Found]:
    """Notes that last to the next one where the gap is short: a singer counts so."""
    lasting = [
        note._replace(stop=after.first) if after.first - note.stop <= LEGATO_FRAMES else note
        for note, after in itertools.pairwise(notes)
    ]
    return [*lasting, *notes[-1:]]


def seconds(frame: int) -> float:
    """Where a frame lies in the track."""
    return round(frame * HOP_SECONDS, 3)
