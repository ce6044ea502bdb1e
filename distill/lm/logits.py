"""A student's logits on a packed batch: of the legal ids only, place by place.

At an audio token they are its own slot's codes (~1/150 of a Qwen-size vocabulary); only where text
is legal are full rows needed, and those are taken in chunks (chunks.py) so that memory stays flat.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill.folders import Json
from distill.lm.chunks import summed
from distill.lm.student import Student
from distill.writing.batches import Batch, Targets, build, pack_rows
from distill.writing.losses import CrossEntropy, ForwardKl
from distill.writing.prompts import END, LENGTH, OPEN, PIECE, TEXT, Coded
from distill.writing.signals import Signal
from distill.writing.vocabulary import AudioVocabulary


def hidden_ND(student: Student, batch: Batch) -> Tensor:
    """Last hidden state of every token, rows flattened: (B*T, D)."""
    return student.hidden(batch.ids_BT, batch.positions_BT).flatten(0, 1)


def slot_logits_NC(student: Student, hidden_ND: Tensor, batch: Batch, slot: int) -> Tensor:
    """Logits of one slot's codes at each of its positions."""
    span = student.vocabulary.span(slot)
    return student.logits(hidden_ND[batch.slots[slot].at_N], span.start, span.stop)


def symbol_logits_NC(
    student: Student, hidden_ND: Tensor, targets: Targets, start: int, stop: int
) -> Tensor:
    """Logits of a block of score symbols (pitch or length)."""
    return student.logits(hidden_ND[targets.at_N], start, stop)


def piece_nats(student: Student, hidden_ND: Tensor, batch: Batch) -> Tensor:
    """-log P of each text token, pitch or ending among text, pitch and, between pieces, ending;
    added up."""
    v = student.vocabulary
    ids_N = batch.ids_BT.flatten()

    def nats_N(rows_ND: Tensor, target_N: Tensor, at_N: Tensor) -> Tensor:
        logits_NV = _stop_logits_NV(student, rows_ND)
        within_N = ids_N[at_N] <= v.sing  # behind `sing` or text, where the song cannot end
        logits_NV[within_N, _ending(v)] = -torch.inf
        target_N = target_N.clamp(max=v.pitch_span.stop)  # any code: the song's tail begins
        return cross_entropy(logits_NV, target_N, reduction="none")

    return summed(nats_N, hidden_ND, batch.pieces, student)


def open_nats(student: Student, hidden_ND: Tensor, batch: Batch) -> Tensor:
    """At boundaries where anything may come: -log P(a frame) if one came, else of what came; added
    up."""
    v = student.vocabulary

    def nats_N(rows_ND: Tensor, target_N: Tensor, _: Tensor) -> Tensor:
        stop_NV = _stop_logits_NV(student, rows_ND)
        is_frame_N = (target_N >= v.span(0).start) & (target_N < v.span(0).stop)
        target_N = torch.where(is_frame_N, stop_NV.shape[1], target_N.clamp(max=v.pitch_span.stop))
        logits_NV = torch.cat([stop_NV, _any_code_N1(student, rows_ND, 0)], -1)
        return cross_entropy(logits_NV, target_N, reduction="none")

    return summed(nats_N, hidden_ND, batch.opens, student)


def _stop_logits_NV(student: Student, rows_ND: Tensor) -> Tensor:
    """Text, control and pitch by id, then the tail as one outcome; what can never come is -inf."""
    v = student.vocabulary
    logits_NV = _wide(student.logits(rows_ND, 0, v.pitch_span.stop))
    logits_NV[:, v.sing] = -torch.inf
    late = v.order.first_late
    if late is None:
        return logits_NV
    logits_NV[:, v.end] = -torch.inf
    return torch.cat([logits_NV, _any_code_N1(student, rows_ND, late)], -1)


def _ending(v: AudioVocabulary) -> int:
    """The column of those logits that ends a song: `end`, or the tail before it."""
    return v.end if v.order.first_late is None else v.pitch_span.stop


def _any_code_N1(student: Student, rows_ND: Tensor, slot: int) -> Tensor:
    span = student.vocabulary.span(slot)
    return _wide(student.logits(rows_ND, span.start, span.stop)).logsumexp(-1, keepdim=True)


def _wide(logits_NV: Tensor) -> Tensor:
    """In float32 at least."""
    return logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))


def format_nats(student: Student, hidden_ND: Tensor, batch: Batch) -> Tensor:
    """-log P(legal) of all rows, padding included, added up: it keeps a plain sampler inside the
    grammar."""
    v = student.vocabulary

    def nats_N(rows_ND: Tensor, kind_N: Tensor, _: Tensor) -> Tensor:
        logits_NV = _wide(student.logits(rows_ND, 0, v.rows))
        legal_NV = legal_by_kind(v, logits_NV.device)[_row_of(kind_N, v)]
        all_N = logits_NV.logsumexp(-1)
        return all_N - logits_NV.masked_fill(~legal_NV, -torch.inf).logsumexp(-1)

    targets = Targets(batch.format_N, batch.format_kind_N)
    return summed(nats_N, hidden_ND, targets, student)


KINDS = (PIECE, TEXT, LENGTH, OPEN, END)


def _row_of(kind_N: Tensor, v: AudioVocabulary) -> Tensor:
    row_N = kind_N.clone()
    for row, kind in enumerate(KINDS, v.format.slots):
        row_N[kind_N == kind] = row
    return row_N


def legal_by_kind(v: AudioVocabulary, device: torch.device | str = "cpu") -> Tensor:
    """Boolean (kinds, V): each slot, then KINDS."""
    slots = v.format.slots
    legal = torch.zeros(slots + len(KINDS), v.rows, dtype=torch.bool, device=device)
    for slot in range(slots):
        legal[slot, v.span(slot).start : v.span(slot).stop] = True
    piece, text, length, open, end = legal[slots:]
    text[: v.base_rows] = True
    text[v.pitch_span.start : v.pitch_span.stop] = True
    length[v.length_span.start : v.length_span.stop] = True
    end[v.end] = True
    late = v.order.first_late
    piece |= text | (end if late is None else legal[late])
    open |= piece | legal[0]
    return legal


# --- figures on held-out songs --------------------------------------------------------------------
class Teacher(Protocol):
    """As much of a teacher as is needed here."""

    def signals(self, coded: Sequence[Coded]) -> list[Signal]: ...


@torch.no_grad()
def held_out(
    student: Student, coded: Sequence[Coded], teacher: Teacher | None = None, tokens: int = 8192
) -> Json:
    """Teacher-forced nats per token (by slot, of pieces, of lengths) and per second of audio;
    with a teacher also KL(teacher || student), nats per token by slot."""
    student.model.eval()
    sums: dict[str, float] = defaultdict(float)
    for _, batch in packed(student, coded, tokens, teacher):
        for name, value in _sums(student, batch):
            sums[name] += value
    format, frames = student.vocabulary.format, sums["frames"]
    nats = [sums[f"nats{slot}"] / frames for slot in range(format.slots)]
    figures: Json = {
        "nats_per_token": nats,
        "nats_per_second": [n * format.frame_rate for n in nats],
        "piece_nats_per_token": sums["piece_nats"] / max(1, sums["pieces"]),
        "length_nats_per_token": sums["length_nats"] / max(1, sums["lengths"]),
        "seconds": frames / format.frame_rate,
    }
    if teacher is not None:
        figures["kl_per_token"] = [sums[f"kl{slot}"] / frames for slot in range(format.slots)]
    return figures


def packed(
    student: Student, coded: Sequence[Coded], tokens: int, teacher: Teacher | None = None
) -> Iterator[tuple[list[int], Batch]]:
    """All passages, packed in order, about `tokens` at once: their numbers and the batch, with the
    teacher's signals."""
    v = student.vocabulary
    written = [student.write(c) for c in coded]
    lengths = [len(w) for w in written]
    longest = max(lengths)
    rows = pack_rows(lengths, range(len(lengths)), longest)
    step = max(1, tokens // longest)
    for first in range(0, len(rows), step):
        members = rows[first : first + step]
        own = [[coded[i] for i in row] for row in members]
        signals = [teacher.signals(row) for row in own] if teacher is not None else None
        inside = [[written[i] for i in row] for row in members]
        batch = build(inside, v, longest, signals, format_share=0.0)
        yield [i for row in members for i in row], batch.to(student.device)


def _sums(student: Student, batch: Batch) -> Iterator[tuple[str, float]]:
    """Nats of a batch, by what they are of, and how many tokens they are of."""
    hidden = hidden_ND(student, batch)
    for s, slot in enumerate(batch.slots):
        logits_NC = slot_logits_NC(student, hidden, batch, s)
        yield f"nats{s}", float(CrossEntropy()(logits_NC, slot.target_N).sum())
        if slot.teacher_NC is not None:
            yield f"kl{s}", float(slot.nats_N(ForwardKl(), logits_NC).sum())
    span, lengths = student.vocabulary.length_span, batch.lengths
    length_NC = symbol_logits_NC(student, hidden, lengths, span.start, span.stop).float()
    yield "frames", len(batch.slots[0].at_N)
    yield "pieces", len(batch.pieces.at_N)
    yield "piece_nats", float(piece_nats(student, hidden, batch))
    yield "lengths", len(lengths.at_N)
    yield "length_nats", float(CrossEntropy()(length_NC, lengths.target_N - span.start).sum())
