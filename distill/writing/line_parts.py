"""A line cut in two where a row of tokens is too short for all of it: where a word begins, or, when
even a word is too long, where a note's syllable does.

Nothing is sung twice and nothing is lost: the first part ends where the second begins, and each has
its own words and notes.
"""

from __future__ import annotations

from dataclasses import replace

from distill.songs import Line, Note, Word

JOIN = ", "
SAME_SECONDS = 1e-6  # by which times of notes and words may differ and be the same


def word_borders(line: Line) -> list[float]:
    """Seconds at which a word begins that is not the line's first: its first note's vowel, if the
    line has notes, since nothing is written of what sounds before."""
    if not line.notes:
        return [word.start for word in line.words[1:]]
    heads = [note.start for note in map(lambda word: _first_note(line, word), line.words) if note]
    return sorted({start for start in heads if start > line.notes[0].start + SAME_SECONDS})


def syllable_borders(line: Line) -> list[float]:
    """Seconds at which a note with text begins that is not the line's first."""
    return [note.start for note in line.notes[1:] if note.text]


def cut(line: Line, at: float) -> tuple[Line, Line]:
    """The line before and from `at` seconds on. A word that a cut goes through stays in the first
    part, and its note ends there."""
    early = tuple(
        replace(note, end=min(note.end, at)) for note in line.notes if _before(note.start, at)
    )
    late = line.notes[len(early) :]
    first_words = tuple(word for word in line.words if _before(_sung_from(line, word), at))
    last_words = line.words[len(first_words) :]
    return (
        replace(line, text=_text(first_words, early), end=at, words=first_words, notes=early),
        replace(line, text=_text(last_words, late), start=at, words=last_words, notes=late),
    )


def _before(start: float, at: float) -> bool:
    return start < at - SAME_SECONDS


def _first_note(line: Line, word: Word) -> Note | None:
    """The note on which a word begins."""
    start, end = word.start - SAME_SECONDS, word.end - SAME_SECONDS
    return next((note for note in line.notes if start <= note.start < end), None)


def _sung_from(line: Line, word: Word) -> float:
    note = _first_note(line, word)
    return note.start if note else word.start


def _text(words: tuple[Word, ...], notes: tuple[Note, ...]) -> str:
    """What is sung: its words, or where nobody knows when they are, its sounds."""
    if words:
        return " ".join(word.text for word in words)
    return JOIN.join(note.text for note in notes if note.text)
