"""A live teacher: any singer of the same codec, of whatever LLM family and tokenizer, read as it
listens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distill.folders import fingerprint
from distill.lm import logits
from distill.lm.batches import build, pack_rows
from distill.lm.prompts import Coded, write
from distill.lm.signals import Signal
from distill.lm.student import Student
from distill.runtime.devices import best_device
from distill.singing.singer import Singer
from distill.singing.singer_folder import open_singer
from distill.songs import Song
from distill.teachers import check_codec


@dataclass(frozen=True)
class Settings:
    """`singer`: a package folder, folder or hub id. `tokens`: how many it reads at once."""

    singer: str = "embedded/teacher"
    tokens: int = 8192

    def load(self, codec: Any) -> ModelTeacher:
        """The teacher, its codec checked. Raises TeacherError, FolderError."""
        student, about, folder = open_singer(self.singer)
        check_codec(self.singer, about, codec)
        return ModelTeacher(student.to(best_device()), self.tokens, fingerprint(folder))


def kl(singer: Singer, songs: Sequence[Song], teacher: Singer) -> list[float]:
    """KL(teacher || singer) in nats per token by slot, over songs with audio.

    Raises TeacherError for a teacher of another codec.
    """
    check_codec("given", vars(teacher.about), singer.codec)
    live = ModelTeacher(teacher.student, Settings.tokens, "")
    return logits.held_out(singer.student, singer.coded(songs), live)["kl_per_token"]


class ModelTeacher:
    """Writes each passage with its own tokenizer and gives its distributions over codes."""

    def __init__(self, student: Student, tokens: int, identity: str):
        self.student, self.tokens = student, tokens
        self.student.model.eval().requires_grad_(False)
        self.fingerprint = identity

    @torch.no_grad()
    def signals(self, coded: Sequence[Coded]) -> list[Signal]:
        """One Signal per passage, in order."""
        v = self.student.vocabulary
        written = [write(c.passage, c.codes_FS, self.student.encode_text, v) for c in coded]
        longest = max(len(w) for w in written)
        rows = pack_rows([len(w) for w in written], range(len(written)), longest)
        found: dict[int, Signal] = {}
        step = max(1, self.tokens // longest)
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            self._read(some, [[written[i] for i in row] for row in some], coded, longest, found)
        return [found[i] for i in range(len(coded))]

    def _read(
        self,
        rows: Any,
        written: Any,
        coded: Sequence[Coded],
        longest: int,
        found: dict[int, Signal],
    ) -> None:
        v = self.student.vocabulary
        batch = build(written, v, longest, format_share=0.0).to(self.student.device)
        hidden_ND = logits.hidden_ND(self.student, batch)
        order = [i for row in rows for i in row]
        frames = [len(coded[i].codes_FS) for i in order]
        pieces = [len(coded[i].passage.pieces) for i in order]
        slots = [
            logits.slot_logits_NC(self.student, hidden_ND, batch, s)
            .float()
            .log_softmax(-1)
            .cpu()
            .split(frames)
            for s in range(v.format.slots)
        ]
        symbols = [
            logits.symbol_logits_NC(self.student, hidden_ND, targets, span.start, span.stop)
            .float().log_softmax(-1).cpu().split(pieces)
            for targets, span in ((batch.pitches, v.pitch_span), (batch.lengths, v.length_span))
        ]  # fmt: skip
        for place, index in enumerate(order):
            of_slots = tuple(parts[place] for parts in slots)
            found[index] = Signal(of_slots, symbols[0][place], symbols[1][place], self.fingerprint)
