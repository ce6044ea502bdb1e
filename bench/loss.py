"""What the loss over one slot's codes costs, beside the same loss over the whole vocabulary.

    python bench/loss.py [--tokens 512] [--rows 160128] [--width 896] [--slots 8] [--codes 1024]
                         [--repeats 5]
    python bench/loss.py --tiny        # seconds: shows that it runs, and says nothing about speed

Forward and backward, from hidden states to their gradient, of `tokens` audio tokens in float32.
Default sizes: Qwen2.5's 896 wide, 151,744 rows of text, 8,192 codes and a score's symbols. Rows of
the table:

    ours              distill.lm.logits.slot_logits_NC and distill.writing.losses: each token
                      against its own slot's rows
    ours + format     the same and -log P(legal) over all rows on every 16th position, as recipes
                      train
    torch, frozen     F.cross_entropy or F.kl_div over full rows of one frozen table: the least a
                      plain loss costs
    torch, trained    the same with the gradient of the whole table, as `modules_to_save` trains it
    trl               generalized_jsd_loss(beta=0), which is forward KL; where trl is installed

In both of ours the new rows learn, so their gradient is paid for. `peak` is memory above inputs
(model, hidden states, signals), in a process of its own for each row. `teacher` is the size of the
teacher's signals. `error` is the equality row: the largest difference, loss or
gradient of the hidden states, from float64 over full rows, relative. For ours, float64 is
conditioned on the slot: that the slice equals it is the chain rule, and here it is measured. The
floor is what must be read, written and multiplied, at the rates measured for a copy and for one
large product.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill.audio.codec_format import CodecFormat
from distill.lm import logits
from distill.lm.graft import GraftedHead
from distill.lm.student import Student
from distill.writing.batches import Batch, Targets
from distill.writing.losses import CrossEntropy, ForwardKl
from distill.writing.vocabulary import AudioVocabulary

MIB = 2**20
FORMAT_EVERY = 16
CHECKED = 32  # tokens of the equality row, so that float64 stays small
WRONG = 1e-3  # of the reference
FAR = -1e4  # a teacher's logit for what cannot come: zero probability, and no infinity times zero
CASES = {
    "ours: cross entropy": ("ours", "ce", False),
    "ours: cross entropy + format": ("ours", "ce", True),
    "torch: cross entropy, frozen": ("torch", "ce", False),
    "torch: cross entropy, trained": ("torch", "ce", True),
    "ours: forward KL": ("ours", "kl", False),
    "ours: forward KL + format": ("ours", "kl", True),
    "torch: forward KL, frozen": ("torch", "kl", False),
    "trl: forward KL, frozen": ("trl", "kl", False),
}
TRL_HOMES = ("trl.trainer.gkd_trainer", "trl.experimental.gkd.gkd_trainer", "trl.experimental.gkd")


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    tokens: int = 512
    rows: int = 160_128
    width: int = 896
    slots: int = 8
    codes: int = 1024
    repeats: int = 5

    def vocabulary(self) -> AudioVocabulary:
        """`rows` rows in all."""
        format = CodecFormat(44_100, 86.0, (self.codes,) * self.slots)
        vocabulary = AudioVocabulary(self.rows - AudioVocabulary(0, format).rows, format)
        if vocabulary.base_rows < 64 or vocabulary.rows != self.rows or self.tokens % self.slots:
            sys.exit("bench: rows must be a multiple of 64 beyond the codes, tokens one of slots")
        return vocabulary


class BareStudent:
    """As much of a Student as `distill.lm.logits` asks for: its vocabulary and its two tables."""

    def __init__(self, vocabulary: AudioVocabulary, table_VD: Tensor):
        self.vocabulary = vocabulary
        old = nn.Linear(table_VD.shape[1], vocabulary.base_rows, bias=False)
        old.weight = nn.Parameter(table_VD[: vocabulary.base_rows], requires_grad=False)
        self.head = GraftedHead(old, nn.Parameter(table_VD[vocabulary.base_rows :].clone()))

    def logits(self, hidden_ND: Tensor, start: int, stop: int) -> Tensor:
        return self.head.span(hidden_ND, start, stop)


def make_batch(vocabulary: AudioVocabulary, codes_FS: Tensor, teacher_FSC: Tensor | None) -> Batch:
    """Frames of audio tokens and nothing else; token n is slot n % S."""
    frames, slots = codes_FS.shape
    device = codes_FS.device
    at_N = torch.arange(frames * slots, device=device)
    slot_targets = tuple(
        Targets(at_N[s::slots], codes_FS[:, s], None if teacher_FSC is None else teacher_FSC[:, s])
        for s in range(slots)
    )
    none = Targets(at_N[:0], at_N[:0])
    sample_N = at_N[::FORMAT_EVERY]
    no_score = (none, none, none, none)
    ids_BT = positions_BT = at_N[None]
    return Batch(ids_BT, positions_BT, slot_targets, *no_score, sample_N, sample_N % slots, 0.0)


# --- the contestants: mean nats per token ---------------------------------------------------------
def ours(
    student: Student,
    hidden_ND: Tensor,
    batch: Batch,
    loss: CrossEntropy | ForwardKl,
    with_format: bool,
) -> Tensor:
    """As tasks/_singing_task.py does it."""
    total = hidden_ND.new_zeros(())
    for s, slot in enumerate(batch.slots):
        logits_NC = logits.slot_logits_NC(student, hidden_ND, batch, s)
        total = total + loss(logits_NC, slot.target_N, slot.teacher_NC).sum()
    total = total / len(hidden_ND)
    return (
        total + logits.format_nats(student, hidden_ND, batch) / len(batch.format_N)
        if with_format
        else total
    )


def torch_ce(
    table_VD: Tensor, hidden_ND: Tensor, target_N: Tensor, teacher_NV: Tensor | None
) -> Tensor:
    return functional.cross_entropy(functional.linear(hidden_ND, table_VD), target_N)


def torch_kl(table_VD: Tensor, hidden_ND: Tensor, target_N: Tensor, teacher_NV: Tensor) -> Tensor:
    student_NV = functional.linear(hidden_ND, table_VD).log_softmax(-1)
    teacher_NV = teacher_NV.log_softmax(-1)
    return functional.kl_div(student_NV, teacher_NV, reduction="batchmean", log_target=True)


def trl_kl(table_VD: Tensor, hidden_ND: Tensor, target_N: Tensor, teacher_NV: Tensor) -> Tensor:
    student_NV = functional.linear(hidden_ND, table_VD)
    # labels: mean over tokens
    return trl_loss()(student_NV[None], teacher_NV[None], target_N[None], beta=0.0)


def trl_loss() -> Callable[..., Tensor]:
    """TRL's function; ImportError where there is none."""
    for home in TRL_HOMES:
        try:
            return importlib.import_module(home).GKDTrainer.generalized_jsd_loss
        except (ImportError, AttributeError):
            continue
    raise ImportError("trl is not installed")


# --- one row, in a process of its own -------------------------------------------------------------
class Problem:
    """One table, the same hidden states, codes and teacher for every contestant."""

    def __init__(self, sizes: Sizes, device: str):
        generator = torch.Generator().manual_seed(0)
        frames, self.v = sizes.tokens // sizes.slots, sizes.vocabulary()
        table_VD = torch.randn(sizes.rows, sizes.width, generator=generator)
        self.table_VD = (table_VD / sizes.width**0.5).to(device)
        hidden_ND = torch.randn(sizes.tokens, sizes.width, generator=generator)
        self.hidden_ND = hidden_ND.to(device).requires_grad_(True)
        codes_FS = torch.randint(sizes.codes, (frames, sizes.slots), generator=generator)
        self.target_N, self.codes_FS = self.v.spell(codes_FS).to(device), codes_FS.to(device)
        teacher_FSC = torch.randn(frames, sizes.slots, sizes.codes, generator=generator)
        self.teacher_FSC = teacher_FSC.log_softmax(-1).to(device)


def contestant(
    name: str, problem: Problem
) -> tuple[Callable[[int], Tensor], list[Tensor], Tensor | None]:
    """(loss of the first so many tokens, parameters that learn, teacher's signals) of one row."""
    side, kind, extra = CASES[name]
    table_VD, hidden_ND, slots = problem.table_VD, problem.hidden_ND, problem.v.format.slots
    if side == "ours":
        student = BareStudent(problem.v, table_VD)
        loss = CrossEntropy() if kind == "ce" else ForwardKl()
        teacher_FSC = problem.teacher_FSC if kind == "kl" else None

        def of_slots(tokens: int) -> Tensor:
            frames = slice(tokens // slots)
            signals_FSC = None if teacher_FSC is None else teacher_FSC[frames]
            batch = make_batch(problem.v, problem.codes_FS[frames], signals_FSC)
            return ours(cast(Student, student), hidden_ND[:tokens], batch, loss, extra)

        return of_slots, [student.head.new], teacher_FSC
    teacher_NV = full_teacher(problem.v, problem.teacher_FSC) if kind == "kl" else None
    peers: dict[str, Callable[..., Tensor]] = {"ce": torch_ce, "kl": torch_kl, "trl": trl_kl}
    peer = peers[kind if side == "torch" else side]
    table_VD.requires_grad_(extra)

    def of_rows(tokens: int) -> Tensor:
        signals_NV = None if teacher_NV is None else teacher_NV[:tokens]
        return peer(table_VD, hidden_ND[:tokens], problem.target_N[:tokens], signals_NV)

    return of_rows, [table_VD] if extra else [], teacher_NV


def measure(name: str, sizes: Sizes, device: str) -> dict[str, float]:
    """{median_s, least_s, most_s, peak_mib, teacher_mib, error} of one row."""
    problem = Problem(sizes, device)
    loss_of, parameters, signals = contestant(name, problem)
    few = max(sizes.slots, min(CHECKED, sizes.tokens) // sizes.slots * sizes.slots)
    wanted = reference(*CASES[name], problem, few)
    error = difference(loss_of(few), problem.hidden_ND, wanted, few)

    def clear() -> None:
        for tensor in (problem.hidden_ND, *parameters):
            tensor.grad = None

    def run() -> None:
        clear()
        loss_of(sizes.tokens).backward()

    clear()
    peak_mib = peak_above(run, device)
    seconds = timed(run, sizes.repeats, device)
    return {
        "median_s": statistics.median(seconds),
        "least_s": min(seconds),
        "most_s": max(seconds),
        "peak_mib": peak_mib,
        "teacher_mib": 0.0 if signals is None else signals.nbytes / MIB,
        "error": error,
    }


def full_teacher(v: AudioVocabulary, teacher_FSC: Tensor) -> Tensor:
    """The same distributions as logits over full rows."""
    frames, slots, _ = teacher_FSC.shape
    teacher_FSV = torch.full((frames, slots, v.rows), FAR, device=teacher_FSC.device)
    for s in range(slots):
        teacher_FSV[:, s, v.span(s).start : v.span(s).stop] = teacher_FSC[:, s]
    return teacher_FSV.flatten(0, 1)


def reference(
    side: str, kind: str, extra: bool, problem: Problem, tokens: int
) -> tuple[Tensor, Tensor]:
    """(loss, gradient of hidden_ND) in float64 by definition: from log-softmax over full rows."""
    hidden_ND = problem.hidden_ND.detach()[:tokens].double().requires_grad_(True)
    table_VD, slots = problem.table_VD.detach(), problem.v.format.slots
    parts = [functional.linear(hidden_ND, part_VD.double()) for part_VD in table_VD.split(16_384)]
    q_NV = torch.cat(parts, -1).log_softmax(-1)
    legal_NV = logits.legal_by_kind(problem.v, hidden_ND.device)[torch.arange(tokens) % slots]
    legal_N = q_NV.masked_fill(~legal_NV, -torch.inf).logsumexp(-1)  # log P(legal)
    if side == "ours":
        q_NV = q_NV - legal_N[:, None]
    if kind == "ce":
        nats_N = -q_NV.gather(-1, problem.target_N[:tokens, None])[:, 0]
    else:
        p_NC = problem.teacher_FSC.flatten(0, 1)[:tokens].double()
        nats_N = (p_NC.exp() * (p_NC - q_NV[legal_NV].reshape(p_NC.shape))).sum(-1)
    loss = nats_N.mean()
    if side == "ours" and extra:
        loss = loss - legal_N[::FORMAT_EVERY].mean()
    loss.backward()
    assert hidden_ND.grad is not None
    return loss.detach(), hidden_ND.grad


def difference(
    loss: Tensor, hidden_ND: Tensor, wanted: tuple[Tensor, Tensor], tokens: int
) -> float:
    """Largest relative difference of loss and gradient."""
    loss.backward()
    assert hidden_ND.grad is not None
    wanted_loss, wanted_ND = wanted
    of_loss = float((loss.detach().double() - wanted_loss).abs() / wanted_loss.abs())
    off_ND = (hidden_ND.grad[:tokens].double() - wanted_ND).abs()
    return max(of_loss, float(off_ND.max() / wanted_ND.abs().max()))


def timed(run: Callable[[], object], repeats: int, device: str) -> list[float]:
    """Seconds of each run."""
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return seconds


def peak_above(run: Callable[[], object], device: str) -> float:
    """MiB at the peak of a run above what was in use before it; nan where no system says."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = float(torch.cuda.memory_allocated())
        run()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark is where we stand
        before = resident("VmRSS")
        run()
        return max(0.0, resident("VmHWM") - before)
    except OSError:
        run()
        return float("nan")


def resident(name: str) -> float:
    """VmRSS or VmHWM of this process in MiB (Linux)."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in text.splitlines() if line.startswith(name)).split()[1]) / 1024


# --- the table ------------------------------------------------------------------------------------
def floor(sizes: Sizes, device: str) -> list[str]:
    """What cannot be saved: hidden states, rows and signals read, gradients written.

    A product is 2 operations.
    """
    side = 1024 if sizes.width >= 256 else 128
    left, copied = torch.randn(side, side, device=device), torch.randn(2**22, device=device)
    product_s = min(timed(lambda: left @ left, 5, device))
    copy_s = min(timed(lambda: copied.clone(), 5, device))
    rate, bandwidth = 2 * side**3 / product_s, 2 * copied.numel() * 4 / copy_s
    rates = f"{rate / 1e9:.0f} G operations/s (float32 product), {bandwidth / 1e9:.1f} GB/s (copy)"
    lines = [f"rates here: {rates}"]
    n, d, c = sizes.tokens, sizes.width, sizes.codes
    for name, columns, rows, products in (
        ("slot slices, new rows learn", c, c * sizes.slots, 3),
        ("full rows, table frozen", sizes.rows, sizes.rows, 2),
        ("full rows, table learns", sizes.rows, sizes.rows, 3),
    ):
        operations = 2 * n * d * columns * products
        moved = 4 * (2 * n * d + rows * d * (2 if products == 3 else 1))
        least = max(operations / rate, moved / bandwidth)
        lines.append(
            f"floor, {name}: {operations / 1e9:.2f} G operations, {moved / MIB:.0f} MiB, "
            f"{least * 1e3:.1f} ms"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Loss over a slot, and over the vocabulary.")
    for field in fields(Sizes):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--tiny", action="store_true", help="small sizes, one repeat")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    device: str = options.device
    sizes = Sizes(*(getattr(options, field.name) for field in fields(Sizes)))
    if options.tiny:
        sizes = Sizes(64, 4096, 64, 4, 128, 1)
    if options.case:
        print(json.dumps(measure(options.case, sizes, device)))
        return 0
    threads = torch.get_num_threads()
    print(f"{sizes}, float32, torch {torch.__version__}, {device}, {threads} threads")
    print(f"\n{'':31} {'median':>9} {'least .. most':>19} {'peak':>9} {'teacher':>9} {'error':>8}")
    wrong = 0
    for name in CASES:
        row = measure_apart(name, sizes, device)
        wrong += row is not None and not row["error"] < WRONG
        print(f"{name:31} {shown(row) if row else 'not installed (pip install trl)'}", flush=True)
    print("\n" + "\n".join(floor(sizes, device)))
    if wrong:
        unequal = f"{wrong} rows do not equal their float64 reference"
        print(f"bench: {unequal}; their times mean nothing", file=sys.stderr)
    return 1 if wrong else 0


def measure_apart(name: str, sizes: Sizes, device: str) -> dict[str, float] | None:
    """Measured in a fresh process; None for a peer that is not installed."""
    if CASES[name][0] == "trl":
        try:
            trl_loss()
        except ImportError:
            return None
    words = [f"--{field.name}={getattr(sizes, field.name)}" for field in fields(Sizes)]
    command = [sys.executable, __file__, *words, f"--device={device}", "--case", name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {name} failed:\n{done.stderr}")
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def shown(row: dict[str, float]) -> str:
    median, least, most = (row[key] * 1e3 for key in ("median_s", "least_s", "most_s"))
    return (
        f"{median:6.1f} ms {least:8.1f} .. {most:7.1f} {row['peak_mib']:5.0f} MiB "
        f"{row['teacher_mib']:5.1f} MiB {row['error']:8.1e}"
    )


if __name__ == "__main__":
    sys.exit(main())
