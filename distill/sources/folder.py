"""Songs from a folder of your own: recordings with their lyrics beside them, under the same name.

    songs/fantasma.mp3 + songs/fantasma.lrc     line times, and word times where the file has them
    songs/boat.flac    + songs/boat.txt         lyrics without times, or UltraStar's notes
    songs/hymn.wav     + songs/hymn.musicxml    a score with lyrics (.musicxml, .mxl, .xml)
    songs/boat.vocals.flac, songs/boat.accompaniment.flac     the stems of boat.flac, if any
    songs/rights.csv                            file,licence,source,credit: a row a song, or for *

Where several kinds of lyrics lie beside a recording, the first of UltraStar, LRC, MusicXML, plain
text counts. An UltraStar file of another name than its recording names it (`#MP3`, `#AUDIO`). What
lyrics say themselves about title, artist, language and genre is taken; a row of rights.csv (found
by the song's id, its file or *) stands above it. Recordings are only probed here, and decoded when
they are coded.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from distill.audio import safe_decode
from distill.errors import DistillError, FolderError, LyricsError, SettingsError, SongError
from distill.songs import Fact, Section, Song
from distill.sources import Imported, Rows
from distill.sources._formats import Read
from distill.sources._formats.lyrics import Form, credit, read_lyrics
from distill.sources._formats.musicxml import read_musicxml
from distill.sources._formats.rights import Row, read_rights
from distill.sources._formats.text import read_text
from distill.sources._formats.ultrastar import about, is_ultrastar
from distill.sources._formats.xml import read_score

AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")
SCORES = (".musicxml", ".mxl", ".xml")
LYRICS = (".lrc", ".txt", *SCORES)
STEMS = (".vocals", ".accompaniment")
STEM_SLACK_SECONDS = 0.1


@dataclass(frozen=True)
class Settings(Imported):
    """`folder` comes from the command line; `style` and `voice` are of all songs, for the prompt.

    The last `held_out_lines` of each song are kept from training: the song then comes as two,
    `name#train` and `name#held-out`."""

    folder: str = ""
    language: str = "en"
    licence: str = "unknown"
    style: str = ""
    voice: str = ""
    held_out_lines: int = 0

    def load(self) -> list[Song]:
        """The songs, in order of their names, from all levels of the folder.

        Raises SettingsError without a folder, FolderError for a missing one or no recordings;
        SongError, AudioError, LyricsError (naming the file) for a song that cannot be used."""
        songs = super().load()
        for song in songs:
            if not song.lines and song.audio is not None:
                path = Path(song.audio)
                advice = f"write {path.stem}.lrc or {path.stem}.txt"
                raise SongError(f"{path}: no lyrics beside it; {advice}")
        return [part for song in songs for part in self.divide(song)]

    def _rows(self) -> Rows:
        """Undivided songs; without lyrics a recording has no lines, to look at, not to learn."""
        if not self.folder:
            advice = "say SONGS=FOLDER (make) or --songs FOLDER"
            raise SettingsError(f"songs.folder: no folder of songs is given; {advice}")
        if self.held_out_lines < 0:
            lines = f"songs.held_out_lines: {self.held_out_lines}"
            raise SettingsError(f"{lines} is negative; give 0 or more")
        home = Path(self.folder).expanduser()
        if not home.is_dir():
            raise FolderError(f"{home}: no such folder; give a folder of recordings with lyrics")
        rights = read_rights(home)
        for name, files in _by_name(home).items():
            id = name.relative_to(home).as_posix()
            row = rights.of(id, *(path.relative_to(home).as_posix() for path in files.recordings))
            try:
                if files.wrong is not None:
                    raise files.wrong
                yield id, self._song(files, id, row)
            except DistillError as error:
                yield id, error
        for line, file in rights.unused():
            where = f"{home / rights.FILE}:{line}"
            reason = f"{where}: no recording is named {file!r}; correct the name"
            yield rights.FILE, SongError(reason)

    def _song(self, files: Files, id: str, row: Row) -> Song:
        recording = files.recording
        seconds = _seconds(recording)
        for stem, path in files.stems.items():
            if abs(_seconds(path) - seconds) > STEM_SLACK_SECONDS:
                lengths = f"{_seconds(path):.2f} s long and its recording {seconds:.2f} s"
                raise SongError(f"{path}: is {lengths}; cut {stem} alike")
        read = self._read(files.lyrics, seconds)
        about = read.about
        return Song(
            id=id,
            sections=read.sections,
            style=self.style or about.get("genre", "").lower(),
            voice=self.voice,
            language=about.get("language") or self.language,
            licence=row.licence or self.licence,
            source=row.source or about.get("source") or recording.name,
            credit=row.credit or credit(about),
            audio=str(recording.resolve()),
            vocals=_resolved(files.stems.get("vocals")),
            accompaniment=_resolved(files.stems.get("accompaniment")),
            facts=read.facts,
        )

    def _read(self, lyrics: Path | None, seconds: float) -> Read:
        """The lyrics, by whichever reader they are for."""
        if lyrics is None:
            return Read((), {})
        where, kind = str(lyrics), lyrics.suffix.lower()
        if kind in SCORES:
            return read_musicxml(read_score(lyrics), seconds, where, self.language)
        text, encoding = read_text(lyrics, self.language)
        form: Form = "lrc" if kind == ".lrc" else "ultrastar" if is_ultrastar(text) else "plain"
        read = read_lyrics(text, form, seconds, where, self.language)
        if encoding.startswith("utf"):
            return read
        return read._replace(facts=(*read.facts, Fact("text_encoding", encoding, "folder", 0.5)))

    def divide(self, song: Song) -> list[Song]:
        """One song, or its first lines for training and its last ones held out."""
        if not self.held_out_lines:
            return [song]
        timed = [index for index, line in enumerate(song.lines) if line.start is not None]
        if not timed:
            advice = "write .lrc, or hold out 0"
            raise SongError(f"{song.id}: plain lyrics have no times to hold lines out by; {advice}")
        if len(timed) <= self.held_out_lines:
            advice = f"set held_out_lines below {len(timed)}"
            raise SongError(f"{song.id}: {len(timed)} lines leave none to train on; {advice}")
        cut = timed[-self.held_out_lines]
        train, held_out = _between(song, 0, cut), _between(song, cut, len(song.lines))
        return [
            replace(song, id=f"{song.id}#{split}", split=split, sections=sections)
            for split, sections in (("train", train), ("held-out", held_out))
        ]


def _between(song: Song, start: int, stop: int) -> tuple[Section, ...]:
    """The sections of lines `start` to `stop`; those without lines left fall away."""
    kept, at = [], 0
    for section in song.sections:
        lines = section.lines[max(0, start - at) : max(0, stop - at)]
        at += len(section.lines)
        if lines:
            kept.append(Section(section.tag, lines))
    return tuple(kept)


def _seconds(path: Path) -> float:
    return safe_decode.promise_safely(path).seconds


def _resolved(path: Path | None) -> str | None:
    return str(path.resolve()) if path is not None else None


# --- which files make a song ----------------------------------------------------------------------
@dataclass
class Files:
    """The files of one song; `wrong` says why they make none."""

    recordings: list[Path] = field(default_factory=list)
    texts: dict[str, Path] = field(default_factory=dict)
    stems: dict[str, Path] = field(default_factory=dict)
    wrong: DistillError | None = None

    @property
    def recording(self) -> Path:
        return self.recordings[0]

    @property
    def ultrastar(self) -> Path | None:
        path = self.texts.get(".txt")
        return path if path is not None and _is_ultrastar(path) else None

    @property
    def lyrics(self) -> Path | None:
        """The finest lyrics that are timed against the recording."""
        return self.ultrastar or self.first(".lrc", *SCORES, ".txt")

    def first(self, *kinds: str) -> Path | None:
        """The first text there is of these kinds."""
        return next((self.texts[kind] for kind in kinds if kind in self.texts), None)


def _by_name(home: Path) -> dict[Path, Files]:
    """The files of each song by its path without suffix, in order. FolderError: no recordings."""
    paths = [path for path in sorted(home.rglob("*")) if path.is_file() and not _hidden(path, home)]
    if not any(path.suffix.lower() in AUDIO for path in paths):
        raise FolderError(f"{home}: no recording in it; put {', '.join(AUDIO)} files there")
    songs: dict[Path, Files] = {}
    for path in paths:
        kind = path.suffix.lower()
        if kind in AUDIO:
            songs.setdefault(path.with_suffix(""), Files()).recordings.append(path)
        elif kind in LYRICS:
            songs.setdefault(path.with_suffix(""), Files()).texts[kind] = path
    _give_stems(songs)
    _give_named_recordings(songs)
    for name, song in list(songs.items()):
        song.wrong = song.wrong or _wrong(song)
        if not song.recordings and song.wrong is None:
            del songs[name]  # a text about something else
    return dict(sorted(songs.items()))


def _hidden(path: Path, home: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(home).parts)


def _give_stems(songs: dict[Path, Files]) -> None:
    """`boat.vocals.flac` (or `boat.Vocals.flac`) without lyrics of its own is a stem of `boat`."""
    for name, files in list(songs.items()):
        if name.suffix.lower() in STEMS and files.recordings and not files.texts:
            song = songs.get(name.with_suffix(""))
            if song is None or not song.recordings:
                reason = "a stem without its recording; put the whole song beside it"
                files.wrong = SongError(f"{files.recording}: {reason}")
            else:
                song.stems[name.suffix[1:].lower()] = songs.pop(name).recording


def _give_named_recordings(songs: dict[Path, Files]) -> None:
    """An UltraStar file without a recording gets the one that it names, and the stems."""
    recordings = ((path, name) for name, song in songs.items() for path in song.recordings)
    # small or large letters are alike: the format comes from Windows
    by_path = {str(path).casefold(): (path, name) for path, name in recordings}
    for name, song in list(songs.items()):
        if song.recordings or song.ultrastar is None:
            continue
        try:
            named = about(read_text(song.ultrastar)[0])
        except LyricsError as error:
            song.wrong = error
            continue
        for track in ("audio", "vocals", "accompaniment"):
            key = str(name.parent / named.get(track, "")).casefold()
            path, other = by_path.get(key, (name, name))
            if track not in named or other == name or path.parent != name.parent:
                continue
            if other in songs and not songs[other].texts:
                song.stems = songs.pop(other).stems | song.stems
            if track == "audio":
                song.recordings.append(path)
            else:
                song.stems[track] = path


def _wrong(song: Files) -> DistillError | None:
    """Why these files make no song; None also for a text that was never meant to be one."""
    if len(song.recordings) > 1:
        first, second = song.recordings[:2]
        return SongError(f"{second}: {first.name} lies beside it; keep one recording of a name")
    path = song.first(".lrc", ".musicxml", ".mxl") or song.ultrastar
    if song.recordings or path is None:
        return None
    advice = "add one or take the lyrics away"
    return SongError(f"{path}: no recording of this name beside it; {advice}")


def _is_ultrastar(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    return is_ultrastar(head.decode("utf-16" if wide else "utf-8", "replace"))
