"""What the verbs of the command line do, one function each, for whoever calls from Python.

A recipe's run is its task's (distill/tasks); here are its single stages, curation alone, and the
merge of any singer.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from distill.config import settings as strict
from distill.config.recipe import Recipe, check, with_songs
from distill.curation.curated_songs import curated, in_words, table
from distill.curation.rows import Row
from distill.errors import SettingsError
from distill.folders import public_name
from distill.lm.held import Dtype, check_held
from distill.lm.merge import merge as merge_student
from distill.runtime import engines, ranks
from distill.singing.singer import load_singer
from distill.singing.singer_folder import open_singer, put_part, read_about, write_about
from distill.tasks import _run, _singing_run
from distill.training import sharding

ROOMS_OF_PARTS = (
    "tasks", "sources", "curation/steps", "exporters", "codecs", "vocoders", "teachers", "measures",
)  # fmt: skip


def parts() -> dict[str, list[str]]:
    """The kinds found on disk, by folder; and the losses."""
    kinds = {room.removesuffix("/steps"): strict.kinds(room) for room in ROOMS_OF_PARTS}
    return kinds | {"losses": sorted(strict.classes_in("writing/losses"))}


@contextlib.contextmanager
def _workers(recipe: Recipe, engine: str | None) -> Iterator[None]:
    """Within the block songs are worked on by `engine` (runtime/engines.py), and all processes of a
    launcher (runtime/ranks.py) do one run. SettingsError for both at once, and for a recipe that
    cannot be sharded as the launcher asks."""
    if sharding.is_wanted():
        base = getattr(recipe.settings, "base", None)
        sharding.refuse(recipe.settings.train, getattr(base, "quantise", "none"))
    if ranks.processes() > 1 and engine not in (None, "local"):
        words = f"--engine {engine} and {ranks.processes()} processes do not go together"
        ways = "run distill encode and record with it first, then launch"
        raise SettingsError(f"{words}; {ways}")
    with ranks.together(), engines.using(engine):
        yield


def run(
    recipe: Recipe,
    songs: str | None = None,
    out: str | Path | None = None,
    engine: str | None = None,
) -> str:
    """The whole chain of a recipe, in `out` or adapters/<recipe>; a few lines on its outcome."""
    recipe = with_songs(recipe, songs)
    with _workers(recipe, engine):
        return recipe.settings.run(recipe, _folder(recipe, out))


def estimate(recipe: Recipe, songs: str | None = None) -> str:
    """What a recipe means, and what its run will take: songs are encoded, a few steps trained."""
    from distill.tasks import _estimate

    recipe = with_songs(recipe, songs)
    figures = _estimate.estimate(recipe)  # before its lines: an error stands alone
    return "\n".join([*check(recipe), *figures.lines()])


def encode(recipe: Recipe, songs: str | None = None, engine: str | None = None) -> str:
    """Songs to codes, into the cache."""
    with _workers(recipe, engine):
        stage = _stage(recipe, songs)
    passages = f"{len(stage.train)} passages to train on, {len(stage.held_out)} held out"
    return f"{passages}, {stage.seconds / 60:.1f} minutes"


def record(recipe: Recipe, songs: str | None = None, engine: str | None = None) -> str:
    """The recorded teacher's signals for every passage, into its folder."""
    with _workers(recipe, engine):
        stage = _stage(recipe, songs)
        recorded, teacher = stage.record(), stage.settings.teacher
    if recorded is None or teacher is None:
        raise SettingsError(
            f"{recipe.name}: its teacher is not `recorded`; there is nothing to record"
        )
    return f"{recorded} passages recorded by {teacher.singer}"


def train(
    recipe: Recipe,
    songs: str | None = None,
    out: str | Path | None = None,
    engine: str | None = None,
) -> str:
    """Training alone: the adapter (or a fully trained model, merged) in the run folder."""
    folder = _folder(recipe, out)
    with _workers(recipe, engine):
        _run.announce(with_songs(recipe, songs))
        stage = _stage(recipe, songs)
        stage.record()
        _, steps = _singing_run.train(stage, folder)
    return f"{folder / 'singer'}: {steps} steps"


def _folder(recipe: Recipe, out: str | Path | None) -> Path:
    return Path(out) if out is not None else Path("adapters") / recipe.name


def _stage(recipe: Recipe, songs: str | None) -> _singing_run.Stage:
    """The stage of a recipe of task sing. Raises SettingsError for another task."""
    if recipe.task != "sing":
        raise SettingsError(f"{recipe.name}: task {recipe.task} has no stages; use distill run")
    return _singing_run.open_stage(with_songs(recipe, songs))


def songs(
    what: str | Path,
    load: Callable[[str | Path], Recipe],
    out: str | Path | None = None,
    workers: int | None = None,
    export: str | None = None,
    engine: str | None = None,
) -> str:
    """Curation alone, of a folder (with the steps of recipe my-songs) or of a recipe; its table.

    `load` reads a recipe by name. `export`: also write the kept songs as this format, into
    out/<format>.
    """
    recipe = with_songs(load("my-songs"), str(what)) if Path(what).is_dir() else load(what)
    settings = recipe.settings
    if not getattr(settings, "curation", ()):
        words = "names no steps of curation; write curation: [{kind: loudness}, ...]"
        raise SettingsError(f"{recipe.name}: {words}")
    formats = strict.kinds("exporters")
    if export is not None and export not in formats:
        raise SettingsError(f"--export {export}: unknown; give one of {', '.join(formats)}")
    if ranks.processes() > 1:
        words = "is the work of one process, with --workers N or --engine ray"
        raise SettingsError(f"curation alone {words}; leave the launcher out")
    with engines.using(engine):
        report = curated(settings.songs, settings.curation, out, workers, _tell)
    lines = [table(report), f"{in_words(report)}; {report.folder / 'report.html'}"]
    if export is not None:
        folder = report.folder / export
        exporter = importlib.import_module(f"distill.exporters.{export}")
        left_out = exporter.export(report.kept, folder)
        lines += [f"{export}: {song.id} left out: {song.reason}" for song in left_out]
        lines.append(f"{export}: {folder}")
    return "\n".join(lines)


def _tell(row: Row) -> None:
    print(f"{row.name}: {row.verdict}", flush=True)


def merge(run_folder: str | Path, out: str | Path, dtype: Dtype | None = None) -> str:
    """A singer's adapter and base as one stock model, reloaded and compared before it is there.
    `dtype`: of its numbers; None: the base's own."""
    check_held(dtype, None)
    student, _, folder = open_singer(run_folder)
    merged = merge_student(student, out, dtype)
    about = read_about(folder)
    for name in ("codec", "vocoder"):
        if (folder / name).is_dir():
            put_part(Path(out), name, folder / name)
    write_about(Path(out), replace(about, base=public_name(about.base)))
    difference, logit = merged.largest_difference, merged.largest_logit
    return f"{merged.folder}: largest difference {difference:.1e} of logits up to {logit:.1f}"


__all__ = [
    "check",
    "encode",
    "estimate",
    "load_singer",
    "merge",
    "parts",
    "record",
    "run",
    "songs",
    "train",
]
