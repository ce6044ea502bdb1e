"""Songs from a `datasets` dataset with audio: on this computer, or on the hub by id, as a stream.

    songs: {kind: hub, dataset: org/songs@main, columns: {lyrics: text, licence: license},
            licence: CC0-1.0}

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from distill.audio import safe_decode
from distill.config.ranges import Checked, at_least
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
from distill.sources import Imported, Rows
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
Row = Mapping[str, Any]  # values by column


@dataclass(frozen=True)
class Settings(Imported, Checked):
    """`dataset`: a folder, org/name, or org/name@revision; `songs` stops after so many rows.

    Songs of a test or validation `split` are held out, unless their own column says otherwise.
    `cache`: for sound ("": $DISTILL_CACHE, else ~/.cache/distill)."""

    dataset: str
    config: str | None = None
    split: str = "train"
    streaming: bool = True
    songs: int | None = at_least(1, default=None)
    columns: dict[str, str] = field(default_factory=dict)
    form: Literal["auto", "plain", "lrc", "ultrastar"] = "auto"
    cache: str = ""
    language: str = "en"
    licence: str = "unknown"
    style: str = ""
    voice: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.columns) - set(NAMES):
            raise SettingsError(f"columns.{min(unknown)} is unknown; known: {', '.join(NAMES)}")

    def _rows(self) -> Rows:
        for number, row in enumerate(_dataset_rows(self), 1):
            where = f"{self.dataset}, row {number}"
            if self.songs is not None and number > self.songs:
                return
            try:
                yield where, self._song(row, number, where)
            except DistillError as error:
                yield where, error

    def _song(self, row: Row, number: int, where: str) -> Song:
        values = {name: row.get(self.columns.get(name, name)) for name in NAMES}
        missing = [column for column in self.columns.values() if column not in row]
        if missing:
            columns = ", ".join(map(str, row))[:120]
            raise SongError(f"{where}: has no column {missing[0]}; it has {columns}")
        ours = Path(self.dataset).expanduser().exists()
        files: dict[str, Any] = {
            track: _file(values[track], self._home, ours, f"{where}, {track}") for track in TRACKS
        }
        if files["audio"] is None:
            raise SongError(f"{where}: has no sound; name its column (columns: {{audio: ...}})")
        texts = {name: str(values[name]) for name in TEXTS if values[name] not in (None, "")}
        if "language" in texts:
            texts["language"] = language_of(texts["language"]) or texts["language"]
        read = self._lyrics(values, files["audio"], where, texts.get("language", self.language))
        defaults = {name: getattr(self, name) for name in ("style", "voice", "language", "licence")}
        if read.about.get("language"):
            defaults["language"] = read.about["language"]
        defaults["source"], defaults["credit"] = self.dataset, credit(read.about)
        held_out = self.split.partition("[")[0] in HELD_OUT
        defaults["split"] = "held-out" if held_out else "train"
        id = str(values["id"]) if values["id"] not in (None, "") else f"{self.split}-{number:06d}"
        song = Song(id=id, sections=read.sections, facts=read.facts, **files, **(defaults | texts))
        return song if values["facts"] is None else _with_facts(song, values["facts"], where)

    def _lyrics(self, values: Row, audio: str, where: str, language: str) -> Read:
        if values["sections"] is not None:
            sections = _json(values["sections"], f"{where}, sections")
            song = from_json({"id": where, "sections": sections})
            if not song.lines:
                raise LyricsError(f"{where}: its sections hold no line; leave the row out")
            return Read(song.sections, {})
        text = values["lyrics"]
        if isinstance(text, (list, tuple)):
            text = "\n".join(map(str, text))
        if not isinstance(text, str):
            advice = "name their column (columns: {lyrics: ...})"
            raise LyricsError(f"{where}: has no lyrics; {advice}")
        form = form_of(text) if self.form == "auto" else self.form
        seconds = 0.0 if form == "plain" else _seconds(audio, where)
        return read_lyrics(text, form, seconds, f"{where}, lyrics", language)

    @property
    def _home(self) -> Path:
        home = self.cache or os.environ.get("DISTILL_CACHE") or "~/.cache/distill"
        return Path(home).expanduser() / "audio"


def _seconds(audio: str, where: str) -> float:
    try:
        return safe_decode.promise_safely(audio).seconds
    except AudioError as error:
        raise AudioError(f"{where}: {error}") from None


def _with_facts(song: Song, facts: object, where: str) -> Song:
    row = {"id": song.id, "sections": (), "facts": _json(facts, f"{where}, facts")}
    for fact in from_json(row).facts:
        song = song.with_fact(fact)
    return song


def _json(value: object, where: str) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise SongError(f"{where}: not JSON ({str(error)[:60]}); export it again") from None


# --- the dataset ----------------------------------------------------------------------------------
def _dataset_rows(settings: Settings) -> Iterator[Row]:
    """The rows of the split, their sound as bytes or path. SettingsError without `datasets`."""
    try:
        import datasets
    except ImportError:
        advice = 'run pip install "distill[hub-data]"'
        raise SettingsError(f"reading datasets needs `datasets`; {advice}") from None
    try:
        dataset = _open(datasets, settings)
        for name, feature in dict(dataset.features or {}).items():
            if isinstance(feature, datasets.Audio):
                dataset = dataset.cast_column(name, datasets.Audio(decode=False))
        yield from dataset
    except DistillError:
        raise
    # the library's, the hub's and Arrow's own: all mean that it cannot be read
    except Exception as error:
        asks = "install what it asks for" if isinstance(error, ImportError) else ""
        reason = f"{settings.dataset}: cannot be read ({_short(error, 160)})"
        raise FolderError(f"{reason}; {asks or 'check name, split and config'}") from error


def _short(error: Exception, length: int) -> str:
    return " ".join(str(error).split())[:length] or type(error).__name__


def _open(datasets: ModuleType, settings: Settings) -> Any:
    folder = Path(settings.dataset).expanduser()
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        dataset = datasets.load_from_disk(str(folder))
        if not isinstance(dataset, dict):
            return dataset
        if settings.split not in dataset:
            splits = ", ".join(dataset)
            raise SettingsError(f"split {settings.split!r} is not in {folder}; it has {splits}")
        return dataset[settings.split]
    name, _, revision = settings.dataset.partition("@")
    where = {"path": name, "revision": revision or None}
    if folder.exists():
        where = {"path": str(folder)}
    return datasets.load_dataset(
        **where, name=settings.config, split=settings.split, streaming=settings.streaming
    )


def _file(value: object, home: Path, ours: bool, where: str) -> str | None:
    """A file here with a row's sound. `ours`: the dataset lies on this computer too; a stranger's
    may not name files that were here before it."""
    if value is None:
        return None
    if isinstance(value, str):
        value = {"path": value, "bytes": None}
    if not isinstance(value, Mapping) or not ({"bytes", "path"} & set(value)):
        kind = type(value).__name__
        raise AudioError(f"{where}: is {kind}, not sound; name the column that has Audio")
    path, content = str(value.get("path") or ""), value.get("bytes")
    if content is None and Path(path).is_file() and (ours or _of_a_cache(path)):
        return str(Path(path).resolve())
    if content is None:
        content = _fetched(path, ours, where)
    if not isinstance(content, bytes) or not content:
        raise AudioError(f"{where}: holds no sound; leave the row out")
    if len(content) > LARGEST_AUDIO_BYTES:
        size = f"more than {LARGEST_AUDIO_BYTES:,} bytes of sound"
        raise AudioError(f"{where}: {size} are no song's; cut it")
    key = sha256_bytes(content)
    file = home / key[:2] / f"{key}{_ending(path, content)}"
    if not file.is_file():
        write_atomic(file, content)
    return str(file.resolve())


def _ending(path: str, content: bytes) -> str:
    ending = Path(path).suffix.lower()
    if ending in ENDINGS:
        return ending
    if content[4:8] == b"ftyp":
        return ".m4a"
    return next((ending for mark, ending in MARKS.items() if content.startswith(mark)), ".mp3")


def _of_a_cache(path: str) -> bool:
    """Whether `datasets` or the hub's client put this file there."""
    from datasets import config

    homes = (config.HF_CACHE_HOME, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH)
    folders = (Path(home).expanduser().resolve() for home in homes)
    return any(Path(path).resolve().is_relative_to(folder) for folder in folders)


def _fetched(path: str, ours: bool, where: str) -> bytes:
    """What a stream only names: a file of the dataset on the hub, or inside an archive."""
    from datasets.utils.file_utils import xopen

    if not (ours or "hf://" in path):
        reason = f"names {path[-80:]!r}, which is not in the dataset"
        raise AudioError(f"{where}: {reason}; leave the row out")
    try:
        with xopen(path, "rb") as file:
            return file.read(LARGEST_AUDIO_BYTES + 1)
    except Exception as error:  # any of fsspec's file systems
        reason = f"{path[-80:]!r} cannot be fetched ({_short(error, 120)})"
        raise AudioError(f"{where}: {reason}; leave the row out") from error
