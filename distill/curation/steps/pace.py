"""Lyrics against the audio: can these words be sung there, in that time?

Times that cannot be true are dropped to unknown, line by line, and words and notes that lie outside
of their line with them; the line then has no times of its own, and the alignment may find new ones.
Where too many lines are wrong, or there is more text than anybody sings in that time, the lyrics
belong to another recording and the song is set aside.

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
from dataclasses import dataclass, replace

from distill.curation.steps import Item
from distill.errors import SettingsError
from distill.lyrics import syllables, words
from distill.songs import Line, Note, Section, Word

STEP = "pace"
COUNTED = {
    "LATIN",
    "GREEK",
    "CYRILLIC",
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "KATAKANA-HIRAGANA",
    "HANGUL",
}
HIGHEST_MIDI = 127
ROUNDING_SECONDS = 0.01  # ends are written in hundredths


@dataclass(frozen=True)
class Settings:
    """fastest, slowest: syllables a second of a line; fastest_song, sparsest_song: of a song, over
    all of its audio.

    longest_seconds: of a line. slack_seconds: how far times may lie outside (of the audio, of the
    line before, words and notes of their line), as stamps are set by hand. too_many: the share of
    wrong lines that sets the song aside.
    """

    fastest: float = 11.0
    slowest: float = 0.1
    fastest_song: float = 8.0
    sparsest_song: float = 0.05
    longest_seconds: float = 60.0
    slack_seconds: float = 0.5
    too_many: float = 0.34

    def __post_init__(self) -> None:
        for name in (
            "fastest",
            "slowest",
            "fastest_song",
            "sparsest_song",
            "longest_seconds",
            "too_many",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.slowest >= self.fastest or self.sparsest_song >= self.fastest_song:
            raise SettingsError("slowest and sparsest_song must be below fastest and fastest_song")
        if not 0 <= self.slack_seconds < 10:
            raise SettingsError(
                f"slack_seconds is {self.slack_seconds}; it must be between 0 and 10"
            )

    def curate(self, item: Item) -> Item:
        """The item without times that cannot be true, or set aside."""
        lines = item.song.lines
        if not lines:
            return item
        sound = item.tracks.get("audio", item.voice)
        seconds = sound.seconds if sound is not None else math.inf
        counts = [syllable_count(line.text, item.song.language) for line in lines]
        if (end := self._too_much(counts, seconds)) is not None:
            return item.remark(STEP, "set aside", end)
        known = [count for count in counts if count is not None]
        if known and math.isfinite(seconds):
            item = item.leave(
                STEP,
                {"syllables": sum(known), "syllables_per_second": round(sum(known) / seconds, 3)},
            )
            if sum(known) < self.sparsest_song * seconds:
                said = f"{sum(known)} syllables in {seconds:.0f} s of audio: are lyrics missing?"
                item = item.remark(STEP, "noted", said)
        if len(known) < len(counts):
            item = item.remark(
                STEP,
                "noted",
                f"lines in a script whose syllables we cannot count: {len(counts) - len(known)}",
            )
        return self._timed(item, counts, seconds)

    def _too_much(self, counts: Sequence[int | None], seconds: float) -> str | None:
        total = sum(count or 0 for count in counts)
        if total <= self.fastest_song * seconds:
            return None
        return f"{total} syllables in {seconds:.1f} s of audio ({total / seconds:.1f} a second); are these its lyrics?"

    def _timed(self, item: Item, counts: Sequence[int | None], seconds: float) -> Item:
        lines = item.song.lines
        reasons = self.wrong(lines, counts, seconds)
        timed = sum(_has_times(line) for line in lines)
        wrong = Counter(reason for reason in reasons if reason)
        said = ", ".join(f"{reason} {count}" for reason, count in wrong.most_common())
        if wrong and wrong.total() > self.too_many * timed:
            return item.remark(
                STEP, "set aside", f"{wrong.total()} of {timed} timed lines cannot be true: {said}"
            )
        lost: Counter[str] = Counter()
        kept = iter(
            [
                self._trusted(line, reason, seconds, lost)
                for line, reason in zip(lines, reasons, strict=True)
            ]
        )
        sections = tuple(
            Section(s.tag, tuple(next(kept) for _ in s.lines)) for s in item.song.sections
        )
        if sections != item.song.sections:
            item = replace(item, song=replace(item.song, sections=sections))
        if wrong:
            item = item.remark(
                STEP, "mended", f"times of {wrong.total()} of {timed} lines dropped: {said}"
            )
        if lost:
            said = ", ".join(f"{what} of {count} lines" for what, count in sorted(lost.items()))
            item = item.remark(STEP, "mended", f"times dropped that cannot be true: {said}")
        return item

    def wrong(
        self, lines: Sequence[Line], counts: Sequence[int | None], seconds: float
    ) -> list[str]:
        """Why each line's times cannot be true; "" where they can, or where there are none."""
        reasons = [
            self._alone(line, count, seconds) for line, count in zip(lines, counts, strict=True)
        ]
        left = [
            place for place, line in enumerate(lines) if _has_times(line) and not reasons[place]
        ]
        ordered = set(_longest_rising([lines[place].start or 0.0 for place in left]))
        for order, place in enumerate(left):
            if order not in ordered:
                reasons[place] = "out of order"
        left = [place for place in left if not reasons[place]]
        for before, after in itertools.pairwise(left):
            if (lines[before].end or 0.0) > (lines[after].start or 0.0) + self.slack_seconds:
                reasons[before] = reasons[after] = "overlapping"
        return reasons

    def _alone(self, line: Line, count: int | None, seconds: float) -> str:
        """What is wrong with a line's times, whatever the others say."""
        if not _has_times(line):
            return ""
        start, end = line.start, line.end
        if (
            start is None
            or not math.isfinite(start)
            or (end is not None and not math.isfinite(end))
        ):
            return "no number"
        if (
            start < -self.slack_seconds
            or start >= seconds
            or (end or 0.0) > seconds + self.slack_seconds
        ):
            return "outside of the audio"
        if end is None:
            return ""
        if end <= start:
            return "without length"
        if end - start > self.longest_seconds:
            return "too long"
        if count is not None and count > self.fastest * (end - start):
            return "too fast"
        if count is not None and 0 < count < self.slowest * (end - start):
            return "too slow"
        return ""

    def _trusted(self, line: Line, reason: str, seconds: float, lost: Counter[str]) -> Line:
        """The line without times that are wrong, and with those that are a little outside of the
        audio inside of it."""
        if reason:
            return Line(line.text)
        if line.start is not None and (
            line.start < 0 or (line.end is not None and line.end > seconds + ROUNDING_SECONDS)
        ):
            lost["some tenths of seconds outside of the audio"] += 1
            line = replace(
                line,
                start=max(0.0, line.start),
                end=min(line.end or line.start, seconds) if line.end else None,
            )
        if line.words and not (
            self._inside(line.words, line, seconds) and _spell(line.words, line)
        ):
            lost["words"] += 1
            line = replace(line, words=())
        if line.notes and not (
            self._inside(line.notes, line, seconds) and all(_pitched(note) for note in line.notes)
        ):
            lost["notes"] += 1
            line = replace(line, notes=())
        return line

    def _inside(self, parts: Sequence[Word | Note], line: Line, seconds: float) -> bool:
        """Whether words or notes have lengths, follow one another and lie in their line and in the
        audio."""
        first, last = (
            (line.start or 0.0) - self.slack_seconds,
            seconds if line.end is None else line.end,
        )
        return all(
            math.isfinite(part.start)
            and math.isfinite(part.end)
            and first <= part.start < part.end <= last + self.slack_seconds
            for part in parts
        ) and all(one.start <= other.start for one, other in itertools.pairwise(parts))


def syllable_count(line: str, language: str) -> int | None:
    """How many syllables a line has; None in scripts that our reading does not know."""
    letters = [letter for letter in line if letter.isalpha()]
    known = sum(unicodedata.name(letter, "").split(" ")[0] in COUNTED for letter in letters)
    if known < 0.8 * len(letters):
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
    """Places of a longest run of values in order, so that one wrong stamp counts as one and not as
    all behind it."""
    ends: list[float] = []
    at: list[int] = []
    before: list[int] = []
    for place, value in enumerate(values):
        length = bisect.bisect_right(ends, value)
        before.append(at[length - 1] if length else -1)
        ends[length:] = [value] if length == len(ends) else [value, *ends[length + 1 :]]
        at[length:] = [place] if length == len(at) else [place, *at[length + 1 :]]
    found, place = [], at[-1] if at else -1
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]
