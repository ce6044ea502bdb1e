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
from collections import Counter, defaultdict
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
    """A note in its time (seconds), its syllable, the rest before it (quarters), its section."""

    start: float
    end: float
    midi: float | None
    tied: bool
    syllable: Syllable | None
    rest: float
    section: tuple[int, str]


def read_musicxml(content: bytes, seconds: float, where: str, language: str) -> Read:
    """Lines with their words and notes. `seconds`: the recording's length; `where`: the file.

    Raises LyricsError for no MusicXML, no lyrics, jumps, or a score longer than the recording."""
    root = tree(content, where)
    parts = parts_of(root, where)
    named = about(root)
    measures = [measures_of(part, where) for part in parts]
    order = play_order(parts, where)
    tempos = [tempo for part in measures for measure in part for _, tempo in measure.tempos]
    singer = _singer(measures, where)
    played = list(_played(measures, singer, order, where))
    marked = any(note.syllable is not None and note.syllable.ends_line for note in played)
    sung, ends = _sung(played, marked)
    sections = _sections(sung, ends, not marked, seconds, named.get("language", language), where)
    timed_by = "the score's tempo" if tempos else "no tempo: 120 assumed"
    facts = [Fact("timed_by", timed_by, "musicxml", 0.5)]
    if not marked:
        facts.append(Fact("lines_cut_by", "rests and sentences", "musicxml", 0.5))
    if len(set(tempos)) == 1:
        facts.append(Fact("tempo_bpm", tempos[0]))
    left_out = len(singer.verses) - max(time for _, time in order)
    if left_out > 0:
        facts.append(Fact("verses_left_out", left_out))
    return Read(sections, named, tuple(facts))


class Singer(NamedTuple):
    """The part and voice with the most syllables, and its verses in their order."""

    part: int
    voice: str
    verses: list[str]


def _singer(measures: Sequence[Sequence[Measure]], where: str) -> Singer:
    counts: Counter[tuple[int, str]] = Counter()
    verses: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
    for number, part in enumerate(measures):
        for note in itertools.chain.from_iterable(measure.notes for measure in part):
            counts[number, note.voice] += bool(note.syllables)
            verses[number, note.voice] |= {syllable.verse for syllable in note.syllables}
    if not counts or max(counts.values()) == 0:
        raise LyricsError(f"{where}: no note has a word to sing; write lyrics under the notes")
    singer, _ = counts.most_common(1)[0]
    by_number = sorted(verses[singer], key=lambda verse: (not verse.isdecimal(), len(verse), verse))
    return Singer(*singer, by_number)


# --- what is played -------------------------------------------------------------------------------
def _played(
    measures: Sequence[Sequence[Measure]], singer: Singer, order: list[tuple[int, int]], where: str
) -> Iterator[Played]:
    """The singer's notes in their time, repeats and tempo changes played out."""
    tempo, now, rest, count = DEFAULT_TEMPO, 0.0, 0.0, 0
    section, last = (0, "verse"), -1
    part = measures[singer.part]
    for index, time in order:
        together = [others[index] for others in measures if index < len(others)]
        long = max((measure.long for measure in together), default=0.0)
        clock = _clock(together, now, tempo)
        measure = part[index] if index < len(part) else None
        mark = measure.section if measure else ""
        if mark or index <= last:  # played again, it is another verse
            section = (section[0] + 1, mark or section[1])
        last = index
        silent = 0.0  # the quarter since which the voice rests
        for note in _melody(measure.notes if measure else (), singer.voice):
            count += 1
            if count > MOST_NOTES:
                raise LyricsError(f"{where}: plays over {MOST_NOTES:,} notes; cut it into songs")
            start, end = _seconds(clock, note.at), _seconds(clock, note.at + note.long)
            if end > start:
                gap = max(0.0, rest + note.at - silent)
                syllable = _verse(note, singer.verses, time)
                yield Played(start, end, note.midi, note.tied, syllable, gap, section)
                rest, silent = 0.0, note.at + note.long
        rest += max(0.0, long - silent)
        now, tempo = _seconds(clock, long), clock[-1][2]


Clock = list[tuple[float, float, float]]  # (quarter of a measure, seconds, tempo from there)


def _clock(together: list[Measure], now: float, tempo: float) -> Clock:
    """Of a measure in all parts, which begins at `now` in that tempo."""
    clock = [(0.0, now, tempo)]
    for at, changed in sorted(mark for measure in together for mark in measure.tempos):
        clock.append((at, _seconds(clock, at), changed))
    return clock


def _seconds(clock: Clock, at: float) -> float:
    """Seconds at a quarter of a measure."""
    quarter, seconds, tempo = clock[bisect.bisect_right(clock, at, key=lambda mark: mark[0]) - 1]
    return seconds + (at - quarter) * 60.0 / tempo


def _melody(notes: Sequence[Written], voice: str) -> list[Written]:
    """The voice's notes in order; of a chord the highest, with the words of all."""
    ordered = sorted((note for note in notes if note.voice == voice), key=lambda note: note.at)
    melody = []
    for _, group in itertools.groupby(ordered, key=lambda note: note.at):
        chord = list(group)
        top = max(chord, key=lambda note: -1 if note.midi is None else note.midi)
        syllables = tuple(syllable for note in chord for syllable in note.syllables)
        melody.append(top._replace(syllables=syllables))
    return melody


def _verse(note: Written, verses: list[str], time: int) -> Syllable | None:
    """What is sung on this note the `time`-th time: its own verse, or the only one there is."""
    for syllable in note.syllables:
        if time in syllable.times:
            return syllable
    verse = verses[time - 1] if time <= len(verses) else None
    for syllable in note.syllables:
        if not syllable.times and (syllable.verse == verse or len(note.syllables) == 1):
            return syllable
    return None


class Ends(NamedTuple):
    """Behind a note: whether a line ends; and the section (numbered as they come) of the note."""

    line: bool
    section: tuple[int, str]


def _sung(played: Sequence[Played], marked: bool) -> tuple[list[Sung], list[Ends]]:
    """Notes, ties and melismas resolved, and what ends behind each; lines at rests or `marked`."""
    sung: list[Sung] = []
    ends: list[Ends] = []
    for note in played:
        before = sung[-1] if sung else None
        if note.syllable is not None:
            begins = note.syllable.begins or before is None
            if ends and begins and note.rest >= 1 and not marked:
                ends[-1] = ends[-1]._replace(line=True)
            sung.append(Sung(note.start, note.end, note.midi, note.syllable.text, begins))
            ends.append(Ends(note.syllable.ends_line, note.section))
        elif before is not None and note.rest < 1e-6:  # quarters
            if note.tied and note.midi == before.midi:
                sung[-1] = before._replace(end=note.end)
            else:
                sung.append(Sung(note.start, note.end, note.midi, "", False))
                ends.append(ends[-1])
                ends[-2] = ends[-2]._replace(line=False)
    return sung, ends


# --- lines ----------------------------------------------------------------------------------------
def _sections(
    sung: list[Sung], ends: list[Ends], sentences: bool, seconds: float, language: str, where: str
) -> tuple[Section, ...]:
    """Lines under the section that each begins in; `sentences`: a line may end between them."""
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
    tagged = zip(itertools.compress(tags, worded), lines, strict=True)
    return tuple(
        Section(tag, tuple(line for _, line in group))
        for (_, tag), group in itertools.groupby(tagged, key=lambda pair: pair[0])
    )


def _full(phrase: list[Sung], note: Sung, sentences: bool) -> bool:
    """Whether a line should not go on with this word."""
    words = sum(earlier.begins for earlier in phrase)
    last = next((earlier.text for earlier in reversed(phrase) if earlier.text), "")
    stops = last.endswith((".", ",", ";", ":", "!", "?")) and note.text[:1].isupper()
    return words >= LONGEST_LINE or (sentences and words >= 3 and stops)
