"""What a run will take, before it is begun: parameters, tokens and disk counted, memory and time
measured on a few steps that are really taken.

The songs are found, curated and encoded first, as the run would: what that makes is kept for it.
Then, for half a minute at most, the recipe's own task trains in a folder that is thrown away; the
sample is evaluated, a line sung and judged, and a small model merged. What cannot be measured so
soon is named and left out of the hours.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill import measures
from distill.config.recipe import Recipe
from distill.errors import DistillError
from distill.lm import logits
from distill.lm.merge import merge
from distill.lm.student import Student
from distill.singing import evaluate
from distill.singing.singer import Singer
from distill.songs import from_its_start
from distill.tasks import Task, _singing_run
from distill.tasks._effect import LINES as SUNG_ON_AND_OFF
from distill.tasks._memory import LINES as SUNG_FREELY
from distill.tasks._sample import MEASURED, sample
from distill.tasks._singing_run import Stage
from distill.tasks._singing_task import SingingTask
from distill.tasks._watch import COST, MOST
from distill.teachers.model import Settings as LiveTeacher
from distill.teachers.recorded import RecordedTeacher
from distill.training import trainer
from distill.training.trainer import Step, TrainSettings
from distill.writing.passage_index import PassageIndex
from distill.writing.prompts import Coded
from distill.writing.signals import Signal, packed

CALIBRATION = 12.0  # seconds of training
LEAST_STEPS = 3  # and at least so many, whose first does not count
MERGED_HERE = 200_000_000  # parameters of a model that is merged to see what that takes
RECORDED = 6  # passages that a teacher is timed on
SIDE_BY_SIDE = 32  # lines that are sung at once
ROWS_JUDGED = 3  # the songs, the codec, the singer
MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Estimate:
    """trained, frozen: parameters. tokens: of all passages once, text and codes. disk: bytes by
    part. memory: bytes at the peak. seconds: by stage. unmeasured: what else takes time."""

    trained: int
    frozen: int
    memory: int
    step_seconds: float
    step_tokens: float
    disk: dict[str, int]
    seconds: dict[str, float]
    passages: int = 0
    tokens: int = 0
    held_out_tokens: int = 0
    unmeasured: tuple[str, ...] = field(default=())

    @property
    def hours(self) -> float:
        """Of all stages that were measured."""
        return sum(self.seconds.values()) / 3600

    def lines(self) -> list[str]:
        """The estimate in words."""
        steps = self.seconds["training"] / self.step_seconds
        lines = [f"  parameters: {self.trained:,} trained, {self.frozen:,} frozen"]
        if self.tokens:
            counts = f"{self.tokens:,} tokens in {self.passages:,} passages"
            lines.append(f"  songs: {counts}, {self.held_out_tokens:,} tokens held out")
        parts = ", ".join(f"{name} {size / MIB:,.1f}" for name, size in self.disk.items())
        lines.append(f"  disk: {sum(self.disk.values()) / MIB:,.1f} MiB ({parts})")
        lines.append(f"  memory: {self.memory / GIB:.2f} GiB at the peak")
        pace = f"{self.step_seconds:.2f} s a step of {self.step_tokens:,.0f} tokens"
        lines.append(f"  training: about {steps:,.0f} steps, {pace}")
        stages = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in self.seconds.items())
        rest = f"; not measured: {', '.join(self.unmeasured)}" if self.unmeasured else ""
        lines.append(f"  time: {self.hours:.2f} hours ({stages}){rest}")
        return lines


def estimate(recipe: Recipe) -> Estimate:
    """What the recipe's run will take. Raises what its run would, before training."""
    if recipe.task == "sing":
        return _of_singer(recipe)
    task: Task = recipe.settings.task(recipe.seed)
    trained = _count(parameter for group in task.parameters() for parameter in group["params"])
    with tempfile.TemporaryDirectory() as folder:
        pace, checkpoint = _calibrate(task, recipe, Path(folder))
    settings = recipe.settings.train
    seconds = {"training": _training_seconds(settings, pace.seconds)}
    disk = {"checkpoints": checkpoint * _kept(settings, seconds["training"], pace.seconds)}
    rest = ("its evaluation",)
    return Estimate(
        trained, 0, _peak(), pace.seconds, pace.tokens, disk, seconds, unmeasured=rest
    )  # fmt: skip


def _of_singer(recipe: Recipe) -> Estimate:
    stage = _singing_run.open_stage(recipe)
    student, settings = stage.student, recipe.settings
    trained = _count(student.trainable().values())
    frozen = _count(student.model.parameters()) - trained
    tokens, held_out_tokens = (_tokens(coded) for coded in (stage.train, stage.held_out))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds, disk = _recording(stage)
        task = SingingTask(student, stage.train, settings, recipe.seed, _teacher(stage))
        pace, checkpoint = _calibrate(task, recipe, folder)
        seconds["training"] = _training_seconds(settings.train, pace.seconds)
        kept = _kept(settings.train, seconds["training"], pace.seconds)
        disk["checkpoints"] = checkpoint * kept
        seconds |= _watching(stage, seconds["training"])
        seconds |= _ending(stage, disk, folder, trained + frozen)
    if stage.held_out:
        disk["best"] = 4 * trained
    memory = max(_peak(), _while_merging(trained + frozen))
    return Estimate(
        trained, frozen, memory, pace.seconds, pace.tokens, disk, seconds,
        len(stage.train), tokens, held_out_tokens,
    )  # fmt: skip


# --- training -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Pace:
    """Of one step."""

    seconds: float
    tokens: float


def _calibrate(task: trainer.Task, recipe: Recipe, folder: Path) -> tuple[_Pace, int]:
    """(what a step takes, the bytes of a checkpoint), of steps taken in a folder to throw away."""
    settings = replace(
        recipe.settings.train,
        steps=1_000_000,
        seconds=None,
        checkpoint_every_steps=LEAST_STEPS,
        checkpoint_every_seconds=1e9,
        trackers=(),
    )
    steps: list[Step] = []
    started = time.perf_counter()
    for step in trainer.train(task, settings, folder / "calibration", recipe.seed, recipe.yaml()):
        steps.append(step)
        if len(steps) >= LEAST_STEPS and time.perf_counter() - started > CALIBRATION:
            break
    later = steps[1:]
    pace = _Pace(
        sum(step.tokens / step.tokens_per_second for step in later) / len(later),
        sum(step.tokens for step in later) / len(later),
    )
    checkpoints = sorted((folder / "calibration" / "checkpoints").iterdir())
    return pace, _size(checkpoints[-1])


def _training_seconds(settings: TrainSettings, step_seconds: float) -> float:
    """Until the first of the two budgets ends it."""
    by_steps = settings.steps * step_seconds if settings.steps else float("inf")
    return min(by_steps, settings.seconds or float("inf"))


def _kept(settings: TrainSettings, training: float, step_seconds: float) -> int:
    """Checkpoints that lie there at the end: a short run writes its last alone."""
    every = settings.checkpoint_every_steps
    by_time = training / max(settings.checkpoint_every_seconds, step_seconds)
    by_steps = training / step_seconds / every if every else 0.0
    return max(1, min(settings.keep, math.ceil(by_time + by_steps)))


class _Uninformed:
    """A teacher that has heard nothing: signals of the right size, before any are recorded."""

    fingerprint = ""

    def __init__(self, student: Student) -> None:
        self.vocabulary = student.vocabulary

    def signals(self, coded: Sequence[Coded]) -> list[Signal]:
        v = self.vocabulary

        def even(rows: int, columns: int) -> torch.Tensor:
            return torch.zeros(rows, columns).log_softmax(-1)

        return [
            Signal(
                tuple(even(len(item.codes_FS), size) for size in v.format.slot_sizes),
                even(len(item.passage.pieces), len(v.pitch_span)),
                even(len(item.passage.pieces), len(v.length_span)),
            )
            for item in coded
        ]


def _teacher(stage: Stage) -> Any:
    if isinstance(stage.teacher, RecordedTeacher):
        return _Uninformed(stage.student)
    return stage.teacher


def _recording(stage: Stage) -> tuple[dict[str, float], dict[str, int]]:
    """(seconds, bytes) that a recorded teacher will take; nothing of another."""
    teacher = stage.settings.teacher
    if teacher is None or not isinstance(stage.teacher, RecordedTeacher):
        return {}, {}
    live = LiveTeacher(teacher.singer).load(stage.codec)
    coded = stage.train[:RECORDED]
    live.signals(coded[:1])
    started = time.perf_counter()
    signals = live.signals(coded)
    spent = time.perf_counter() - started
    kept = (packed(signal, stage.teacher.form, stage.teacher.top_k) for signal in signals)
    size = sum(tensor.nbytes for tensors in kept for tensor in tensors.values())
    every = (part for part in (stage.train, stage.held_out) if isinstance(part, PassageIndex))
    frames = sum(part.frames for part in every)  # counted in the index: none is read for it
    times = frames / max(1, sum(len(item.codes_FS) for item in coded))
    return {"recording": spent * times}, {"signals": round(size * times)}


# --- what stands around it ------------------------------------------------------------------------
def _watching(stage: Stage, training: float) -> dict[str, float]:
    """Seconds of the evaluations while it trains, and of the figures before and after."""
    if not stage.held_out:
        return {}
    watch, train = stage.settings.watch, stage.settings.train
    few = sample(stage.held_out, watch.tokens)
    started = time.perf_counter()
    logits.held_out(stage.student, few)
    once = time.perf_counter() - started
    count = max(1.0, min(MOST, COST * training / max(once, 1e-9)))
    if watch.evaluate_every and train.steps:
        count = train.steps / watch.evaluate_every
    before_and_after = 2 * once * _codes(sample(stage.held_out, MEASURED)) / _codes(few)
    return {"evaluations": count * once, "before and after": before_and_after}


def _ending(stage: Stage, disk: dict[str, int], folder: Path, parameters: int) -> dict[str, float]:
    """Seconds of singing and judging, and of the merge; `disk` gets singer and merged model."""
    student = stage.student
    seconds = _singing(stage) if stage.held_out_songs else {}
    if student.lora is not None:
        disk["singer"] = _size(student.save_adapter(folder / "singer"))
    copies = 1 if student.lora is not None else 2
    if parameters > MERGED_HERE:
        disk["merged"] = copies * 4 * parameters
        return seconds
    started = time.perf_counter()
    merge(student, folder / "merged")
    seconds["merging"] = time.perf_counter() - started
    disk["merged"] = copies * _size(folder / "merged")
    return seconds


def _singing(stage: Stage) -> dict[str, float]:
    """Seconds of all lines that are sung at the end, and of judging them, by one line."""
    singer = Singer(stage.student, stage.codec, _singing_run.about(stage))
    songs, lines = stage.held_out_songs, stage.settings.judge.lines
    started = time.perf_counter()
    scored = any(line.notes for song in songs for line in song.lines)
    if not scored:
        singer.sing_lines([from_its_start(stage.first_song().lines[0])], seed=0)
    else:
        asked = evaluate.spread(evaluate.lines_of(songs), 1)
        performances, _ = evaluate.sing(singer, asked, 0, None)
    spent = time.perf_counter() - started
    # one by one to see what is remembered; side by side, the adapter on and off, and what is judged
    seconds = {"singing": spent * (2 * SUNG_FREELY + 3 + 1 + lines / SIDE_BY_SIDE)}
    if scored:
        started = time.perf_counter()
        with suppress(DistillError):  # their extra is not installed: nothing is judged
            measures.judge({"one": performances}, None, processes=1)
            each = time.perf_counter() - started
            rows = ROWS_JUDGED * lines + 3 * SUNG_ON_AND_OFF
            seconds["judging"] = each * rows / (os.cpu_count() or 1)
    return seconds


def _tokens(coded: Sequence[Coded]) -> int:
    """Of all passages as they are written, text and codes."""
    return int(coded.lengths.sum()) if isinstance(coded, PassageIndex) else 0


def _codes(coded: Sequence[Coded]) -> int:
    return sum(item.codes_FS.numel() for item in coded)


def _count(parameters: Iterable[nn.Parameter]) -> int:
    """Numbers in parameters, each tensor once; of packed 4-bit ones what they stand for."""
    sizes: dict[int, int] = {}
    for parameter in parameters:
        packed = getattr(parameter, "quant_state", None)
        sizes[id(parameter)] = math.prod(packed.shape) if packed is not None else parameter.numel()
    return sum(sizes.values())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _peak() -> int:
    """Bytes at the peak: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    factor = 1 if sys.platform == "darwin" else 1024
    return factor * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _while_merging(parameters: int) -> int:
    """Bytes of this process beside a merged model that was too large to be made here: written, and
    loaded again in float32."""
    if parameters <= MERGED_HERE or torch.cuda.is_available():
        return 0
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resident + 2 * 4 * parameters


def as_json(figures: Estimate) -> Mapping[str, Any]:
    """For a bench that compares it with what happened."""
    return vars(figures) | {"hours": figures.hours}
