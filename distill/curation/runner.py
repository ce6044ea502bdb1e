"""From songs as they were found to songs one can stand behind: every step of curation, over every
song.

    found songs -- decode, curate each --> items -- curate_all --> kept songs, set-aside songs, a report

    out/manifest.jsonl      what was kept, in our own format
    out/audio/              its sound, FLAC, as the steps left it
    out/report.json         every song, every remark, times by stage
    out/report.html, pages/ the same to look at and listen to (see `curation_page`)
    out/work/               one result a song, so that an interrupted call, made again, goes on

The source is only read, and `out` may not be a folder that holds anything else. A result carries
the fingerprint of all that it depends on: the song as it was found, the sha256 of its files, the
steps with their settings, the code and weights of this library, the versions of those it calls.
What an earlier call left of songs that are gone is swept. And what goes on is always what was
written, read back. So it does not matter how many workers there are, in which order they finish, or
how often the work was interrupted.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import metadata
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from distill import __version__
from distill.audio.safe_decode import Limits, decode_safely
from distill.config import settings as strict
from distill.curation.steps import Item, Remark
from distill.errors import AudioError, DistillError, FolderError, HubError, SettingsError, SongError
from distill.folders import package_path, sha256_bytes, sha256_file, sweep, write_atomic
from distill.songs import TRACKS, Song, from_json, manifest_row, to_json
from distill.sources import Refusal

VERSION = 1
CODE = (  # beside curation/steps/: what makes a result
    "curation/runner songs lyrics/__init__ lyrics/pronounce lyrics/pinyin lyrics/g2p licences "
    "audio/safe_decode audio/containers audio/mpeg audio/ffmpeg config/plain_yaml config/settings "
    "folders "
    "runtime/torchaudio_standin"
).split()
WEIGHTS = ("aligner", "lexicon")
LIBRARIES = (
    "numpy scipy soxr soundfile pyloudnorm ftfy py3langid pypinyin espeakng-loader demucs torch "
    "transformers"
).split()


@dataclass(frozen=True)
class Row:
    """What became of one song. seconds: its length; spent: seconds of work by stage; key: what the
    result was made from.

    Of the traces only those are here that a `curate_all` asks for.
    """

    name: str
    item: Item | None
    remarks: tuple[Remark, ...]
    seconds: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)
    key: str = ""

    @property
    def verdict(self) -> str:
        """set aside, mended or kept."""
        said = {remark.verdict for remark in self.remarks}
        return "set aside" if "set aside" in said else "mended" if "mended" in said else "kept"


@dataclass(frozen=True)
class Report:
    """All rows in the order of the source; `kept` are the songs that go on, their audio in
    `folder`.

    seconds: how long this call took; spent: seconds of work by the steps that look at all songs
    together.
    """

    folder: Path
    rows: tuple[Row, ...]
    steps: tuple[str, ...]
    seconds: float
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> list[Song]:
        return [
            row.item.song
            for row in self.rows
            if row.item is not None and row.verdict != "set aside"
        ]


def curate(
    found: Iterable[Song | Refusal],
    steps: Sequence[Any],
    out: str | Path,
    workers: int = 1,
    limits: Limits | None = None,
) -> Iterator[Row | Report]:
    """Run all steps over all songs: a Row as each song is done (in no order), at last the Report.

    An error of ours that is about the song sets it aside; one about the settings or the disk ends
    the run. Raises SettingsError for steps that name one twice, for no workers, and for a folder
    that holds other things than results; SongError when two songs share an id.
    """
    began = time.perf_counter()
    names = tuple(strict.kind_of(step) for step in steps)
    if workers < 1:
        raise SettingsError(f"curation: {workers} workers do no work; give 1 or more")
    if len(set(names)) < len(names):
        raise SettingsError(f"curation: {', '.join(names)} names a step twice; name each once")
    out = _home(Path(out).resolve())
    rows: list[Row | None] = []
    songs: dict[int, Song] = {}
    taken: set[str] = set()
    for number, one in enumerate(found):
        rows.append(None)
        if isinstance(one, Refusal):
            rows[number] = row = Row(one.name, None, (Remark("source", "set aside", one.reason),))
            yield row
            continue
        if one.id in taken:
            raise SongError(
                f"song {one.id}: two songs of the source share this id; rename one of them"
            )
        for name, path in one.tracks.items():
            if Path(path).resolve().is_relative_to(out):
                raise SettingsError(
                    f"song {one.id}: its {name} lies in {out}, where results go; name another "
                    "folder for these"
                )
        taken.add(one.id)
        songs[number] = one
    work = _Work.of(steps, out, limits or Limits())
    _sweep(out, {file_name(id) for id in taken})
    for number, row in _beside(songs, work, workers) if workers > 1 else _in_turn(songs, work):
        rows[number] = row
        yield row
    whole, spent = _together([row for row in rows if row is not None], steps)
    report = Report(out, tuple(whole), names, time.perf_counter() - began, spent)
    _write(report)
    yield report


def _home(out: Path) -> Path:
    """The folder, ready. Raises SettingsError for one that holds other people's files, which ours
    would replace."""
    try:
        if out.exists() and not (out / "work").is_dir() and any(out.iterdir()):
            raise SettingsError(
                f"{out}: holds other files; name a new or empty folder for the curated songs"
            )
        for folder in (out, out / "audio", out / "work", out / "pages"):
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
    except OSError as error:
        raise FolderError(
            f"{out}: cannot be written ({error.strerror}); name another folder for the curated "
            "songs"
        ) from None
    return out


def _sweep(out: Path, wanted: set[str]) -> None:
    """Remove the results of songs that are gone, and the sound that these results name as theirs."""
    for place in (out / "work").iterdir():
        if place.suffix not in (".json", ".txt") or place.stem in wanted:
            continue
        for path, size in _sizes(place).items():
            file = out / path
            own = file.parent == out / "audio" and file.name in {
                f"{place.stem}.{t}.flac" for t in TRACKS
            }
            if own and file.is_file() and file.stat().st_size == size:
                file.unlink()
        place.unlink()


def _sizes(place: Path) -> dict[str, int]:
    """The files that a result names, with their sizes; none where it cannot be read."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))["sizes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


# --- one song at a time ---------------------------------------------------------------------------
@dataclass(frozen=True)
class _Work:
    """What every song goes through, and where that leaves it."""

    steps: tuple[Any, ...]
    out: Path
    limits: Limits
    depends: str  # what a result depends on beside the song
    lasting: frozenset[str]  # the steps whose traces are wanted again when all songs are looked at

    @classmethod
    def of(cls, steps: Sequence[Any], out: Path, limits: Limits) -> _Work:
        each = tuple(step for step in steps if hasattr(step, "curate"))
        said = [{"kind": strict.kind_of(step), **strict.plain(step)} for step in each]
        about = [
            VERSION,
            __version__,
            *_code(),
            soundfile.__libsndfile_version__,
            dataclasses.asdict(limits),
        ]
        lasting = frozenset(strict.kind_of(step) for step in steps if hasattr(step, "curate_all"))
        return cls(each, out, limits, json.dumps([said, about], sort_keys=True), lasting)

    def key(self, song: Song) -> str:
        """The fingerprint of all that this song's result is made from."""
        row = to_json(song) | {
            name: (path, sha256_file(path)) for name, path in song.tracks.items()
        }
        return sha256_bytes(
            (json.dumps(row, sort_keys=True, ensure_ascii=False) + self.depends).encode()
        )

    def place(self, song: Song) -> Path:
        return self.out / "work" / f"{file_name(song.id)}.json"


@cache
def _code() -> list[str]:
    """The code, weights and libraries that make results: when one changes, nobody has to think of
    old results."""
    home = Path(__file__).resolve().parents[1]
    files = [
        *(home / f"{name}.py" for name in CODE),
        *sorted((home / "curation" / "steps").rglob("*.py")),
    ]
    files += [
        path
        for name in WEIGHTS
        for path in sorted(package_path(name).iterdir())
        if path.suffix != ".md"
    ]
    return [sha256_bytes("".join(map(sha256_file, files)).encode()), *map(_version, LIBRARIES)]


def _version(library: str) -> str:
    try:
        return f"{library} {metadata.version(library)}"
    except metadata.PackageNotFoundError:
        return f"no {library}"


def _in_turn(songs: dict[int, Song], work: _Work) -> Iterator[tuple[int, Row]]:
    for number, song in songs.items():
        yield number, _one(song, work)


def _beside(songs: dict[int, Song], work: _Work, workers: int) -> Iterator[tuple[int, Row]]:
    """Songs over worker processes, a few asked for ahead.

    A worker that dies (out of memory, a crash in a library) breaks its pool. The songs that were in
    it are then tried one by one, each in a pool of its own; the one that kills its worker again is
    set aside.
    """
    queue, doubtful = list(songs.items())[::-1], list[tuple[int, Song]]()
    while queue or doubtful:
        alone = bool(doubtful)
        todo = [doubtful.pop()] if alone else queue
        running: dict[Future[Row], tuple[int, Song]] = {}
        # spawned, not forked: a worker has no threads or open files of ours
        pool = ProcessPoolExecutor(1 if alone else workers, get_context("spawn"), _worker)
        try:
            if alone:
                _try_out(pool, work)
            while todo or running:
                while todo and len(running) < 2 * workers:
                    future = pool.submit(_one, todo[-1][1], work)
                    running[future] = todo.pop()
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    row = done.result()
                    yield running.pop(done)[0], row
        except BrokenProcessPool:
            lost = list(running.values())
            if alone:
                words = "its worker process died, twice (out of memory?); give each worker more, or leave it out"
                yield lost[0][0], Row(lost[0][1].id, None, (Remark("worker", "set aside", words),))
            else:
                doubtful = lost
        finally:
            pool.shutdown(cancel_futures=True)


def _try_out(pool: ProcessPoolExecutor, work: _Work) -> None:
    """Before a song is blamed: workers that cannot even start are not its doing."""
    try:
        pool.submit(_Work.__repr__, work).result()
    except BrokenProcessPool as error:
        raise SettingsError(
            "curation: worker processes cannot start (see above); call it from a file, below "
            "`if __name__ == '__main__':`, or with one worker"
        ) from error


def _worker() -> None:
    """A worker leaves Ctrl-C to the process that called it, and ends when that one is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    caller = parent_process()
    assert caller is not None
    watch = threading.Thread(
        target=lambda: (connection.wait([caller.sentinel]), os._exit(1)), daemon=True
    )
    watch.start()


def _one(song: Song, work: _Work) -> Row:
    """A song through all stages, or what an earlier call made of it."""
    try:
        key, place = work.key(song), work.place(song)
    except UnicodeError:
        words = "its name, lyrics or source hold bytes that are no text (UTF-8); rename it or write it again"
        return Row(song.id, None, (Remark("source", "set aside", words),))
    except OSError as error:
        words = f"{error.filename}: cannot be read ({error.strerror}); look at its path and rights"
        return Row(song.id, None, (Remark("source", "set aside", words),))
    earlier = _read(place, key, work)
    if earlier is not None:
        return earlier
    fault = place.with_suffix(".txt")
    for old in (place, fault, *(_flac(work.out, song, track) for track in TRACKS)):
        # first of all the result: it must never stand beside another one's sound
        old.unlink(missing_ok=True)
    item, spent = Item(song), dict[str, float]()
    for name, stage in _stages(work):
        if item.aside:
            break
        began = time.perf_counter()
        item = _through(name, stage, item, fault)
        spent[name] = time.perf_counter() - began
    if item.aside:  # also in the middle of writing
        for track in TRACKS:
            _flac(work.out, song, track).unlink(missing_ok=True)
    seconds = max((sound.seconds for sound in item.tracks.values()), default=0.0)
    row = Row(song.id, replace(item, tracks={}), item.remarks, seconds, spent, key)
    text = json.dumps(_plain(row, work.out))
    if not fault.exists():  # a fault is tried again by the next call
        write_atomic(place, text.encode())
    return _row(json.loads(text), work)


def _stages(work: _Work) -> Iterator[tuple[str, Callable[[Item], Item]]]:
    """All that a song goes through, in order, by name."""
    yield "decoding", partial(_decode, limits=work.limits)
    for step in work.steps:
        yield strict.kind_of(step), step.curate
    yield "writing", partial(_keep_sound, out=work.out)


def _through(name: str, stage: Callable[[Item], Item], item: Item, fault: Path) -> Item:
    """One stage. An error about the song is its verdict; a foreign one is a fault of ours, its
    traceback kept."""
    try:
        done = stage(item)
        if done.song is not item.song:
            json.dumps(to_json(done.song), allow_nan=False)
        # what is no plain JSON is found where it was made
        json.dumps(done.traces.get(name), allow_nan=False)
        return done
    except (SettingsError, FolderError, HubError):
        raise  # not this song's doing
    except DistillError as error:
        return item.remark(name, "set aside", str(error))
    except Exception as error:
        write_atomic(fault, traceback.format_exc().encode(errors="replace"))
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return item.remark(
            name, "set aside", f"the step failed ({words}); please report it with work/{fault.name}"
        )


def _decode(item: Item, limits: Limits) -> Item:
    tracks = {name: decode_safely(path, limits) for name, path in item.song.tracks.items()}
    return replace(item, tracks=tracks)


def _keep_sound(item: Item, out: Path) -> Item:
    """Write the tracks as 16-bit FLAC; sound above full scale is turned down, all tracks alike."""
    peak = max(
        (float(np.abs(sound.wave_CW).max(initial=0)) for sound in item.tracks.values()), default=0.0
    )
    gain = 1.0 if peak <= 1.0 else 0.999 / peak
    if gain < 1:
        item = item.remark(
            "writing", "mended", f"turned down by {-20 * np.log10(gain):.1f} dB to fit full scale"
        )
    paths: dict[str, Any] = dict.fromkeys(TRACKS)  # a step may have taken one away
    for name, sound in item.tracks.items():
        if not np.isfinite(sound.wave_CW).all():
            raise AudioError(
                f"{name} holds samples that are NaN or infinite; look for the step that made them"
            )
        memory = io.BytesIO()
        try:
            soundfile.write(
                memory, (gain * sound.wave_CW).T, sound.sample_rate, format="FLAC", subtype="PCM_16"
            )
        except (soundfile.LibsndfileError, ValueError) as error:
            shape = f"{len(sound.wave_CW)} channels at {sound.sample_rate} Hz"
            raise AudioError(
                f"{name}: {shape} cannot be written as FLAC ({error}); convert it first"
            ) from None
        path = _flac(out, item.song, name)
        write_atomic(path, memory.getvalue())
        paths[name] = str(path)
    return replace(item, song=replace(item.song, **paths))


def _flac(out: Path, song: Song, track: str) -> Path:
    return out / "audio" / f"{file_name(song.id)}.{track}.flac"


def file_name(id: str) -> str:
    """A song's id as a file name that no other id has, also where a disk takes A for a."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", id).strip("-.")[:60] or "song"
    return (
        plain
        if plain == id.lower()
        else f"{plain}-{sha256_bytes(id.encode(errors='surrogateescape'))[:8]}"
    )


# --- results on disk ------------------------------------------------------------------------------
def _plain(row: Row, out: Path) -> dict[str, Any]:
    assert row.item is not None
    song = row.item.song
    tracks: dict[str, Any] = {} if row.item.aside else song.tracks
    # the folder may be moved
    tracks = {name: Path(path).relative_to(out).as_posix() for name, path in tracks.items()}
    return {
        "key": row.key, "name": row.name, "song": to_json(replace(song, **tracks)), "traces": dict(row.item.traces),
        "sizes": {path: (out / path).stat().st_size for path in tracks.values()},
        "remarks": [list(remark) for remark in row.remarks], "seconds": row.seconds, "spent": row.spent,
    }  # fmt: skip


def _row(plain: dict[str, Any], work: _Work) -> Row:
    song, remarks = from_json(plain["song"]), tuple(Remark(*remark) for remark in plain["remarks"])
    item = Item(
        song, {}, remarks, {n: trace for n, trace in plain["traces"].items() if n in work.lasting}
    )
    if not item.aside:
        tracks: dict[str, Any] = {name: str(work.out / path) for name, path in song.tracks.items()}
        item = replace(item, song=replace(song, **tracks))
    return Row(plain["name"], item, remarks, plain["seconds"], plain["spent"], plain["key"])


def _read(place: Path, key: str, work: _Work) -> Row | None:
    """An earlier result, if it was made from the same, is whole, and its sound is still there."""
    try:
        plain = json.loads(place.read_text(encoding="utf-8"))
        there = all(
            (work.out / path).stat().st_size == size for path, size in plain["sizes"].items()
        )
        return _row(plain, work) if there and plain["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


# --- all songs together ---------------------------------------------------------------------------
def _together(rows: list[Row], steps: Sequence[Any]) -> tuple[list[Row], dict[str, float]]:
    """The steps that look at all songs, each on those that are left."""
    spent = {}
    for step in (step for step in steps if hasattr(step, "curate_all")):
        began = time.perf_counter()
        left = {
            n: row.item
            for n, row in enumerate(rows)
            if row.item is not None and row.verdict != "set aside"
        }
        for n, item in zip(left, step.curate_all(list(left.values())), strict=True):
            rows[n] = replace(rows[n], item=item, remarks=item.remarks)
        spent[f"{strict.kind_of(step)}, all songs"] = time.perf_counter() - began
    return rows, spent


def _write(report: Report) -> None:
    """The manifest of what is kept, and the report of all."""
    manifest = "".join(manifest_row(song, report.folder) + "\n" for song in report.kept)
    write_atomic(report.folder / "manifest.jsonl", manifest.encode())
    plain = {
        "version": VERSION, "steps": list(report.steps), "songs": [_summary(row) for row in report.rows],
        "counts": counts(report), "rights": joint(report), "seconds_by_stage": by_stage(report),
    }  # fmt: skip
    text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    write_atomic(report.folder / "report.json", text.encode(errors="replace"))


def _summary(row: Row) -> dict[str, Any]:
    song = row.item.song if row.item is not None else None
    about: dict[str, Any] = {
        "name": row.name,
        "verdict": row.verdict,
        "seconds": round(row.seconds, 3),
    }
    about["remarks"] = [{"step": r.step, "verdict": r.verdict, "text": r.text} for r in row.remarks]
    if song is not None:
        about |= {"licence": song.licence, "split": song.split, "group": song.group}
        about["facts"] = {
            f.name: {"value": f.value, "by": f.by, "confidence": f.confidence} for f in song.facts
        }
    return about


def joint(report: Report) -> dict[str, Any] | None:
    """What the step `rights` found for all songs together; None where it was not asked."""
    traces = (row.item.traces for row in report.rows if row.item is not None)
    return next((trace["rights"] for trace in traces if "rights" in trace), None)


def counts(report: Report) -> dict[str, dict[str, int]]:
    """Songs by verdict, and by step and verdict (a song counts once for each)."""
    found: dict[str, dict[str, int]] = {"songs": {"kept": 0, "mended": 0, "set aside": 0}}
    for row in report.rows:
        found["songs"][row.verdict] += 1
        for step, verdict in dict.fromkeys((r.step, r.verdict) for r in row.remarks):
            of_step = found.setdefault(step, {"mended": 0, "noted": 0, "set aside": 0})
            of_step[verdict] += 1
    return found


def by_stage(report: Report) -> dict[str, float]:
    """Seconds of work by stage, summed over songs (workers side by side count double)."""
    total: dict[str, float] = {}
    for row in report.rows:
        for stage, seconds in row.spent.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return {stage: round(seconds, 3) for stage, seconds in (total | report.spent).items()}


__all__ = ["Report", "Row", "by_stage", "counts", "curate", "file_name", "joint"]
