"""Songs from a `datasets` dataset with audio: on this computer, or on the hub by id, read as a
stream.

    songs: {kind: hub, dataset: org/songs@main, columns: {lyrics: text, licence: license}, licence: CC0-1.0}

`columns` says under which name the dataset has what a song needs (audio, vocals, accompaniment,
lyrics, sections, id, style, voice, language, licence, source, credit, split, group, facts); what is
not named is looked for under its own name, and a value for all songs is a setting. Lyrics may be
plain, LRC or UltraStar; `sections` is JSON in our own form, as `exporters/datasets.py` writes it,
and stands above lyrics.

Sound is never decoded here: its bytes go into the cache under their sha256, and a file that lies on
this computer is used where it lies. No code of a dataset is run. Needs `pip install
"distill[hub-data]"`, and for plain sound files on a hub (an AudioFolder) torchcodec as well: the
library wants it even to hand a path on. By its own default the library also tells a counter which
dataset was opened; HF_UPDATE_DOWNLOAD_COUNTS=0 in the environment keeps it quiet.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill.audio import safe_decode
from distill.errors import (
    AudioError,
    DistillError,
    FolderError,
    LyricsError,
    SettingsError,
    SongError,
)
from distill.folders import sha256_bytes, write_atomic
from distill.songs import Song, from_json
from distill.sources import Refusal, loaded, scanned
from distill.sources._formats import Read, language_of
from distill.sources._formats.lyrics import credit, form_of, read_lyrics

TRACKS = ("audio", "vocals", "accompaniment")
TEXTS = ("style", "voice", "language", "licence", "source", "credit", "split", "group")
NAMES = (*TRACKS, "id", "lyrics", "sections", "facts", *TEXTS)
LARGEST_AUDIO_BYTES = 512 * 2**20
# splits that nobody should learn from
HELD_OUT = {"test", "validation", "valid", "val", "dev", "eval", "held_out"}
ENDINGS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a"}
MARKS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}


@dataclass(frozen=True)
class Settings:
    """`dataset`: a folder, or org/name, or org/name@revision. `split`: of the dataset; songs of a
    test or validation split are held out, unless their own column says otherwise. `songs` stops
    after that many rows; `cache` is the folder for sound ("": $DISTILL_CACHE, else
    ~/.cache/distill). The rest is for songs that do not say it themselves."""

    dataset: str
    config: str | None = None
    split: str = "train"
    streaming: bool = True
    songs: int | None = None
    columns: dict[str, str] = field(default_factory=dict)
    form: Literal["auto", "plain", "lrc", "ultrastar"] = "auto"
    cache: str = ""
    language: str = "en"
    licence: str = "unknown"
    style: str = ""
    voice: str = ""

    def __post_init__(self) -> None:
        if unknown := set(self.columns) - set(NAMES):
            raise SettingsError(f"columns.{min(unknown)} is unknown; known: {', '.join(NAMES)}")
        if self.songs is not None and self.songs < 1:
            raise SettingsError(f"songs is {self.songs}; give 1 or more, or leave it out for all")

    def load(self) -> list[Song]:
        """The songs in the dataset's order. Raises SettingsError without `datasets`, FolderError
        for a dataset that cannot be opened, SongError, AudioError and LyricsError for the first row
        that cannot be used."""
        return loaded(self._found())

    def scan(self) -> Iterator[Song | Refusal]:
        """The songs, with a Refusal in place of each row that cannot be used."""
        return scanned(self._found())

    def _found(self) -> Iterator[tuple[str, Song | DistillError]]:
        for number, row in enumerate(_rows(self), 1):
            where = f"{self.dataset}, row {number}"
            if self.songs is not None and number > self.songs:
                return
            try:
                yield where, self._song(row, number, where)
            except DistillError as error:
                yield where, error

    def _song(self, row: Mapping[str, Any], number: int, where: str) -> Song:
        given = {name: row.get(self.columns.get(name, name)) for name in NAMES}
        missing = [column for column in self.columns.values() if column not in row]
        if missing:
            raise SongError(
                f"{where}: has no column {missing[0]}; it has {', '.join(map(str, row))[:120]}"
            )
        ours = Path(self.dataset).expanduser().exists()
        files: dict[str, Any] = {
            name: _file(given[name], self._home, ours, f"{where}, {name}") for name in TRACKS
        }
        if files["audio"] is None:
            raise SongError(
                f"{where}: has no sound; say which column has it (columns: {{audio: ...}})"
            )
        said = {name: str(given[name]) for name in TEXTS if given[name] not in (None, "")}
        if "language" in said:
            said["language"] = language_of(said["language"]) or said["language"]
        language = said.get("language", self.language)
        read = self._lyrics(given, files["audio"], where, language)
        standing = {name: getattr(self, name) for name in ("style", "voice", "language", "licence")}
        if read.about.get("language"):
            standing["language"] = read.about["language"]
        side = "held-out" if self.split.partition("[")[0] in HELD_OUT else "train"
        told = (
            {"source": self.dataset, "credit": credit(read.about), "split": side} | standing | said
        )
        id = str(given["id"]) if given["id"] not in (None, "") else f"{self.split}-{number:06d}"
        song = Song(id=id, sections=read.sections, facts=read.facts, **files, **told)
        return song if given["facts"] is None else _with_facts(song, given["facts"], where)

    def _lyrics(self, given: Mapping[str, Any], audio: str, where: str, language: str) -> Read:
        if given["sections"] is not None:
            song = from_json(
                {"id": where, "sections": _json(given["sections"], f"{where}, sections")}
            )
            if not song.lines:
                raise LyricsError(f"{where}: its sections hold no line; leave the row out")
            return Read(song.sections, {})
        text = given["lyrics"]
        if isinstance(text, (list, tuple)):
            text = "\n".join(map(str, text))
        if not isinstance(text, str):
            raise LyricsError(
                f"{where}: has no lyrics; say which column has them (columns: {{lyrics: ...}})"
            )
        form = form_of(text) if self.form == "auto" else self.form
        seconds = 0.0 if form == "plain" else _seconds(audio, where)
        return read_lyrics(text, form, seconds, f"{where}, lyrics", language)

    @property
    def _home(self) -> Path:
        return (
            Path(self.cache or os.environ.get("DISTILL_CACHE") or "~/.cache/distill").expanduser()
            / "audio"
        )


def _seconds(audio: str, where: str) -> float:
    try:
        return safe_decode.promise_safely(audio).seconds
    except AudioError as error:
        raise AudioError(f"{where}: {error}") from None


def _with_facts(song: Song, facts: Any, where: str) -> Song:
    row = {"id": song.id, "sections": (), "facts": _json(facts, f"{where}, facts")}
    for fact in from_json(row).facts:
        song = song.with_fact(fact)
    return song


def _json(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise SongError(f"{where}: not JSON ({str(error)[:60]}); export it again") from None


# --- the dataset ----------------------------------------------------------------------------------
def _rows(settings: Settings) -> Iterable[Mapping[str, Any]]:
    """The rows of the split, their sound as bytes or path."""
    try:
        import datasets
    except ImportError:
        raise SettingsError(
            'reading datasets needs `datasets`; run pip install "distill[hub-data]"'
        ) from None
    try:
        opened = _open(datasets, settings)
        for name, feature in dict(opened.features or {}).items():
            if isinstance(feature, datasets.Audio):
                opened = opened.cast_column(name, datasets.Audio(decode=False))
        rows = iter(opened)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            yield row
    except DistillError:
        raise
    # the library's, the hub's and Arrow's own: all mean that it cannot be read
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        advice = (
            "install what it asks for"
            if isinstance(error, ImportError)
            else "check name, split and config"
        )
        raise FolderError(f"{settings.dataset}: cannot be read ({reason}); {advice}") from error


def _open(datasets: Any, settings: Settings) -> Any:
    place = Path(settings.dataset).expanduser()
    if (place / "state.json").is_file() or (place / "dataset_dict.json").is_file():
        kept = datasets.load_from_disk(str(place))
        if isinstance(kept, dict):
            if settings.split not in kept:
                raise SettingsError(
                    f"split {settings.split!r} is not in {place}; it has {', '.join(kept)}"
                )
            kept = kept[settings.split]
        return kept
    name, _, revision = settings.dataset.partition("@")
    where = {"path": str(place)} if place.exists() else {"path": name, "revision": revision or None}
    return datasets.load_dataset(
        **where, name=settings.config, split=settings.split, streaming=settings.streaming
    )


def _file(value: Any, home: Path, ours: bool, where: str) -> str | None:
    """A file on this computer that holds a row's sound. `ours`: the dataset lies on this computer
    too; a stranger's may not name files that were here before it."""
    if value is None:
        return None
    if isinstance(value, str):
        value = {"path": value, "bytes": None}
    if not isinstance(value, Mapping) or not ({"bytes", "path"} & set(value)):
        raise AudioError(
            f"{where}: is {type(value).__name__}, not sound; name the column that has Audio"
        )
    path, content = str(value.get("path") or ""), value.get("bytes")
    if content is None and Path(path).is_file() and (ours or _of_a_cache(path)):
        return str(Path(path).resolve())
    if content is None:
        content = _fetched(path, ours, where)
    if not isinstance(content, bytes) or not content:
        raise AudioError(f"{where}: holds no sound; leave the row out")
    if len(content) > LARGEST_AUDIO_BYTES:
        raise AudioError(
            f"{where}: more than {LARGEST_AUDIO_BYTES:,} bytes of sound are no song's; cut it"
        )
    key = sha256_bytes(content)
    place = home / key[:2] / f"{key}{_ending(path, content)}"
    if not place.is_file():
        write_atomic(place, content)
    return str(place.resolve())


def _ending(path: str, content: bytes) -> str:
    ending = Path(path).suffix.lower()
    if ending in ENDINGS:
        return ending
    by_content = next(
        (ending for mark, ending in MARKS.items() if content.startswith(mark)), ".mp3"
    )
    return ".m4a" if content[4:8] == b"ftyp" else by_content


def _of_a_cache(path: str) -> bool:
    """Whether `datasets` or the hub's client put this file there."""
    from datasets import config

    homes = (config.HF_CACHE_HOME, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH)
    return any(
        Path(path).resolve().is_relative_to(Path(home).expanduser().resolve()) for home in homes
    )


def _fetched(path: str, ours: bool, where: str) -> bytes:
    """What a stream only names: a file of the dataset on the hub, or inside an archive."""
    from datasets.utils.file_utils import xopen

    if not (ours or "hf://" in path):
        raise AudioError(
            f"{where}: names {path[-80:]!r}, which is not in the dataset; leave the row out"
        )
    try:
        with xopen(path, "rb") as file:
            return file.read(LARGEST_AUDIO_BYTES + 1)
    except Exception as error:  # any of fsspec's file systems
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise AudioError(
            f"{where}: {path[-80:]!r} cannot be fetched ({reason}); leave the row out"
        ) from error
