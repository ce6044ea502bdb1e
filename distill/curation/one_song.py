"""One song through decoding, every step and writing; and what became of it, kept on disk.

work/<song>.json     the result, under the fingerprint of all that it was made from
work/<song>.txt      the traceback of a step that failed; the next call tries the song again
audio/<song>.<track>.flac
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from distill import __version__
from distill.audio.safe_decode import Limits, decode_safely
from distill.config import settings as strict
from distill.curation import fingerprint
from distill.curation.rows import Row
from distill.curation.steps import CurationStep, Item, Remark, StepOnAll, StepOnOne
from distill.errors import AudioError, DistillError, FolderError, HubError, SettingsError
from distill.folders import sha256_bytes, sha256_files, write_atomic
from distill.songs import TRACKS, Song, from_json, to_json

VERSION = 1  # of a result: its form, and the stages and writing of sound that led to it
FULL_SCALE = 0.999


@dataclass(frozen=True)
class Work:
    """What every song goes through, and where that leaves it. depends: what a result depends on
    beside the song; lasting: the steps that want their traces again for all songs together."""

    steps: tuple[StepOnOne, ...]
    out: Path
    limits: Limits
    depends: str
    lasting: frozenset[str]

    @classmethod
    def of(cls, steps: Sequence[CurationStep], out: Path, limits: Limits) -> Work:
        on_one = tuple(step for step in steps if isinstance(step, StepOnOne))
        settings = [{"kind": strict.kind_of(step), **strict.plain(step)} for step in on_one]
        versions = [VERSION, __version__, *fingerprint.of_steps()]
        versions += [soundfile.__libsndfile_version__, dataclasses.asdict(limits)]
        lasting = frozenset(strict.kind_of(step) for step in steps if isinstance(step, StepOnAll))
        depends = json.dumps([settings, versions], sort_keys=True)
        return cls(on_one, out, limits, depends, lasting)

    def key(self, song: Song) -> str:
        """The fingerprint of all that this song's result is made from."""
        hashes = zip(song.tracks.items(), sha256_files(song.tracks.values()), strict=True)
        files = {track: (path, content) for (track, path), content in hashes}
        row = json.dumps(to_json(song) | files, sort_keys=True, ensure_ascii=False)
        return sha256_bytes((row + self.depends).encode())

    def result(self, song: Song) -> Path:
        return self.out / "work" / f"{file_name(song.id)}.json"

    def flac(self, song: Song, track: str) -> Path:
        return self.out / "audio" / f"{file_name(song.id)}.{track}.flac"

    def stages(self) -> Iterator[tuple[str, Callable[[Item], Item]]]:
        """All that a song goes through, in order, by name."""
        yield "decoding", partial(_decode, limits=self.limits)
        for step in self.steps:
            yield strict.kind_of(step), step.curate
        yield "writing", partial(_keep_sound, work=self)


def file_name(id: str) -> str:
    """A song's id as a file name that no other id has, also where a disk takes A for a."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", id).strip("-.")[:60] or "song"
    if plain == id.lower():
        return plain
    return f"{plain}-{sha256_bytes(id.encode(errors='surrogateescape'))[:8]}"


def curate_song(song: Song, work: Work) -> Row:
    """A song through all stages, or what an earlier call made of it."""
    try:
        key = work.key(song)
    except UnicodeError:
        words = "its name, lyrics or source hold bytes that are no text (UTF-8)"
        return refused(song.id, "source", f"{words}; rename it or write it again")
    except OSError as error:
        words = f"{error.filename}: cannot be read ({error.strerror}); look at its path and rights"
        return refused(song.id, "source", words)
    result = work.result(song)
    if earlier := _read(result, key, work):
        return earlier
    fault, flacs = result.with_suffix(".txt"), [work.flac(song, track) for track in TRACKS]
    for old in (result, fault, *flacs):
        # first of all the result: it must never stand beside another one's sound
        old.unlink(missing_ok=True)
    item, spent = Item(song), dict[str, float]()
    for name, stage in work.stages():
        if item.aside:
            break
        began = time.perf_counter()
        item = _through(name, stage, item, fault)
        spent[name] = time.perf_counter() - began
    if item.aside:  # also in the middle of writing
        for flac in flacs:
            flac.unlink(missing_ok=True)
    seconds = max((sound.seconds for sound in item.tracks.values()), default=0.0)
    text = json.dumps(_to_json(Row(song.id, item, item.remarks, seconds, spent, key), work.out))
    if not fault.exists():  # a fault is tried again by the next call
        write_atomic(result, text.encode())
    return _from_json(json.loads(text), work)


def refused(name: str, stage: str, reason: str) -> Row:
    """The row of a song that went through nothing."""
    return Row(name, None, (Remark(stage, "set aside", reason),))


# --- stages ---------------------------------------------------------------------------------------
def _through(name: str, stage: Callable[[Item], Item], item: Item, fault: Path) -> Item:
    """One stage. Our error is the song's verdict; a foreign one is a fault, its traceback kept."""
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
        words = f"the step failed ({words}); please report it with work/{fault.name}"
        return item.remark(name, "set aside", words)


def _decode(item: Item, limits: Limits) -> Item:
    tracks = {name: decode_safely(path, limits) for name, path in item.song.tracks.items()}
    return replace(item, tracks=tracks)


def _keep_sound(item: Item, work: Work) -> Item:
    """Write the tracks as 16-bit FLAC; sound above full scale is turned down, all tracks alike."""
    peaks = [float(np.abs(sound.wave_CW).max(initial=0)) for sound in item.tracks.values()]
    gain = 1.0 if max(peaks, default=0.0) <= 1.0 else FULL_SCALE / max(peaks)
    if gain < 1:
        words = f"turned down by {-20 * np.log10(gain):.1f} dB to fit full scale"
        item = item.remark("writing", "mended", words)
    paths = {}
    for name, sound in item.tracks.items():
        if not np.isfinite(sound.wave_CW).all():
            raise AudioError(
                f"{name} holds NaN or infinite samples; look for the step that made them"
            )
        wave_WC, rate = (gain * sound.wave_CW).T, sound.sample_rate
        memory, path = io.BytesIO(), work.flac(item.song, name)
        try:
            soundfile.write(memory, wave_WC, rate, format="FLAC", subtype="PCM_16")
        except (soundfile.LibsndfileError, ValueError) as error:
            words = f"{name}: {len(sound.wave_CW)} channels at {rate} Hz cannot be written as FLAC"
            raise AudioError(f"{words} ({error}); convert it first") from None
        write_atomic(path, memory.getvalue())
        paths[name] = str(path)
    return replace(item, song=item.song.with_tracks(paths))


# --- results on disk ------------------------------------------------------------------------------
def _to_json(row: Row, out: Path) -> dict[str, object]:
    """A row as plain JSON, its files by their path below `out`, which may be moved."""
    assert row.item is not None
    song, paths = row.item.song, dict[str, str]()
    if not row.item.aside:
        paths = {name: Path(path).relative_to(out).as_posix() for name, path in song.tracks.items()}
        song = song.with_tracks(paths)
    return {
        "key": row.key, "name": row.name, "song": to_json(song), "traces": dict(row.item.traces),
        "sizes": {path: (out / path).stat().st_size for path in paths.values()},
        "remarks": row.remarks, "seconds": row.seconds, "spent": row.spent,
    }  # fmt: skip


def _from_json(values: Mapping[str, Any], work: Work) -> Row:
    song, remarks = from_json(values["song"]), tuple(Remark(*r) for r in values["remarks"])
    traces = {step: trace for step, trace in values["traces"].items() if step in work.lasting}
    item = Item(song, {}, remarks, traces)
    if not item.aside:
        paths = {name: str(work.out / path) for name, path in song.tracks.items()}
        item = replace(item, song=song.with_tracks(paths))
    return Row(values["name"], item, remarks, values["seconds"], values["spent"], values["key"])


def _read(result: Path, key: str, work: Work) -> Row | None:
    """An earlier result, if it was made from the same, is whole, and its sound is still there."""
    try:
        values = json.loads(result.read_text(encoding="utf-8"))
        sizes = values["sizes"].items()
        there = all((work.out / path).stat().st_size == size for path, size in sizes)
        return _from_json(values, work) if there and values["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def sweep_results(out: Path, wanted: set[str]) -> None:
    """Remove the results of songs that are gone, with their sound. wanted: file names to keep."""
    for result in (out / "work").iterdir():
        if result.suffix not in (".json", ".txt") or result.stem in wanted:
            continue
        flacs = {out / "audio" / f"{result.stem}.{track}.flac" for track in TRACKS}
        for path, size in _sizes(result).items():
            file = out / path
            if file in flacs and file.is_file() and file.stat().st_size == size:
                file.unlink()
        result.unlink()


def _sizes(result: Path) -> dict[str, int]:
    """The files that a result names, with their sizes; none where it cannot be read."""
    try:
        sizes = json.loads(result.read_text(encoding="utf-8"))["sizes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return sizes if isinstance(sizes, dict) else {}
