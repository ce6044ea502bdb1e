"""The run of a task: train in a folder, shown and listened to; save, evaluate, report."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config.recipe import Recipe
from distill.folders import write_atomic
from distill.runtime import ranks
from distill.tasks import Task
from distill.training import trainer
from distill.training.progress import show
from distill.training.trackers import check, open_trackers
from distill.training.trainer import Step

if TYPE_CHECKING:
    from distill.tasks._watch import Watch  # brings language models, which a codec has no use for

LISTEN_SECONDS = 60.0  # between two moments that go to TensorBoard


def run(task: Task, recipe: Recipe, folder: Path) -> str:
    """Trains, saves to <folder>/<task>, evaluates, and writes report.json; a few lines on it."""
    announce(recipe)
    started = time.perf_counter()
    steps = sum(1 for _ in _listened(train(task, recipe, folder), task, folder))
    report = ranks.from_first(lambda: _ended(task, folder / recipe.task))
    seconds = time.perf_counter() - started
    return f"{folder / recipe.task}: {steps} steps, {seconds:.0f} s\n{json.dumps(report, indent=1)}"


def _ended(task: Task, path: Path) -> Mapping[str, Any]:
    """A trained task saved at `path` and evaluated; report.json is beside it."""
    task.save(path)
    report = task.evaluate(task.held_out_songs())
    write_report(path.parent, report)
    return report


def announce(recipe: Recipe) -> None:
    """Prints the resolved recipe and its sha256, first of all. SettingsError for a tracker that is
    not there."""
    print(f"{recipe.yaml()}# sha256 of this recipe: {recipe.sha256}", flush=True)
    check(recipe.settings.train.trackers)


def train(
    task: trainer.Task, recipe: Recipe, folder: Path, watch: Watch | None = None
) -> Iterator[Step]:
    """The steps of a recipe's training, shown, sent to its trackers and watched as they pass; at
    the end the task holds what is best by `watch`. Raises what `trainer.train` raises."""
    settings = recipe.settings.train
    about = {"recipe": recipe.yaml(), "recipe_sha256": recipe.sha256, "folder": str(folder)}
    tracked = open_trackers(settings.trackers, recipe.name, folder, about)
    steps = trainer.train(task, settings, folder, recipe.seed, recipe.yaml())
    shown = show(steps, settings, recipe.name)
    try:
        for step in shown if watch is None else watch.over(shown, tracked.figures):
            tracked.step(step.row())
            yield step
        if watch is not None:
            watch.finish(tracked.figures)
    finally:
        tracked.close()


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes report.json."""
    text = json.dumps(report, indent=1, default=float) + "\n"
    write_atomic(folder / "report.json", text.encode())


def _listened(steps: Iterable[Step], task: Task, folder: Path) -> Iterator[Step]:
    """Passes steps through; what the task sounds like goes to TensorBoard: first, now and then,
    last."""
    from distill.tasks._sound import Listening  # brings codecs, which a text has no use for

    board: Listening | None = None
    heard, step = -math.inf, None
    for step in steps:
        if not ranks.is_first():
            yield step
            continue
        if time.monotonic() - heard >= LISTEN_SECONDS and (sounds := task.sounds()):
            board = board or Listening(folder)
            board.write(step.index, sounds, task.sample_rate)
            heard = time.monotonic()
        yield step
    if board is not None and step is not None:
        board.write(step.index, task.sounds(), task.sample_rate)
        board.close()
