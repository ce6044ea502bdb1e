"""A live teacher: any singer of the same codec, of whatever LLM family and tokenizer, read as it
listens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.codecs import Codec
from distill.folders import fingerprint
from distill.lm import logits
from distill.lm.student import Student
from distill.runtime.devices import best_device
from distill.singing.singer import Singer
from distill.singing.singer_folder import open_singer
from distill.songs import Song
from distill.teachers import check_codec, check_symbols
from distill.writing.batches import Batch
from distill.writing.prompts import Coded
from distill.writing.signals import Signal


@dataclass(frozen=True)
class Settings:
    """`singer`: a package folder, folder or hub id. `tokens`: how many it reads at once."""

    singer: str = "embedded/teacher"
    tokens: int = 8192

    def load(self, codec: Codec) -> ModelTeacher:
        """The teacher, its codec checked. Raises TeacherError, FolderError."""
        student, about, folder = open_singer(self.singer)
        check_codec(self.singer, about, codec)
        return ModelTeacher(student.to(best_device()), self.tokens, fingerprint(folder))


def kl(singer: Singer, songs: Sequence[Song], teacher: Singer) -> list[float]:
    """KL(teacher || singer) in nats per token by slot, over songs with audio.

    Raises TeacherError for a teacher of another codec.
    """
    check_codec("given", vars(teacher.about), singer.codec)
    check_symbols("given", teacher.student.vocabulary, singer.student.vocabulary)
    live = ModelTeacher(teacher.student, Settings.tokens, "")
    return logits.held_out(singer.student, singer.coded(songs), live)["kl_per_token"]


class ModelTeacher:
    """Writes each passage with its own tokenizer and gives its distributions over codes."""

    def __init__(self, student: Student, tokens: int, identity: str) -> None:
        self.student, self.tokens = student, tokens
        self.student.model.eval().requires_grad_(False)
        self.fingerprint = identity

    @torch.no_grad()
    def signals(self, coded: Sequence[Coded]) -> list[Signal]:
        """One Signal per passage, in order."""
        signals: dict[int, Signal] = {}
        for numbers, batch in logits.packed(self.student, coded, self.tokens):
            signals |= zip(numbers, self._read(batch, [coded[i] for i in numbers]), strict=True)
        return [signals[i] for i in range(len(coded))]

    def _read(self, batch: Batch, coded: Sequence[Coded]) -> list[Signal]:
        """The signals of the passages of a batch, in its order."""
        student = self.student
        v, hidden_ND = student.vocabulary, logits.hidden_ND(student, batch)
        frames = [len(c.codes_FS) for c in coded]
        pieces = [len(c.passage.pieces) for c in coded]
        slots = [
            _split(logits.slot_logits_NC(student, hidden_ND, batch, s), frames)
            for s in range(v.format.slots)
        ]
        pitches, lengths = (
            _split(logits.symbol_logits_NC(student, hidden_ND, at, span.start, span.stop), pieces)
            for at, span in ((batch.pitches, v.pitch_span), (batch.lengths, v.length_span))
        )
        return [
            Signal(tuple(of_slots), pitch, length, self.fingerprint)
            for *of_slots, pitch, length in zip(*slots, pitches, lengths, strict=True)
        ]


def _split(logits_NC: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    """Log-probabilities, passage by passage."""
    return logits_NC.float().log_softmax(-1).cpu().split(sizes)
