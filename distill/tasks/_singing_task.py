"""A grafted LLM in training: cross entropy and divergences in code space, on packed passages.

The loss, in nats per token, is a weighted sum of means:

    per slot      each of the recipe's losses over the slot's own codes, slots counting equally
    piece         -log P of the next text token, pitch or end, so that it can go on by itself
    length, open  likewise for lengths, and for boundaries where a frame, a piece or the end comes
    format        -log P(legal) on a sample of positions, over all rows: for plain samplers
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy

from distill.codecs import Codec
from distill.config.settings import snake_case
from distill.lm import logits
from distill.lm.base import open_base
from distill.lm.batches import Batch, build, schedule
from distill.lm.from_scratch import make
from distill.lm.prompts import Coded, write
from distill.lm.student import Student, graft, rows_of
from distill.lm.vocabulary import AudioVocabulary
from distill.tasks import parameter_groups
from distill.tasks._singing_settings import SingingSettings
from distill.teachers import Teacher
from distill.training import trainer


def student_of(settings: SingingSettings, codec: Codec, seed: int) -> Student:
    """The base, grafted and made trainable as the recipe says."""
    base = settings.base
    model, tokenizer = (
        make(base.from_scratch, seed)
        if base.from_scratch
        else open_base(base.path, quantise=base.quantise)
    )
    vocabulary = AudioVocabulary(rows_of(model), codec.format, layout=settings.writing.layout)
    name = "from scratch" if base.from_scratch else base.path
    student = graft(model, tokenizer, vocabulary, codec.codebooks(), seed, base.init, name)
    if settings.adapter is None:
        student.train_all()
    else:
        student.adapt(settings.adapter, seed)
    return student


class SingingTask(trainer.Task):
    """A student, learning to sing coded passages, alone or from a teacher."""

    def __init__(
        self,
        student: Student,
        coded: Sequence[Coded],
        settings: SingingSettings,
        seed: int,
        teacher: Teacher | None = None,
    ) -> None:
        self.student, self.coded, self.settings = student, coded, settings
        self.seed, self.teacher = seed, teacher
        self.written = [
            write(c.passage, c.codes_FS, student.encode_text, student.vocabulary) for c in coded
        ]

    def batches(self, generator: torch.Generator, start: int) -> Iterator[Batch]:
        """Packed batches, number `start` first."""
        lengths, packing = [len(w) for w in self.written], self.settings.packing
        seed = generator.initial_seed() % 2**31
        for number, rows in enumerate(schedule(lengths, packing, seed, start), start):
            written = [[self.written[i] for i in row] for row in rows]
            signals = None
            if self.teacher is not None:
                heard = iter(self.teacher.signals([self.coded[i] for row in rows for i in row]))
                signals = [[next(heard) for _ in row] for row in rows]
            share = self.settings.terms.format_share if self.settings.terms.format else 0.0
            yield build(
                written, self.student.vocabulary, packing.row_tokens, signals, share, number
            )

    def counts(self, batch: Batch) -> dict[str, float]:
        counts = {
            f"slot{s}.{name}": float(len(slot.at_N))
            for s, slot in enumerate(batch.slots)
            for name in self._names()
        }
        lengths, opens = len(batch.lengths.at_N), len(batch.opens.at_N)
        counts |= {"pieces": float(len(batch.pieces.at_N)), "lengths": float(lengths)}
        counts |= {"opens": float(opens), "format": float(len(batch.format_N))}
        if self.teacher is not None:
            counts |= {"pitches.kl": counts["lengths"], "lengths.kl": counts["lengths"]}
        return counts

    def loss_weights(self) -> dict[str, float]:
        slots, terms = self.student.vocabulary.format.slots, self.settings.terms
        weights = {
            f"slot{s}.{name}": loss.weight / slots
            for s in range(slots)
            for name, loss in zip(self._names(), self.settings.losses, strict=True)
        }
        weights |= {"pieces": terms.pieces, "lengths": terms.lengths}
        weights |= {"opens": terms.opens, "format": terms.format}
        if self.teacher is not None:
            weights |= {"pitches.kl": terms.pieces, "lengths.kl": terms.lengths}
        return weights

    def loss(self, batch: Batch) -> dict[str, tuple[Tensor, float]]:
        """Sum of nats and count, by term."""
        student, v, counts = self.student, self.student.vocabulary, self.counts(batch)
        student.model.train()
        hidden_ND = logits.hidden_ND(student, batch)
        sums = {}
        for s, slot in enumerate(batch.slots):
            logits_NC = logits.slot_logits_NC(student, hidden_ND, batch, s)
            for name, loss in zip(self._names(), self.settings.losses, strict=True):
                sums[f"slot{s}.{name}"] = loss(logits_NC, slot.target_N, slot.teacher_NC).sum()
        sums["pieces"] = logits.piece_nats_N(student, hidden_ND, batch).sum()
        span, lengths = v.length_span, batch.lengths
        length_NC = logits.symbol_logits_NC(student, hidden_ND, lengths, span.start, span.stop)
        length_NC = length_NC.float()
        target_N = lengths.target_N - span.start
        sums["lengths"] = cross_entropy(length_NC, target_N, reduction="sum")
        sums["opens"] = logits.open_nats_N(student, hidden_ND, batch).sum()
        sums["format"] = logits.format_nats_N(student, hidden_ND, batch).sum()
        if self.teacher is not None:
            span, pitches = v.pitch_span, batch.pitches
            divergence = next(loss for loss in self.settings.losses if loss.needs_teacher)
            pitch_NC = logits.symbol_logits_NC(student, hidden_ND, pitches, span.start, span.stop)
            for name, symbols_NC, targets in (
                ("pitches", pitch_NC, pitches),
                ("lengths", length_NC, lengths),
            ):
                nats_N = divergence(symbols_NC, targets.target_N, targets.teacher_NC)
                sums[f"{name}.kl"] = nats_N.sum()
        return {name: (total, counts[name]) for name, total in sums.items()}

    def _names(self) -> list[str]:
        return [snake_case(type(loss).__name__) for loss in self.settings.losses]

    def module(self) -> Module:
        """What several processes may hold in pieces."""
        return self.student.model

    def digest(self) -> str:
        """All passages as they are written, in words: what several processes must share."""
        digest = hashlib.sha256()
        for written in self.written:
            digest.update(written.ids_T.numpy().tobytes())
        return f"{len(self.written)} passages, {digest.hexdigest()[:12]}"

    def parameters(self) -> list[dict[str, Any]]:
        return parameter_groups(self.student.trainable().values())

    def state(self) -> dict[str, Tensor]:
        return self.student.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.student.load_state(state)

    def size(self, batch: Batch) -> int:
        return batch.tokens

    def to(self, device: torch.device) -> None:
        self.student.to(device)
