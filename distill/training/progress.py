"""Steps pass through and are shown, live on a terminal, else as a plain line now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

if TYPE_CHECKING:
    from distill.training.trainer import Step, TrainSettings

EVERY_SECONDS = 10.0


def show(steps: Iterable[Step], settings: TrainSettings, title: str) -> Iterator[Step]:
    """Passes steps through and shows how far they are, tokens per second and the time left."""
    console = Console()
    if console.is_terminal:
        yield from _live(steps, settings, title, console)
        return
    shown_at, unshown = -math.inf, None
    for step in steps:
        unshown = step
        if time.monotonic() - shown_at >= EVERY_SECONDS:
            shown_at, unshown = time.monotonic(), None
            print(f"{title}: {in_words(step, settings)}", flush=True)
        yield step
    if unshown is not None:
        print(f"{title}: {in_words(unshown, settings)}", flush=True)


def _live(
    steps: Iterable[Step], settings: TrainSettings, title: str, console: Console
) -> Iterator[Step]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task(title, total=1.0, words="")
        for step in steps:
            done = min(1.0, settings.progress(step.index, step.seconds))
            bar.update(shown, completed=done, words=in_words(step, settings))
            yield step


def in_words(step: Step, settings: TrainSettings) -> str:
    """One line on a step: how far, the loss, the speed, the time left."""
    done = settings.progress(step.index, step.seconds)
    left = max(0.0, step.seconds / done - step.seconds)
    of = f"/{settings.steps}" if settings.steps else ""
    return (
        f"step {step.index}{of} ({min(1.0, done):.0%}), loss {step.loss:.4f},"
        f" {step.tokens_per_second:,.0f} tokens/s, {left // 60:.0f} min {left % 60:.0f} s left"
    )
