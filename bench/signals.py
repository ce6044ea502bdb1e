"""What each form of a recorded signal weighs, and how far it is from what the teacher said.

    python bench/signals.py [--songs 12] [--split held-out] [--top-k 8 16 32 64 128 256 512]
    python bench/signals.py --tiny      # one song: shows that it runs

The embedded teacher hears embedded songs; two students answer: the embedded singer, and one that
knows nothing (all codes alike), as at the first step. Over all audio tokens, for each form:

    bytes          of one token's signal, and of 100 hours of DAC (44.1 kHz, 4 slots)
    tail           the teacher's mean probability outside the K codes
    KL             the exact forward divergence, and of the form's the mean difference from it,
                   and the mean of what each token's differs, |form - exact|
    cosine         of the gradient of the summed forward divergence with respect to the student's
                   logits, with the exact one
    reverse        the mean error of KL(student || teacher), which recipes may not ask of a top-K

"exact" is the live teacher in float32.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill import load_singer
from distill.lm import logits
from distill.singing.singer import Singer
from distill.sources.embedded import Settings as EmbeddedSongs
from distill.teachers.model import Settings as LiveTeacher
from distill.writing.batches import Targets
from distill.writing.losses import ForwardKl, ReverseKl
from distill.writing.prompts import Coded
from distill.writing.signals import Form, Signal, packed, unpacked

Kept = tuple[Form, int]
COLUMNS = (
    "form", "bytes a token", "tail", "KL bias", "KL error", "gradient cosine", "reverse error",
)  # fmt: skip
DAC_FRAMES, DAC_SLOTS, DAC_CODES = 44_100 / 512, 4, 1024  # of DAC 44.1 kHz: frames a second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=int, default=12)
    parser.add_argument("--split", choices=("train", "held-out"), default="held-out")
    parser.add_argument("--top-k", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256, 512])
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    singer = load_singer()
    songs = EmbeddedSongs(split=options.split, songs=1 if options.tiny else options.songs).load()
    coded = singer.coded(songs)
    forms: list[Kept] = [("fp16", 0), ("int8", 0), *(("topk", k) for k in options.top_k)]
    sums = measured(singer, coded, forms)
    tokens = int(sums["tokens"])
    print(f"{len(songs)} songs, {len(coded)} passages, {tokens} audio tokens")
    show(forms, sums)
    arithmetic(forms)


def measured(singer: Singer, coded: Sequence[Coded], forms: Sequence[Kept]) -> dict[str, float]:
    """Sums over all audio tokens, by what they are of."""
    teacher = LiveTeacher().load(singer.codec)
    sums: dict[str, float] = defaultdict(float)
    for numbers, batch in logits.packed(singer.student, coded, 4096):
        own = [coded[number] for number in numbers]
        exact = teacher.signals(own)
        with torch.no_grad():
            hidden_ND = logits.hidden_ND(singer.student, batch)
            answers = [
                logits.slot_logits_NC(singer.student, hidden_ND, batch, slot).float()
                for slot in range(len(batch.slots))
            ]
        for slot, logits_NC in enumerate(answers):
            sums["tokens"] += len(logits_NC)
            for student, given_NC in (("singer", logits_NC), ("none", 0 * logits_NC)):
                for name, value in compared(exact, batch.slots[slot], slot, given_NC, forms):
                    sums[f"{student} {name}"] += value
    return sums


def compared(
    exact: Sequence[Signal], slot: Targets, number: int, logits_NC: Tensor, forms: Sequence[Kept]
) -> Iterator[tuple[str, float]]:
    """Of one slot's tokens: divergences and gradients of each form, beside those of the exact."""
    whole = replace(slot, teacher_NC=torch.cat([signal.slots[number] for signal in exact]))
    forward_N, gradient_NC = taught(whole, logits_NC)
    reverse_N = whole.nats_N(ReverseKl(), logits_NC)
    yield "KL", float(forward_N.sum())
    yield "square", float(gradient_NC.square().sum())
    for form, top_k in forms:
        kept = [unpacked(packed(s, form, top_k), len(s.slots), "") for s in exact]
        codes = [signal.kept_FK(number) for signal in kept]
        codes_NK = torch.cat([c for c in codes if c is not None]) if form == "topk" else None
        logp_NC = torch.cat([signal.slots[number] for signal in kept])
        targets = replace(whole, teacher_NC=logp_NC, kept_NK=codes_NK)
        forward_of_form_N, of_form_NC = taught(targets, logits_NC)
        name = f"{form}{top_k or ''}"
        yield f"{name} bias", float((forward_of_form_N - forward_N).sum())
        yield f"{name} error", float((forward_of_form_N - forward_N).abs().sum())
        yield f"{name} product", float((of_form_NC * gradient_NC).sum())
        yield f"{name} square", float(of_form_NC.square().sum())
        reverse_of_form_N = targets.nats_N(ReverseKl(), logits_NC)
        yield f"{name} reverse", float((reverse_of_form_N - reverse_N).abs().sum())
        if codes_NK is not None:
            assert whole.teacher_NC is not None
            yield (
                f"{name} tail",
                float((1 - whole.teacher_NC.exp().gather(1, codes_NK).sum(-1)).sum()),
            )


def taught(targets: Targets, logits_NC: Tensor) -> tuple[Tensor, Tensor]:
    """Forward KL of each token, and the gradient of their sum."""
    logits_NC = logits_NC.detach().requires_grad_()
    nats_N = targets.nats_N(ForwardKl(), logits_NC)
    nats_N.sum().backward()
    assert logits_NC.grad is not None
    return nats_N.detach(), logits_NC.grad


def bytes_a_token(form: Form, top_k: int, codes: int = DAC_CODES) -> int:
    signal = Signal((torch.zeros(1, codes),), torch.zeros(1, 1), torch.zeros(1, 1))
    tensors = packed(signal, form, top_k)
    return sum(t.nbytes for name, t in tensors.items() if name[-1] == "0")


def show(forms: Sequence[Kept], sums: dict[str, float]) -> None:
    for student, words in (("singer", "the embedded singer"), ("none", "knows nothing yet")):
        tokens = sums["tokens"]
        exact = sums[f"{student} KL"] / tokens
        table = Table(title=f"student: {words}; exact forward KL {exact:.4f} nats a token")
        for name in COLUMNS:
            table.add_column(name, justify="left" if name == "form" else "right")
        for form, top_k in forms:
            of = {
                name: sums[f"{student} {form}{top_k or ''} {name}"]
                for name in ("tail", "bias", "error", "product", "square", "reverse")
            }
            cosine = of["product"] / (of["square"] * sums[f"{student} square"]) ** 0.5
            means = (of[name] / tokens for name in ("bias", "error", "reverse"))
            bias, error, reverse = (f"{mean:.1e}" for mean in means)
            tail = f"{of['tail'] / tokens:.1e}" if form == "topk" else ""
            each = str(bytes_a_token(form, top_k))
            table.add_row(
                f"{form} {top_k or ''}", each, tail, bias, error, f"{cosine:.6f}", reverse
            )
        Console(width=100).print(table)


def arithmetic(forms: Sequence[Kept]) -> None:
    """100 hours of DAC, written out."""
    tokens = 100 * 3600 * DAC_FRAMES * DAC_SLOTS
    print(
        f"100 h of DAC 44.1 kHz at {DAC_SLOTS} slots of {DAC_CODES:,} codes: 100 x 3,600 s x "
        f"{DAC_FRAMES:.2f} frames/s x {DAC_SLOTS} = {tokens / 1e6:.1f} M tokens"
    )
    for form, top_k in forms:
        each = bytes_a_token(form, top_k)
        print(f"  {form + ' ' + str(top_k or ''):9} x {each:5,} B = {tokens * each / 1e9:6.1f} GB")


if __name__ == "__main__":
    main()
