"""Training, for every task: a generator of steps that can be killed at any moment and called again.

    for step in train(task, settings, folder, seed=1):
        ...                                # log, plot, evaluate, or break: the loop is the caller's

The trainer knows no model. A `Task` gives numbered batches, the sum and the count of each loss
term, its parameters and its state. From these come three promises:

- **Accumulation is one large batch.** The counts of a whole group of micro-batches are added up
  first, and each micro-batch's loss is sum_i weight_i * sum_i / total_count_i. Unequal
  micro-batches weigh what they hold. Several processes (accelerate) are more micro-batches of the
  same group.
- **Resuming is the same call.** Step s is a function of (parameters, moments, s): its random
  numbers are seeded from (seed, s), its batches numbered from s, its clock is in the checkpoint. So
  a killed run, called again, ends with bit-identical weights (step budget, same torch build, same
  thread count). What a caller draws or computes between two steps changes nothing, and does not
  count as time.
- **Nothing wrong is stepped over.** A loss or gradient that is not finite stops before the update;
  a folder of another run or of a living process is refused (run_folder.py); a damaged checkpoint is
  named (checkpoints.py).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import random
import time
from abc import abstractmethod
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, send_to_device
from torch import Tensor

from distill import folders
from distill.config.ranges import Checked, above, at_least, share
from distill.errors import CheckpointError, SettingsError, TrainingError
from distill.runtime import ranks
from distill.training import checkpoints, run_folder, sharding
from distill.training.checkpoints import Place
from distill.training.run_folder import Run
from distill.training.trackers import Tracker

__all__ = ["Place", "Step", "Task", "TrainSettings", "numbered", "train"]

log = logging.getLogger("distill")
AHEAD = 2  # micro-batches that wait for a GPU
FOR_TASKS = ("gradient_checkpointing", "compile")  # settings that a task does, not the trainer
FP16_DEVICES = ("cuda",)
BITSANDBYTES_DEVICES = ("cuda", "cpu")
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class TrainSettings(Checked):
    """How to train: `steps`, `seconds` or both (the first reached ends), AdamW, and when to save.

    With `seconds` the cosine follows the time spent, which checkpoints keep. `precision` auto is
    bf16 where the machine has instructions for it; weights and moments stay fp32, but that
    `optimizer` adamw8bit holds moments in 8 bits, block by block (arXiv 2110.02861). fp16 is for
    GPUs without bf16; its loss is scaled, and a step whose gradients overflow is left out.
    `gradient_checkpointing` computes layers again in the backward pass (half the memory, a third
    more time); `compile` has torch.compile make kernels of them (minutes at the start).
    """

    steps: int | None = at_least(1, default=None)
    seconds: float | None = above(0, default=None)
    learning_rate: float = above(0, default=1e-3)
    warmup_steps: int = at_least(0, default=50)
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = at_least(0, default=0.05)
    betas: tuple[float, float] = share(default=(0.9, 0.97), one=False)
    clip: float | None = above(0, default=1.0)
    accumulate: int = at_least(1, default=1)
    checkpoint_every_seconds: float = at_least(0, default=60.0)
    checkpoint_every_steps: int | None = at_least(1, default=None)
    keep: int = at_least(1, default=2)
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    gradient_checkpointing: bool = False
    compile: bool = False
    trackers: tuple[Tracker, ...] = ("tensorboard",)  # which is always written; others beside it

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is None and self.seconds is None:
            raise SettingsError("neither steps nor seconds is given; say when to stop")

    def progress(self, step: int, seconds: float) -> float:
        """The share of the budget used after so many steps and seconds; 1 or more is the end."""
        by_steps = step / self.steps if self.steps else 0.0
        by_seconds = seconds / self.seconds if self.seconds else 0.0
        return max(by_steps, by_seconds)

    def learning_rate_at(self, step: int, seconds: float) -> float:
        """The rate of the step after `step` steps: warm-up times a cosine of the used budget."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.schedule == "constant":
            return self.learning_rate * warm
        used = min(1.0, self.progress(step, seconds))
        return self.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * used))


class Task(Protocol[Batch]):
    """All that the trainer knows about what it trains.

    `heeds`: which of FOR_TASKS it does itself when they are set; the others are refused.
    """

    heeds: frozenset[str] = frozenset()

    @abstractmethod
    def batches(self, generator: torch.Generator, start: int, stride: int = 1) -> Iterator[Batch]:
        """Micro-batches `start`, `start + stride`, ... without end; each a function of
        (generator's seed, number). What lies between is not made: it is another process's."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """Per weighted term, how many things (tokens, samples) its sum over this batch adds up."""

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, tuple[Tensor, float]]:
        """Per term, its sum over the batch (a scalar) and its count; without weight only logged.
        It puts its modules into training mode: a caller may have evaluated in between."""

    @abstractmethod
    def loss_weights(self) -> dict[str, float]:
        """The weight of each term of the loss."""

    @abstractmethod
    def parameters(self) -> list[dict[str, Any]]:
        """AdamW's groups: "params", optional "lr_scale" (times the rate) and "weight_decay"."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Trained parameters by name."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Puts trained parameters back."""

    @abstractmethod
    def size(self, batch: Batch) -> int:
        """Tokens (or samples) of the batch, for tokens per second."""

    @abstractmethod
    def to(self, device: torch.device) -> object:
        """Moves what is trained to the device."""


@dataclass(frozen=True)
class Step:
    """One update. `index` counts from 1; `seconds` of all training so far, `tokens` of the step."""

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
        terms = {name: term if math.isfinite(term) else None for name, term in self.terms.items()}
        row = asdict(self) | {"terms": terms, "seconds": round(self.seconds, 4)}
        return {"step": row.pop("index"), **row}


def numbered(generator: torch.Generator, index: int) -> torch.Generator:
    """A generator for batch `index` alone, from the seed of `generator`."""
    return torch.Generator().manual_seed(_mix(generator.initial_seed(), "batch", index))


def train(
    task: Task[Batch], settings: TrainSettings, folder: str | Path, seed: int, recipe: str = ""
) -> Iterator[Step]:
    """Trains in `folder`, giving each step when done; called again, resumes; ended, gives nothing.

    A folder belongs to one (settings, seed, `recipe`: its resolved text); with a larger budget it
    goes on. TrainingError: not finite, folder in use or of another run; CheckpointError: disk full,
    damaged. When it returns, the last checkpoint is written and the task holds the final weights.
    """
    folder = Path(folder)
    ranks.join()
    accelerator = Accelerator()
    first = accelerator.is_main_process
    run: Run = {"settings": asdict(settings), "seed": seed, "recipe": recipe}
    run = json.loads(json.dumps(run))  # as it is read back
    with run_folder.locked(folder) if first else nullcontext(), _deterministic(accelerator.device):
        raised = run_folder.claim(folder, run) if first else ""
        # the first process may still be writing what the others will read
        ranks.meet()
        _agree(task, run)
        loop = _Loop(task, settings, seed, accelerator)
        start = _resume(folder, run, loop)
        if settings.progress(start.step, start.seconds) >= 1:
            loop.end()
            return
        if start.step and (words := _goes_on(raised, settings, start)):
            log.warning("%s: %s", folder, words)
        record = run_folder.Record(folder, start.step) if first else None
        try:
            yield from _steps(loop, start, folder, run, record)
        finally:
            if record is not None:
                record.close()
        loop.end()


def _agree(task: Task[Batch], run: Run) -> None:
    """Several processes do one run. TrainingError when they have different recipes or songs."""
    digest = getattr(task, "digest", None)
    digests = ranks.all_of((json.dumps(run), digest() if digest is not None else ""))
    for other, (theirs, songs) in enumerate(digests):
        if theirs != digests[0][0]:
            fault = run_folder.difference(json.loads(digests[0][0]), json.loads(theirs))
            ways = "give all the same command"
            raise TrainingError(f"processes 0 and {other} do different runs ({fault}); {ways}")
        if songs != digests[0][1]:
            what = f"processes 0 and {other} have different songs ({digests[0][1]}; {songs})"
            raise TrainingError(f"{what}; give all the same files and one cache (DISTILL_CACHE)")


def _resume(folder: Path, run: Run, loop: _Loop[Batch]) -> Place:
    """Puts the newest whole checkpoint back, if there is any; the place where the run stands."""
    newest = folders.newest_whole(folder / "checkpoints", checkpoints.PREFIX)
    if newest is None:
        return Place()
    parameters, state, start = checkpoints.load(newest, loop.optimizer, loop.scaler)
    if wrong := run_folder.difference(state["run"], run):
        fault = f"belongs to another run ({wrong})"
        raise CheckpointError(f"{newest}: {fault}; remove it, or use another folder")
    machine = checkpoints.machine()
    changed = [f"{k} was {state[k]} and is now {v}" for k, v in machine.items() if state[k] != v]
    if changed:
        words = "%s: %s; going on, but not bit for bit as it would have"
        log.warning(words, newest, " and ".join(changed))
    now = loop.task.state()
    whole = {name: tensor.to(loop.device) for name, tensor in parameters.items()}
    loop.task.load_state({n: sharding.like(t, now.get(n, t)) for n, t in whole.items()})
    return start


def _goes_on(raised: str, settings: TrainSettings, start: Place) -> str:
    """What a larger budget means for a run that stood somewhere already, in words."""
    if not raised:
        return ""
    rate = settings.learning_rate_at(start.step, start.seconds)
    follows = ", as the cosine follows the new budget" if settings.schedule == "cosine" else ""
    words = f"{raised} raised; goes on behind step {start.step} with its optimiser's state"
    return f"{words} at a learning rate of {rate:.2g}{follows}"


def _steps(
    loop: _Loop[Batch], start: Place, folder: Path, run: Run, record: run_folder.Record | None
) -> Iterator[Step]:
    """The steps from `start` to the end of the budget, recorded, saved where that is due."""
    settings, now, saved, saving = loop.settings, start, start, 0.0
    loop.begin(now.micro_batches)
    while settings.progress(now.step, now.seconds) < 1:
        started = time.perf_counter()
        step = loop.update(now)
        spent = time.perf_counter() - started
        seconds = now.seconds + loop.agreed(saving + spent)
        used = now.micro_batches + settings.accumulate * loop.processes
        now = Place(step.index, used, seconds)
        step = replace(step, seconds=seconds, tokens_per_second=step.tokens / max(spent, 1e-9))
        if record is not None:
            record.write(step.row())
        started = time.perf_counter()
        if _is_due(settings, now, saved):
            saved = now
            if record is not None or loop.whole is not None:  # pieces are gathered from all
                parent, parameters = folder / "checkpoints", loop.task.state()
                keep = settings.keep if record is not None else None
                checkpoints.save(parent, now, run, parameters, loop.optimizer, keep, loop.scaler)
            ranks.meet()
        # on the next step's clock: a save knows when it began
        saving = time.perf_counter() - started
        yield step


def _is_due(settings: TrainSettings, now: Place, saved: Place) -> bool:
    """Whether a checkpoint is to be written."""
    every = settings.checkpoint_every_steps
    return (
        settings.progress(now.step, now.seconds) >= 1
        or now.seconds - saved.seconds >= settings.checkpoint_every_seconds
        or (every is not None and now.step % every == 0)
    )


class _Loop(Generic[Batch]):
    """The arithmetic of one update: a group of micro-batches, one AdamW step, on all processes."""

    def __init__(
        self, task: Task[Batch], settings: TrainSettings, seed: int, accelerator: Accelerator
    ) -> None:
        self.task, self.settings, self.seed, self.accelerator = task, settings, seed, accelerator
        self.processes: int = accelerator.num_processes
        self.device: torch.device = accelerator.device
        refuse(settings, self.device, getattr(task, "heeds", frozenset()))
        task.to(self.device)
        self.whole = _sharded(task, settings, self.device) if sharding.is_wanted() else None
        self.loss_weights = task.loss_weights()
        self.optimizer = _optimizer(task, settings, self.device)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.half = _half_precision(settings.precision, self.device)
        scaled = self.half == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.stream: Iterator[Batch] = iter(())

    def begin(self, micro_batches: int) -> None:
        """Starts the stream of micro-batches at a number; process r of P takes every P-th."""
        generator = torch.Generator().manual_seed(self.seed)
        own = micro_batches + self.accelerator.process_index
        stream = self.task.batches(generator, own, self.processes)
        self.stream = stream if self.device.type == "cpu" else _ahead(stream)

    def update(self, now: Place) -> Step:
        """Sums a group's gradients, checks them, updates; the step, but for its time."""
        number = now.step + 1
        _seed_all(_mix(self.seed, "step", now.step, self.accelerator.process_index))
        group = list(islice(self.stream, self.settings.accumulate))
        if len(group) < self.settings.accumulate:
            raise TrainingError(f"step {number}: the batches ended; a task gives them without end")
        sums, counts = self._backward(group, self._total_counts(group), number)
        terms, tokens = self._gather(sums, counts, sum(self.task.size(batch) for batch in group))
        loss = sum(w * terms[name] for name, w in self.loss_weights.items() if name in terms)
        _refuse_not_finite(number, loss, terms, "loss")
        norm = self._gradient_norm(number)
        if not self._overflows(number, norm):
            _refuse_not_finite(number, norm, terms, "gradient norm")
        rate = self.settings.learning_rate_at(now.step, now.seconds)
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = rate * parameter_group["lr_scale"]
        if math.isfinite(norm):
            self.optimizer.step()
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Step(number, now.seconds, loss, terms, rate, tokens, 0.0, norm)

    def _overflows(self, number: int, norm: float) -> bool:
        """Whether float16 alone is to blame for a gradient that is not finite: at a smaller scale
        of the loss it may be. Such a step updates nothing, and the next has half the scale."""
        scale = float(self.scaler.get_scale())
        if math.isfinite(norm) or not self.scaler.is_enabled() or scale <= 1:
            return False
        words = "step %d: its gradients overflow float16 at a loss scale of %g; it is left out"
        log.warning(words, number, scale)
        return True

    def agreed(self, seconds: float) -> float:
        """The first process's clock: all must agree on when to save and when to stop."""
        if self.processes == 1:
            return seconds
        return float(broadcast(torch.tensor([seconds], device=self.device)).item())

    def _total_counts(self, group: list[Batch]) -> dict[str, float]:
        """The count of each weighted term over the whole group, on every process."""
        totals = defaultdict(float, dict.fromkeys(self.loss_weights, 0.0))
        for batch in group:
            for name, count in self.task.counts(batch).items():
                totals[name] += float(count)
        return dict(zip(totals, self._added(list(totals.values())), strict=True))

    def _backward(
        self, group: list[Batch], totals: dict[str, float], step: int
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Adds up the gradients of the group; gives the sum and the count of every term."""
        sums, counts = defaultdict[str, float](float), defaultdict[str, float](float)
        for batch in group:
            expected = self.task.counts(batch)
            batch = send_to_device(batch, self.device) if self.device.type != "cpu" else batch
            with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
                terms = self.task.loss(batch) if self.whole is None else self.whole(batch)
            parts: list[Tensor] = []
            for name, (total, count) in terms.items():
                if name not in self.loss_weights:
                    continue
                wanted = expected.get(name, 0.0)
                if not math.isclose(count, wanted, rel_tol=1e-6):
                    fault = f"loss() sums {name} over {count} things, counts() says {wanted}"
                    must = "they must agree, or accumulation is wrong"
                    raise TrainingError(f"step {step}: {fault}; {must}")
                if (weight := self.loss_weights[name]) and totals[name]:
                    _refuse_without_gradient(step, name, total, weight, count)
                    parts.append(total * (weight / totals[name]))
            if parts and (loss := torch.stack(parts).sum()).requires_grad:
                self.scaler.scale(loss).backward()
            for name, (total, count) in terms.items():  # after backward: on a GPU this waits
                sums[name] += float(total.detach())
                counts[name] += float(count)
        return sums, counts

    def _gather(
        self, sums: dict[str, float], counts: dict[str, float], tokens: int
    ) -> tuple[dict[str, float], int]:
        """Each term's mean over its count, and the tokens, over all processes."""
        flat = self._added([*sums.values(), *(counts[name] for name in sums), float(tokens)])
        totals = zip(sums, flat, flat[len(sums) :], strict=False)
        means = {name: total / count if count else 0.0 for name, total, count in totals}
        return means, round(flat[-1])

    def _gradient_norm(self, step: int) -> float:
        """Adds gradients over processes, clips them, and gives their norm before clipping."""
        if self.processes > 1 and self.whole is None:
            for parameter in self.parameters:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.accelerator.reduce(gradient, "sum")
        if all(parameter.grad is None for parameter in self.parameters):
            fault = "no parameter got a gradient; does the loss depend on them?"
            raise TrainingError(f"step {step}: {fault}")
        self.scaler.unscale_(self.optimizer)
        most = self.settings.clip or math.inf
        return float(sharding.full(torch.nn.utils.clip_grad_norm_(self.parameters, most)))

    def end(self) -> None:
        """Behind the last step: the task holds whole parameters on every process."""
        if self.whole is not None:
            sharding.gather(self.whole.model)

    def _added(self, numbers: list[float]) -> list[float]:
        """Numbers added up over processes."""
        if self.processes == 1:
            return numbers
        return self.accelerator.reduce(torch.tensor(numbers, device=self.device), "sum").tolist()


def _sharded(task: Task[Batch], settings: TrainSettings, device: torch.device) -> sharding.Whole:
    """The task's model in pieces. SettingsError where it cannot be."""
    module = getattr(task, "module", None)
    if module is None:
        words = f"{type(task).__name__} has no layers to share out; launch without --use_fsdp"
        raise SettingsError(f"FSDP: {words}")
    sharding.refuse(settings)
    return sharding.shard(module(), task.loss, device)


def _ahead(stream: Iterator[Batch]) -> Iterator[Batch]:
    """The same, made by a thread while a GPU works on what came before."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, stream, None) for _ in range(AHEAD))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, stream, None))
            yield batch


def refuse(settings: TrainSettings, device: torch.device, heeds: frozenset[str]) -> None:
    """SettingsError for what this device cannot do, or a task that `heeds` only so much."""
    for name in FOR_TASKS:
        if getattr(settings, name) and name not in heeds:
            raise SettingsError(f"train.{name}: this task knows no such thing; leave it out")
    if settings.precision == "fp16" and device.type not in FP16_DEVICES:
        ways = "use auto, bf16 or fp32"
        raise SettingsError(f"train.precision: fp16 is for CUDA, this device is {device}; {ways}")
    if settings.optimizer == "adamw8bit":
        installed = importlib.util.find_spec("bitsandbytes") is not None
        if not installed or device.type not in BITSANDBYTES_DEVICES:
            lacks = f"does not compute on {device}" if installed else "is not installed"
            ways = "use adamw"
            raise SettingsError(f"train.optimizer: adamw8bit, but bitsandbytes {lacks}; {ways}")


def _optimizer(
    task: Task[Batch], settings: TrainSettings, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW over the task's groups; fused: on one core 16 ms where the default took 43."""
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
    rate, betas = settings.learning_rate, settings.betas
    if settings.optimizer == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, lr=rate, betas=betas)
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=fused)


def _half_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """What to autocast to; "auto" is bfloat16 where the machine has instructions for it."""
    if precision != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    has = False
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        has = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if has else None


def _refuse_not_finite(step: int, value: float, terms: dict[str, float], what: str) -> None:
    if not math.isfinite(value):
        listed = ", ".join(f"{name} {term:.4g}" for name, term in terms.items())
        stands = "nothing was updated, earlier checkpoints stand"
        ways = "lower learning_rate, or look at the data of this step"
        raise TrainingError(f"step {step}: the {what} is {value} ({listed}); {stands}: {ways}")


def _refuse_without_gradient(
    step: int, name: str, total: Tensor, weight: float, count: float
) -> None:
    """TrainingError for a weighted term that sums something up and yet teaches nothing."""
    if count and not total.requires_grad:
        fault = f"the term {name} (weight {weight:g}, {count:g} summed) carries no gradient"
        ways = "give it weight 0, or let it depend on what trains"
        raise TrainingError(f"step {step}: {fault}; {ways}")


def _mix(seed: int, *parts: str | int) -> int:
    """A seed of 63 bits from a seed and what it is for."""
    text = ":".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _seed_all(seed: int) -> None:
    """Seeds the global generators of torch (every device), numpy and Python, for dropout."""
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
