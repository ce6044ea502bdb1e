"""From notes with syllables, as scores write them, to lines of words and notes, as a Song has them.

A score writes letters under notes: "gen" "tly"; `~` or nothing goes on with the syllable before. A
Song's notes carry phones (see `lyrics`). So the letters are joined to words, the words are read
aloud, and their syllables go back onto the notes: one to one where score and dictionary agree on
how many there are. Where they do not ("ev-ery" on two notes, three in the dictionary), nothing is
lost or invented: too many syllables are spread over the notes, notes that are left over go on ("").
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from distill import lyrics
from distill.errors import LyricsError
from distill.songs import Line, Note, Word
from distill.sources._formats import SLACK_SECONDS, clock

LEAD_SECONDS = 0.24  # the consonants before a line's first vowel sound before its first note
TAIL_SECONDS = 0.4  # ... and its last ones after the last note


class Sung(NamedTuple):
    """A note of a score: seconds, MIDI pitch (None: spoken), letters, whether they begin a word."""

    start: float
    end: float
    midi: float | None
    text: str
    begins: bool


def lines_of(
    phrases: Sequence[Sequence[Sung]], seconds: float, language: str, where: str
) -> tuple[Line, ...]:
    """A line for each phrase in which a word is sung; `seconds` is the recording's length.

    Phrases are in order and do not overlap. Raises LyricsError (naming `where`) for notes beyond
    the recording, and for words too long or too many to be sung."""
    sung = [phrase for phrase in phrases if any(lyrics.words(note.text) for note in phrase)]
    if not sung:
        raise LyricsError(f"{where}: no note has a word to sing; write lyrics under the notes")
    typed = (" ".join(_typed(group) for group in _groups(phrase)) for phrase in sung)
    lyrics.parse("\n".join(typed), where)  # refuses what is too long to be a song
    last = sung[-1][-1]
    if last.end > seconds + SLACK_SECONDS or last.start >= seconds:
        beyond = f"{clock(last.end)} is beyond the recording ({clock(seconds)})"
        raise LyricsError(f"{where}: {beyond}; are these its notes?")
    lines, free = [], 0.0  # free: where the line before has ended
    for phrase, following in itertools.zip_longest(sung, sung[1:]):
        start = max(0.0, free, phrase[0].start - LEAD_SECONDS)
        until = following[0].start - LEAD_SECONDS if following else seconds
        end = max(phrase[-1].end, min(phrase[-1].end + TAIL_SECONDS, until))
        end = min(end, following[0].start if following else seconds)
        lines.append(_line(phrase, start, end, language))
        free = end
    return tuple(lines)


def _line(phrase: Sequence[Sung], start: float, end: float, language: str) -> Line:
    words, notes, typed = [], [], []
    for group in _groups(phrase):
        text = _typed(group)
        spoken = lyrics.words(text)
        pieces = [lyrics.sing_text(cut) for word in lyrics.read(spoken, language) for cut in word]
        texts = divide(pieces, [bool(note.text.strip()) for note in group])
        notes += [
            Note(note.start, min(note.end, end), note.midi, piece)
            for note, piece in zip(group, texts, strict=True)
        ]
        if spoken:
            words.append(Word(" ".join(spoken), group[0].start, min(group[-1].end, end)))
            typed.append(text)
    return Line(" ".join(typed), start, end, tuple(words), tuple(notes))


def _groups(phrase: Sequence[Sung]) -> list[list[Sung]]:
    """The notes of each word; notes before the first word are a group of their own."""
    groups: list[list[Sung]] = []
    for note in phrase:
        if note.begins or not groups:
            groups.append([])
        groups[-1].append(note)
    return groups


def _typed(group: Sequence[Sung]) -> str:
    return " ".join("".join(note.text for note in group).split())


def divide(pieces: Sequence[str], begun: Sequence[bool]) -> list[str]:
    """The pieces of a word over its notes; `begun` says on which of them the score begins letters.

    divide(["l u v", "l i"], [True, False, True]) -> ["l u v", "", "l i"]
    divide(["E v", "r i"], [True, True, True]) -> ["E v", "r i", ""]
    divide(["f Y", "u r"], [True]) -> ["f Y u r"]"""
    starts = [index for index, begins in enumerate(begun) if begins] or [0]
    if len(pieces) == len(begun):
        starts = list(range(len(begun)))
    texts = [""] * len(begun)
    for index, piece in enumerate(pieces):
        spread = index if len(pieces) <= len(starts) else index * len(starts) // len(pieces)
        note = starts[spread]
        texts[note] = f"{texts[note]} {piece}".strip()
    return texts


def without_overlaps(notes: Sequence[Sung], where: str) -> list[Sung]:
    """Notes in order, each ending before the next begins. LyricsError where two begin together."""
    cut = []
    for note, following in itertools.pairwise(notes):
        if following.start <= note.start:
            reason = f"the note at {clock(following.start)} does not come after the one before it"
            raise LyricsError(f"{where}: {reason}; put them in order")
        cut.append(note._replace(end=min(note.end, following.start)))
    return [*cut, *notes[-1:]]
