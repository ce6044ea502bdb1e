"""LRC: a line of text for a line of song, with the time it begins, and where the file has them
those of its words.

    [01:02.50]row row row your boat        [01:02.50]<01:02.50>row <01:02.90>row <01:03.30>row
    [01:00.00][chorus]                     [01:02.50]row [01:02.90]row [01:03.30]row [01:04.00]

A time without text ends the line before it; otherwise a line ends where the next begins, the last
one with the recording. `[ti:]`, `[ar:]`, `[au:]`, `[by:]` and `[la:]` give title, artist, who wrote
the words, who set the times, and language; a positive `[offset:]` (ms) moves everything earlier.
`[chorus]` opens a section, on a row of its own or behind a time. Nobody owns the format: this is
what its inventor's page said, as en.wikipedia.org/wiki/LRC_(file_format) tells it, and what players
write.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from distill.errors import LyricsError
from distill.lyrics import LONGEST_LYRICS, parse, words
from distill.songs import Fact, Line, Section, Word
from distill.sources._formats import SECTION, SLACK_SECONDS, Read, clock, language_of

STAMP = r"(\d{1,6}):(\d{1,2}(?:[.:]\d{1,3})?)"
MOST_TIMES = 200  # of one row
TAGS = {"ti": "title", "ar": "artist", "au": "lyricist", "by": "author", "la": "language"}
# [Chorus], [Verse 2: Ann]
OPENS = re.compile(r"\[\s*([^\W\d_][\w' -]{0,30}?)[\s\d]*(?::[^\]]*)?\]")


class Stamped(NamedTuple):
    """A row at one of its times (seconds): its text, where its words start, its section and row
    number."""

    start: float
    text: str
    words: tuple[tuple[float, str], ...]
    section: int
    row: int


def read_lrc(text: str, seconds: float, where: str) -> Read:
    """Sections with timed lines, and the file's tags. `seconds` is the recording's length, `where`
    the file's name.

    Raises LyricsError, naming file and row, for stamps that are wrong, missing, out of order or
    beyond the recording.
    """
    stamped, tags, about = _rows(text, where)
    if not any(words(one.text) for one in stamped):
        raise LyricsError(f"{where}: no timed line to sing; write lines as [mm:ss.xx]text")
    parse("\n".join(one.text for one in stamped), where)  # refuses what is too long to be a song
    shift = _offset(about.get("offset", "0"), where)
    stamped = sorted((_shifted(one, shift) for one in stamped), key=lambda one: one.start)
    sections: list[tuple[int, list[Line]]] = []
    for index, one in enumerate(stamped):
        at = f"{where}:{one.row}"
        after = stamped[index + 1].start if index + 1 < len(stamped) else seconds
        if one.start > seconds + SLACK_SECONDS or (words(one.text) and one.start >= seconds):
            raise LyricsError(
                f"{at}: {clock(one.start)} is beyond the recording ({clock(seconds)}); are these "
                "its lyrics?"
            )
        if not words(one.text):
            continue
        if after <= one.start:
            raise LyricsError(
                f"{at}: another line starts at {clock(one.start)} too; keep one of them"
            )
        if not sections or one.section != sections[-1][0]:
            sections.append((one.section, []))
        sections[-1][1].append(_line(one, min(after, seconds), at))
    found = tuple(Section(tags[section], tuple(lines)) for section, lines in sections)
    told = {name: about[tag] for tag, name in TAGS.items() if about.get(tag)}
    if language := language_of(told.pop("language", "")):
        told["language"] = language
    return Read(found, told, (Fact("timed_by", "lrc"),))


def _rows(text: str, where: str) -> tuple[list[Stamped], list[str], dict[str, str]]:
    stamped: list[Stamped] = []
    about: dict[str, str] = {}
    tags = ["verse"]
    size = 0  # a row stands once for each of its times: a short file may say a lot
    for number, row in enumerate(text.splitlines(), 1):
        at, rest = f"{where}:{number}", row.strip()
        starts: list[float] = []
        while len(starts) < MOST_TIMES and (stamp := re.match(rf"\[{STAMP}\]\s*", rest)):
            starts.append(_seconds(stamp, at))
            rest = rest[stamp.end() :]
        named = OPENS.match(rest)
        alone = (
            named is not None
            and named.group() == rest
            and (":" not in rest or SECTION.match(named[1]))
        )
        if named and (starts or alone):
            tags.append("-".join(named[1].lower().split()))
            rest = rest[named.end() :].strip()
        if starts:
            if len(starts) == 1:
                # words between brackets of the other kind
                rest = re.sub(rf"\[({STAMP})\]", r"<\1>", rest)
            plain = " ".join(re.sub(rf"<{STAMP}>", " ", rest).split())
            size += len(starts) * max(1, len(plain))
            if size > LONGEST_LYRICS:
                raise LyricsError(
                    f"{at}: {size:,} characters of lyrics; a song has at most {LONGEST_LYRICS:,}"
                )
            stamped += [
                Stamped(start, plain, _word_starts(rest, start, at), len(tags) - 1, number)
                for start in starts
            ]
        elif meta := re.fullmatch(r"\[([A-Za-z]\w*):(.*)\]", rest):
            about[meta.group(1).lower()] = meta.group(2).strip()
        elif rest and not rest.startswith("#"):
            raise LyricsError(
                f"{at}: no time that can be read before {rest[:30]!r}; write [mm:ss.xx]"
            )
    return stamped, tags, about


def _word_starts(text: str, start: float, at: str) -> tuple[tuple[float, str], ...]:
    """(seconds, text) of each stretch between `<mm:ss.xx>` stamps; () if there are none."""
    if not re.search(r"<\d+:", text):
        return ()
    found = []
    for place, stretch in enumerate(re.split(r"<(?=\d+:)", text)):
        if place:
            stamp = re.match(rf"{STAMP}>", stretch)
            if stamp is None:
                raise LyricsError(f"{at}: <{stretch[:12]} is no time; write <mm:ss.xx>")
            found.append((_seconds(stamp, at), stretch[stamp.end() :].strip()))
        elif stretch.strip():
            found.append((start, stretch.strip()))
    return tuple(found)


def _shifted(one: Stamped, shift: float) -> Stamped:
    starts = tuple((max(0.0, start - shift), text) for start, text in one.words)
    return one._replace(start=max(0.0, one.start - shift), words=starts)


def _line(one: Stamped, end: float, at: str) -> Line:
    """The line with its words; a last stamp without text ends the line early."""
    if not one.words:
        return Line(one.text, one.start, end)
    starts = [start for start, _ in one.words]
    if not words(one.words[-1][1]):
        end = min(end, starts.pop())
    ends = [*starts[1:], end]
    if starts[0] < one.start - 1e-6 or any(
        stop <= start for start, stop in zip(starts, ends, strict=True)
    ):
        raise LyricsError(
            f"{at}: the word times of {one.text[:30]!r} do not grow from its start to its end; "
            "set them again"
        )
    sung = tuple(
        Word(text, start, stop)
        for (_, text), start, stop in zip(one.words, starts, ends, strict=False)
        if words(text)
    )
    return Line(one.text, one.start, end, sung)


def _seconds(stamp: re.Match[str], at: str) -> float:
    minutes, seconds = int(stamp.group(1)), float(stamp.group(2).replace(":", "."))
    if seconds >= 60 or minutes >= 1000:
        raise LyricsError(
            f"{at}: {stamp.group(1)}:{stamp.group(2)} is no time; write [mm:ss.xx] with seconds "
            "below 60"
        )
    return 60.0 * minutes + seconds


def _offset(text: str, where: str) -> float:
    if not re.fullmatch(r"[+-]?\d{1,9}", text):
        raise LyricsError(
            f"{where}: [offset:{text[:20]}] is no number of milliseconds; write [offset:+250]"
        )
    return int(text) / 1000
