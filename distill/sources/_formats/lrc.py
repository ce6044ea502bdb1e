"""LRC: a line of text for a line of song, with the time it begins, and perhaps its words' times.

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
    """A row at one of its times (seconds): its text, where words start, its section and number."""

    start: float
    text: str
    words: tuple[tuple[float, str], ...]
    section: int
    number: int


def read_lrc(text: str, seconds: float, where: str) -> Read:
    """Sections with timed lines, and the file's tags. `seconds`: the recording's length.

    Raises LyricsError, naming file (`where`) and row, for stamps that are wrong or missing."""
    rows, tags, header = _rows(text, where)
    if not any(words(row.text) for row in rows):
        raise LyricsError(f"{where}: no timed line to sing; write lines as [mm:ss.xx]text")
    parse("\n".join(row.text for row in rows), where)  # refuses what is too long to be a song
    shift = _offset(header.get("offset", "0"), where)
    rows = sorted((_shifted(row, shift) for row in rows), key=lambda row: row.start)
    sections: list[tuple[int, list[Line]]] = []
    for row, end in zip(rows, [*(row.start for row in rows[1:]), seconds], strict=True):
        at = f"{where}:{row.number}"
        sung = bool(words(row.text))
        if row.start > seconds + SLACK_SECONDS or (sung and row.start >= seconds):
            beyond = f"{clock(row.start)} is beyond the recording ({clock(seconds)})"
            raise LyricsError(f"{at}: {beyond}; are these its lyrics?")
        if not sung:
            continue
        if end <= row.start:
            both = f"another line starts at {clock(row.start)} too"
            raise LyricsError(f"{at}: {both}; keep one of them")
        if not sections or row.section != sections[-1][0]:
            sections.append((row.section, []))
        sections[-1][1].append(_line(row, min(end, seconds), at))
    about = {name: header[tag] for tag, name in TAGS.items() if header.get(tag)}
    if language := language_of(about.pop("language", "")):
        about["language"] = language
    tagged = tuple(Section(tags[section], tuple(lines)) for section, lines in sections)
    return Read(tagged, about, (Fact("timed_by", "lrc"),))


def _rows(text: str, where: str) -> tuple[list[Stamped], list[str], dict[str, str]]:
    """The timed rows, the tags of the sections, and what the header rows hold."""
    stamped: list[Stamped] = []
    header: dict[str, str] = {}
    tags = ["verse"]
    size = 0  # a row stands once for each of its times: a short file may say a lot
    for number, row in enumerate(text.splitlines(), 1):
        at, rest = f"{where}:{number}", row.strip()
        starts: list[float] = []
        while len(starts) < MOST_TIMES and (stamp := re.match(rf"\[{STAMP}\]\s*", rest)):
            starts.append(_seconds(stamp, at))
            rest = rest[stamp.end() :]
        named = OPENS.match(rest)
        if named and (starts or _alone(named, rest)):
            tags.append("-".join(named[1].lower().split()))
            rest = rest[named.end() :].strip()
        if starts:
            if len(starts) == 1:  # words between brackets of the other kind
                rest = re.sub(rf"\[({STAMP})\]", r"<\1>", rest)
            plain = " ".join(re.sub(rf"<{STAMP}>", " ", rest).split())
            size += len(starts) * max(1, len(plain))
            if size > LONGEST_LYRICS:
                most = f"a song has at most {LONGEST_LYRICS:,}"
                raise LyricsError(f"{at}: {size:,} characters of lyrics; {most}")
            stamped += [
                Stamped(start, plain, _word_starts(rest, start, at), len(tags) - 1, number)
                for start in starts
            ]
        elif meta := re.fullmatch(r"\[([A-Za-z]\w*):(.*)\]", rest):
            header[meta.group(1).lower()] = meta.group(2).strip()
        elif rest and not rest.startswith("#"):
            untimed = f"no time that can be read before {rest[:30]!r}"
            raise LyricsError(f"{at}: {untimed}; write [mm:ss.xx]")
    return stamped, tags, header


def _alone(named: re.Match[str], row: str) -> bool:
    """Whether a row is the name of a section, and no header."""
    return named.group() == row and (":" not in row or SECTION.match(named[1]) is not None)


def _word_starts(text: str, start: float, at: str) -> tuple[tuple[float, str], ...]:
    """(seconds, text) of each stretch between `<mm:ss.xx>` stamps; () if there are none."""
    if not re.search(r"<\d+:", text):
        return ()
    first, *stretches = re.split(r"<(?=\d+:)", text)
    starts = [(start, first.strip())] if first.strip() else []
    for stretch in stretches:
        stamp = re.match(rf"{STAMP}>", stretch)
        if stamp is None:
            raise LyricsError(f"{at}: <{stretch[:12]} is no time; write <mm:ss.xx>")
        starts.append((_seconds(stamp, at), stretch[stamp.end() :].strip()))
    return tuple(starts)


def _shifted(row: Stamped, shift: float) -> Stamped:
    starts = tuple((max(0.0, start - shift), text) for start, text in row.words)
    return row._replace(start=max(0.0, row.start - shift), words=starts)


def _line(row: Stamped, end: float, at: str) -> Line:
    """The line with its words; a last stamp without text ends the line early."""
    if not row.words:
        return Line(row.text, row.start, end)
    starts = [start for start, _ in row.words]
    if not words(row.words[-1][1]):
        end = min(end, starts.pop())
    ends = [*starts[1:], end]
    backwards = any(stop <= start for start, stop in zip(starts, ends, strict=True))
    if starts[0] < row.start - 1e-6 or backwards:
        times = f"the word times of {row.text[:30]!r}"
        raise LyricsError(f"{at}: {times} do not grow from its start to its end; set them again")
    sung = tuple(
        Word(text, start, stop)
        for (_, text), start, stop in zip(row.words, starts, ends, strict=False)
        if words(text)
    )
    return Line(row.text, row.start, end, sung)


def _seconds(stamp: re.Match[str], at: str) -> float:
    minutes, seconds = int(stamp.group(1)), float(stamp.group(2).replace(":", "."))
    if seconds >= 60 or minutes >= 1000:
        advice = "write [mm:ss.xx] with seconds below 60"
        raise LyricsError(f"{at}: {stamp.group(1)}:{stamp.group(2)} is no time; {advice}")
    return 60.0 * minutes + seconds


def _offset(text: str, where: str) -> float:
    """Seconds by which everything is earlier."""
    if not re.fullmatch(r"[+-]?\d{1,9}", text):
        offset = f"[offset:{text[:20]}]"
        raise LyricsError(f"{where}: {offset} is no number of milliseconds; write [offset:+250]")
    return int(text) / 1000
