"""Lyrics against the audio: can these words be sung there, in that time?

Times that cannot be true are dropped to unknown, line by line, with the words and notes outside of
their line; the alignment may find new ones. Where too many lines are wrong, or there is more text
than anybody sings in that time, the lyrics belong to another recording: the song is set aside.

The bounds, in syllables a second. Sung lines: 1.3 to 3.0 in 762 generated songs (the middle 98 %:
1.6 to 2.75), 0.6 to 3.0 in a real folk song, whose one vocalise of 32 s (0.12) stays within the
bound; 0.9 to 2.1 in a book of traditional songs. Rap: 10.7 over the 31 s that held the record of
2020 ("Godzilla"), 5.9 over a whole song ("Rap God"). A bound beyond the record refuses no song.

Syllables are counted where our reading knows the script (Latin, Greek, Cyrillic, Chinese, kana,
hangul).
"""

from __future__ import annotations

import bisect
import itertools
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from distill.config.ranges import Checked, above, at_least
from distill.curation.steps import Item
from distill.errors import SettingsError
from distill.lyrics import syllables, words
from distill.songs import Line, Note, Section, Word

STEP = "pace"
SCRIPTS = "LATIN GREEK CYRILLIC CJK HIRAGANA KATAKANA KATAKANA-HIRAGANA HANGUL".split()
LEAST_KNOWN = 0.8  # of a line's letters, in these scripts, or its syllables are not counted
HIGHEST_MIDI = 127
ROUNDING_SECONDS = 0.01  # ends are written in hundredths
MOST_SLACK_SECONDS = 10.0


@dataclass(frozen=True)
class Settings(Checked):
    """fastest, slowest: syllables a second of a line; fastest_song, sparsest_song: of a song, over
    all of its audio. longest_seconds: of a line. slack_seconds: how far times may lie outside (of
    the audio, of the line before, words and notes of their line), as stamps are set by hand.
    too_many: the share of wrong lines that sets the song aside."""

    fastest: float = above(0, default=11.0)
    slowest: float = above(0, default=0.1)
    fastest_song: float = above(0, default=8.0)
    sparsest_song: float = above(0, default=0.05)
    longest_seconds: float = above(0, default=60.0)
    slack_seconds: float = at_least(0, default=0.5)
    too_many: float = above(0, default=0.34)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in asdict(self).items():
            most = MOST_SLACK_SECONDS if name == "slack_seconds" else math.inf
            if not value < most:
                raise SettingsError(f"{name} is {value}; it must be a number below {most:g}")
        if self.slowest >= self.fastest or self.sparsest_song >= self.fastest_song:
            raise SettingsError("slowest and sparsest_song must be below fastest and fastest_song")

    def curate(self, item: Item) -> Item:
        """The item without times that cannot be true, or set aside."""
        lines = item.song.lines
        if not lines:
            return item
        sound = item.tracks.get("audio", item.voice)
        seconds = sound.seconds if sound is not None else math.inf
        counts = [syllable_count(line.text, item.song.language) for line in lines]
        known = [count for count in counts if count is not None]
        total = sum(known)
        if total > self.fastest_song * seconds:
            text = f"{total} syllables in {seconds:.1f} s of audio ({total / seconds:.1f} a second)"
            return item.remark(STEP, "set aside", f"{text}; are these its lyrics?")
        if known and math.isfinite(seconds):
            rate = round(total / seconds, 3)
            item = item.leave(STEP, {"syllables": total, "syllables_per_second": rate})
            if total < self.sparsest_song * seconds:
                text = f"{total} syllables in {seconds:.0f} s of audio: are lyrics missing?"
                item = item.remark(STEP, "noted", text)
        if uncounted := len(counts) - len(known):
            text = f"lines in a script whose syllables we cannot count: {uncounted}"
            item = item.remark(STEP, "noted", text)
        return self._timed(item, counts, seconds)

    def _timed(self, item: Item, counts: Sequence[int | None], seconds: float) -> Item:
        """The item without the times that cannot be true."""
        lines = item.song.lines
        reasons = self.wrong(lines, counts, seconds)
        timed = sum(_has_times(line) for line in lines)
        wrong = Counter(reason for reason in reasons if reason)
        why = ", ".join(f"{reason} {count}" for reason, count in wrong.most_common())
        if wrong and wrong.total() > self.too_many * timed:
            text = f"{wrong.total()} of {timed} timed lines cannot be true: {why}"
            return item.remark(STEP, "set aside", text)
        lost: Counter[str] = Counter()
        judged = zip(lines, reasons, strict=True)
        kept = iter([self._trusted(line, reason, seconds, lost) for line, reason in judged])
        before = item.song.sections
        sections = tuple(Section(s.tag, tuple(next(kept) for _ in s.lines)) for s in before)
        if sections != before:
            item = replace(item, song=replace(item.song, sections=sections))
        if wrong:
            text = f"times of {wrong.total()} of {timed} lines dropped: {why}"
            item = item.remark(STEP, "mended", text)
        if lost:
            parts = ", ".join(f"{part} of {count} lines" for part, count in sorted(lost.items()))
            item = item.remark(STEP, "mended", f"times dropped that cannot be true: {parts}")
        return item

    def wrong(
        self, lines: Sequence[Line], counts: Sequence[int | None], seconds: float
    ) -> list[str]:
        """Why each line's times cannot be true; "" where they can, or where there are none."""
        counted = zip(lines, counts, strict=True)
        reasons = [self._alone(line, count, seconds) for line, count in counted]
        left = [n for n, line in enumerate(lines) if _has_times(line) and not reasons[n]]
        ordered = set(_longest_rising([lines[n].start or 0.0 for n in left]))
        for order, n in enumerate(left):
            if order not in ordered:
                reasons[n] = "out of order"
        left = [n for n in left if not reasons[n]]
        for before, after in itertools.pairwise(left):
            if (lines[before].end or 0.0) > (lines[after].start or 0.0) + self.slack_seconds:
                reasons[before] = reasons[after] = "overlapping"
        return reasons

    def _alone(self, line: Line, count: int | None, seconds: float) -> str:
        """What is wrong with a line's times, whatever the other lines are."""
        if not _has_times(line):
            return ""
        start, end = line.start, line.end
        if start is None or not math.isfinite(start) or not math.isfinite(end or 0.0):
            return "no number"
        latest = seconds + self.slack_seconds
        if start < -self.slack_seconds or start >= seconds or (end or 0.0) > latest:
            return "outside of the audio"
        if end is None:
            return ""
        if end <= start:
            return "without length"
        length = end - start
        if length > self.longest_seconds:
            return "too long"
        if count is not None and count > self.fastest * length:
            return "too fast"
        if count is not None and 0 < count < self.slowest * length:
            return "too slow"
        return ""

    def _trusted(self, line: Line, reason: str, seconds: float, lost: Counter[str]) -> Line:
        """The line without wrong times; those a little outside of the audio go inside."""
        if reason:
            return Line(line.text)
        start, end = line.start, line.end
        if start is not None and (start < 0 or (end or 0.0) > seconds + ROUNDING_SECONDS):
            lost["some tenths of seconds outside of the audio"] += 1
            line = replace(line, start=max(0.0, start), end=min(end, seconds) if end else None)
        inside, spelled = self._inside(line.words, line, seconds), _spell(line.words, line)
        if line.words and not (inside and spelled):
            lost["words"] += 1
            line = replace(line, words=())
        inside, pitched = self._inside(line.notes, line, seconds), all(map(_pitched, line.notes))
        if line.notes and not (inside and pitched):
            lost["notes"] += 1
            line = replace(line, notes=())
        return line

    def _inside(self, parts: Sequence[Word | Note], line: Line, seconds: float) -> bool:
        """Whether words or notes have lengths, are in order and lie in line and audio."""
        earliest = (line.start or 0.0) - self.slack_seconds
        latest = (seconds if line.end is None else line.end) + self.slack_seconds
        finite = all(math.isfinite(part.start) and math.isfinite(part.end) for part in parts)
        inside = all(earliest <= part.start < part.end <= latest for part in parts)
        ordered = all(a.start <= b.start for a, b in itertools.pairwise(parts))
        return finite and inside and ordered


def syllable_count(line: str, language: str) -> int | None:
    """How many syllables a line has; None in scripts that our reading does not know."""
    letters = [letter for letter in line if letter.isalpha()]
    known = sum(unicodedata.name(letter, "").split(" ")[0] in SCRIPTS for letter in letters)
    if known < LEAST_KNOWN * len(letters):
        return None
    return sum(len(syllables(word, language)) for word in words(line))


def _has_times(line: Line) -> bool:
    return line.start is not None or line.end is not None


def _pitched(note: Note) -> bool:
    return note.midi is None or 0 <= note.midi <= HIGHEST_MIDI


def _spell(sung: Sequence[Word], line: Line) -> bool:
    """Whether the timed words are those of the line."""
    return "".join(words(" ".join(word.text for word in sung))) == "".join(words(line.text))


def _longest_rising(values: Sequence[float]) -> list[int]:
    """Indices of a longest run of values in order: one wrong stamp is one, not all behind it."""
    ends: list[float] = []  # the least last value of a run, by its length less one
    last: list[int] = []  # the index of that value
    before: list[int] = []  # for each value, the index of the one before it in its run; -1: none
    for n, value in enumerate(values):
        length = bisect.bisect_right(ends, value)
        before.append(last[length - 1] if length else -1)
        ends[length : length + 1], last[length : length + 1] = [value], [n]
    run, n = [], last[-1] if last else -1
    while n >= 0:
        run.append(n)
        n = before[n]
    return run[::-1]
