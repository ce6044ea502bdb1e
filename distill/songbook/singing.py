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
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from distill.songbook.singers import Singer
from distill.songbook.vocoding import Floats, Voicing, synthesize
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
_LEAST_VOWEL_FRAMES, _LEAST_VOWEL_SHARE = 18.0, 0.45  # 90 ms (of a short note, half), of the note
_LATE_FRAMES = 6  # 30 ms: a model that hears only the past must not meet a glide before its note
_VIBRATO_SECONDS = 0.45  # from this length on a note gets one,
_VIBRATO_AFTER, _VIBRATO_RISE = 0.22, 0.25  # which begins and grows in this time
_JITTER_SEMITONES = 0.06
_SILENCE = float(np.log(1e-12))
_DECIBEL = 1 / 4.343  # of power, in nepers
_CONSONANT_DB = 3.0  # above what the vowel's level makes of them
_VOWEL_LEVELLED = 0.8  # how much of the differences between vowels' levels goes
_PEAK = 0.7  # of the loudest but 0.3 % of samples, before they are softly clipped
_RING_HERTZ, _RING_WIDTH_HERTZ = 2900, 500
_BANDS_HERTZ = (0.0, 3000.0, 6000.0, VOICE_RATE / 2)  # D4C's

# which part of a vowel is held: (what comes before, its own length) as shares of the spoken vowel
_FIRST_TARGET = (0.30, 0.12)
_HELD = dict.fromkeys((*DIPHTHONGS, "'Au", "'ou", "'ei", "'ai", "'@r"), _FIRST_TARGET)
_HELD |= dict.fromkeys(("'iou", "'uei", "'uai", "'iAu"), (0.45, 0.12))
_HELD |= dict.fromkeys("'iA 'iE 'uo 'ua 'yE 'y& 'ia".split(), (0.60, 0.25))  # behind its glide
_HELD_MIDDLE = (0.35, 0.30)


@dataclasses.dataclass(frozen=True)
class SungSyllable:
    """A syllable of a spoken word (some of its phones), and its notes."""

    word: SpokenWord
    onset: tuple[Phone, ...]
    nucleus: Phone
    coda: tuple[Phone, ...]
    notes: tuple[tuple[int, int, float], ...]  # first step, last step, MIDI pitch


@dataclasses.dataclass(frozen=True)
class _Segment:
    """Output frames from `start` on, filled from source frames by the positions in `source_F`."""

    word: SpokenWord
    phone: Phone
    start: int
    source_F: NDArray[np.float64]
    vowel: bool


def sing(syllables: list[SungSyllable], seed: int, singer: Singer) -> NDArray[np.float32]:
    """One line's samples, to TAIL_STEPS behind its last note; the first is at LEAD_STEPS or on."""
    frames = (syllables[-1].notes[-1][1] + TAIL_STEPS) * FRAMES_PER_STEP
    log_envelope_FQ = np.full((frames, BINS), _SILENCE, np.float32)
    noise_FB = np.zeros((frames, 2), np.float32)
    voiced_F = np.zeros(frames, bool)
    for segments in _segments(syllables):
        _write(segments, log_envelope_FQ, noise_FB, voiced_F)
    _soften(log_envelope_FQ)
    padded_FQ = np.concatenate([log_envelope_FQ[:1], log_envelope_FQ, log_envelope_FQ[-1:]])
    log_envelope_FQ = 0.75 * log_envelope_FQ + 0.125 * (padded_FQ[:-2] + padded_FQ[2:])
    hertz_F = 440.0 * 2.0 ** ((pitch(syllables, frames, seed, singer) - 69.0) / 12.0)
    log_envelope_FQ, noise_FQ = _timbre(log_envelope_FQ, noise_FB, voiced_F, singer)
    wave_W = synthesize(log_envelope_FQ, noise_FQ, hertz_F, voiced_F, VOICE_RATE, seed)
    level = max(float(np.percentile(np.abs(wave_W), 99.7)), 1e-9)
    return np.tanh(wave_W * (_PEAK / level)).astype(np.float32)


def pitch(
    syllables: list[SungSyllable], frames: int, seed: int, singer: Singer
) -> NDArray[np.float64]:
    """MIDI pitch per 5 ms frame: 30 ms late, so that the 80 ms window moves with the note."""
    notes = [note for syllable in syllables for note in syllable.notes]
    midi_F = np.full(frames, float(notes[0][2]))
    depth_F = np.zeros(frames)
    time_F = np.arange(frames) * FRAME_SECONDS
    for first, last, midi in notes:
        midi_F[first * FRAMES_PER_STEP + _LATE_FRAMES :] = midi
        start, end = first * GRID_SECONDS, last * GRID_SECONDS
        if end - start > _VIBRATO_SECONDS:
            inside_F = (time_F >= start) & (time_F < end)
            rise_N = (time_F[inside_F] - start - _VIBRATO_AFTER) / _VIBRATO_RISE
            depth_F[inside_F] = singer.vibrato_cents / 100 * np.clip(rise_N, 0.0, 1.0)
    window = np.hanning(17)
    midi_F = np.convolve(np.pad(midi_F, 8, mode="edge"), window / window.sum(), mode="valid")
    noise_F = np.random.default_rng(seed).standard_normal(frames + 30)
    jitter = np.hanning(31)
    jitter_F = np.convolve(noise_F, jitter / np.sqrt((jitter**2).sum()), mode="valid")
    vibrato_F = depth_F * np.sin(2 * np.pi * singer.vibrato_hertz * time_F)
    return midi_F + vibrato_F + _JITTER_SEMITONES * jitter_F


def _soften(log_envelope_FQ: Floats) -> None:
    """Where singing meets silence it comes in over 15 ms and goes out over 40 ms: no clicks."""
    sounds_F = np.concatenate([[False], log_envelope_FQ.max(1) > _SILENCE, [False]])
    edges = np.flatnonzero(np.diff(sounds_F))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        rising, falling = min(3, stop - start), min(8, stop - start)
        log_envelope_FQ[start : start + rising] -= np.linspace(12, 3, rising)[:, None] * _DECIBEL
        log_envelope_FQ[stop - falling : stop] -= np.linspace(2, 24, falling)[:, None] * _DECIBEL


def _timbre(
    log_envelope_FQ: Floats, noise_FB: Floats, voiced_F: Voicing, singer: Singer
) -> tuple[Floats, Floats]:
    """The singer's envelope_FQ, and the share of noise_FQ (amplitude, 0 to 1; 1 where unvoiced)."""
    hertz_Q = np.linspace(0, VOICE_RATE / 2, BINS)
    if singer.warp != 1.0:
        bin_Q = np.minimum(np.arange(BINS) / singer.warp, BINS - 1)
        low_Q = np.minimum(bin_Q.astype(int), BINS - 2)
        share_Q = (bin_Q - low_Q).astype(np.float32)
        low_FQ, high_FQ = log_envelope_FQ[:, low_Q], log_envelope_FQ[:, low_Q + 1]
        log_envelope_FQ = low_FQ * (1 - share_Q) + high_FQ * share_Q
    shape_Q = singer.tilt_db * np.maximum(0.0, np.log2(np.maximum(hertz_Q, 1.0) / 500))
    shape_Q += singer.ring_db * np.exp(-0.5 * ((hertz_Q - _RING_HERTZ) / _RING_WIDTH_HERTZ) ** 2)
    if shape_Q.any():
        shape_FQ = np.outer(voiced_F, shape_Q * _DECIBEL)
        log_envelope_FQ = log_envelope_FQ + shape_FQ.astype(np.float32)
    # linear in dB between the bands: a sum of hats
    hats_BQ = np.stack([np.interp(hertz_Q, _BANDS_HERTZ, np.eye(4)[band]) for band in range(3)])
    decibels_FQ = noise_FB @ hats_BQ[1:].astype(np.float32) - (60 * hats_BQ[0]).astype(np.float32)
    noise_FQ = np.exp(decibels_FQ * np.float32(np.log(10) / 20))
    if singer.breath:
        noise_FQ += (singer.breath * np.sqrt(hertz_Q / hertz_Q[-1])).astype(np.float32)
    noise_FQ[~voiced_F] = 1.0
    return log_envelope_FQ, np.minimum(noise_FQ, 1.0)


def _segments(syllables: list[SungSyllable]) -> Iterator[list[_Segment]]:
    """The segments of each syllable."""
    starts = [syllable.notes[0][0] * FRAMES_PER_STEP for syllable in syllables]
    stops = [syllable.notes[-1][1] * FRAMES_PER_STEP for syllable in syllables]
    nexts = [*starts[1:], stops[-1]]
    onsets, codas = _consonants(syllables, starts, stops, nexts)
    for index, syllable in enumerate(syllables):
        coda_start = min(stops[index], nexts[index] - sum(onsets[index + 1])) - sum(codas[index])
        bounds = list(starts[index] - np.cumsum([0.0, *reversed(onsets[index])])[::-1])
        bounds += list(coda_start + np.cumsum([0.0, *codas[index]]))
        edges = [max(0, round(float(bound))) for bound in bounds]
        phones = [*syllable.onset, syllable.nucleus, *syllable.coda]
        segments = []
        for phone, first, last in zip(phones, edges, edges[1:], strict=False):
            if last > first:
                vowel = phone is syllable.nucleus
                source_F = _stretch(phone, last - first, vowel)
                segments.append(_Segment(syllable.word, phone, first, source_F, vowel))
        yield segments


def _consonants(
    syllables: list[SungSyllable], starts: list[int], stops: list[int], nexts: list[int]
) -> tuple[list[list[float]], list[list[float]]]:
    """Frames of each syllable's onset and coda consonants (an empty onset behind the last one).

    Between two vowels they may take at most 55 % of the note (and leave the vowel 90 ms) and all
    of the rest behind it, else are shortened by one factor."""
    onsets = [[min(p.end - p.start, _ONSET_FRAMES) for p in s.onset] for s in syllables] + [[]]
    codas = [[min(p.end - p.start, _CODA_FRAMES) for p in s.coda] for s in syllables]
    free = starts[0] - 1
    if sum(onsets[0]) > free:
        onsets[0] = [length * free / sum(onsets[0]) for length in onsets[0]]
    for index, (start, stop, later) in enumerate(zip(starts, stops, nexts, strict=True)):
        natural = sum(codas[index]) + sum(onsets[index + 1])
        length = stop - start
        vowel = max(min(_LEAST_VOWEL_FRAMES, 0.5 * length), _LEAST_VOWEL_SHARE * length)
        budget = max(4.0, length - vowel) + (later - stop)
        if natural > budget:
            codas[index] = [frames * budget / natural for frames in codas[index]]
            onsets[index + 1] = [frames * budget / natural for frames in onsets[index + 1]]
    return onsets, codas


def _stretch(phone: Phone, length: int, vowel: bool) -> NDArray[np.float64]:
    """Source position of each of `length` output frames."""
    frame_F = np.arange(length) + 0.5
    source = phone.end - phone.start
    if not vowel or length <= source:
        return phone.start + frame_F * source / length - 0.5
    share = _HELD.get(phone.name, _HELD_MIDDLE)
    head, hold = share[0] * source, share[1] * source
    tail = source - head - hold
    out_head = min(head, 0.3 * length)
    out_tail = min(1.4 * tail if share == _FIRST_TARGET else tail, 0.5 * length)
    knots = [0.0, out_head, length - out_tail, float(length)]
    return phone.start + np.interp(frame_F, knots, [0.0, head, head + hold, source]) - 0.5


def _write(
    segments: list[_Segment], log_envelope_FQ: Floats, noise_FB: Floats, voiced_F: Voicing
) -> None:
    """One syllable into the line's features: levelled by its vowel, then its consonants raised."""
    gain, features = 0.0, []
    for segment in segments:
        word = segment.word
        last = len(word.voiced_F) - 1
        position_N = np.clip(segment.source_F, 0, last)
        low_N = np.minimum(position_N.astype(int), max(last - 1, 0))
        high_N = np.minimum(low_N + 1, last)
        part_N1 = (position_N - low_N).astype(np.float32)[:, None]
        envelope_NQ = word.log_envelope_FQ[low_N] * (1 - part_N1)
        envelope_NQ += word.log_envelope_FQ[high_N] * part_N1
        noise_NB = word.noise_FB[low_N] * (1 - part_N1) + word.noise_FB[high_N] * part_N1
        voiced_N = np.full(len(position_N), segment.vowel)
        if segment.vowel:
            noise_NB = np.minimum(noise_NB, np.median(noise_NB, axis=0) + 2.0)
            energy_N = np.exp(envelope_NQ).sum(axis=1)
            gain = -_VOWEL_LEVELLED * float(np.log(np.percentile(energy_N, 80) + 1e-12))
        elif segment.phone.name not in UNVOICED:
            voiced_N = word.voiced_F[np.round(position_N).astype(int)]
        features.append((envelope_NQ, noise_NB, voiced_N))
    for segment, (envelope_NQ, noise_NB, voiced_N) in zip(segments, features, strict=True):
        frames = slice(segment.start, segment.start + len(voiced_N))
        raised = 0.0 if segment.vowel else _CONSONANT_DB * _DECIBEL
        log_envelope_FQ[frames] = envelope_NQ + (gain + raised)
        noise_FB[frames] = noise_NB
        voiced_F[frames] = voiced_N
