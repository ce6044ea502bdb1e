"""Songs from a folder of your own: recordings with their lyrics beside them, under the same name.

    songs/fantasma.mp3 + songs/fantasma.lrc     line times, and word times where the file has them
    songs/boat.wav     + songs/boat.txt         plain lyrics, no times

LRC is a line of text for a line of song: `[01:02.50]row row row your boat`, with words timed as
`<01:02.90>row`. A time without text ends the line before it; otherwise a line ends where the next begins, the
last one with the recording. `[ti:]`, `[ar:]` and `[la:]` give title, artist and language; a positive
`[offset:]` (ms) moves everything earlier; `[chorus]` alone opens a section. Recordings are only probed here,
and decoded when they are coded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from distill import audio
from distill.errors import FolderError, LyricsError, SettingsError, SongError
from distill.lyrics import LONGEST_LYRICS, parse, words
from distill.songs import Line, Section, Song, Word

AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus")
LARGEST_LYRICS_BYTES = 20 * LONGEST_LYRICS  # stamps, four-byte letters and all
SLACK_SECONDS = 0.5  # stamps are set by hand, and an MP3's length is known to a frame or two
STAMP = r"(\d+):(\d{1,2}(?:[.:]\d{1,3})?)"


@dataclass(frozen=True)
class Settings:
    """`folder` comes from the command line (SONGS=FOLDER), so a recipe leaves it empty.

    The last `held_out_lines` of each song are kept from training: the song then comes as two, `name#train`
    and `name#held-out`. `style` and `voice` describe all the songs in the words of the prompt.
    """

    folder: str = ""
    language: str = "en"
    licence: str = "unknown"
    style: str = ""
    voice: str = ""
    held_out_lines: int = 0

    def load(self) -> list[Song]:
        """The songs, in order of their names, from all levels of the folder.

        Raises SettingsError without a folder, FolderError for a missing one or one without recordings,
        SongError, AudioError and LyricsError (naming the file) for songs that cannot be used.
        """
        if not self.folder:
            raise SettingsError(
                "songs.folder: no folder of songs is given; say SONGS=FOLDER (make) or --songs FOLDER"
            )
        if self.held_out_lines < 0:
            raise SettingsError(f"songs.held_out_lines: {self.held_out_lines} is negative; give 0 or more")
        place = Path(self.folder).expanduser()
        if not place.is_dir():
            raise FolderError(f"{place}: there is no such folder; give a folder of recordings with lyrics")
        return [part for song in self._songs(place) for part in self._split(song)]

    def _songs(self, place: Path) -> Iterator[Song]:
        files = [
            path for path in sorted(place.rglob("*")) if path.is_file() and not path.name.startswith(".")
        ]
        recordings = [path for path in files if path.suffix.lower() in AUDIO]
        if not recordings:
            raise FolderError(f"{place}: no recording in this folder; put {', '.join(AUDIO)} files there")
        seen: dict[Path, Path] = {}
        for recording in recordings:
            name = recording.with_suffix("")
            if name in seen:
                raise SongError(
                    f"{recording}: {seen[name].name} lies beside it; keep one recording of a name"
                )
            seen[name] = recording
        for path in files:
            if path.suffix.lower() == ".lrc" and path.with_suffix("") not in seen:
                raise SongError(
                    f"{path}: no recording of this name beside it; add one or take the lyrics away"
                )
        for name, recording in seen.items():
            beside = {path.suffix.lower(): path for path in files if path.with_suffix("") == name}
            lyrics = beside.get(".lrc") or beside.get(".txt")
            if lyrics is None:
                raise SongError(f"{recording}: no lyrics beside it; write {name.name}.lrc or {name.name}.txt")
            yield self._song(recording, lyrics, name.relative_to(place).as_posix())

    def _song(self, recording: Path, lyrics: Path, id: str) -> Song:
        seconds, text = audio.seconds(recording), read_text(lyrics)
        about: dict[str, str] = {}
        if lyrics.suffix.lower() == ".lrc":
            sections, about = read_lrc(text, seconds, str(lyrics))
        else:
            verses = parse(text, str(lyrics))
            sections = tuple(
                Section(verse.tag, tuple(Line(line) for line in verse.lines)) for verse in verses
            )
        credit = " by ".join(about[key] for key in ("ti", "ar") if about.get(key))
        return Song(
            id=id,
            sections=sections,
            style=self.style,
            voice=self.voice,
            language=about.get("la") or self.language,
            licence=self.licence,
            source=recording.name,
            credit=credit,
            audio=str(recording.resolve()),
        )

    def _split(self, song: Song) -> list[Song]:
        """One song, or its first lines for training and its last ones held out."""
        if not self.held_out_lines:
            return [song]
        count = len(song.lines)
        if any(line.start is None for line in song.lines):
            raise SongError(
                f"{song.id}: plain lyrics have no times to hold lines out by; write .lrc, or hold out 0"
            )
        if count <= self.held_out_lines:
            raise SongError(
                f"{song.id}: {count} lines leave none to train on; set held_out_lines below {count}"
            )
        cut = count - self.held_out_lines
        return [
            replace(song, id=f"{song.id}#{split}", split=split, sections=_between(song.sections, start, stop))
            for split, start, stop in (("train", 0, cut), ("held-out", cut, count))
        ]


def _between(sections: tuple[Section, ...], start: int, stop: int) -> tuple[Section, ...]:
    """The sections of lines `start` to `stop` of the song; those without lines left fall away."""
    kept, at = [], 0
    for section in sections:
        lines = section.lines[max(0, start - at) : max(0, stop - at)]
        at += len(section.lines)
        if lines:
            kept.append(Section(section.tag, lines))
    return tuple(kept)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, marked UTF-16 or else Windows-1252; LyricsError for what is not text."""
    if path.stat().st_size > LARGEST_LYRICS_BYTES:
        raise LyricsError(f"{path}: {path.stat().st_size:,} bytes are no song's lyrics; cut them into songs")
    content = path.read_bytes()
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise LyricsError(f"{path}: this is not text; save the lyrics as UTF-8")


# --- LRC -------------------------------------------------------------------------------------


class Stamped(NamedTuple):
    """A row at one of its times (seconds): its text, where its words start, its section and row number."""

    start: float
    text: str
    words: tuple[tuple[float, str], ...]
    section: int
    row: int


def read_lrc(text: str, seconds: float, where: str) -> tuple[tuple[Section, ...], dict[str, str]]:
    """Sections with timed lines, and the file's tags. `seconds` is the recording's length, `where` the file's
    name.

    Raises LyricsError, naming file and row, for stamps that are wrong, missing, out of order or beyond the
    recording.
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
                f"{at}: {clock(one.start)} is beyond the recording ({clock(seconds)}); are these its lyrics?"
            )
        if not words(one.text):
            continue
        if after <= one.start:
            raise LyricsError(f"{at}: another line starts at {clock(one.start)} too; keep one of them")
        if not sections or one.section != sections[-1][0]:
            sections.append((one.section, []))
        sections[-1][1].append(_line(one, min(after, seconds), at))
    return tuple(Section(tags[section], tuple(lines)) for section, lines in sections), about


def _rows(text: str, where: str) -> tuple[list[Stamped], list[str], dict[str, str]]:
    stamped: list[Stamped] = []
    about: dict[str, str] = {}
    tags = ["verse"]
    for number, row in enumerate(text.splitlines(), 1):
        at, rest, starts = f"{where}:{number}", row.strip(), []
        while stamp := re.match(rf"\[{STAMP}\]\s*", rest):
            starts.append(_seconds(stamp, at))
            rest = rest[stamp.end() :]
        if starts:
            plain = " ".join(re.sub(rf"<{STAMP}>", " ", rest).split())
            stamped += [
                Stamped(start, plain, _word_starts(rest, start, at), len(tags) - 1, number)
                for start in starts
            ]
        elif meta := re.fullmatch(r"\[([A-Za-z]\w*):(.*)\]", rest):
            about[meta.group(1).lower()] = meta.group(2).strip()
        elif section := re.fullmatch(r"\[\s*([^\W\d_][\w' -]{0,30}?)[\s\d]*\]", rest):
            tags.append("-".join(section.group(1).lower().split()))
        elif rest and not rest.startswith("#"):
            raise LyricsError(f"{at}: no time that can be read before {rest[:30]!r}; write [mm:ss.xx]")
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
    if starts[0] < one.start - 1e-6 or any(stop <= start for start, stop in zip(starts, ends, strict=True)):
        raise LyricsError(
            f"{at}: the word times of {one.text[:30]!r} do not grow from its start to its end; set them again"
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
            f"{at}: {stamp.group(1)}:{stamp.group(2)} is no time; write [mm:ss.xx] with seconds below 60"
        )
    return 60.0 * minutes + seconds


def _offset(text: str, where: str) -> float:
    try:
        return int(text) / 1000
    except ValueError:
        raise LyricsError(
            f"{where}: [offset:{text[:20]}] is no number of milliseconds; write [offset:+250]"
        ) from None


def clock(seconds: float) -> str:
    """Seconds as LRC writes them: 62.5 -> "01:02.50"."""
    return f"{int(seconds // 60):02d}:{seconds % 60:05.2f}"
