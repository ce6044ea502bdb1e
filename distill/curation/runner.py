"""From songs as they were found to songs one can stand behind: every step, over every song.

    songs -- decode, curate each --> items -- curate_all --> kept and set-aside songs, a report

    out/manifest.jsonl      what was kept, in our own format
    out/audio/              its sound, FLAC, as the steps left it
    out/report.json         every song, every remark, times by stage
    out/report.html, pages/ the same to look at and listen to (see `report`)
    out/work/               one result a song, so that an interrupted call, made again, goes on

The source is only read, and `out` may not be a folder that holds anything else. A result carries
the fingerprint of all that it depends on: the song as it was found, the sha256 of its files, the
steps with their settings and what these stand on (`fingerprint`). What an earlier call left of
songs that are gone is swept. And what goes on is always what was written, read back. So it does
not matter how many workers there are, of this machine or of an engine's (`runtime/engines.py`), in
which order they finish, or how often they are stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from distill.audio.safe_decode import Limits
from distill.config import settings as strict
from distill.curation.one_song import Work, curate_song, file_name, refused, sweep_results
from distill.curation.rows import Report, Row, write
from distill.curation.steps import CurationStep, StepOnAll
from distill.errors import FolderError, SettingsError, SongError
from distill.folders import sweep
from distill.runtime import engines
from distill.runtime.workers import Died, Local
from distill.songs import Song
from distill.sources import Refusal

__all__ = ["curate"]


def curate(
    songs: Iterable[Song | Refusal],
    steps: Sequence[CurationStep],
    out: str | Path,
    workers: int = 1,
    limits: Limits | None = None,
) -> Iterator[Row | Report]:
    """Run all steps over all songs: a Row as each song is done (in no order), at last the Report.

    Our errors about a song set it aside; those about settings or the disk end the run. Raises
    SettingsError for a step named twice, no workers, a folder that holds other things than results;
    SongError when two songs share an id."""
    began = time.perf_counter()
    names = tuple(strict.kind_of(step) for step in steps)
    if workers < 1:
        raise SettingsError(f"curation: {workers} workers do no work; give 1 or more")
    if len(set(names)) < len(names):
        raise SettingsError(f"curation: {', '.join(names)} names a step twice; name each once")
    out = _home(Path(out).resolve())
    rows: dict[int, Row] = {}
    usable: dict[int, Song] = {}
    ids: set[str] = set()
    for number, song in enumerate(songs):
        if isinstance(song, Refusal):
            rows[number] = refused(song.name, "source", song.reason)
            yield rows[number]
        else:
            _check(song, ids, out)
            ids.add(song.id)
            usable[number] = song
    work = Work.of(steps, out, limits or Limits())
    sweep_results(out, {file_name(id) for id in ids})
    in_turn = ((number, curate_song(song, work)) for number, song in usable.items())
    engine = engines.chosen() or (Local(workers) if workers > 1 else None)
    for number, row in in_turn if engine is None else _beside(usable, work, engine):
        rows[number] = row
        yield row
    in_order, spent = _together([rows[number] for number in sorted(rows)], steps)
    report = Report(out, in_order, names, time.perf_counter() - began, spent)
    write(report)
    yield report


def _home(out: Path) -> Path:
    """The folder, ready. Raises SettingsError for one that holds other people's files."""
    try:
        if out.exists() and not (out / "work").is_dir() and any(out.iterdir()):
            words = "name a new or empty folder for the curated songs"
            raise SettingsError(f"{out}: holds other files; {words}")
        for folder in (out, out / "audio", out / "work", out / "pages"):
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
    except OSError as error:
        words = f"{out}: cannot be written ({error.strerror}); name another folder"
        raise FolderError(f"{words} for the curated songs") from None
    return out


def _check(song: Song, ids: set[str], out: Path) -> None:
    """Raises SongError for an id that is taken, SettingsError for sound that lies among results."""
    if song.id in ids:
        raise SongError(f"song {song.id}: two songs of the source share this id; rename one")
    for name, path in song.tracks.items():
        if Path(path).resolve().is_relative_to(out):
            words = f"song {song.id}: its {name} lies in {out}, where results go"
            raise SettingsError(f"{words}; name another folder for these")


def _together(
    rows: list[Row], steps: Sequence[CurationStep]
) -> tuple[tuple[Row, ...], dict[str, float]]:
    """The steps that look at all songs, each on those that are left; and the seconds they took."""
    spent = {}
    for step in (step for step in steps if isinstance(step, StepOnAll)):
        began = time.perf_counter()
        left = {number: item for number, row in enumerate(rows) if (item := row.kept) is not None}
        for number, item in zip(left, step.curate_all(list(left.values())), strict=True):
            rows[number] = replace(rows[number], item=item, remarks=item.remarks)
        spent[f"{strict.kind_of(step)}, all songs"] = time.perf_counter() - began
    return tuple(rows), spent


# --- workers --------------------------------------------------------------------------------------
def _beside(
    songs: Mapping[int, Song], work: Work, engine: engines.Engine
) -> Iterator[tuple[int, Row]]:
    """Songs over the workers of an engine; one that kills them is set aside."""
    numbers, queue = list(songs), list(songs.values())
    for place, row in engine.each(partial(curate_song, work=work), queue, "curation"):
        if isinstance(row, Died):
            words = f"its worker process died, time and again ({row.how}; out of memory?)"
            ways = "give each worker more, or leave it out"
            row = refused(queue[place].id, "worker", f"{words}; {ways}")
        yield numbers[place], row
