"""Spoken words made to follow a score.

The features of `voice` are placed on the line's time axis: every vowel starts exactly on its note,
its onset consonants sound before it (taking their time from the rest before, else from the note
before), its coda just before the next onset. Consonants are mapped linearly; a vowel longer than
spoken is held in its middle, a diphthong on its first target. The pitch of the score then replaces
the spoken pitch, the singer's timbre the speaker's, and `vocoding` makes one waveform per line.

All times here are frames of 5 ms; a note starts and ends on the 40 ms grid, eight of these frames.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from distill.songbook.singers import Singer
from distill.songbook.vocoding import synthesize
from distill.songbook.voice import (
    BINS,
    DIPHTHONGS,
    FRAME_SECONDS,
    UNVOICED,
    VOICE_RATE,
    Phone,
    SpokenWord,
)

GRID_SECONDS = 0.04
FRAMES_PER_STEP = 8
LEAD_STEPS, TAIL_STEPS = 6, 10  # 0.24 s before the first note, 0.4 s after the last
_ONSET_FRAMES, _CODA_FRAMES = 28.0, 32.0  # longest natural consonant: 140 and 160 ms
_LEAST_VOWEL_FRAMES = 18.0  # 90 ms; of a short note, half
_SILENCE = float(np.log(1e-12))
_DECIBEL = 1 / 4.343  # of power, in nepers
_BANDS_HERTZ = (0.0, 3000.0, 6000.0, VOICE_RATE / 2)  # D4C's


@dataclasses.dataclass(frozen=True)
class SungSyllable:
    """A syllable of a spoken word (some of its phones) and its notes: (first step, last step, MIDI
    pitch)."""

    word: SpokenWord
    onset: tuple[Phone, ...]
    nucleus: Phone
    coda: tuple[Phone, ...]
    notes: tuple[tuple[int, int, float], ...]


@dataclasses.dataclass(frozen=True)
class _Segment:
    """Output frames from `start` on, filled from source frames by the positions in `source_F`."""

    word: SpokenWord
    phone: Phone
    start: int
    source_F: np.ndarray
    vowel: bool


def sing(syllables: list[SungSyllable], seed: int, singer: Singer) -> np.ndarray:
    """One line as float32 samples; lasts exactly (last step + 10) x 40 ms. Its first note is at
    step 6 or later."""
    steps = syllables[-1].notes[-1][1] + TAIL_STEPS
    frames = steps * FRAMES_PER_STEP
    log_envelope_FQ = np.full((frames, BINS), _SILENCE, np.float32)
    noise_FB = np.zeros((frames, 2), np.float32)
    voiced_F = np.zeros(frames, bool)
    for group in _place(syllables):
        _write(group, log_envelope_FQ, noise_FB, voiced_F)
    _soften(log_envelope_FQ)
    padded = np.concatenate([log_envelope_FQ[:1], log_envelope_FQ, log_envelope_FQ[-1:]])
    log_envelope_FQ = 0.75 * log_envelope_FQ + 0.125 * (padded[:-2] + padded[2:])
    hertz_F = 440.0 * 2.0 ** ((pitch(syllables, frames, seed, singer) - 69.0) / 12.0)
    log_envelope_FQ, noise_FQ = _timbre(log_envelope_FQ, noise_FB, voiced_F, singer)
    wave = synthesize(log_envelope_FQ, noise_FQ, hertz_F, voiced_F, VOICE_RATE, seed)
    level = max(float(np.percentile(np.abs(wave), 99.7)), 1e-9)
    return np.tanh(wave * (0.7 / level)).astype(np.float32)


def pitch(syllables: list[SungSyllable], frames: int, seed: int, singer: Singer) -> np.ndarray:
    """MIDI pitch per 5 ms frame. A model that hears only the past must not meet a glide before its
    note, so a note's pitch takes effect 30 ms late and the 80 ms window begins to move about when
    the note does."""
    notes = [note for syllable in syllables for note in syllable.notes]
    midi_F = np.full(frames, float(notes[0][2]))
    depth_F = np.zeros(frames)
    time_F = np.arange(frames) * FRAME_SECONDS
    for first, last, midi in notes:
        midi_F[first * FRAMES_PER_STEP + 6 :] = midi
        start, end = first * GRID_SECONDS, last * GRID_SECONDS
        if end - start > 0.45:
            inside = (time_F >= start) & (time_F < end)
            depth = singer.vibrato_cents / 100
            depth_F[inside] = depth * np.clip((time_F[inside] - start - 0.22) / 0.25, 0.0, 1.0)
    window = np.hanning(17)
    midi_F = np.convolve(np.pad(midi_F, 8, mode="edge"), window / window.sum(), mode="valid")
    noise = np.random.default_rng(seed).standard_normal(frames + 30)
    jitter = np.hanning(31)
    jitter_F = np.convolve(noise, jitter / np.sqrt((jitter**2).sum()), mode="valid")
    return midi_F + depth_F * np.sin(2 * np.pi * singer.vibrato_hertz * time_F) + 0.06 * jitter_F


def _soften(log_envelope_FQ: np.ndarray) -> None:
    """Where singing meets silence it comes in over 15 ms and goes out over 40 ms: nothing that
    sings clicks."""
    sounds_F = np.concatenate([[False], log_envelope_FQ.max(1) > _SILENCE, [False]])
    edges = np.flatnonzero(np.diff(sounds_F))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        rising, falling = min(3, stop - start), min(8, stop - start)
        log_envelope_FQ[start : start + rising] -= np.linspace(12, 3, rising)[:, None] * _DECIBEL
        log_envelope_FQ[stop - falling : stop] -= np.linspace(2, 24, falling)[:, None] * _DECIBEL


def _timbre(
    log_envelope_FQ: np.ndarray, noise_FB: np.ndarray, voiced_F: np.ndarray, singer: Singer
) -> tuple[np.ndarray, np.ndarray]:
    """The singer's envelope_FQ, and the share of noise_FQ (amplitude, 0 to 1; 1 where unvoiced)."""
    hertz_Q = np.linspace(0, VOICE_RATE / 2, BINS)
    if singer.warp != 1.0:
        at_Q = np.minimum(np.arange(BINS) / singer.warp, BINS - 1)
        low_Q = np.minimum(at_Q.astype(int), BINS - 2)
        part_Q = (at_Q - low_Q).astype(np.float32)
        log_envelope_FQ = (
            log_envelope_FQ[:, low_Q] * (1 - part_Q) + log_envelope_FQ[:, low_Q + 1] * part_Q
        )
    shape_Q = singer.tilt_db * np.maximum(0.0, np.log2(np.maximum(hertz_Q, 1.0) / 500))
    shape_Q += singer.ring_db * np.exp(-0.5 * ((hertz_Q - 2900) / 500) ** 2)
    if shape_Q.any():
        log_envelope_FQ = log_envelope_FQ + np.outer(voiced_F, shape_Q * _DECIBEL).astype(
            np.float32
        )
    # linear in dB between the bands: a sum of hats
    hats_BQ = np.stack([np.interp(hertz_Q, _BANDS_HERTZ, np.eye(4)[band]) for band in range(3)])
    decibels_FQ = noise_FB @ hats_BQ[1:].astype(np.float32) - (60 * hats_BQ[0]).astype(np.float32)
    noise_FQ = np.exp(decibels_FQ * np.float32(np.log(10) / 20))
    if singer.breath:
        noise_FQ += (singer.breath * np.sqrt(hertz_Q / hertz_Q[-1])).astype(np.float32)
    noise_FQ[~voiced_F] = 1.0
    return log_envelope_FQ, np.minimum(noise_FQ, 1.0)


def _place(syllables: list[SungSyllable]) -> list[list[_Segment]]:
    """Segments of each syllable. Between two vowels the consonants may take at most 55 % of the
    note (and leave the vowel 90 ms) and all of the rest behind it; where they do not fit, all are
    shortened by one factor."""
    onsets = [[min(p.end - p.start, _ONSET_FRAMES) for p in s.onset] for s in syllables]
    codas = [[min(p.end - p.start, _CODA_FRAMES) for p in s.coda] for s in syllables]
    starts = [s.notes[0][0] * FRAMES_PER_STEP for s in syllables]
    stops = [s.notes[-1][1] * FRAMES_PER_STEP for s in syllables]
    nexts = [*starts[1:], stops[-1]]
    free = starts[0] - 1
    if sum(onsets[0]) > free:
        onsets[0] = [length * free / sum(onsets[0]) for length in onsets[0]]
    for index, (start, stop, later) in enumerate(zip(starts, stops, nexts, strict=True)):
        following = onsets[index + 1] if index + 1 < len(syllables) else []
        natural = sum(codas[index]) + sum(following)
        length = stop - start
        vowel = max(min(_LEAST_VOWEL_FRAMES, 0.5 * length), 0.45 * length)
        budget = max(4.0, length - vowel) + (later - stop)
        if natural > budget:
            codas[index] = [consonant * budget / natural for consonant in codas[index]]
            if following:
                onsets[index + 1] = [consonant * budget / natural for consonant in following]
    groups = []
    for index, syllable in enumerate(syllables):
        following = onsets[index + 1] if index + 1 < len(syllables) else []
        coda_stop = min(stops[index], nexts[index] - sum(following))
        coda_start = coda_stop - sum(codas[index])
        bounds = list(starts[index] - np.cumsum([0.0, *reversed(onsets[index])])[::-1])
        bounds += list(coda_start + np.cumsum([0.0, *codas[index]]))
        edges = [max(0, round(float(b))) for b in bounds]
        phones = [*syllable.onset, syllable.nucleus, *syllable.coda]
        groups.append(
            [
                _Segment(
                    syllable.word,
                    phone,
                    a,
                    _stretch(phone, b - a, phone is syllable.nucleus),
                    phone is syllable.nucleus,
                )
                for phone, a, b in zip(phones, edges, edges[1:], strict=False)
                if b > a
            ]
        )
    return groups


def _held(name: str) -> tuple[float, float]:
    """Which part of a vowel is held: (what comes before, its own length) as shares of the spoken
    vowel."""
    if name in DIPHTHONGS or name in ("'Au", "'ou", "'ei", "'ai", "'@r"):
        return 0.30, 0.12  # on its first target
    if name in ("'iou", "'uei", "'uai", "'iAu"):
        return 0.45, 0.12
    if name in ("'iA", "'iE", "'uo", "'ua", "'yE", "'y&", "'ia"):
        return 0.60, 0.25  # behind its glide
    return 0.35, 0.30


def _stretch(phone: Phone, length: int, vowel: bool) -> np.ndarray:
    """Source position of each of `length` output frames."""
    at = np.arange(length) + 0.5
    source = phone.end - phone.start
    if not vowel or length <= source:
        return phone.start + at * source / length - 0.5
    before, own = _held(phone.name)
    head, hold = before * source, own * source
    tail = source - head - hold
    out_head = min(head, 0.3 * length)
    out_tail = min(1.4 * tail if before == 0.30 else tail, 0.5 * length)
    knots = [0.0, out_head, length - out_tail, float(length)]
    return phone.start + np.interp(at, knots, [0.0, head, head + hold, source]) - 0.5


def _write(
    group: list[_Segment], log_envelope_FQ: np.ndarray, noise_FB: np.ndarray, voiced_F: np.ndarray
) -> None:
    """One syllable into the line's features: the whole syllable is levelled by its vowel, then its
    consonants get 3 dB."""
    gain = 0.0
    written = []
    for segment in group:
        word = segment.word
        last = len(word.voiced_F) - 1
        position = np.clip(segment.source_F, 0, last)
        low = np.minimum(position.astype(int), max(last - 1, 0))
        high = np.minimum(low + 1, last)
        part = (position - low).astype(np.float32)[:, None]
        envelope = word.log_envelope_FQ[low] * (1 - part) + word.log_envelope_FQ[high] * part
        noise = word.noise_FB[low] * (1 - part) + word.noise_FB[high] * part
        if segment.vowel:
            noise = np.minimum(noise, np.median(noise, axis=0) + 2.0)
            energy = np.exp(envelope).sum(axis=1)
            gain = -0.8 * float(np.log(np.percentile(energy, 80) + 1e-12))
            voiced = np.ones(len(position), bool)
        else:
            voiced = np.zeros(len(position), bool)
            if segment.phone.name not in UNVOICED:
                voiced = word.voiced_F[np.round(position).astype(int)]
        written.append((segment, envelope, noise, voiced))
    for segment, envelope, noise, voiced in written:
        place = slice(segment.start, segment.start + len(voiced))
        log_envelope_FQ[place] = envelope + (gain if segment.vowel else gain + 3.0 * _DECIBEL)
        noise_FB[place] = noise
        voiced_F[place] = voiced
