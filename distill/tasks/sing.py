"""Teach a grafted LLM to sing: cross entropy and divergences in code space, on packed passages.

The loss, in nats per token, is a weighted sum of means:

    per slot      each of the recipe's losses over the slot's own codes, slots counting equally
    piece         -log P of the next text token, pitch or end, so that the singer can go on by itself
    length, open  likewise for lengths, and for boundaries where a frame, a piece or the end may come
    format        -log P(legal) on a sample of positions, over all rows: keeps plain samplers inside the grammar
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill.config.settings import part, parts, parts_in, snake_case
from distill.errors import SettingsError
from distill.lm import logits
from distill.lm.base import open_base
from distill.lm.batches import Batch, PackingSettings, build, schedule
from distill.lm.from_scratch import FromScratchSettings, make
from distill.lm.losses import CrossEntropy
from distill.lm.prompts import Coded, WritingSettings, write
from distill.lm.student import LoraSettings, Student, graft, rows_of
from distill.lm.vocabulary import AudioVocabulary
from distill.singing.sampling import Sampling
from distill.training.trainer import TrainSettings


@dataclass(frozen=True)
class BaseSettings:
    """The LLM to graft: a package folder, folder or hub id; or, with `from_scratch`, a new one with
    random weights."""

    path: str = "embedded/base"
    from_scratch: FromScratchSettings | None = field(default=None, metadata={"was": "blank"})
    quantise: Literal["none", "int8", "nf4"] = "none"
    init: Literal["codebooks", "mean"] = "codebooks"
    licence: str = ""  # empty: that of this package for its own, else unknown

    @property
    def terms(self) -> str:
        """The licence of the weights. What is new is under the one of this package, and so is the
        base it ships."""
        ours = self.from_scratch is not None or self.path.startswith("embedded/")
        return self.licence or ("apache-2.0" if ours else "unknown")


@dataclass(frozen=True)
class TermSettings:
    """Weights of the terms beside the losses, and the share of positions on which the format term
    is taken."""

    pieces: float = 0.2
    lengths: float = 0.1
    opens: float = 0.2
    format: float = 0.1
    format_share: float = 1 / 16

    def __post_init__(self) -> None:
        for name in ("pieces", "lengths", "opens", "format"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"{name} is {getattr(self, name)}; a weight is 0 or more")
        if not 0 <= self.format_share <= 1:
            raise SettingsError(f"format_share is {self.format_share}; give a share from 0 to 1")


@dataclass(frozen=True)
class JudgeSettings:
    """How the finished singer is judged: held-out lines sung (0: none)."""

    lines: int = 24

    def __post_init__(self) -> None:
        if self.lines < 0:
            raise SettingsError(f"lines is {self.lines}; give 0 (no judging) or more")


@dataclass(frozen=True)
class Settings:
    """The recipe of a singer. `curation`: steps the songs go through first. `adapter` null trains
    all weights.

    `vocoder`: a trained head that goes with the singer, and makes its sound where it measures
    better than the codec.
    """

    songs: Any = part("sources")
    codec: Any = part("codecs")
    curation: tuple[Any, ...] = parts("curation/steps", default=())
    train: TrainSettings = field(default_factory=lambda: TrainSettings(seconds=240))
    base: BaseSettings = field(default_factory=BaseSettings)
    adapter: LoraSettings | None = field(default_factory=LoraSettings)
    teacher: Any = part("teachers", default=None)
    vocoder: Any = part("vocoders", default=None)
    losses: tuple[Any, ...] = parts_in("lm/losses", default=(CrossEntropy(),))
    terms: TermSettings = field(default_factory=TermSettings)
    writing: WritingSettings = field(default_factory=WritingSettings)
    packing: PackingSettings = field(default_factory=PackingSettings)
    sampling: Sampling = field(default_factory=Sampling)
    judge: JudgeSettings = field(default_factory=JudgeSettings)

    def __post_init__(self) -> None:
        if self.base.from_scratch is not None and self.adapter is not None:
            raise SettingsError(
                "a base from scratch is on no disk for an adapter to stand on; set adapter: null"
            )
        kinds = [type(loss) for loss in self.losses]
        if not kinds or len(set(kinds)) < len(kinds):
            raise SettingsError(
                "losses name none, or one twice; give each at most once, with its weight"
            )
        for loss in self.losses:
            if not loss.weight >= 0 or not getattr(loss, "temperature", 1.0) > 0:
                raise SettingsError(f"losses: {loss}; a weight is 0 or more, a temperature above 0")
        if self.teacher is None and any(loss.needs_teacher for loss in self.losses):
            raise SettingsError(
                "losses ask for a teacher and there is none; name a teacher or use cross_entropy"
            )
        if self.teacher is not None and not any(loss.needs_teacher for loss in self.losses):
            raise SettingsError(
                "there is a teacher but no loss listens to it; add forward_kl or leave it out"
            )


def student_of(settings: Settings, codec: Any, seed: int) -> Student:
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


class Task:
    """What the trainer knows of a singer in training."""

    def __init__(
        self,
        student: Student,
        coded: Sequence[Coded],
        settings: Settings,
        seed: int,
        teacher: Any = None,
    ):
        self.student, self.coded, self.settings, self.seed, self.teacher = (
            student,
            coded,
            settings,
            seed,
            teacher,
        )
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
                found = iter(self.teacher.signals([self.coded[i] for row in rows for i in row]))
                signals = [[next(found) for _ in row] for row in rows]
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
        counts |= {
            "pieces": float(len(batch.pieces.at_N)),
            "lengths": float(len(batch.lengths.at_N)),
        }
        counts |= {"opens": float(len(batch.opens.at_N)), "format": float(len(batch.format_N))}
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
        weights |= {
            "pieces": terms.pieces,
            "lengths": terms.lengths,
            "opens": terms.opens,
            "format": terms.format,
        }
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
        length = v.length_span
        length_NC = logits.symbol_logits_NC(
            student, hidden_ND, batch.lengths, length.start, length.stop
        ).float()
        sums["lengths"] = cross_entropy(
            length_NC, batch.lengths.target_N - length.start, reduction="sum"
        )
        sums["opens"] = logits.open_nats_N(student, hidden_ND, batch).sum()
        sums["format"] = logits.format_nats_N(student, hidden_ND, batch).sum()
        if self.teacher is not None:
            pitch = v.pitch_span
            listen = next(loss for loss in self.settings.losses if loss.needs_teacher)
            pitch_NC = logits.symbol_logits_NC(
                student, hidden_ND, batch.pitches, pitch.start, pitch.stop
            )
            for name, symbols_NC, targets in (
                ("pitches", pitch_NC, batch.pitches),
                ("lengths", length_NC, batch.lengths),
            ):
                sums[f"{name}.kl"] = listen(symbols_NC, targets.target_N, targets.teacher_NC).sum()
        return {name: (total, counts[name]) for name, total in sums.items()}

    def _names(self) -> list[str]:
        return [snake_case(type(loss).__name__) for loss in self.settings.losses]

    def parameters(self) -> list[dict[str, Any]]:
        trainable = self.student.trainable()
        matrices = [p for p in trainable.values() if p.ndim > 1]
        vectors = [p for p in trainable.values() if p.ndim <= 1]
        return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]

    def state(self) -> dict[str, Tensor]:
        return self.student.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.student.load_state(state)

    def size(self, batch: Batch) -> int:
        return batch.tokens

    def to(self, device: torch.device) -> Task:
        self.student.to(device)
        return self
