"""A song as a value: what is sung, when, by whom, under which rights.

    Song -> Section -> Line -> Word and Note

Times are seconds from the start of the song's audio. A note begins with the *vowel* of its
syllable, as a singer counts it: the consonants before the vowel sound inside the note (or silence)
before. Everything but the lyrics may be unknown; a song with note times can be taught note by note,
one with line times line by line (see distill/writing/prompts.py).

Manifests are JSON lines, one song a row, audio paths relative to the manifest (version 1).
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from distill.errors import FolderError, SongError
from distill.folders import Json

TAIL_SECONDS = 0.4  # the last consonants sound after the last note
VERSION = 1
_WANTED = "name a .jsonl file written by distill"
TRACKS = ("audio", "vocals", "accompaniment")


@dataclass(frozen=True)
class Note:
    """Seconds, MIDI pitch (None: rest or unknown), the text begun on it ("": the last goes on)."""

    start: float
    end: float
    midi: float | None
    text: str = ""


@dataclass(frozen=True)
class Word:
    """One word and when it is sung (seconds), the confidence from 0 to 1; None: a person's word."""

    text: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class Line:
    """One sung line; `start` and `end` are None when nobody knows them, `confidence` is in them."""

    text: str
    start: float | None = None
    end: float | None = None
    words: tuple[Word, ...] = ()
    notes: tuple[Note, ...] = ()
    confidence: float | None = None


@dataclass(frozen=True)
class Section:
    """Lines under one tag: verse, chorus, bridge, ..."""

    tag: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Fact:
    """Something known about a song beside its lyrics: key, tempo, range, ...

    `value`: plain JSON in the unit that the name says (`tempo_bpm`). `by`: "given", or the curation
    step. `confidence`: 0 to 1 for what was guessed from sound or text; None: given.
    """

    name: str
    value: Any
    by: str = "given"
    confidence: float | None = None


@dataclass(frozen=True)
class Song:
    """Lyrics in sections, with style, voice, rights and, where there is one, a recording.

    vocals, accompaniment: stems of `audio`. group: songs of one group (covers, re-encodings, edits)
    stay on one side of the split; "" is a group of its own.
    """

    id: str
    sections: tuple[Section, ...]
    style: str = ""
    voice: str = ""
    language: str = "en"
    licence: str = "unknown"
    source: str = ""
    credit: str = ""
    audio: str | None = None
    split: str = "train"
    vocals: str | None = None
    accompaniment: str | None = None
    group: str = ""
    facts: tuple[Fact, ...] = ()

    @property
    def tracks(self) -> dict[str, str]:
        """The files there are, by track."""
        return {name: path for name in TRACKS if (path := getattr(self, name)) is not None}

    def fact(self, name: str) -> Fact | None:
        """What is known under this name."""
        return next((fact for fact in self.facts if fact.name == name), None)

    def with_tracks(self, paths: Mapping[str, str]) -> Song:
        """The song with these files, by track, and no others."""
        audio, vocals, accompaniment = map(paths.get, TRACKS)
        return replace(self, audio=audio, vocals=vocals, accompaniment=accompaniment)

    def with_fact(self, fact: Fact) -> Song:
        """The song with this fact, in place of one of the same name."""
        return replace(self, facts=(*(f for f in self.facts if f.name != fact.name), fact))

    @property
    def lines(self) -> tuple[Line, ...]:
        """All lines in order."""
        return tuple(line for section in self.sections for line in section.lines)

    @property
    def text(self) -> str:
        """The lyrics as a person would type them."""
        texts = ([f"[{s.tag}]", *(line.text for line in s.lines)] for s in self.sections)
        return "\n".join(itertools.chain.from_iterable(texts))


def primary(language: str) -> str:
    """The language alone, of a tag with a region or script: "en-GB" -> "en"."""
    return language.strip().replace("_", "-").partition("-")[0].lower()


def from_its_start(line: Line, tail: float = TAIL_SECONDS) -> Line:
    """A line with times from its own start; without an end it lasts `tail` s past its last note."""
    first = line.start or 0.0
    notes = tuple(replace(n, start=n.start - first, end=n.end - first) for n in line.notes)
    words = tuple(replace(w, start=w.start - first, end=w.end - first) for w in line.words)
    last = notes[-1].end + tail if notes else None
    end = last if line.end is None else line.end - first
    return replace(line, start=0.0, end=end, notes=notes, words=words)


def to_json(song: Song) -> Json:
    """A song as plain JSON values."""
    return asdict(song)


def from_json(row: object) -> Song:
    """The song that `to_json` wrote. SongError names what is missing, unknown or ill-typed."""
    try:
        song: Song = _dataclass(Song, row, "")
        return song
    except TypeError as error:
        id = row.get("id", "?") if isinstance(row, dict) else "?"
        fault = f"not a version {VERSION} song ({error})"
        raise SongError(f"song {id}: {fault}; export it again") from None


@functools.cache
def _fields(cls: Any) -> tuple[dict[str, object], set[str]]:
    """The types of a dataclass's fields, and those that have no default."""
    return get_type_hints(cls), {field.name for field in fields(cls) if field.default is MISSING}


def _dataclass(cls: Any, value: object, at: str) -> Any:
    """One of the types above from JSON's names and values; `at` is the dotted name it stands at."""
    if not isinstance(value, dict):
        raise TypeError(f"{at or 'it'} is {type(value).__name__}, not names and values")
    hints, required = _fields(cls)
    prefix = f"{at}." if at else ""
    if wrong := sorted(set(value) - set(hints)) or sorted(required - set(value)):
        fault = "missing" if wrong[0] in required else "unknown"
        raise TypeError(f"{prefix}{wrong[0]} is {fault}")
    return cls(**{name: _typed(hints[name], item, prefix + name) for name, item in value.items()})


def _typed(hint: object, value: Any, at: str) -> object:
    """A value as `hint` wants it: one of the types above, a tuple, text or a finite number."""
    if hint is Any:
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{at} is {type(value).__name__}, not a list")
        return tuple(_typed(get_args(hint)[0], item, at) for item in value)
    if is_dataclass(hint):
        return _dataclass(hint, value, at)
    allowed = get_args(hint) or (hint,)
    if (value is None and type(None) in allowed) or (isinstance(value, str) and str in allowed):
        return value
    if float in allowed and type(value) in (int, float) and abs(value) < 1e18:  # which NaN is not
        return value
    raise TypeError(f"{at} is {json.dumps(value)[:20]}")


def manifest_songs(path: str | Path) -> Iterator[tuple[str, Song | SongError]]:
    """("file:line", song) of a JSON lines manifest, audio paths absolute; an error per bad row.
    FolderError without a file."""
    path = Path(path)
    if not path.is_file():
        raise FolderError(f"{path}: there is no such manifest; {_WANTED}")
    with path.open("rb") as rows:
        for number, row in enumerate(rows, 1):
            if row.strip():
                try:
                    yield f"{path}:{number}", _manifest_song(row, path.parent)
                except SongError as error:
                    yield f"{path}:{number}", SongError(f"{path}:{number}: {error}")


def _manifest_song(text: bytes, folder: Path) -> Song:
    try:
        row = json.loads(text.decode())
    except UnicodeDecodeError as error:
        raise SongError(f"not UTF-8 ({error.reason}); {_WANTED}") from None
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "it nests too deep")
        raise SongError(f"not JSON ({reason}); remove or rewrite this line") from None
    if not isinstance(row, dict) or row.pop("version", VERSION) != VERSION:
        raise SongError(f"this manifest is of another version than {VERSION}; export it again")
    song = from_json(row)
    return song.with_tracks({t: str((folder / f).resolve()) for t, f in song.tracks.items()})


def read_manifest(path: str | Path) -> list[Song]:
    """All songs of a manifest. FolderError without a file, SongError (file, line) for a bad row."""
    songs = []
    for _, song in manifest_songs(path):
        if isinstance(song, SongError):
            raise song
        songs.append(song)
    return songs


def manifest_row(song: Song, folder: Path) -> str:
    """One manifest line, its audio path relative to `folder`."""
    row = {"version": VERSION, **to_json(song)}
    for name, file in song.tracks.items():
        path = (folder / file).resolve()  # an absolute path stays what it is
        if not path.is_relative_to(folder.resolve()):
            outside = f"its {name} {file} lies outside of {folder}"
            raise SongError(f"song {song.id}: {outside}; put both in one folder")
        row[name] = path.relative_to(folder.resolve()).as_posix()
    return json.dumps(row, ensure_ascii=False)


def write_manifest(path: str | Path, songs: Iterable[Song]) -> None:
    """Write songs as JSON lines; their audio must lie under the manifest's folder."""
    path = Path(path)
    rows = [manifest_row(song, path.parent) + "\n" for song in songs]
    path.write_text("".join(rows), encoding="utf-8")
