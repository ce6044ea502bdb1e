"""The songs of a recipe: as its source gives them, or as its steps of curation leave them.

Curated songs lie in the cache under the name of source and steps, so that every verb of a recipe
finds the same ones, and only songs that are new or changed are worked on again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from distill.config import settings as strict
from distill.curation.report import index_page
from distill.curation.rows import Report, Row, counts
from distill.curation.runner import curate
from distill.curation.steps import CurationStep
from distill.errors import SongError
from distill.folders import cache_folder, sha256_bytes
from distill.songs import Song
from distill.sources import Scanned, Source

MOST_WORKERS = 4


def load_songs(source: Source, steps: Sequence[CurationStep]) -> list[Song]:
    """All songs to learn from and to hold out. Raises SongError when curation leaves none."""
    if not steps:
        return source.load()
    report = curated(source, steps)
    page = report.folder / "report.html"
    print(f"curation: {in_words(report)}; {page}", flush=True)
    songs = [song for song in report.kept if song.lines]
    if silent := len(report.kept) - len(songs):
        print(f"curation: {silent} songs have no lyrics to learn from", flush=True)
    if not songs:
        raise SongError(f"curation left no song with lyrics; {page} says why for each")
    divide = getattr(source, "divide", None)
    return songs if divide is None else [part for song in songs for part in _divided(song, divide)]


def _divided(song: Song, divide: Callable[[Song], list[Song]]) -> list[Song]:
    """A song's lines to train on and those held out; one that cannot spare any stays whole."""
    try:
        return divide(song)
    except SongError as error:
        print(f"{error}; trained on whole", flush=True)
        return [song]


def curated(
    source: Source,
    steps: Sequence[CurationStep],
    out: str | Path | None = None,
    workers: int | None = None,
    heard: Callable[[Row], None] | None = None,
) -> Report:
    """Curate all songs of a source, with a page. out: None for the cache; `heard` gets each row."""
    out = home_of(source, steps) if out is None else Path(out)
    workers = min(MOST_WORKERS, os.cpu_count() or 1) if workers is None else workers
    songs = source.scan() if isinstance(source, Scanned) else source.load()
    report: Report | None = None
    with _one_thread_each():
        for row in curate(songs, steps, out, workers):
            if isinstance(row, Report):
                report = row
            elif heard is not None:
                heard(row)
        assert report is not None
        index_page.write(report, workers)
    return report


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Workers started in here use one thread each: they are as many as there are cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def home_of(source: Source, steps: Sequence[CurationStep]) -> Path:
    """Where curated songs of this source and these steps lie; paths are resolved first."""
    settings = [{"kind": strict.kind_of(part), **strict.plain(part)} for part in (source, *steps)]
    for name, value in settings[0].items():
        if name != "kind" and isinstance(value, str) and value and Path(value).exists():
            settings[0][name] = str(Path(value).resolve())
    key = sha256_bytes(json.dumps(settings, sort_keys=True).encode())[:16]
    return cache_folder() / "songs" / key


def in_words(report: Report) -> str:
    """One line: how many were kept, mended, set aside."""
    words = {"kept": "kept as they are"}
    numbers = counts(report)["songs"].items()
    parts = [f"{number} {words.get(verdict, verdict)}" for verdict, number in numbers]
    return f"{len(report.rows)} songs: {', '.join(parts)}"


def table(report: Report) -> str:
    """What became of the songs, and why: a row for each with a remark, below the sums."""
    console = Console(record=True, file=io.StringIO())
    songs = Table("song", "", "why", title=in_words(report))
    for row in report.rows:
        if row.remarks:
            words = "\n".join(f"{remark.step}: {remark.text}" for remark in row.remarks)
            songs.add_row(row.name, row.verdict, words)
    console.print(songs)
    return console.export_text()
