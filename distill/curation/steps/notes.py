"""Notes of a voice: which syllable is sung when, and on which key.

Only where a line's words have times, and only for lines that came without notes. A line's syllables
are put where vowels begin, all at once and in order (dynamic programming): a vowel's start is worth
something, so is a step in pitch; a start without voice behind it costs, and so does straying from
the word's times, which an aligner knows to about a tenth of a second. Between two starts lies one
note, or several where the pitch stays on more than one key (a melisma; the further notes carry no
text). A note lasts to the next vowel unless there is a rest, as a singer counts.

Every line gets a confidence (fact `notes_confidence`): how clearly vowels begin where they were
put, times how steadily the voice keeps to its notes, times how sure the word times are. A line
below `least_confidence`, or with a syllable without pitch, is left as it was and taught word by
word: a model learns less from that than from right notes, but more than from wrong ones. In a mix
the loudest pitch need not be the voice's: confidence counts half, and only with `on_mix` at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill import lyrics
from distill.config.ranges import Checked, share
from distill.curation.steps import Item
from distill.curation.steps import _melody as melody
from distill.curation.steps._melody import SHORTEST_FRAMES, Found, Voice
from distill.curation.steps._pitch import HOP_SECONDS
from distill.songs import Fact, Line, Note, Word

STEP = "notes"
MELISMA = 1.5 * melody.NEW_NOTE  # what a second note of a syllable must save, in semitone-frames
NEAREST_FRAMES = 8  # between two vowels' starts
PITCH_STEP = 0.5  # worth of a step of a semitone and more, in vowels' starts
WITHOUT_VOICE = 3.0  # cost of a start with no voice behind it
VOICE_FRAMES = 7  # behind a start, in which there should be voice
BEFORE, AFTER = (-8, -1), (3, 12)  # frames around a start, between which the pitch may step
LEAST_PITCHED = 4  # frames of these, or there is no mean pitch
FREE_SECONDS = 0.1  # a word's start may be this far off at no great cost
FREE_COST = 0.15  # of being as far off as that and the spread
SPREAD_SECONDS = 0.05  # beyond that, the cost is that of a normal deviate with this spread
LATER_SPREAD = 0.3  # the spread of a word's further syllables, of a syllable's length
CONSONANT_SECONDS = 0.06
LEAST_VOICED_FRAMES = 5  # a syllable with less has no pitch
MIDDLE = (0.2, 0.9)  # of a note, where its pitch is looked at
NEAR_SEMITONES = 0.5
STEADY = 0.75  # the steadiness of a voice that certainly sings these notes
# The confidence from the mean vowel at the starts: as the share of right notes fell when the word
# times of generated songs were moved (bench/music.py). Below the first, no syllable is in place.
CLEAR_FROM, CLEAR_POWER = 0.6, 1.5
MIX_FACTOR = 0.5
IMPOSSIBLE = -1e9  # worth


@dataclass(frozen=True)
class Settings(Checked):
    """least_confidence: of a line's notes (0 to 1), below which the line keeps its coarser grain.
    on_mix: also look for notes where the vocals are not apart. unaccompanied: recordings without
    stems are a voice alone, no mix."""

    least_confidence: float = share(default=0.5)
    on_mix: bool = False
    unaccompanied: bool = False

    def curate(self, item: Item) -> Item:
        """Fills the notes of lines that have word times and no notes."""
        song, sound = item.song, item.voice
        wanting = [line for line in song.lines if line.words and not line.notes]
        if sound is None or (not wanting and any(line.notes for line in song.lines)):
            return item
        if not wanting:
            return item.remark(STEP, "noted", "no notes looked for: no line has word times")
        apart = "vocals" in item.tracks or self.unaccompanied
        if not apart and not self.on_mix:
            why = "the vocals are not apart (see separation, unaccompanied, on_mix)"
            return item.remark(STEP, "noted", f"no notes looked for: {why}")
        voice = melody.listen(sound)
        off = melody.tuning(voice.midi_F)
        sections, confidences = [], list[float | None]()
        for section in song.sections:
            lines = []
            for line in section.lines:
                sure = None
                if line.words and not line.notes:
                    guess = line_notes(line, voice, off, song.language)
                    if guess is not None:
                        sure = round(guess.confidence * (1 if apart else MIX_FACTOR), 3)
                        if sure >= self.least_confidence:
                            line = replace(line, notes=guess.notes)
                lines.append(line)
                confidences.append(sure)
            sections.append(replace(section, lines=tuple(lines)))
        item = replace(item, song=replace(song, sections=tuple(sections)))
        return self._remarked(item, confidences, len(wanting))

    def _remarked(self, item: Item, confidences: Sequence[float | None], wanting: int) -> Item:
        """The item with its fact and its remark."""
        known = [sure for sure in confidences if sure is not None]
        kept = sum(sure >= self.least_confidence for sure in known)
        mean = round(float(np.mean(known)), 3) if known else 0.0
        item = item.know(Fact("notes_confidence", list(confidences), STEP, mean))
        text = f"notes found for {kept} of {wanting} lines"
        text += f" (mean confidence {mean:.2f}, a weak label)"
        if kept < wanting:
            text += f"; left word by word: {len(known) - kept} unsure, "
            text += f"{wanting - len(known)} with a syllable without pitch"
        return item.remark(STEP, "mended" if kept else "noted", text)


class Guess(NamedTuple):
    """A line's notes and how sure they are, 0 to 1."""

    notes: tuple[Note, ...]
    confidence: float


def line_notes(line: Line, voice: Voice, off: float, language: str = "en") -> Guess | None:
    """The notes of a line with word times; None where a syllable lacks pitch. off: see `tuning`."""
    read = lyrics.read([word.text for word in line.words], language)
    cuts = zip(line.words, read, strict=True)
    sung = [(word, list(map(lyrics.sing_text, syllables))) for word, syllables in cuts if syllables]
    texts = [text for _, syllables in sung for text in syllables]
    if not texts:
        return None
    starts = vowel_frames(sung, voice)
    if starts is None:
        return None
    first, last = starts[0], _last_frame(line, sung[-1][0], starts[-1], len(voice.midi_F))
    part = Voice(*(track_F[first:last] for track_F in voice))
    price_F = np.full(last - first, MELISMA)
    spans = melody.keys(part, price_F, off, frozenset(start - first for start in starts[1:]))
    groups = _by_syllable(spans, [start - first for start in starts])
    if any(_voiced(group, part) < LEAST_VOICED_FRAMES for group in groups):
        return None
    spans = melody.legato([span for group in groups for span in group])
    syllables = zip(texts, groups, strict=True)
    note_texts = [t for text, group in syllables for t in (text, *[""] * (len(group) - 1))]
    notes = tuple(
        Note(melody.seconds(first + span.first), melody.seconds(first + span.stop), span.key, text)
        for span, text in zip(spans, note_texts, strict=True)
    )
    given = [1.0 if word.confidence is None else word.confidence for word, _ in sung]
    steady = float(np.mean([steadiness(span, part, off) for span in spans]))
    sure = float(np.mean(given)) * min(1.0, steady / STEADY) * _clarity(voice, starts)
    return Guess(notes, sure)


def _clarity(voice: Voice, starts: Sequence[int]) -> float:
    """How surely vowels begin where they were put (give or take 2 frames), 0 to 1."""
    near = [voice.vowel_F[max(0, start - 2) : start + 3] for start in starts]
    mean = np.mean([min(1.0, float(vowel_F.max())) for vowel_F in near])
    return float(np.clip((mean - CLEAR_FROM) / (1 - CLEAR_FROM), 0, 1) ** CLEAR_POWER)


def _last_frame(line: Line, word: Word, start: int, count: int) -> int:
    """The frame at which the line's last note may end at the latest."""
    end = max(word.end + FREE_SECONDS, line.end or 0.0)
    return min(count, max(round(end / HOP_SECONDS), start + SHORTEST_FRAMES))


def vowel_frames(sung: Sequence[tuple[Word, list[str]]], voice: Voice) -> list[int] | None:
    """The frame at which each syllable's vowel begins; None where they do not fit the sound."""
    first = max(0, round((sung[0][0].start - 3 * FREE_SECONDS) / HOP_SECONDS))
    stop = min(len(voice.midi_F), round((sung[-1][0].end + 2 * FREE_SECONDS) / HOP_SECONDS))
    expected = [_expected(word, texts, n) for word, texts in sung for n in range(len(texts))]
    if stop - first <= NEAREST_FRAMES * len(expected):
        return None
    evidence_T = _evidence(voice)[first:stop]
    time_T = np.arange(first, stop) * HOP_SECONDS
    order_T, backs = np.arange(len(time_T)), []
    total_T: NDArray[np.float64] = np.zeros(0)
    for time, free, spread in expected:
        beyond_T = np.maximum(0.0, np.abs(time_T - time) - free)
        near_T = np.abs(time_T - time) / (spread + free)
        worth_T = evidence_T - 0.5 * (beyond_T / spread) ** 2 - FREE_COST * near_T**2
        if not len(total_T):
            total_T = worth_T
            continue
        earlier_T = np.full(len(time_T), IMPOSSIBLE)
        earlier_T[NEAREST_FRAMES:] = total_T[:-NEAREST_FRAMES]
        best_T = np.maximum.accumulate(earlier_T)
        from_T = np.maximum.accumulate(np.where(earlier_T >= best_T, order_T, 0))
        backs.append(from_T - NEAREST_FRAMES)
        total_T = worth_T + best_T
    way = [int(total_T.argmax())]
    for back_T in reversed(backs):
        way.append(int(back_T[way[-1]]))
    return [first + frame for frame in reversed(way)]


def _expected(word: Word, texts: Sequence[str], number: int) -> tuple[float, float, float]:
    """When the vowel of a word's syllable is expected, how far it may be off for free, and the
    spread beyond (seconds). A word's time may be that of its first sound or of its first vowel: its
    consonants widen what is free."""
    length = (word.end - word.start) / len(texts)
    phones = texts[number].split()
    onset = next((n for n, phone in enumerate(phones) if phone in lyrics.VOWELS), 0)
    late = CONSONANT_SECONDS * onset
    spread = SPREAD_SECONDS if number == 0 else max(SPREAD_SECONDS, LATER_SPREAD * length)
    return word.start + number * length + late / 2, FREE_SECONDS + late / 2, spread


def _evidence(voice: Voice) -> NDArray[np.float64]:
    """What speaks for a vowel's start (a clear one: 1): rising bands, voice, a pitch step."""
    voiced_F = voice.voiced_F.astype(float)
    behind_F = np.convolve(voiced_F, np.ones(VOICE_FRAMES) / VOICE_FRAMES)[VOICE_FRAMES - 1 :]
    step_F = np.abs(_mean_pitch(voice, *AFTER) - _mean_pitch(voice, *BEFORE))
    step_F = np.nan_to_num(np.minimum(step_F, 1.0))
    return voice.vowel_F + WITHOUT_VOICE * (behind_F - 1) + PITCH_STEP * step_F


def _mean_pitch(voice: Voice, first: int, stop: int) -> NDArray[np.float64]:
    """Mean pitch of the voiced frames from `first` to `stop` relative to each frame; NaN of few."""
    count = len(voice.midi_F)
    sums_F = np.concatenate([[0.0], np.cumsum(np.nan_to_num(voice.midi_F))])
    counts_F = np.concatenate([[0], np.cumsum(voice.voiced_F)])
    low_F = np.clip(np.arange(count) + first, 0, count)
    high_F = np.clip(np.arange(count) + stop, 0, count)
    pitched_F = counts_F[high_F] - counts_F[low_F]
    mean_F = (sums_F[high_F] - sums_F[low_F]) / np.maximum(pitched_F, 1)
    return np.where(pitched_F >= LEAST_PITCHED, mean_F, np.nan)


def _by_syllable(notes: Sequence[Found], starts: Sequence[int]) -> list[list[Found]]:
    """Notes by syllable; what is too short joins the note before it, or the one behind."""
    groups = []
    for start, stop in zip(starts, [*starts[1:], np.inf], strict=True):
        merged: list[Found] = []
        for note in (note for note in notes if start <= note.first < stop):
            if merged and note.stop - note.first < SHORTEST_FRAMES:
                merged[-1] = merged[-1]._replace(stop=note.stop)
            elif merged and merged[-1].stop - merged[-1].first < SHORTEST_FRAMES:
                merged[-1] = note._replace(first=merged[-1].first)
            else:
                merged.append(note)
        groups.append(merged)
    return groups


def _voiced(notes: Sequence[Found], voice: Voice) -> int:
    return sum(int(voice.voiced_F[note.first : note.stop].sum()) for note in notes)


def steadiness(note: Found, voice: Voice, off: float) -> float:
    """The share of a note's middle that is near its key, weighted by how harmonic it sounds."""
    length = note.stop - note.first
    first, stop = (note.first + round(part * length) for part in MIDDLE)
    midi_F, strength_F = voice.midi_F[first:stop], voice.strength_F[first:stop]
    near_F = np.abs(np.nan_to_num(midi_F, nan=-99.0) - off - note.key) <= NEAR_SEMITONES
    return float((near_F * np.sqrt(strength_F)).sum() / max(1, len(midi_F)))
