"""MusicXML: a score with lyrics, https://www.w3.org/2021/06/musicxml40 (partwise or timewise, plain
or .mxl).

The voice with the most syllables is the one that sings. Times are the score's own, from its tempo
marks (120 quarters a minute where there is none): right for a recording made from the score, a
first guess for any other, and the Fact "timed_by" says so. Played out are repeats and their
endings, with the n-th verse of lyrics the n-th time; jumps (D.C., D.S., to coda) are refused. Tied
notes are one note; notes without a syllable straight after a sung one go on with it; notes after a
rest without one are not sung. A line ends where the score says so (<end-line/>), else at rests of a
quarter and between sentences: that cut is a guess too.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from distill import lyrics
from distill.errors import LyricsError
from distill.songs import Fact, Section
from distill.sources._formats import Read
from distill.sources._formats.notation import (
    Measure,
    Syllable,
    Written,
    about,
    measures_of,
    parts_of,
)
from distill.sources._formats.played import play_order
from distill.sources._formats.sung import Sung, lines_of, without_overlaps
from distill.sources._formats.xml import tree

DEFAULT_TEMPO = 120.0  # quarters a minute, as MIDI and notation programs take it
MOST_NOTES = 50_000  # played
LONGEST_LINE = 16  # words


class Played(NamedTuple):
    """A note in its time (seconds), the syllable it is sung to, how long the rest before it is
    (quarters), its section."""

    start: float
    end: float
    midi: float | None
    tied: bool
    syllable: Syllable | None
    rest: float
    section: tuple[int, str]


def read_musicxml(content: bytes, seconds: float, where: str, language: str) -> Read:
    """Lines with their words and notes. `seconds` is the recording's length, `where` the file's
    name.

    Raises LyricsError, naming the file, for what is not MusicXML, has no lyrics, jumps, or is
    longer than the recording.
    """
    root = tree(content, where)
    parts = parts_of(root, where)
    told = about(root)
    language = told.get("language", language)
    measures = [measures_of(part, where) for part in parts]
    order = play_order(parts, where)
    marked = [tempo for part in measures for measure in part for _, tempo in measure.tempos]
    chosen, voice, verses = _singer(measures, where)
    played = list(_played(measures, chosen, voice, verses, order, where))
    told_lines = any(one.syllable is not None and one.syllable.ends_line for one in played)
    sung, ends = _sung(played, told_lines)
    sections = _sections(sung, ends, not told_lines, seconds, language, where)
    facts = [
        Fact(
            "timed_by", "the score's tempo" if marked else "no tempo: 120 assumed", "musicxml", 0.5
        )
    ]
    if not told_lines:
        facts.append(Fact("lines_cut_by", "rests and sentences", "musicxml", 0.5))
    if len(set(marked)) == 1:
        facts.append(Fact("tempo_bpm", marked[0]))
    left_out = len(verses) - max(time for _, time in order)
    if left_out > 0:
        facts.append(Fact("verses_left_out", left_out))
    return Read(sections, told, tuple(facts))


def _singer(measures: Sequence[Sequence[Measure]], where: str) -> tuple[int, str, list[str]]:
    """The part and voice with the most syllables, and its verses in their order."""
    counts: Counter[tuple[int, str]] = Counter()
    for number, part in enumerate(measures):
        for note in (note for measure in part for note in measure.notes):
            counts[number, note.voice] += bool(note.syllables)
    if not counts or max(counts.values()) == 0:
        raise LyricsError(f"{where}: no note has a word to sing; write lyrics under the notes")
    (chosen, voice), _ = counts.most_common(1)[0]
    said = (
        one.verse
        for measure in measures[chosen]
        for note in measure.notes
        if note.voice == voice
        for one in note.syllables
    )
    verses = sorted(
        dict.fromkeys(said), key=lambda verse: (not verse.isdecimal(), len(verse), verse)
    )
    return chosen, voice, verses


# --- what is played -------------------------------------------------------------------------------
def _played(
    measures: Sequence[Sequence[Measure]], chosen: int, voice: str, verses: list[str],
    order: list[tuple[int, int]], where: str,
) -> Iterator[Played]:  # fmt: skip
    """The singer's notes in their time, repeats and tempo changes played out."""
    tempo, now, rest, count = DEFAULT_TEMPO, 0.0, 0.0, 0
    section, last = (0, "verse"), -1
    for index, time in order:
        together = [part[index] for part in measures if index < len(part)]
        long = max((measure.long for measure in together), default=0.0)
        clock = [(0.0, now, tempo)]  # (quarter, seconds, tempo from there)
        for at, changed in sorted(mark for measure in together for mark in measure.tempos):
            quarter, seconds, before = clock[-1]
            clock.append((at, seconds + (at - quarter) * 60.0 / before, changed))
        mine = measures[chosen][index] if index < len(measures[chosen]) else None
        marked = mine.section if mine else ""
        if marked or index <= last:  # played again, it is another verse
            section = (section[0] + 1, marked or section[1])
        last = index
        silent = 0.0  # the quarter since which the voice rests
        for note in _melody(mine.notes if mine else (), voice):
            count += 1
            if count > MOST_NOTES:
                raise LyricsError(
                    f"{where}: more than {MOST_NOTES:,} notes with its repeats; cut it into songs"
                )
            start, end = _seconds(clock, note.at), _seconds(clock, note.at + note.long)
            if end > start:
                gap = max(0.0, rest + note.at - silent)
                yield Played(
                    start, end, note.midi, note.tied, _verse(note, verses, time), gap, section
                )
                rest, silent = 0.0, note.at + note.long
        rest += max(0.0, long - silent)
        now, tempo = _seconds(clock, long), clock[-1][2]


def _seconds(clock: list[tuple[float, float, float]], at: float) -> float:
    """Seconds at a quarter of a measure, by its (quarter, seconds, tempo from there) in order."""
    quarter, seconds, tempo = clock[bisect.bisect_right(clock, at, key=lambda mark: mark[0]) - 1]
    return seconds + (at - quarter) * 60.0 / tempo


def _melody(notes: Sequence[Written], voice: str) -> list[Written]:
    """The voice's notes in order; of a chord the highest, with the words of all."""
    mine = sorted((note for note in notes if note.voice == voice), key=lambda note: note.at)
    found = []
    for _, chord in itertools.groupby(mine, key=lambda note: note.at):
        together = list(chord)
        top = max(together, key=lambda note: -1 if note.midi is None else note.midi)
        found.append(
            top._replace(syllables=tuple(one for note in together for one in note.syllables))
        )
    return found


def _verse(note: Written, verses: list[str], time: int) -> Syllable | None:
    """What is sung on this note the `time`-th time: its own verse, or the only one there is."""
    timed = [one for one in note.syllables if time in one.times]
    wanted = verses[time - 1] if time <= len(verses) else None
    own = [one for one in note.syllables if one.verse == wanted and not one.times]
    alone = [one for one in note.syllables if not one.times] if len(note.syllables) == 1 else []
    return next(iter(timed + own + alone), None)


class Ends(NamedTuple):
    """Behind a note: whether a line ends; and the section that the note is in, numbered as they
    come."""

    line: bool
    section: tuple[int, str]


def _sung(played: Sequence[Played], told_lines: bool) -> tuple[list[Sung], list[Ends]]:
    """Notes with their letters, ties and melismas resolved, and what comes after each.

    `told_lines`: the score says itself where lines end; otherwise rests do.
    """
    sung: list[Sung] = []
    ends: list[Ends] = []
    for one in played:
        before = sung[-1] if sung else None
        if one.syllable is not None:
            begins = one.syllable.begins or before is None
            if ends and begins and one.rest >= 1 and not told_lines:
                ends[-1] = ends[-1]._replace(line=True)
            sung.append(Sung(one.start, one.end, one.midi, one.syllable.text, begins))
            ends.append(Ends(one.syllable.ends_line, one.section))
        elif before is not None and one.rest < 1e-6:  # quarters
            if one.tied and one.midi == before.midi:
                sung[-1] = before._replace(end=one.end)
            else:
                sung.append(Sung(one.start, one.end, one.midi, "", False))
                ends.append(ends[-1])
                ends[-2] = ends[-2]._replace(line=False)
    return sung, ends


# --- lines ----------------------------------------------------------------------------------------
def _sections(
    sung: list[Sung], ends: list[Ends], sentences: bool, seconds: float, language: str, where: str
) -> tuple[Section, ...]:
    """Lines under the section that each begins in; `sentences`: a line may end between two of them."""
    phrases: list[list[Sung]] = []
    tags: list[tuple[int, str]] = []
    for index, note in enumerate(without_overlaps(sung, where)):
        ended = index == 0 or ends[index - 1].line or ends[index - 1].section != ends[index].section
        if index == 0 or (note.begins and (ended or _full(phrases[-1], note, sentences))):
            phrases.append([])
            tags.append(ends[index].section)
        phrases[-1].append(note)
    worded = [any(lyrics.words(note.text) for note in phrase) for phrase in phrases]
    lines = lines_of(phrases, seconds, language, where)
    of_lines = zip(itertools.compress(tags, worded), lines, strict=True)
    return tuple(
        Section(tag[1], tuple(line for _, line in together))
        for tag, together in itertools.groupby(of_lines, key=lambda one: one[0])
    )


def _full(phrase: list[Sung], note: Sung, sentences: bool) -> bool:
    """Whether a line should not go on with this word."""
    words = sum(one.begins for one in phrase)
    if words >= LONGEST_LINE:
        return True
    last = next((one.text for one in reversed(phrase) if one.text), "")
    return (
        sentences
        and words >= 3
        and last.endswith((".", ",", ";", ":", "!", "?"))
        and note.text[:1].isupper()
    )
