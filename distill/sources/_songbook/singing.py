"""Spoken words made to follow a score.

The features of `voice` are placed on the line's time axis: every vowel starts exactly on its note, its
onset consonants sound before it (taking their time from the note before), its coda just before the next
onset. Consonants are mapped linearly; a vowel longer than spoken is held in its middle, a diphthong on its
first target. The pitch of the score then replaces the spoken pitch and WORLD makes one waveform per line.

All times here are frames of 5 ms; a note starts and ends on the 40 ms grid, eight of these frames.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import soxr

from distill.sources._songbook.voice import DIPHTHONGS, FRAME_SECONDS, UNVOICED, Phone, SpokenWord, Voice

SAMPLE_RATE = 16_000
GRID_SECONDS = 0.04
FRAMES_PER_STEP = 8
LEAD_STEPS, TAIL_STEPS = 6, 10  # 0.24 s before the first note, 0.4 s after the last
_ONSET_FRAMES, _CODA_FRAMES = 28.0, 32.0  # longest natural consonant: 140 and 160 ms
_SILENCE = float(np.log(1e-12))


@dataclasses.dataclass(frozen=True)
class SungSyllable:
    """A syllable of a spoken word (indices into its phones) and its notes: (first step, last step, MIDI
    pitch)."""

    word: SpokenWord
    onset: tuple[Phone, ...]
    nucleus: Phone
    coda: tuple[Phone, ...]
    notes: tuple[tuple[int, int, float], ...]


@dataclasses.dataclass(frozen=True)
class _Segment:
    """Output frames [start, end) filled from source frames by the positions in `source_F`."""

    word: SpokenWord
    phone: Phone
    start: int
    source_F: np.ndarray
    vowel: bool


def sing(voice: Voice, syllables: list[SungSyllable], seed: int = 0) -> np.ndarray:
    """One line as float32 samples at 16 kHz; lasts exactly (last step + 10) x 40 ms.

    The notes of all syllables together are contiguous and start at step 6 or later."""
    steps = syllables[-1].notes[-1][1] + TAIL_STEPS
    frames = steps * FRAMES_PER_STEP
    bins = voice.fft_size // 2 + 1
    log_envelope_FQ = np.full((frames, bins), _SILENCE, np.float32)
    aperiodicity_FQ = np.ones((frames, bins), np.float32)
    voiced_F = np.zeros(frames, bool)
    for group in _place(syllables):
        _write(group, log_envelope_FQ, aperiodicity_FQ, voiced_F)
    padded = np.concatenate([log_envelope_FQ[:1], log_envelope_FQ, log_envelope_FQ[-1:]])
    log_envelope_FQ = 0.75 * log_envelope_FQ + 0.125 * (padded[:-2] + padded[2:])
    f0_F = np.where(voiced_F, 440.0 * 2.0 ** ((pitch(syllables, frames, seed) - 69.0) / 12.0), 0.0)
    wave = voice.world.synthesize(
        f0_F,
        np.exp(log_envelope_FQ.astype(np.float64)),
        np.clip(aperiodicity_FQ, 0.0, 1.0).astype(np.float64),
        voice.sample_rate,
        FRAME_SECONDS * 1000,
    )
    wave = soxr.resample(wave, voice.sample_rate, SAMPLE_RATE, quality="HQ")
    wave = np.pad(wave, (0, max(0, 640)))[: round(steps * GRID_SECONDS * SAMPLE_RATE)]
    level = max(float(np.percentile(np.abs(wave), 99.7)), 1e-9)
    return np.tanh(wave * (0.7 / level)).astype(np.float32)


def pitch(syllables: list[SungSyllable], frames: int, seed: int) -> np.ndarray:
    """MIDI pitch per 5 ms frame. A model that hears only the past must not meet a glide before its note, so
    a note's pitch takes effect 30 ms late and the 80 ms window begins to move about when the note does."""
    notes = [note for syllable in syllables for note in syllable.notes]
    midi_F = np.full(frames, notes[0][2])
    depth_F = np.zeros(frames)
    time_F = np.arange(frames) * FRAME_SECONDS
    for first, last, midi in notes:
        midi_F[first * FRAMES_PER_STEP + 6 :] = midi
        start, end = first * GRID_SECONDS, last * GRID_SECONDS
        if end - start > 0.45:
            inside = (time_F >= start) & (time_F < end)
            depth_F[inside] = 0.35 * np.clip((time_F[inside] - start - 0.22) / 0.25, 0.0, 1.0)
    window = np.hanning(17)
    midi_F = np.convolve(np.pad(midi_F, 8, mode="edge"), window / window.sum(), mode="valid")
    noise = np.random.default_rng(seed).standard_normal(frames + 30)
    jitter = np.hanning(31)
    jitter_F = np.convolve(noise, jitter / np.sqrt((jitter**2).sum()), mode="valid")
    return midi_F + depth_F * np.sin(2 * np.pi * 5.5 * time_F) + 0.06 * jitter_F


def _place(syllables: list[SungSyllable]) -> list[list[_Segment]]:
    """Segments of each syllable. Between two vowels the consonants may take at most 55 % of the note, and
    leave the vowel 90 ms; where they do not fit, all are shortened by one factor."""
    onsets = [[min(p.end - p.start, _ONSET_FRAMES) for p in s.onset] for s in syllables]
    codas = [[min(p.end - p.start, _CODA_FRAMES) for p in s.coda] for s in syllables]
    starts = [s.notes[0][0] * FRAMES_PER_STEP for s in syllables]
    ends = [*starts[1:], syllables[-1].notes[-1][1] * FRAMES_PER_STEP]
    free = starts[0] - 1
    if sum(onsets[0]) > free:
        onsets[0] = [length * free / sum(onsets[0]) for length in onsets[0]]
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        following = onsets[index + 1] if index + 1 < len(syllables) else []
        natural = sum(codas[index]) + sum(following)
        budget = max(4.0, (end - start) - max(18.0, 0.45 * (end - start)))
        if natural > budget:
            codas[index] = [length * budget / natural for length in codas[index]]
            if following:
                onsets[index + 1] = [length * budget / natural for length in following]
    groups = []
    for index, syllable in enumerate(syllables):
        following = onsets[index + 1] if index + 1 < len(syllables) else []
        coda_start = ends[index] - sum(following) - sum(codas[index])
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


def _stretch(phone: Phone, length: int, vowel: bool) -> np.ndarray:
    """Source position of each of `length` output frames."""
    at = np.arange(length) + 0.5
    source = phone.end - phone.start
    if not vowel or length <= source:
        return phone.start + at * source / length - 0.5
    diphthong = phone.name in DIPHTHONGS
    head, hold = (0.30 * source, 0.12 * source) if diphthong else (0.35 * source, 0.30 * source)
    tail = source - head - hold
    out_head = min(head, 0.3 * length)
    out_tail = min(1.4 * tail if diphthong else tail, 0.5 * length)
    knots = [0.0, out_head, length - out_tail, float(length)]
    return phone.start + np.interp(at, knots, [0.0, head, head + hold, source]) - 0.5


def _write(
    group: list[_Segment], log_envelope_FQ: np.ndarray, aperiodicity_FQ: np.ndarray, voiced_F: np.ndarray
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
        noise = word.aperiodicity_FQ[low] * (1 - part) + word.aperiodicity_FQ[high] * part
        if segment.vowel:
            noise = np.minimum(noise, np.median(noise, axis=0) + 0.05)
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
        log_envelope_FQ[place] = envelope + (gain if segment.vowel else gain + 3.0 / 4.343)
        aperiodicity_FQ[place] = noise
        voiced_F[place] = voiced
