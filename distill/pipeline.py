"""The one place where every stage meets.

    songs -> codes -> teacher's signals -> graft -> train -> singer -> judged -> merged -> a take

Each stage leaves what it made where the next run of the same recipe finds it again (codes and
signals in the cache, training in the run folder), so an interrupted run, called again, goes on.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distill import coded_songs, folders
from distill.config import settings as strict
from distill.config.recipe import Recipe
from distill.config.recipe import check as check_recipe
from distill.curation.curated_songs import curated, in_words, load_songs, table
from distill.errors import SettingsError
from distill.licences import named
from distill.lm import logits
from distill.lm.merge import merge as merge_student
from distill.lm.prompts import Coded, grain_of
from distill.lm.student import Student
from distill.runtime.devices import best_device
from distill.singing import evaluate
from distill.singing.singer import Singer, load_singer
from distill.singing.singer_folder import (
    About,
    VocoderCard,
    about_singer,
    open_singer,
    open_vocoder,
    put_codec,
    put_part,
    read_about,
    singer_folder,
    write_about,
)
from distill.songs import Line, Song, from_its_start
from distill.sources.embedded import Settings as EmbeddedSongs
from distill.tasks import sing as sing_task
from distill.tasks._sound import Listening, compare
from distill.teachers.model import Settings as LiveTeacher
from distill.teachers.recorded import RecordedTeacher
from distill.training.progress import show
from distill.training.trainer import train as train_task
from distill.vocoders.codec import CodecVocoder
from distill.vocoders.head import HeadVocoder, read_config

log = logging.getLogger("distill")
LISTEN_SECONDS = 60.0
PARTS = (
    "tasks",
    "sources",
    "curation/steps",
    "exporters",
    "codecs",
    "vocoders",
    "teachers",
    "measures",
)


def check(recipe: Recipe) -> list[str]:
    """What a recipe means, in lines."""
    return check_recipe(recipe)


def parts() -> dict[str, list[str]]:
    """The kinds found on disk, by folder; and the losses."""
    found = {folder: strict.kinds(folder) for folder in PARTS}
    return found | {"losses": sorted(strict.classes_in("lm/losses"))}


def run(recipe: Recipe, songs: str | None = None, out: str | Path | None = None) -> str:
    """The whole chain of a recipe, in `out` or adapters/<recipe>; returns a few lines on what came
    of it."""
    folder = Path(out) if out is not None else Path("adapters") / recipe.name
    recipe = with_songs(recipe, songs)
    if recipe.task == "sing":
        return _run_sing(recipe, folder)
    if recipe.task == "text":
        from distill.tasks.text import Task as TextTask

        made: Any = TextTask(recipe.settings, recipe.seed)
    else:
        made = recipe.settings.task(recipe.seed)
    begun = time.perf_counter()
    shown = show(_train(made, recipe, folder), recipe.settings.train, recipe.name)
    steps = sum(1 for _ in _listened(shown, made, folder))
    made.save(folder / recipe.task)
    if recipe.task == "text":
        report = made.evaluate()
    else:
        own = getattr(made, "held_out", ())
        report = made.evaluate(
            own or _held_out_songs(recipe.settings.songs, getattr(made, "codec", None))
        )
    _write_json(folder / "report.json", report)
    spent = time.perf_counter() - begun
    return f"{folder / recipe.task}: {steps} steps, {spent:.0f} s\n{json.dumps(report, indent=1)}"


def encode(recipe: Recipe, songs: str | None = None) -> str:
    """Songs to codes, into the cache."""
    stage = Stage(with_songs(recipe, songs))
    return f"{len(stage.train)} passages to train on, {len(stage.held_out)} held out, {stage.seconds / 60:.1f} minutes"


def songs(
    what: str | Path,
    load: Any,
    out: str | Path | None = None,
    workers: int | None = None,
    export: str | None = None,
) -> str:
    """Curation alone, of a folder (with the steps of recipe my-songs) or of a recipe; returns its
    table.

    `load` reads a recipe by name. `export`: also write the kept songs as this format, into
    out/<format>.
    """
    recipe = with_songs(load("my-songs"), str(what)) if Path(what).is_dir() else load(what)
    settings = recipe.settings
    if not getattr(settings, "curation", ()):
        raise SettingsError(
            f"{recipe.name}: names no steps of curation; write curation: [{{kind: loudness}}, ...]"
        )
    if export is not None and export not in strict.kinds("exporters"):
        raise SettingsError(
            f"--export {export}: unknown; give one of {', '.join(strict.kinds('exporters'))}"
        )
    report = curated(settings.songs, settings.curation, out, workers, _tell)
    lines = [table(report), f"{in_words(report)}; {report.folder / 'report.html'}"]
    if export is not None:
        place = report.folder / export
        left = importlib.import_module(f"distill.exporters.{export}").export(report.kept, place)
        lines += [f"{export}: {one.id} left out: {one.reason}" for one in left] + [
            f"{export}: {place}"
        ]
    return "\n".join(lines)


def _tell(row: Any) -> None:
    print(f"{row.name}: {row.verdict}", flush=True)


def record(recipe: Recipe, songs: str | None = None) -> str:
    """The recorded teacher's signals for every passage, into its folder."""
    stage = Stage(with_songs(recipe, songs))
    if not isinstance(stage.teacher, RecordedTeacher):
        raise SettingsError(
            f"{recipe.name}: its teacher is not `recorded`; there is nothing to record"
        )
    return f"{stage.record()} passages recorded by {stage.teacher.name}"


def train(recipe: Recipe, songs: str | None = None, out: str | Path | None = None) -> str:
    """Training alone: the adapter (or the merged form of a fully trained model) under the run
    folder."""
    folder = Path(out) if out is not None else Path("adapters") / recipe.name
    stage = Stage(with_songs(recipe, songs))
    if isinstance(stage.teacher, RecordedTeacher):
        stage.record()
    _, steps = _teach(stage, folder)
    return f"{folder / 'singer'}: {steps} steps"


def merge(run_folder: str | Path, out: str | Path) -> str:
    """A singer's adapter and base as one stock model, reloaded and compared before it is there."""
    student, _, folder = open_singer(run_folder)
    merged, about = merge_student(student, out), read_about(folder)
    for name in ("codec", "vocoder"):
        if (folder / name).is_dir():
            put_part(Path(out), name, folder / name)
    write_about(Path(out), about)
    return f"{merged.folder}: largest difference {merged.largest_difference:.1e} of logits up to {merged.largest_logit:.1f}"


def with_songs(recipe: Recipe, songs: str | None) -> Recipe:
    """The recipe with the user's folder put into its source; recipes name no path."""
    source = getattr(recipe.settings, "songs", None)
    if songs is None:
        return recipe
    if source is None:
        raise SettingsError(
            f"{recipe.name}: task {recipe.task} takes no songs; use RECIPE=my-songs"
        )
    if not any(field.name == "folder" for field in dataclasses.fields(source)):
        raise SettingsError(
            f"{recipe.name}: its songs are of kind {strict.kind_of(source)}; use RECIPE=my-songs"
        )
    settings = dataclasses.replace(
        recipe.settings, songs=dataclasses.replace(source, folder=str(songs))
    )
    return dataclasses.replace(recipe, settings=settings)


# --- the stages of task sing ----------------------------------------------------------------------
class Stage:
    """A recipe's songs, coded; its codec, teacher, student and vocoder, opened and checked before
    anything is trained."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.settings = recipe, recipe.settings
        # a user's path stays out of what is published
        self.given = getattr(recipe.settings.songs, "folder", None)
        all_songs = load_songs(self.settings.songs, self.settings.curation)
        self.songs = [song for song in all_songs if song.split == "train"]
        self.codec = self.settings.codec.load().to(best_device())
        self.held_out_songs = [s for s in all_songs if s.split != "train"] or _held_out_songs(
            self.settings.songs, self.codec
        )
        self.student: Student = sing_task.student_of(self.settings, self.codec, recipe.seed)
        self.train = self._coded(self.songs)
        self.held_out = self._coded(self.held_out_songs) if self.held_out_songs else []
        self.teacher = (
            self.settings.teacher.load(self.codec) if self.settings.teacher is not None else None
        )
        self.vocoder = self._vocoder()

    def _vocoder(self) -> VocoderCard | None:
        """The recipe's head and the codec's decoder on the same held-out songs: which of them the
        singer will use."""
        head = self.settings.vocoder and self.settings.vocoder.load(self.codec)
        if not isinstance(head, HeadVocoder):
            return None
        found = compare(
            {"codec": CodecVocoder(self.codec), "head": head}, self.codec, self.held_out_songs
        )
        by_head, by_codec = (found[name]["mel_l1"] for name in ("head", "codec"))
        print(
            f"vocoder: mel distance {by_head:.3f} by the head, {by_codec:.3f} by the codec, over "
            f"{found['seconds']:.0f} s "
            f"of held-out song; the singer uses the {found['better']}",
            flush=True,
        )
        return VocoderCard(head.fingerprint, found["better"], by_head, by_codec, found["seconds"])

    def describe(self, folder: Path) -> None:
        """Write singer.json, and beside it the head that it speaks of, and the codec, where this
        disk alone has it."""
        if self.vocoder is not None:
            put_part(folder, "vocoder", folders.locate(self.settings.vocoder.path))
        write_about(folder, put_codec(folder, self.about()))

    def _coded(self, songs: Sequence[Song]) -> list[Coded]:
        v = self.student.vocabulary
        coded = coded_songs.code(songs, self.codec, v.longest, self.settings.writing)
        tokens = min(self.settings.packing.row_tokens, self.student.longest)
        kept, aside = coded_songs.fitting(coded, self.student.encode_text, v, tokens)
        for line in aside:
            print(line, flush=True)
        return kept

    @property
    def seconds(self) -> float:
        """Seconds of song to train on."""
        return sum(len(c.codes_FS) for c in self.train) / self.codec.format.frame_rate

    def record(self) -> int:
        """Let a recorded teacher hear what it has not heard yet."""
        assert isinstance(self.teacher, RecordedTeacher)
        live = LiveTeacher(self.settings.teacher.singer)
        return self.teacher.record([*self.train, *self.held_out], lambda: live.load(self.codec))

    def about(self) -> About:
        """What singer.json will say."""
        settings = self.settings
        codec = {"kind": strict.kind_of(settings.codec), **strict.plain(settings.codec)}
        licences = {f"song: {song.source or song.id}": song.licence for song in self.songs}
        for step in settings.curation:  # a tool's weights may forbid what the songs allow
            licences |= getattr(step, "uses", {})
        return About(
            codec=codec,
            codec_fingerprint=self.codec.fingerprint,
            slot_sizes=self.codec.format.slot_sizes,
            base="" if settings.base.from_scratch else settings.base.path,
            tokens=settings.packing.row_tokens,
            writing=settings.writing,
            sampling=settings.sampling,
            styles=tuple(dict.fromkeys(song.style for song in self.songs))[:32],
            voices=tuple(dict.fromkeys(song.voice for song in self.songs)),
            grain=grain_of([coded.passage for coded in self.train], settings.writing),
            licences={
                "base": settings.base.terms,
                "codec": settings.codec.terms,
                **_of_teacher(settings),
                **_of_vocoder(settings, self.vocoder),
                **licences,
            },
            credits=tuple(dict.fromkeys(map(_credit, filter(_asks_for_credit, self.songs)))),
            recipe=with_songs(self.recipe, None if self.given is None else "").published(),
            vocoder=self.vocoder,
        )


def _asks_for_credit(song: Song) -> bool:
    return named(song.licence).credit


def _credit(song: Song) -> str:
    return f"{song.credit or song.id} ({', '.join(filter(None, (named(song.licence).id, song.source)))})"


def _of_teacher(settings: Any) -> dict[str, str]:
    """What a teacher was made from binds its pupil too."""
    if settings.teacher is None:
        return {}
    own = about_singer(folders.locate(settings.teacher.singer)).get("licences") or {
        "teacher": "unknown"
    }
    return {"teacher": ", ".join(dict.fromkeys(str(licence) for licence in own.values()))}


def _of_vocoder(settings: Any, card: VocoderCard | None) -> dict[str, str]:
    """What a head learnt from binds the singer that carries it."""
    if card is None:
        return {}
    said = read_config(folders.locate(settings.vocoder.path))["licences"]
    return {"vocoder": ", ".join(dict.fromkeys(said.values()))}


def _listened(steps: Iterable[Any], made: Any, folder: Path) -> Iterator[Any]:
    """Passes steps through; what a task that makes sound sounds like goes to TensorBoard: first,
    now and then, last."""
    if not hasattr(made, "sounds"):
        yield from steps
        return
    board, heard, step = Listening(folder), -math.inf, None
    for step in steps:
        if time.monotonic() - heard >= LISTEN_SECONDS:
            board.write(step.index, made.sounds(), made.sample_rate)
            heard = time.monotonic()
        yield step
    if step is not None:
        board.write(step.index, made.sounds(), made.sample_rate)
    board.close()


def _run_sing(recipe: Recipe, folder: Path) -> str:
    begun = time.perf_counter()
    clock: dict[str, float] = {}

    def lap(name: str) -> None:
        clock[name] = round(time.perf_counter() - begun - sum(clock.values()), 1)
        print(f"{name}: {clock[name]:.1f} s", flush=True)

    stage = Stage(recipe)
    lap("songs to codes")
    if isinstance(stage.teacher, RecordedTeacher):
        stage.record()
        lap("teacher recorded")
    before = (
        logits.held_out(stage.student, stage.held_out, stage.teacher) if stage.held_out else None
    )
    singer, steps = _teach(stage, folder)
    lap("trained")
    after = (
        logits.held_out(stage.student, stage.held_out, stage.teacher) if stage.held_out else None
    )
    report = {
        "recipe": recipe.name,
        "steps": steps,
        "minutes_of_song": stage.seconds / 60,
        "before": before,
        "after": after,
    }
    if stage.vocoder is not None:
        report["vocoder"] = dataclasses.asdict(stage.vocoder)
    report["judged"] = evaluate.report(singer, stage.held_out_songs, recipe.settings.judge.lines)
    lap("judged")
    report["merged_largest_difference"] = _merged_before(folder)
    # written last: without it the merge was cut short
    if not (folder / "merged" / "singer.json").exists():
        merged = merge_student(stage.student, folder / "merged")
        stage.describe(folder / "merged")
        report["merged_largest_difference"] = merged.largest_difference
    lap("merged")
    take = singer.sing_lines([_first_line(stage)], seed=recipe.seed)[0]
    take.save(folder / "take.wav")
    lap("a take")
    report["seconds"] = clock
    _write_json(folder / "report.json", report)
    return summary(report, folder)


def summary(report: dict[str, Any], folder: Path) -> str:
    """A run in a few lines."""
    lines = [
        f"{folder}: {report['steps']} steps on {report['minutes_of_song']:.1f} minutes of song"
    ]
    for name in ("before", "after"):
        if report[name]:
            nats = ", ".join(f"{n:.3f}" for n in report[name]["nats_per_token"])
            kl = report[name].get("kl_per_token")
            lines.append(
                f"  held-out nats per token by slot {name} training: {nats}"
                + (f"; KL {kl}" if kl else "")
            )
    if "why" in (report["judged"] or {}):
        lines.append(f"  not judged: {report['judged']['why']}")
    for row, figures in (report["judged"] or {}).get("shares", {}).items():
        lines.append(
            f"  {row}: "
            + ", ".join(f"{name} {100 * value:.1f} %" for name, value in figures.items())
        )
    lines.append(
        f"  listen to {folder / 'take.wav'}; the singer is {folder / 'singer'}, merged "
        f"{folder / 'merged'}"
    )
    return "\n".join(lines)


def _teach(stage: Stage, folder: Path) -> tuple[Singer, int]:
    settings, student = stage.settings, stage.student
    task = sing_task.Task(student, stage.train, settings, stage.recipe.seed, stage.teacher)
    for _ in show(_train(task, stage.recipe, folder), settings.train, stage.recipe.name):
        pass
    steps = _last_step(folder)
    student.model.eval()
    if not (folder / "singer" / "singer.json").exists():
        if student.lora is None:
            merge_student(student, folder / "singer", "float16")
        else:
            student.save_adapter(folder / "singer")
        stage.describe(folder / "singer")
        folders.seal(folder / "singer")
    about = stage.about()
    return Singer(
        student, stage.codec, about, open_vocoder(folder / "singer", about, stage.codec)
    ), steps


def _train(task: Any, recipe: Recipe, folder: Path) -> Any:
    return train_task(task, recipe.settings.train, folder, recipe.seed, recipe.yaml())


def _merged_before(folder: Path) -> float | None:
    """What an earlier call of this run measured of its merge."""
    path = folder / "report.json"
    return (
        json.loads(path.read_text(encoding="utf-8")).get("merged_largest_difference")
        if path.exists()
        else None
    )


def _last_step(folder: Path) -> int:
    rows = (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    return int(json.loads(rows[-1])["step"]) if rows else 0


def _held_out_songs(source: Any, codec: Any) -> list[Song]:
    """The embedded held-out songs, for a source that keeps them apart by a `split` setting; none
    for others, nor for a codec that hears tracks, which they lack.
    """
    if not any(field.name == "split" for field in dataclasses.fields(source)):
        return []
    if codec is not None and codec.format.tracks:
        print(
            "held out: these songs keep none apart, and the embedded ones have no tracks; so none "
            "are",
            flush=True,
        )
        return []
    if not isinstance(source, EmbeddedSongs):
        print(
            "held out: these songs keep none apart, so the embedded held-out songs are taken",
            flush=True,
        )
    return EmbeddedSongs(split="held-out").load()


def _first_line(stage: Stage) -> Line:
    song = (stage.held_out_songs or stage.songs)[0]
    return from_its_start(song.lines[0])


def _write_json(path: Path, row: Any) -> None:
    folders.write_atomic(path, (json.dumps(row, indent=1, default=float) + "\n").encode())


__all__ = [
    "check",
    "encode",
    "load_singer",
    "merge",
    "parts",
    "record",
    "run",
    "singer_folder",
    "train",
]
