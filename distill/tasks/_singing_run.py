"""The run of task sing:

    songs -> codes -> teacher's signals -> graft -> train -> singer -> measured -> merged -> a take

Each stage leaves what it made where the next call of the same recipe finds it again (codes and
signals in the cache, training in the run folder), so an interrupted run, called again, goes on.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill import coded_songs, folders
from distill.codecs import Codec
from distill.config import settings as strict
from distill.config.recipe import Recipe, with_songs
from distill.curation.curated_songs import load_songs
from distill.licences import named
from distill.lm import logits
from distill.lm.merge import merge
from distill.lm.prompts import Coded, grain_of
from distill.lm.student import Student
from distill.runtime import ranks
from distill.runtime.devices import best_device
from distill.singing import evaluate
from distill.singing.singer import Singer
from distill.singing.singer_folder import (
    About,
    VocoderCard,
    about_singer,
    open_vocoder,
    put_codec,
    put_part,
    write_about,
)
from distill.songs import Line, Song, from_its_start
from distill.tasks import _run
from distill.tasks._held_out import embedded_held_out
from distill.tasks._recording import record
from distill.tasks._singing_settings import SingingSettings
from distill.tasks._singing_task import SingingTask, student_of
from distill.tasks._sound import compare
from distill.teachers import Teacher
from distill.teachers.model import Settings as LiveTeacher
from distill.teachers.recorded import RecordedTeacher
from distill.vocoders.codec import CodecVocoder
from distill.vocoders.head import HeadVocoder, read_config


@dataclass(frozen=True)
class Stage:
    """A recipe's songs, coded; its codec, teacher, student and vocoder, opened and checked before
    anything is trained. `open_stage` makes one."""

    recipe: Recipe
    settings: SingingSettings
    songs: list[Song]
    held_out_songs: list[Song]
    codec: Codec
    student: Student
    train: list[Coded]
    held_out: list[Coded]
    teacher: Teacher | None
    vocoder: VocoderCard | None

    @property
    def seconds(self) -> float:
        """Seconds of song to train on."""
        return sum(len(c.codes_FS) for c in self.train) / self.codec.format.frame_rate

    def record(self) -> int | None:
        """Passages that a recorded teacher had not heard yet and has now; None for another one."""
        if not isinstance(self.teacher, RecordedTeacher):
            return None
        assert self.settings.teacher is not None
        live = LiveTeacher(self.settings.teacher.singer)
        load = functools.partial(live.load, self.codec)
        return record(self.teacher, [*self.train, *self.held_out], load)

    def measured(self) -> dict[str, Any] | None:
        """Teacher-forced figures of the student on held-out passages; None without any."""
        return logits.held_out(self.student, self.held_out, self.teacher) if self.held_out else None

    def first_line(self) -> Line:
        """The line of the take at the end, from its own start."""
        return from_its_start((self.held_out_songs or self.songs)[0].lines[0])


def open_stage(recipe: Recipe) -> Stage:
    """Opens everything a run needs, in the order in which mistakes are cheapest to hear of."""
    settings: SingingSettings = recipe.settings
    given = ranks.from_first(lambda: load_songs(settings.songs, settings.curation))
    codec = settings.codec.load().to(best_device())
    songs = [song for song in given if song.split == "train"]
    held_out = [song for song in given if song.split != "train"]
    held_out = held_out or embedded_held_out(settings.songs, codec.format)
    student = student_of(settings, codec, recipe.seed)
    coded_songs.encode_shared([*songs, *held_out], codec)
    train_passages = _coded(settings, songs, codec, student)
    held_out_passages = _coded(settings, held_out, codec, student) if held_out else []
    teacher = settings.teacher.load(codec) if settings.teacher is not None else None
    vocoder = _compare_vocoders(settings, codec, held_out)
    return Stage(
        recipe, settings, songs, held_out, codec, student, train_passages, held_out_passages,
        teacher, vocoder,
    )  # fmt: skip


def _coded(
    settings: SingingSettings, songs: Sequence[Song], codec: Codec, student: Student
) -> list[Coded]:
    """The passages of songs that fit a row; what does not fit is printed."""
    v = student.vocabulary
    coded = coded_songs.code(songs, codec, v.longest, settings.writing)
    tokens = min(settings.packing.row_tokens, student.longest)
    kept, aside = coded_songs.fitting(coded, student.encode_text, v, tokens)
    for words in aside:
        print(words, flush=True)
    return kept


def _compare_vocoders(
    settings: SingingSettings, codec: Codec, held_out: Sequence[Song]
) -> VocoderCard | None:
    """The recipe's head and the codec's decoder on the same held-out songs: which of them the
    singer will use. None without a head."""
    head = settings.vocoder and settings.vocoder.load(codec)
    if not isinstance(head, HeadVocoder):
        return None
    figures = compare({"codec": CodecVocoder(codec), "head": head}, codec, held_out)
    by_head, by_codec = (figures[name]["mel_l1"] for name in ("head", "codec"))
    print(
        f"vocoder: mel distance {by_head:.3f} by the head, {by_codec:.3f} by the codec, over "
        f"{figures['seconds']:.0f} s of held-out song; the singer uses the {figures['better']}",
        flush=True,
    )
    return VocoderCard(head.fingerprint, figures["better"], by_head, by_codec, figures["seconds"])


def run(recipe: Recipe, folder: Path) -> str:
    """The whole chain of a recipe; writes report.json and gives a few lines on it."""
    clock = _Clock()
    stage = open_stage(recipe)
    clock.lap("songs to codes")
    if stage.record() is not None:
        clock.lap("teacher recorded")
    before = ranks.from_first(stage.measured)
    singer, steps = train(stage, folder)
    clock.lap("trained")
    # the first process alone, while the others wait
    return ranks.from_first(lambda: _report(stage, singer, steps, before, clock, folder))


def _report(
    stage: Stage,
    singer: Singer,
    steps: int,
    before: dict[str, Any] | None,
    clock: _Clock,
    folder: Path,
) -> str:
    """What there is to say about a trained singer, measured and written; a few lines on it."""
    recipe = stage.recipe
    report: dict[str, Any] = {
        "recipe": recipe.name,
        "steps": steps,
        "minutes_of_song": stage.seconds / 60,
        "before": before,
        "after": stage.measured(),
    }
    if stage.vocoder is not None:
        report["vocoder"] = asdict(stage.vocoder)
    report["judged"] = evaluate.report(singer, stage.held_out_songs, stage.settings.judge.lines)
    clock.lap("judged")
    report["merged_largest_difference"] = _merge(stage, folder)
    clock.lap("merged")
    singer.sing_lines([stage.first_line()], seed=recipe.seed)[0].save(folder / "take.wav")
    clock.lap("a take")
    report["seconds"] = clock.laps
    _run.write_report(folder, report)
    return summary(report, folder)


class _Clock:
    """Seconds spent between laps, printed as they pass."""

    def __init__(self) -> None:
        self.started, self.laps = time.perf_counter(), dict[str, float]()

    def lap(self, name: str) -> None:
        seconds = time.perf_counter() - self.started - sum(self.laps.values())
        self.laps[name] = round(seconds, 1)
        print(f"{name}: {self.laps[name]:.1f} s", flush=True)


def train(stage: Stage, folder: Path) -> tuple[Singer, int]:
    """Trains the student and writes <folder>/singer: (the singer, steps of the whole run)."""
    settings, student = stage.settings, stage.student
    task = SingingTask(student, stage.train, settings, stage.recipe.seed, stage.teacher)
    for _ in _run.train(task, stage.recipe, folder):
        pass
    student.model.eval()
    singer_folder = folder / "singer"
    ranks.from_first(lambda: _write_singer(stage, singer_folder))
    card = about(stage)
    vocoder = open_vocoder(singer_folder, card, stage.codec)
    return Singer(student, stage.codec, card, vocoder), ranks.from_first(lambda: _last_step(folder))


def _write_singer(stage: Stage, singer_folder: Path) -> None:
    """The trained student as an adapter, or merged where all of it was trained; once."""
    if not (singer_folder / "singer.json").exists():
        if stage.student.lora is None:
            merge(stage.student, singer_folder, "float16")
        else:
            stage.student.save_adapter(singer_folder)
        describe(stage, singer_folder)
        folders.seal(singer_folder)


def _last_step(folder: Path) -> int:
    rows = (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    return int(json.loads(rows[-1])["step"]) if rows else 0


def _merge(stage: Stage, folder: Path) -> float | None:
    """Writes <folder>/merged unless it is there, and gives the largest difference of its logits."""
    merged_folder = folder / "merged"
    if (merged_folder / "singer.json").exists():  # written last: without it the merge was cut short
        report = folder / "report.json"
        text = report.read_text(encoding="utf-8") if report.exists() else "{}"
        return json.loads(text).get("merged_largest_difference")
    merged = merge(stage.student, merged_folder)
    describe(stage, merged_folder)
    return merged.largest_difference


# --- what is said about it ------------------------------------------------------------------------
def describe(stage: Stage, folder: Path) -> None:
    """Writes singer.json, and beside it the head that it speaks of, and the codec, where this disk
    alone has it."""
    if stage.vocoder is not None:
        put_part(folder, "vocoder", folders.locate(_head_path(stage.settings)))
    write_about(folder, put_codec(folder, about(stage)))


def about(stage: Stage) -> About:
    """What singer.json will say. A folder that the user gave stays out of what is published."""
    settings, songs = stage.settings, stage.songs
    given = getattr(settings.songs, "folder", None)
    recipe = stage.recipe if given is None else with_songs(stage.recipe, "")
    return About(
        codec={"kind": strict.kind_of(settings.codec), **strict.plain(settings.codec)},
        codec_fingerprint=stage.codec.fingerprint,
        slot_sizes=stage.codec.format.slot_sizes,
        base="" if settings.base.from_scratch else settings.base.path,
        tokens=settings.packing.row_tokens,
        writing=settings.writing,
        sampling=settings.sampling,
        styles=tuple(dict.fromkeys(song.style for song in songs))[:32],
        voices=tuple(dict.fromkeys(song.voice for song in songs)),
        grain=grain_of([coded.passage for coded in stage.train], settings.writing),
        licences=_licences(stage),
        credits=tuple(dict.fromkeys(_credit(song) for song in songs if named(song.licence).credit)),
        recipe=recipe.published(),
        vocoder=stage.vocoder,
    )


def _licences(stage: Stage) -> dict[str, str]:
    """Of all that the singer was made from, by part."""
    settings = stage.settings
    licences = {"base": settings.base.terms, "codec": settings.codec.terms}
    if settings.teacher is not None:  # what a teacher was made from binds its pupil too
        teacher = about_singer(folders.locate(settings.teacher.singer))
        licences["teacher"] = _joint(teacher.get("licences") or {"teacher": "unknown"})
    if stage.vocoder is not None:  # what a head learnt from binds the singer that carries it
        head = read_config(folders.locate(_head_path(settings)))
        licences["vocoder"] = _joint(head["licences"])
    licences |= {f"song: {song.source or song.id}": song.licence for song in stage.songs}
    for step in settings.curation:  # a tool's weights may forbid what the songs allow
        licences |= getattr(step, "uses", {})
    return licences


def _joint(licences: dict[str, Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, licences.values())))


def _head_path(settings: SingingSettings) -> str:
    return getattr(settings.vocoder, "path", "")


def _credit(song: Song) -> str:
    parts = filter(None, (named(song.licence).id, song.source))
    return f"{song.credit or song.id} ({', '.join(parts)})"


def summary(report: dict[str, Any], folder: Path) -> str:
    """A run in a few lines."""
    lines = [
        f"{folder}: {report['steps']} steps on {report['minutes_of_song']:.1f} minutes of song"
    ]
    for name in ("before", "after"):
        if figures := report[name]:
            nats = ", ".join(f"{n:.3f}" for n in figures["nats_per_token"])
            kl = f"; KL {figures['kl_per_token']}" if figures.get("kl_per_token") else ""
            lines.append(f"  held-out nats per token by slot {name} training: {nats}{kl}")
    judged = report["judged"] or {}
    if "why" in judged:
        lines.append(f"  not judged: {judged['why']}")
    for row, figures in judged.get("shares", {}).items():
        shares = ", ".join(f"{name} {100 * value:.1f} %" for name, value in figures.items())
        lines.append(f"  {row}: {shares}")
    folders_made = f"the singer is {folder / 'singer'}, merged {folder / 'merged'}"
    return "\n".join([*lines, f"  listen to {folder / 'take.wav'}; {folders_made}"])
