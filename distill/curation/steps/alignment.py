"""Finds where each line and word of the lyrics is sung, and how sure that is.

Times that came with the song are kept. What has none is looked for between its timed neighbours:
words inside their lines, lines inside the song. Two ways:

    synthesis   offline, any song: lyrics are read to sounds, a small network taught on synthesised
                singing hears sounds in the recording, and all ways to sing the one along the other
                are weighed (`_alignment`)
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
from numpy.typing import NDArray

from distill.config.ranges import Checked, share
from distill.curation.steps import Item, Sound
from distill.curation.steps._alignment import ctc, hearing, phones
from distill.curation.steps._alignment.placing import Placed, Placement, Singing, Spelling
from distill.errors import SettingsError
from distill.songs import Line, Song, Word

STEP = "alignment"
STRANGE = 0.4  # lines less sure than this, in the median, look like another song's
SLACK_SECONDS = 0.15  # given line times are a person's: its first word may begin a little before
LEAST_SECONDS = 0.02  # of a word


@dataclass(frozen=True)
class Settings(Checked):
    """method: "auto" takes `ctc` where a `model` is named, else `synthesis`; "given" looks for
    nothing. keep_given: false looks for all times anew and forgets those that came with the song.
    starts: what a word's start means, its first "sound" (as people stamp it) or its first "vowel"
    (as the songbook and notes count)."""

    method: Literal["auto", "given", "synthesis", "ctc"] = "auto"
    model: str = ""
    keep_given: bool = True
    starts: Literal["sound", "vowel"] = "sound"
    least_confidence: float = share(default=0.5)
    least_line_confidence: float = share(default=0.2)

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except SettingsError as error:
            raise SettingsError(f"alignment.{error}") from None
        if self.method == "ctc" and not self.model:
            raise SettingsError("alignment.model: method ctc needs a hub id or folder")
        if self.model and self.method in ("given", "synthesis"):
            text = f"alignment.model: method {self.method} uses no model; say method: ctc"
            raise SettingsError(text)

    def curate(self, item: Item) -> Item:
        """The song with times where they could be found; without lyrics or sound, a remark."""
        song = item.song if self.keep_given else _forget(item.song)
        if not song.lines:
            return item.remark(STEP, "noted", "no lyrics to align")
        wanted = [line.start is None or not (line.words or line.notes) for line in song.lines]
        if self.method == "given" or not any(wanted):
            item = replace(item, song=song)
            bare = sum(line.start is None for line in song.lines)
            text = f"{bare} of {len(song.lines)} lines have no times, and method: given"
            return item.remark(STEP, "noted", f"{text} looks for none") if bare else item
        sound = item.voice
        if sound is None:
            return item.remark(STEP, "noted", "no sound to align the lyrics with")
        lines = list(song.lines)
        ear = self._ear(sound)
        for first, last, begin, end in _stretches(song.lines, wanted, sound.seconds):
            units = {n: words for n in range(first, last) if (words := phones.units(lines[n].text))}
            if not units:
                continue
            placement = ear.place([*units.values()], song.language, begin, end)
            if placement is not None:
                timed = self._timed([lines[n] for n in units], [*units.values()], placement)
                for n, line in zip(units, timed, strict=True):
                    lines[n] = line
        method = "ctc" if isinstance(ear, Spelling) else "synthesis"
        text, trace = _summary(song.lines, lines, method)
        return replace(item, song=_with(song, lines)).remark(STEP, "noted", text).leave(STEP, trace)

    def _ear(self, sound: Sound) -> Singing | Spelling:
        if self.method == "ctc" or (self.method == "auto" and self.model):
            return Spelling(ctc.hear(sound, self.model))
        return Singing(hearing.hear(sound))

    def _timed(
        self, lines: list[Line], units: list[list[str]], placement: Placement
    ) -> Iterator[Line]:
        """The lines with their times, as fine as can be trusted."""
        placed = placement.words
        starts_N = placed.start_N if self.starts == "sound" else placed.vowel_N
        stop = 0
        for number, (line, words) in enumerate(zip(lines, units, strict=True)):
            here = slice(stop, stop + len(words))
            stop = here.stop
            start, end, sure = self._span(placement.lines, number)
            if line.start is not None:
                start, end = line.start, end if line.end is None else line.end
            spans = _inside(starts_N[here], placed.end_N[here], start, end)
            sures = placed.sure_N[here]
            timed = tuple(
                Word(word, round(begin, 3), round(until, 3), round(float(confidence), 3))
                for word, (begin, until), confidence in zip(words, spans, sures, strict=True)
            )
            if float(np.mean(sures)) < self.least_confidence:
                timed = ()
            if line.start is not None:
                until = round(end, 3) if line.end is None and timed else line.end
                yield replace(line, end=until, words=timed)
            elif sure < self.least_line_confidence:
                yield replace(line, confidence=sure)
            else:
                yield Line(line.text, round(start, 3), round(end, 3), timed, line.notes, sure)

    def _span(self, lines: Placed, number: int) -> tuple[float, float, float]:
        """Start and end (seconds) of a placed line, and its confidence."""
        start_N = lines.start_N if self.starts == "sound" else lines.vowel_N
        sure = round(float(lines.sure_N[number]), 3)
        return float(start_N[number]), float(lines.end_N[number]), sure


def _forget(song: Song) -> Song:
    return _with(song, [Line(line.text) for line in song.lines])


def _with(song: Song, lines: Sequence[Line]) -> Song:
    """The song with these lines in place of its own."""
    rest = iter(lines)
    parts = [tuple(itertools.islice(rest, len(section.lines))) for section in song.sections]
    sections = [replace(s, lines=part) for s, part in zip(song.sections, parts, strict=True)]
    return replace(song, sections=tuple(sections))


def _stretches(
    lines: Sequence[Line], wanted: Sequence[bool], seconds: float
) -> Iterator[tuple[int, int, float, float]]:
    """(first line, last + 1, begin, end) to look in: timed lines alone, else between timed ones."""
    first = 0
    while first < len(lines):
        line, last = lines[first], first + 1
        if line.start is not None:
            later = (after.start for after in lines[last:] if after.start is not None)
            end = next(later, seconds) if line.end is None else line.end
            if wanted[first]:
                begin = max(0.0, line.start - SLACK_SECONDS)
                yield first, last, begin, min(seconds, end + SLACK_SECONDS)
        else:
            while last < len(lines) and lines[last].start is None:
                last += 1
            before = lines[first - 1] if first else Line("", 0.0)
            begin = (before.start if before.end is None else before.end) or 0.0
            following = lines[last].start if last < len(lines) else None
            yield first, last, begin, seconds if following is None else following
        first = last


def _inside(
    starts_N: NDArray[np.float64], ends_N: NDArray[np.float64], first: float, last: float
) -> list[tuple[float, float]]:
    """Spans in order, not over one another, inside the line, none empty."""
    spans: list[tuple[float, float]] = []
    afters = [*map(float, starts_N[1:]), last]
    for start, end, after in zip(map(float, starts_N), map(float, ends_N), afters, strict=True):
        begin = max(start, first, spans[-1][1] if spans else first)
        least = begin + LEAST_SECONDS
        spans.append((begin, max(least, min(end, after, max(last, least)))))
    return spans


def _summary(
    before: Sequence[Line], after: Sequence[Line], method: str
) -> tuple[str, dict[str, object]]:
    """A remark's text, and its numbers."""
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
    known = [confidence for confidence in confidences if confidence is not None]
    return round(float(np.median(known)), 3) if known else None


def _shown(median: float | None) -> str:
    return "" if median is None else f" (median confidence {median:.2f})"
