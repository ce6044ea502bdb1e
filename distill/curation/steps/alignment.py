"""Finds where each line and word of the lyrics is sung, and how sure that is.

Times that came with the song are kept. What has none is looked for between its timed neighbours:
words inside their lines, lines inside the song. Two ways:

    synthesis   offline, any song: lyrics are read to sounds, a small network taught on synthesised singing hears sounds
                in the recording, and all ways to sing the one along the other are weighed (`_alignment`)
    ctc         a transformers CTC model, by hub id or folder (`model`)

A confidence is the probability that a word starts within 0.2 s of where it is said to, a line
within 0.3 s; for `ctc` it is the model's mean probability of the characters and not calibrated.
Below `least_confidence` a line's word times are left out, and below `least_line_confidence` its
own: the coarser grain is used where the finer is not to be trusted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from distill.curation.steps import Item, Sound
from distill.curation.steps._alignment import ctc, hearing, phones
from distill.curation.steps._alignment.placing import Placement, Singing, Spelling
from distill.errors import SettingsError
from distill.songs import Line, Song, Word

STEP = "alignment"
STRANGE = 0.4  # lines less sure than this, in the median, look like another song's
SLACK_SECONDS = 0.15  # given line times are a person's: its first word may begin a little before


@dataclass(frozen=True)
class Settings:
    """method: "auto" takes `ctc` where a `model` is named, else `synthesis`; "given" looks for
    nothing.

    keep_given: false looks for all times anew and forgets those that came with the song. starts:
    what a word's start means, its first "sound" (as people stamp it) or its first "vowel" (as the
    songbook and notes count).
    """

    method: Literal["auto", "given", "synthesis", "ctc"] = "auto"
    model: str = ""
    keep_given: bool = True
    starts: Literal["sound", "vowel"] = "sound"
    least_confidence: float = 0.5
    least_line_confidence: float = 0.2

    def __post_init__(self) -> None:
        for name in ("least_confidence", "least_line_confidence"):
            if not 0.0 <= (value := getattr(self, name)) <= 1.0:
                raise SettingsError(f"alignment.{name}: {value} is no probability; give 0 to 1")
        if self.method == "ctc" and not self.model:
            raise SettingsError(
                "alignment.model: method ctc needs a model; give a hub id or folder"
            )
        if self.model and self.method in ("given", "synthesis"):
            raise SettingsError(
                f"alignment.model: method {self.method} uses no model; say method: ctc"
            )

    def curate(self, item: Item) -> Item:
        """The song with times where they could be found. Needs lyrics and sound; without, it passes
        with a remark."""
        song = item.song if self.keep_given else _forget(item.song)
        if not song.lines:
            return item.remark(STEP, "noted", "no lyrics to align")
        wanted = [line.start is None or not (line.words or line.notes) for line in song.lines]
        if self.method == "given" or not any(wanted):
            item = replace(item, song=song)
            bare = sum(line.start is None for line in song.lines)
            said = (
                f"{bare} of {len(song.lines)} lines have no times, and method: given looks for none"
            )
            return item.remark(STEP, "noted", said) if bare else item
        sound = item.voice
        if sound is None:
            return item.remark(STEP, "noted", "no sound to align the lyrics with")
        lines = list(song.lines)
        ear = self._ear(sound)
        for first, last, begin, end in _stretches(song.lines, wanted, sound.seconds):
            units = [phones.units(line.text) for line in lines[first:last]]
            sung = [place for place, words in enumerate(units) if words]
            if not sung:
                continue
            found = ear.place([units[place] for place in sung], song.language, begin, end)
            if found is not None:
                placed = self._timed(
                    [lines[first + place] for place in sung], [units[p] for p in sung], found
                )
                for place, line in zip(sung, placed, strict=True):
                    lines[first + place] = line
        text, trace = _told(song.lines, lines, "ctc" if isinstance(ear, Spelling) else "synthesis")
        return replace(item, song=_with(song, lines)).remark(STEP, "noted", text).leave(STEP, trace)

    def _ear(self, sound: Sound) -> Singing | Spelling:
        if self.method == "ctc" or (self.method == "auto" and self.model):
            return Spelling(ctc.hear(sound, self.model))
        return Singing(hearing.hear(sound))

    def _timed(self, lines: list[Line], units: list[list[str]], found: Placement) -> list[Line]:
        """The lines with what was found of them, as fine as can be trusted."""
        starts = found.words.start_N if self.starts == "sound" else found.words.vowel_N
        line_starts = found.lines.start_N if self.starts == "sound" else found.lines.vowel_N
        done, at = [], 0
        for number, (line, words) in enumerate(zip(lines, units, strict=True)):
            here = slice(at, at + len(words))
            at += len(words)
            start, end = float(line_starts[number]), float(found.lines.end_N[number])
            if line.start is not None:
                start, end = line.start, end if line.end is None else line.end
            spans = _inside(starts[here], found.words.end_N[here], start, end)
            sures = found.words.sure_N[here]
            timed = tuple(
                Word(word, round(a, 3), round(b, 3), round(float(c), 3))
                for word, (a, b), c in zip(words, spans, sures, strict=True)
            )
            if float(np.mean(sures)) < self.least_confidence:
                timed = ()
            sure = round(float(found.lines.sure_N[number]), 3)
            if line.start is not None:
                done.append(
                    replace(
                        line,
                        end=round(end, 3) if line.end is None and timed else line.end,
                        words=timed,
                    )
                )
            elif sure < self.least_line_confidence:
                done.append(replace(line, confidence=sure))
            else:
                done.append(
                    Line(line.text, round(start, 3), round(end, 3), timed, line.notes, sure)
                )
        return done


def _forget(song: Song) -> Song:
    return _with(song, [Line(line.text) for line in song.lines])


def _with(song: Song, lines: Sequence[Line]) -> Song:
    """The song with these lines in place of its own."""
    rest = iter(lines)
    sections = tuple(
        replace(section, lines=tuple(itertools.islice(rest, len(section.lines))))
        for section in song.sections
    )
    return replace(song, sections=sections)


def _stretches(
    lines: Sequence[Line], wanted: Sequence[bool], seconds: float
) -> Iterator[tuple[int, int, float, float]]:
    """(first line, last line + 1, begin, end) to look in: a timed line alone, untimed ones between
    timed neighbours."""
    at = 0
    while at < len(lines):
        line, upto = lines[at], at + 1
        if line.start is not None:
            following = next(
                (other.start for other in lines[upto:] if other.start is not None), seconds
            )
            end = following if line.end is None else line.end
            if wanted[at]:
                yield (
                    at,
                    upto,
                    max(0.0, line.start - SLACK_SECONDS),
                    min(seconds, end + SLACK_SECONDS),
                )
        else:
            while upto < len(lines) and lines[upto].start is None:
                upto += 1
            begin = 0.0
            if at:
                begin = (
                    lines[at - 1].end if lines[at - 1].end is not None else lines[at - 1].start
                ) or 0.0
            after = lines[upto].start if upto < len(lines) else seconds
            yield at, upto, begin, seconds if after is None else after
        at = upto


def _inside(
    starts: np.ndarray, ends: np.ndarray, first: float, last: float, least: float = 0.02
) -> list[tuple[float, float]]:
    """Spans in order, not over one another, inside the line, none empty."""
    spans: list[tuple[float, float]] = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        after = starts[number + 1] if number + 1 < len(starts) else last
        begin = max(float(start), first, spans[-1][1] if spans else first)
        spans.append(
            (begin, max(begin + least, min(float(end), float(after), max(last, begin + least))))
        )
    return spans


def _told(
    before: Sequence[Line], after: Sequence[Line], method: str
) -> tuple[str, dict[str, object]]:
    """One sentence for the report, and its numbers."""
    sought = [new for old, new in zip(before, after, strict=True) if old.start is None]
    given, lost = len(before) - len(sought), sum(line.start is None for line in sought)
    worded = sum(bool(line.words) for line in after)
    sure_lines = _median(line.confidence for line in sought)
    sure_words = _median(word.confidence for line in after for word in line.words)
    parts = []
    if sought:
        parts.append(f"{len(sought) - lost} of {len(sought)} lines placed{_shown(sure_lines)}")
        if lost:
            parts.append(f"{lost} left without times")
        if method == "synthesis" and (sure_lines is None or sure_lines < STRANGE):
            parts.append("are these its lyrics?")
    if given and sought:
        parts.append(f"{given} lines came with times")
    parts.append(f"words in {worded} of {len(after)} lines{_shown(sure_words)}")
    trace = {
        "method": method,
        "lines": len(before),
        "given": given,
        "placed": len(sought) - lost,
        "without_times": lost,
        "with_words": worded,
        "line_confidence": sure_lines,
        "word_confidence": sure_words,
    }
    return "; ".join(parts), trace


def _median(confidences: Iterable[float | None]) -> float | None:
    known = [one for one in confidences if one is not None]
    return round(float(np.median(known)), 3) if known else None


def _shown(median: float | None) -> str:
    return "" if median is None else f" (median confidence {median:.2f})"
