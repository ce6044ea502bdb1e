"""A grafted LLM in training: cross entropy and divergences in code space, on packed passages.

The loss, in nats per token, is a weighted sum of means:

    per slot      each of the recipe's losses over the slot's own codes, slots counting equally
    piece         -log P of the next text token, pitch or end, so that it can go on by itself
    length, open  likewise for lengths, and for boundaries where a frame, a piece or the end comes
    format        -log P(legal) on a sample of positions, over all rows: for plain samplers
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy

from distill.codecs import Codec
from distill.config.settings import snake_case
from distill.errors import SettingsError
from distill.folders import locate
from distill.lm import logits, training_layers
from distill.lm.base import open_base
from distill.lm.from_scratch import make
from distill.lm.held import check_held
from distill.lm.student import Student, graft, rows_of, vocabulary_in
from distill.singing.singer_folder import singer_folder
from distill.tasks import parameter_groups
from distill.tasks._continued import continued, refuse_singer
from distill.tasks._singing_settings import SingingSettings
from distill.teachers import Teacher
from distill.training import sharding, trainer
from distill.writing.batches import Batch, build, schedule
from distill.writing.passage_index import PassageIndex, gather
from distill.writing.prompts import Coded
from distill.writing.vocabulary import AudioVocabulary, longest_of


def student_of(settings: SingingSettings, codec: Codec, seed: int) -> Student:
    """The base, grafted and made trainable as the recipe says, or the singer to go on from."""
    base = settings.base
    check_held(base.dtype, base.quantise)
    if base.singer:
        return continued(settings, codec, seed)
    if base.from_scratch:
        model, tokenizer = make(base.from_scratch, seed)
    else:
        refuse_singer(base.path)
        held = base.dtype or "float32", base.quantise or "none"
        model, tokenizer = open_base(base.path, *held, layers=base.layers)
    begin, layout = rows_of(model, tokenizer), settings.writing.layout
    longest = _longest(settings, codec)
    vocabulary = AudioVocabulary(begin, codec.format, longest=longest, layout=layout)
    name = "from scratch" if base.from_scratch else base.path
    student = graft(model, tokenizer, vocabulary, codec.codebooks(), seed, base.init, name)
    if settings.adapter is None:
        student.train_all()
    else:
        student.adapt(settings.adapter, seed)
    return student


def _longest(settings: SingingSettings, codec: Codec) -> int:
    """Frames of the longest length symbol: its teacher's, so that both say the same lengths."""
    if settings.teacher is None:
        return longest_of(codec.format)
    return vocabulary_of(settings.teacher.singer).longest


def vocabulary_of(singer: str) -> AudioVocabulary:
    """A singer's vocabulary, without its weights."""
    return vocabulary_in(singer_folder(locate(singer)))


class SingingTask(trainer.Task):
    """A student, learning to sing coded passages, alone or from a teacher."""

    heeds = frozenset({"gradient_checkpointing", "compile"})

    def __init__(
        self,
        student: Student,
        coded: Sequence[Coded],
        settings: SingingSettings,
        seed: int,
        teacher: Teacher | None = None,
    ) -> None:
        self.student, self.settings, self.seed, self.teacher = student, settings, seed, teacher
        if not isinstance(coded, PassageIndex):
            sizes = student.vocabulary.format.slot_sizes
            coded = gather(coded, student.write, sizes, settings.writing)
        self.coded = coded
        if sharding.is_wanted():
            self._refuse_uneven_forwards()
        if settings.train.gradient_checkpointing:
            training_layers.checkpoint_layers(student)
        if settings.train.compile:
            training_layers.compile_layers(student)

    def _refuse_uneven_forwards(self) -> None:
        """Processes that gather pieces must all run the same forwards, and songs in rows of their
        own make as many as there are lengths."""
        student, longest = self.student, int(self.coded.lengths.max())
        if student.packing == "rows" or longest > student.reach:
            fault = (
                f"songs of {longest} tokens cannot be packed for {student.model.config.model_type}"
            )
            ways = "it needs equal rows; launch without --use_fsdp"
            raise SettingsError(f"FSDP: {fault}, and {ways}")

    def batches(self, generator: torch.Generator, start: int, stride: int = 1) -> Iterator[Batch]:
        """Packed batches, number `start` first, then every `stride`-th."""
        lengths, packing = self.coded.lengths, self.settings.packing
        seed = generator.initial_seed() % 2**31
        own = schedule(lengths, packing, seed, start, stride)
        for number, rows in zip(itertools.count(start, stride), own, strict=False):
            written = [[self.coded.tokens(i) for i in row] for row in rows]
            signals = None
            if self.teacher is not None:
                heard = iter(self.teacher.signals([self.coded[i] for row in rows for i in row]))
                signals = [[next(heard) for _ in row] for row in rows]
            share = self.settings.terms.format_share if self.settings.terms.format else 0.0
            yield build(
                written, self.student.vocabulary, packing.row_tokens, signals, share, number
            )

    def digest(self) -> str:
        """All passages as they are written, in words: what several processes must share."""
        return f"{len(self.coded)} passages, {self.coded.digest[:12]}"

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
                sums[f"slot{s}.{name}"] = slot.nats_N(loss, logits_NC).sum()
        sums["pieces"] = logits.piece_nats(student, hidden_ND, batch)
        span, lengths = v.length_span, batch.lengths
        length_NC = logits.symbol_logits_NC(student, hidden_ND, lengths, span.start, span.stop)
        length_NC = length_NC.float()
        target_N = lengths.target_N - span.start
        sums["lengths"] = cross_entropy(length_NC, target_N, reduction="sum")
        sums["opens"] = logits.open_nats(student, hidden_ND, batch)
        sums["format"] = logits.format_nats(student, hidden_ND, batch)
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
