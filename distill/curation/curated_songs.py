"""The songs of a recipe: as its source gives them or, where the recipe names steps of curation, as
these leave them.

Curated songs lie in the cache under the name of source and steps, so that every verb of a recipe
finds the same ones, and only songs that are new or changed are worked on again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distill import coded_songs
from distill.config import settings as strict
from distill.curation.report import index_page
from distill.curation.runner import Report, Row, counts, curate
from distill.errors import SongError
from distill.folders import sha256_bytes
from distill.songs import Song
from distill.sources import Refusal

MOST_WORKERS = 4


def load_songs(source: Any, steps: Sequence[Any]) -> list[Song]:
    """All songs to learn from and to hold out. Raises SongError when curation leaves none."""
    if not steps:
        return source.load()
    report = curated(source, steps)
    print(f"curation: {in_words(report)}; {report.folder / 'report.html'}", flush=True)
    songs = [song for song in report.kept if song.lines]
    if len(songs) < len(report.kept):
        print(
            f"curation: {len(report.kept) - len(songs)} songs have no lyrics to learn from",
            flush=True,
        )
    if not songs:
        raise SongError(
            f"curation left no song with lyrics; {report.folder / 'report.html'} says why for each"
        )
    divide = getattr(source, "divide", None)
    return songs if divide is None else [part for song in songs for part in _divided(song, divide)]


def _divided(song: Song, divide: Callable[[Song], list[Song]]) -> list[Song]:
    """A song's lines to train on and those held out; a song that cannot spare any says so and is
    trained on whole."""
    try:
        return divide(song)
    except SongError as error:
        print(f"{error}; trained on whole", flush=True)
        return [song]


def curated(
    source: Any,
    steps: Sequence[Any],
    out: str | Path | None = None,
    workers: int | None = None,
    heard: Callable[[Row], None] | None = None,
) -> Report:
    """Curation over all songs of a source, with its page. `out`: where (the cache); `heard` is told
    of each song."""
    out = home_of(source, steps) if out is None else Path(out)
    workers = min(MOST_WORKERS, os.cpu_count() or 1) if workers is None else workers
    found: Iterable[Song | Refusal] = source.scan() if hasattr(source, "scan") else source.load()
    report: Report | None = None
    with _one_thread_each():
        for one in curate(found, steps, out, workers):
            if isinstance(one, Report):
                report = one
            elif heard is not None:
                heard(one)
    assert report is not None
    with _one_thread_each():
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


def home_of(source: Any, steps: Sequence[Any]) -> Path:
    """Where curated songs of this source and these steps lie; `songs` is another folder from
    another place."""
    said = [{"kind": strict.kind_of(part), **strict.plain(part)} for part in (source, *steps)]
    said[0] |= {
        name: str(Path(value).resolve())
        for name, value in said[0].items()
        if name != "kind" and isinstance(value, str) and value and Path(value).exists()
    }
    return (
        coded_songs.cache_folder()
        / "songs"
        / sha256_bytes(json.dumps(said, sort_keys=True).encode())[:16]
    )


def in_words(report: Report) -> str:
    """One line: how many were kept, mended, set aside."""
    of = counts(report)["songs"]
    return f"{len(report.rows)} songs: {of['kept']} kept as they are, {of['mended']} mended, {of['set aside']} set aside"


def table(report: Report) -> str:
    """What was kept, mended and set aside, and why: a row for each song with a remark, then the
    sums."""
    console = Console(record=True, file=io.StringIO())
    shown = Table(title=in_words(report))
    for column in ("song", "", "why"):
        shown.add_column(column)
    for row in report.rows:
        if row.remarks:
            words = "\n".join(f"{r.step}: {r.text}" for r in row.remarks)
            shown.add_row(row.name, row.verdict, words)
    console.print(shown)
    return console.export_text()
