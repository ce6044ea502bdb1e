"""A run watched while it trains: held-out nats, now and then a line sung; the best weights kept.

    evaluations.jsonl     a row an evaluation; on resuming it is cut back to the step resumed from
    best/step-00000123/   the weights of the evaluation with the lowest figure, and its row

The figure is the mean over the slots of the held-out nats per token, on a sample that `tokens`
caps. The weights with the lowest become the singer, not the last. An evaluation lies between two
steps, where nothing that is computed changes training, and its time is not training time.

Nothing is evaluated twice: an evaluation of a step that is trained is read back from the rows. The
best are written beside the ones before and only then take their place, so a kill never loses them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from distill import folders
from distill.errors import CheckpointError, FolderError, SettingsError
from distill.folders import Json
from distill.lm import logits
from distill.lm.student import Student
from distill.runtime import ranks
from distill.tasks._sample import sample
from distill.tasks._singing_settings import WatchSettings
from distill.training import sharding
from distill.training.trainer import Step, TrainSettings
from distill.writing.prompts import Coded

ROWS, BEST, PREFIX = "evaluations.jsonl", "best", "step-"
WEIGHTS, ROW = "weights.safetensors", "evaluation.json"
# of a training step's time on as many tokens: the backward pass of LoRA costs as much
FORWARD = 0.5
COST = 0.05  # the share of training time that evaluations may take where the recipe says nothing
MOST = 20  # evaluations in a run, where the recipe says nothing
PAUSE = 20.0  # times what the last line took to sing, before the next

Tell = Callable[[int, Mapping[str, float]], None]  # a step and figures, to who keeps them


class Listener(Protocol):
    """Sings a line after a step and draws what is measured."""

    def __call__(self, step: int) -> Json | None: ...

    def draw(self, step: int, values: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class Evaluation:
    """A row of evaluations.jsonl: nats per token on held-out passages after `step` updates.

    `progress`: the share of the budget used. `sung`: figures on a line sung then, where one was.
    """

    step: int
    progress: float
    seconds: float
    nats_per_token: list[float]
    piece_nats_per_token: float
    length_nats_per_token: float
    sung: Json | None = None

    @property
    def figure(self) -> float:
        """What is compared: the mean over the slots."""
        return sum(self.nats_per_token) / len(self.nats_per_token)

    def values(self) -> dict[str, float]:
        """Its numbers by name, to be drawn."""
        by_slot = {f"held_out/slot{s}": nats for s, nats in enumerate(self.nats_per_token)}
        texts = {
            "held_out/pieces": self.piece_nats_per_token,
            "held_out/lengths": self.length_nats_per_token,
        }
        in_tune = (self.sung or {}).get("in_tune")
        return by_slot | texts | ({} if in_tune is None else {"held_out/in_tune": in_tune})


class Watch:
    """Evaluates a student between its steps, keeps its best weights, and says when to stop."""

    def __init__(
        self,
        student: Student,
        held_out: Sequence[Coded],
        settings: WatchSettings,
        train: TrainSettings,
        folder: Path,
        listener: Listener | None = None,
    ) -> None:
        """Of the processes of a run the first evaluates, sings and writes; all hear the figures, so
        that all stop together. Of sharded weights none has the whole: they are evaluated at the end
        alone, and SettingsError refuses what asks for more."""
        during = settings.patience is not None or settings.evaluate_every is not None
        self.sharded = sharding.is_wanted()
        if self.sharded and during:
            ways = "leave watch.patience and evaluate_every out"
            raise SettingsError(f"a sharded run is evaluated at its end alone; {ways}")
        self.student, self.settings, self.train, self.folder = student, settings, train, folder
        self.sample = sample(held_out, settings.tokens)
        self.tokens = sum(item.codes_FS.numel() for item in self.sample)
        self.rows = _read_rows(folder / ROWS)
        self._writes = ranks.is_first()
        self._listener = listener if self._writes else None
        self._sung_at, self._sung_cost = 0.0, 0.0
        self._since = 0  # tokens trained on since the last evaluation

    @property
    def stopped(self) -> bool:
        """Whether the last `patience` evaluations were no better than the best before them."""
        patience = self.settings.patience
        if patience is None or not self.rows:
            return False
        best = min(self.rows, key=lambda row: row.figure)
        return len(self.rows) - 1 - self.rows.index(best) >= patience

    def over(self, steps: Iterable[Step], tell: Tell) -> Iterator[Step]:
        """Passes steps through and evaluates between them, telling what comes out; ends early where
        `stopped`. It takes no step of a run that has stopped before."""
        if self.stopped:
            return
        first = True
        for step in steps:
            if first:
                self._resume(step)
                first = False
            self._since += step.tokens
            yield step
            progress = self.train.progress(step.index, step.seconds)
            if progress < 1 and self._is_due(step.index, progress):
                self._evaluate(step.index, progress, tell)
                if self.stopped:
                    words = f"no better held-out figure in {self.settings.patience} evaluations"
                    print(f"step {step.index}: {words}; training stops", flush=True)
                    return

    def finish(self, tell: Tell) -> Evaluation | None:
        """Evaluates the last weights, unless that was done, and puts the best into the student;
        their row. None where nothing was trained, and in a process that does not write."""
        step = last_step(self.folder)
        if not self.stopped and step and (not self.rows or self.rows[-1].step < step):
            if self._writes:
                _write(self.folder / ROWS, self.rows)
            self._evaluate(step, 1.0, tell)
        if not self._writes or (best := self.best()) is None:
            return None
        row, path = best
        if row != self.rows[-1]:
            self.student.load_state(_read_weights(path, self.student))
            print(f"best held-out figure {row.figure:.4f} at step {row.step} of {step}", flush=True)
        return row

    def best(self) -> tuple[Evaluation, Path] | None:
        """The row and the folder of the lowest figure among the whole ones; the later of equals."""
        kept = []
        for path in sorted((self.folder / BEST).glob(PREFIX + "*")):
            if folders.whole(path):
                kept.append((_evaluation(path / ROW), path))
        return min(kept, key=lambda item: (item[0].figure, -item[0].step), default=None)

    # --- what happens between two steps -----------------------------------------------------------
    def _resume(self, step: Step) -> None:
        """Forgets the rows of steps that are trained again; with step 1, the best weights too."""
        kept = self.rows = [row for row in self.rows if row.step < step.index]
        if self._writes:
            _write(self.folder / ROWS, kept)
        if self._writes and step.index == 1:
            for path in (self.folder / BEST).glob(PREFIX + "*"):
                folders.discard(path)
        last = kept[-1].step if kept else 0
        self._since = _tokens_between(self.folder / "steps.jsonl", last, step.index)

    def _is_due(self, step: int, progress: float) -> bool:
        if self.sharded:
            return False
        if self.settings.evaluate_every is not None:
            return step % self.settings.evaluate_every == 0
        last = self.rows[-1].progress if self.rows else 0.0
        paid = self._since * COST >= self.tokens * FORWARD
        return paid and progress - last >= 1 / MOST

    def _evaluate(self, step: int, progress: float, tell: Tell) -> None:
        """One row more; its weights are kept where no figure was lower."""
        row = ranks.from_first(lambda: self._row(step, progress))
        lowest = min((other.figure for other in self.rows), default=float("inf"))
        if self._writes and row.figure <= lowest:
            self._keep(row)
        self.rows.append(row)
        if self._writes:
            _append(self.folder / ROWS, row)
        self._since = 0
        tell(step, row.values())
        if self._listener is not None:
            self._listener.draw(step, row.values())

    def _row(self, step: int, progress: float) -> Evaluation:
        started = time.perf_counter()
        figures = logits.held_out(self.student, self.sample)
        figures |= {"step": step, "progress": progress, "sung": self._sing_a_line(step)}
        figures["seconds"] = round(time.perf_counter() - started, 3)
        return Evaluation(**{name: figures[name] for name in Evaluation.__dataclass_fields__})

    def _sing_a_line(self, step: int) -> Json | None:
        """Figures on a line sung now; None where none is wanted, or too early for the next."""
        pause = time.perf_counter() - self._sung_at
        if self._listener is None or not self.settings.sing or pause < PAUSE * self._sung_cost:
            return None
        started = time.perf_counter()
        figures = self._listener(step)
        self._sung_at = time.perf_counter()
        self._sung_cost = self._sung_at - started
        return figures

    def _keep(self, row: Evaluation) -> None:
        """Writes the weights of a row; then removes those of earlier ones that were no better."""
        path = self.folder / BEST / f"{PREFIX}{row.step:08d}"
        try:
            with folders.atomic_folder(path) as inside:
                save_file(_plain(self.student.state()), inside / WEIGHTS)
                (inside / ROW).write_text(json.dumps(asdict(row)) + "\n", encoding="utf-8")
        except (FolderError, SafetensorError) as error:
            stands = "what was best before is untouched: make room and run the same command again"
            raise CheckpointError(f"{path}: could not be written ({error}); {stands}") from error
        for other in (self.folder / BEST).glob(PREFIX + "*"):
            no_better = not folders.whole(other) or _evaluation(other / ROW).figure >= row.figure
            if other != path and no_better:
                folders.discard(other)


# --- on disk --------------------------------------------------------------------------------------
def last_step(folder: Path) -> int:
    """Steps of the whole run, by its steps.jsonl; 0 before the first."""
    path = folder / "steps.jsonl"
    rows = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return int(json.loads(rows[-1])["step"]) if rows else 0


def _tokens_between(path: Path, after: int, before: int) -> int:
    """Tokens of the steps behind `after` and before `before`."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return sum(int(row["tokens"]) for row in rows if after < row["step"] < before)


def _write(path: Path, rows: Sequence[Evaluation]) -> None:
    """The file anew: without what a kill left half-written."""
    text = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    folders.write_atomic(path, text.encode())


def _append(path: Path, row: Evaluation) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
    except OSError as error:
        fault = f"{path}: cannot be written ({error.strerror})"
        raise CheckpointError(f"{fault}; make room and run the same command again") from error


def _read_rows(path: Path) -> list[Evaluation]:
    """The rows of a file; what a kill left half-written, and all behind it, is not there."""
    rows: list[Evaluation] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(Evaluation(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return rows


def _evaluation(path: Path) -> Evaluation:
    return Evaluation(**json.loads(path.read_text(encoding="utf-8")))


def _read_weights(path: Path, student: Student) -> dict[str, Tensor]:
    state = load_file(path / WEIGHTS)
    return {name: tensor.to(student.device) for name, tensor in state.items()}


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU that share no memory (safetensors refuses shared ones)."""
    copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
    return {name: copy.contiguous() for name, copy in copies.items()}
