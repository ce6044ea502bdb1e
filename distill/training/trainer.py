"""Training, for every task: a generator of steps that can be killed at any moment and called again.

    for step in train(task, settings, folder, seed=1):
        ...                                             # log, plot, evaluate, or break: the loop is the
        caller's

The trainer knows no model. A `Task` gives numbered batches, the sum and the count of each loss
term, its parameters and its state. From these come three promises:

- **Accumulation is one large batch.** The counts of a whole group of micro-batches are added up
  first, and each micro-batch's loss is sum_i weight_i * sum_i / total_count_i. Unequal
  micro-batches weigh what they hold. Several processes (accelerate) are more micro-batches of the
  same group.
- **Resuming is the same call.** Step s is a function of (weights, moments, s): its random numbers
  are seeded from (seed, s), its batches are numbered from s, its clock is in the checkpoint. So a
  killed run, called again, ends with bit-identical weights (step budget, same torch build, same
  thread count). What a caller draws or computes between two steps changes nothing, and does not
  count as time.
- **Nothing wrong is stepped over.** A loss or gradient that is not finite stops before the update;
  a folder of another run or of a living process is refused (runs.py); a damaged checkpoint is named
  (checkpoints.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, send_to_device
from torch import Tensor

from distill import folders
from distill.errors import CheckpointError, SettingsError, TrainingError
from distill.training import checkpoints, run_folder
from distill.training.checkpoints import Place

__all__ = ["Place", "Step", "Task", "TrainSettings", "numbered", "train"]

log = logging.getLogger("distill")
AHEAD = 2  # micro-batches that wait for a GPU


@dataclass(frozen=True)
class TrainSettings:
    """How to train: `steps`, `seconds` or both (the first reached ends), AdamW, and when to save.

    Under a time budget the cosine follows the seconds spent, which checkpoints keep. `precision`
    auto is bf16 where the machine has instructions for it; weights and moments stay fp32.
    """

    steps: int | None = None
    seconds: float | None = None
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.97)
    clip: float | None = 1.0
    accumulate: int = 1
    checkpoint_every_seconds: float = 60.0
    checkpoint_every_steps: int | None = None
    keep: int = 2
    precision: Literal["auto", "bf16", "fp32"] = "auto"

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise SettingsError("neither steps nor seconds is given; say when to stop")
        for name in ("steps", "accumulate", "keep", "checkpoint_every_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} is {value}; it must be at least 1")
        for name in ("seconds", "learning_rate", "clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingsError(f"{name} is {value}; it must be above 0")
        for name in ("warmup_steps", "weight_decay", "checkpoint_every_seconds"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise SettingsError(f"betas are {self.betas}; both must be from 0 up to below 1")

    def progress(self, step: int, seconds: float) -> float:
        """The share of the budget used after `step` steps and `seconds` of training; 1 or more is
        the end."""
        by_steps = step / self.steps if self.steps else 0.0
        by_seconds = seconds / self.seconds if self.seconds else 0.0
        return max(by_steps, by_seconds)

    def learning_rate_at(self, step: int, seconds: float) -> float:
        """The rate of the step after `step` steps: linear warm-up times (a cosine of the used
        budget)."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.schedule == "constant":
            return self.learning_rate * warm
        used = min(1.0, self.progress(step, seconds))
        return self.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * used))


class Task(Protocol):
    """All that the trainer knows about what it trains."""

    def batches(self, generator: torch.Generator, start: int) -> Iterator[Any]:
        """Micro-batches start, start + 1, ... without end; batch k is a function of (generator's
        seed, k)."""

    def counts(self, batch: Any) -> dict[str, float]:
        """Per weighted term, how many things (tokens, samples) its sum over this batch adds up."""

    def loss(self, batch: Any) -> dict[str, tuple[Tensor, float]]:
        """Per term, its sum over the batch (a scalar) and its count; terms without weight are only
        logged.

        The task puts its own modules into training mode here: a caller may have evaluated in
        between."""

    def loss_weights(self) -> dict[str, float]:
        """The weight of each term of the loss."""

    def parameters(self) -> list[dict[str, Any]]:
        """AdamW's groups: {"params": [...]}, optional "lr_scale" (times the rate) and
        "weight_decay"."""

    def state(self) -> dict[str, Tensor]:
        """The trained weights."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Puts trained weights back."""

    def size(self, batch: Any) -> int:
        """Tokens (or samples) of the batch, for tokens per second."""

    def to(self, device: torch.device) -> Any:
        """Moves what is trained to the device."""


@dataclass(frozen=True)
class Step:
    """One update, done. `index` counts from 1, `seconds` is all training so far, `tokens` this
    step's."""

    index: int
    seconds: float
    loss: float
    terms: dict[str, float]
    learning_rate: float
    tokens: int
    tokens_per_second: float
    gradient_norm: float

    def row(self) -> dict[str, Any]:
        """As steps.jsonl writes it; a logged-only term that is not finite is null."""
        row = {("step" if name == "index" else name): value for name, value in asdict(self).items()}
        terms = {
            name: value if math.isfinite(value) else None for name, value in self.terms.items()
        }
        return row | {"terms": terms, "seconds": round(self.seconds, 4)}


def numbered(generator: torch.Generator, index: int) -> torch.Generator:
    """A generator for batch `index` alone, from the seed of `generator`: for tasks that draw at
    random."""
    return torch.Generator().manual_seed(_mix(generator.initial_seed(), "batch", index))


def train(
    task: Task, settings: TrainSettings, folder: str | Path, seed: int, recipe: str = ""
) -> Iterator[Step]:
    """Trains in `folder`, giving each step when it is done. The same call resumes; a finished run
    gives nothing.

    `recipe` is the resolved text of what is trained, if there is one; a folder belongs to one
    (settings, seed, recipe). Raises TrainingError (not finite, folder in use or of another run) and
    CheckpointError (disk full, damaged). When it returns, the last checkpoint is written and the
    task holds the final weights.
    """
    folder = Path(folder)
    accelerator = Accelerator()
    first = accelerator.is_main_process
    # as read back
    run = json.loads(json.dumps({"settings": asdict(settings), "seed": seed, "recipe": recipe}))
    with run_folder.locked(folder) if first else nullcontext(), _deterministic(accelerator.device):
        if first:
            run_folder.claim(folder, run)
        # the first process may still be writing what the others will read
        accelerator.wait_for_everyone()
        loop = _Loop(task, settings, seed, accelerator)
        place = _resume(folder, run, loop)
        if settings.progress(place.step, place.seconds) >= 1:
            return
        record = run_folder.Record(folder, place.step) if first else None
        try:
            yield from _steps(loop, place, folder, run, record)
        finally:
            if record is not None:
                record.close()


def _resume(folder: Path, run: dict[str, Any], loop: _Loop) -> Place:
    """Puts the newest whole checkpoint back, if there is any; the place where the run stands."""
    newest = folders.newest_whole(folder / "checkpoints", checkpoints.PREFIX)
    if newest is None:
        return Place()
    weights, state, place = checkpoints.load(newest, loop.optimizer)
    if state["run"] != run:
        said = run_folder.difference(state["run"], run)
        raise CheckpointError(
            f"{newest}: belongs to another run ({said}); remove it, or use another folder"
        )
    changed = [
        f"{k} was {state[k]} and is now {v}"
        for k, v in checkpoints.machine().items()
        if state[k] != v
    ]
    if changed:
        log.warning(
            "%s: %s; going on, but not bit for bit as it would have", newest, " and ".join(changed)
        )
    loop.task.load_state({name: tensor.to(loop.device) for name, tensor in weights.items()})
    return place


def _steps(
    loop: _Loop, place: Place, folder: Path, run: dict[str, Any], record: run_folder.Record | None
) -> Iterator[Step]:
    """The steps from `place` to the end of the budget, recorded, with checkpoints when they are
    due."""
    settings, saved, saving = loop.settings, place, 0.0
    loop.begin(place.micro_batches)
    while settings.progress(place.step, place.seconds) < 1:
        started = time.perf_counter()
        numbers = loop.update(place)
        spent = time.perf_counter() - started
        seconds = place.seconds + loop.agreed(saving + spent)
        place = Place(
            place.step + 1, place.micro_batches + settings.accumulate * loop.processes, seconds
        )
        step = Step(
            place.step, seconds, tokens_per_second=numbers["tokens"] / max(spent, 1e-9), **numbers
        )
        if record is not None:
            record.write(step.row())
        started = time.perf_counter()
        if (
            settings.progress(place.step, seconds) >= 1
            or seconds - saved.seconds >= settings.checkpoint_every_seconds
            or (
                settings.checkpoint_every_steps
                and place.step % settings.checkpoint_every_steps == 0
            )
        ):
            saved = place
            if record is not None:
                weights = loop.task.state()
                checkpoints.save(
                    folder / "checkpoints", place, run, weights, loop.optimizer, settings.keep
                )
            loop.accelerator.wait_for_everyone()
        # on the next step's clock: a save knows when it began
        saving = time.perf_counter() - started
        yield step


class _Loop:
    """The arithmetic of one update: a group of micro-batches, one AdamW step, on one process or
    several."""

    def __init__(
        self, task: Task, settings: TrainSettings, seed: int, accelerator: Accelerator
    ) -> None:
        self.task, self.settings, self.seed, self.accelerator = task, settings, seed, accelerator
        self.processes: int = accelerator.num_processes
        self.device: torch.device = accelerator.device
        task.to(self.device)
        self.weights = task.loss_weights()
        self.optimizer = _adamw(task, settings, self.device)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.bf16 = _use_bf16(settings.precision, self.device)
        self.stream: Iterator[Any] = iter(())

    def begin(self, micro_batches: int) -> None:
        """Starts the stream of micro-batches at a number; process r of P takes every P-th."""
        stream = self.task.batches(torch.Generator().manual_seed(self.seed), micro_batches)
        stream = islice(stream, self.accelerator.process_index, None, self.processes)
        self.stream = stream if self.device.type == "cpu" else _ahead(stream)

    def update(self, place: Place) -> dict[str, Any]:
        """Sums a group's gradients, checks them, updates. Gives the fields of a Step that it knows."""
        _seed_all(_mix(self.seed, "step", place.step, self.accelerator.process_index))
        group = list(islice(self.stream, self.settings.accumulate))
        if len(group) < self.settings.accumulate:
            raise TrainingError(
                f"step {place.step + 1}: the batches ended; a task gives batches without end"
            )
        sums, counts = self._backward(group, self._total_counts(group), place.step + 1)
        terms, tokens = self._gather(sums, counts, sum(self.task.size(batch) for batch in group))
        loss = sum(weight * terms[name] for name, weight in self.weights.items() if name in terms)
        _refuse_not_finite(place.step + 1, loss, terms, "loss")
        norm = self._gradient_norm(place.step + 1)
        _refuse_not_finite(place.step + 1, norm, terms, "gradient norm")
        rate = self.settings.learning_rate_at(place.step, place.seconds)
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = rate * parameter_group["lr_scale"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {
            "loss": loss,
            "terms": terms,
            "learning_rate": rate,
            "tokens": tokens,
            "gradient_norm": norm,
        }

    def agreed(self, seconds: float) -> float:
        """The first process's clock: all must agree on when to save and when to stop."""
        if self.processes == 1:
            return seconds
        return float(broadcast(torch.tensor([seconds], device=self.device)).item())

    def _total_counts(self, group: list[Any]) -> dict[str, float]:
        """The count of each weighted term over the whole group, on every process."""
        totals = dict.fromkeys(self.weights, 0.0)
        for batch in group:
            for name, count in self.task.counts(batch).items():
                totals[name] = totals.get(name, 0.0) + float(count)
        return dict(zip(totals, self._added(list(totals.values())), strict=True))

    def _backward(
        self, group: list[Any], totals: dict[str, float], step: int
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Adds up the gradients of the group; gives the sum and the count of every term, weighted
        or not."""
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        for batch in group:
            expected = self.task.counts(batch)
            batch = send_to_device(batch, self.device) if self.device.type != "cpu" else batch
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                found = self.task.loss(batch)
            parts: list[Tensor] = []
            for name, (total, count) in found.items():
                weight = self.weights.get(name, 0.0)
                if name in self.weights and not math.isclose(
                    count, expected.get(name, 0.0), rel_tol=1e-6
                ):
                    raise TrainingError(
                        f"step {step}: loss() sums {name} over {count} things, counts() says"
                        f" {expected.get(name, 0.0)}; they must agree, or accumulation is wrong"
                    )
                if weight and totals[name]:
                    parts.append(total * (weight / totals[name]))
            if parts and (loss := torch.stack(parts).sum()).requires_grad:
                loss.backward()
            for name, (total, count) in found.items():  # after backward: on a GPU this waits
                sums[name] = sums.get(name, 0.0) + float(total.detach())
                counts[name] = counts.get(name, 0.0) + float(count)
        return sums, counts

    def _gather(
        self, sums: dict[str, float], counts: dict[str, float], tokens: int
    ) -> tuple[dict[str, float], int]:
        """Each term's mean over its count, and the tokens, over all processes."""
        flat = self._added([*sums.values(), *(counts[name] for name in sums), float(tokens)])
        totals = zip(sums, flat, flat[len(sums) :], strict=False)
        return {name: total / count if count else 0.0 for name, total, count in totals}, round(
            flat[-1]
        )

    def _gradient_norm(self, step: int) -> float:
        """Adds gradients over processes, clips them, and gives their norm before clipping."""
        if self.processes > 1:
            for parameter in self.parameters:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.accelerator.reduce(gradient, "sum")
        if all(parameter.grad is None for parameter in self.parameters):
            raise TrainingError(
                f"step {step}: no parameter got a gradient; does the loss depend on them?"
            )
        return float(
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip or math.inf)
        )

    def _added(self, numbers: list[float]) -> list[float]:
        """Numbers added up over processes."""
        if self.processes == 1:
            return numbers
        return self.accelerator.reduce(torch.tensor(numbers, device=self.device), "sum").tolist()


def _ahead(stream: Iterator[Any]) -> Iterator[Any]:
    """The same, made by a thread while a GPU works on what came before."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, stream, None) for _ in range(AHEAD))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, stream, None))
            yield batch


def _adamw(task: Task, settings: TrainSettings, device: torch.device) -> torch.optim.AdamW:
    """AdamW over the task's groups; fused, which on one core took 16 ms where the default took 43."""
    groups = [
        {
            "params": list(group["params"]),
            "lr_scale": float(group.get("lr_scale", 1.0)),
            "weight_decay": float(group.get("weight_decay", settings.weight_decay)),
        }
        for group in task.parameters()
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise TrainingError("the task has no parameters to train; see its parameters()")
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=fused)


def _use_bf16(precision: str, device: torch.device) -> bool:
    """Whether to autocast to bfloat16; "auto" does where the machine has instructions for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, Any] = (
        getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    )
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _refuse_not_finite(step: int, value: float, terms: dict[str, float], what: str) -> None:
    if not math.isfinite(value):
        listed = ", ".join(f"{name} {term:.4g}" for name, term in terms.items())
        raise TrainingError(
            f"step {step}: the {what} is {value} ({listed}); nothing was updated, earlier "
            "checkpoints stand:"
            " lower learning_rate, or look at the data of this step"
        )


def _mix(seed: int, *parts: str | int) -> int:
    """A seed of 63 bits from a seed and what it is for."""
    text = ":".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _seed_all(seed: int) -> None:
    """Seeds the global generators of torch (every device), numpy and Python: dropout and its like."""
    torch.manual_seed(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """On a CPU, asks torch for deterministic kernels while training goes on."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False  # a debugging aid that costs time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled
