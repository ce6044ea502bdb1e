"""What a student says about a packed batch: scores of the legal ids only, place by place.

An audio token is scored against its own slot's codes (~1/150 of a Qwen-size vocabulary); only where
text is legal are full rows needed, and those are taken in chunks so that memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill.lm.batches import Batch, Targets, build, pack_rows
from distill.lm.losses import CrossEntropy, ForwardKl
from distill.lm.prompts import END, LENGTH, OPEN, PIECE, TEXT, Coded, write
from distill.lm.student import Student
from distill.lm.vocabulary import AudioVocabulary

CHUNK_LOGITS = 2**26  # scores held at once where whole rows are needed: 256 MiB in float32


def hidden_ND(student: Student, batch: Batch) -> Tensor:
    """Last hidden state of every token, rows flattened: (B*T, D)."""
    return student.hidden(batch.ids_BT, batch.positions_BT).flatten(0, 1)


def slot_logits_NC(student: Student, hidden_ND: Tensor, batch: Batch, slot: int) -> Tensor:
    """Scores of one slot's codes at each of its positions."""
    span = student.vocabulary.span(slot)
    return student.logits(hidden_ND[batch.slots[slot].at_N], span.start, span.stop)


def symbol_logits_NC(
    student: Student, hidden_ND: Tensor, targets: Targets, start: int, stop: int
) -> Tensor:
    """Scores of a block of score symbols (pitch or length)."""
    return student.logits(hidden_ND[targets.at_N], start, stop)


def piece_nats_N(student: Student, hidden_ND: Tensor, batch: Batch) -> Tensor:
    """-log P of each text token, pitch or ending among the legal ones: text, pitch and, between
    pieces, the ending."""
    v = student.vocabulary
    ids_N = batch.ids_BT.flatten()
    found = []
    for rows_ND, target_N, at_N in _chunks(hidden_ND, batch.pieces, v.rows):
        logits_NV = _stop_logits_NV(student, rows_ND)
        within_N = ids_N[at_N] <= v.sing  # behind `sing` or text, where the song cannot end
        logits_NV[within_N, _ending(v)] = -torch.inf
        target_N = target_N.clamp(max=v.pitch_span.stop)  # any code: the song's tail begins
        found.append(cross_entropy(logits_NV, target_N, reduction="none"))
    return torch.cat(found) if found else hidden_ND.new_zeros(0)


def open_nats_N(student: Student, hidden_ND: Tensor, batch: Batch) -> Tensor:
    """At boundaries where anything may come: -log P(a frame) if one came, else -log P of what came."""
    v = student.vocabulary
    found = []
    for rows_ND, target_N, _ in _chunks(hidden_ND, batch.opens, v.rows):
        stop_NV = _stop_logits_NV(student, rows_ND)
        is_frame_N = (target_N >= v.span(0).start) & (target_N < v.span(0).stop)
        target_N = torch.where(is_frame_N, stop_NV.shape[1], target_N.clamp(max=v.pitch_span.stop))
        logits_NV = torch.cat([stop_NV, _any_code_N1(student, rows_ND, 0)], -1)
        found.append(cross_entropy(logits_NV, target_N, reduction="none"))
    return torch.cat(found) if found else hidden_ND.new_zeros(0)


def _stop_logits_NV(student: Student, rows_ND: Tensor) -> Tensor:
    """Text, control and pitch by id and, behind them, the tail as one outcome; what can never come
    is -inf."""
    v = student.vocabulary
    logits_NV = student.logits(rows_ND, 0, v.pitch_span.stop).float()
    logits_NV[:, v.sing] = -torch.inf
    late = v.order.first_late
    if late is None:
        return logits_NV
    logits_NV[:, v.end] = -torch.inf
    return torch.cat([logits_NV, _any_code_N1(student, rows_ND, late)], -1)


def _ending(v: AudioVocabulary) -> int:
    """The column of those scores that ends a song: `end`, or the tail before it."""
    return v.end if v.order.first_late is None else v.pitch_span.stop


def _any_code_N1(student: Student, rows_ND: Tensor, slot: int) -> Tensor:
    span = student.vocabulary.span(slot)
    return student.logits(rows_ND, span.start, span.stop).float().logsumexp(-1, keepdim=True)


def format_nats_N(student: Student, hidden_ND: Tensor, batch: Batch) -> Tensor:
    """-log P(legal) over all rows, padding included: what keeps a plain sampler inside the grammar."""
    v = student.vocabulary
    found = []
    for rows_ND, place_N, _ in _chunks(
        hidden_ND, Targets(batch.format_N, batch.format_place_N), v.rows
    ):
        logits_NV = student.logits(rows_ND, 0, v.rows).float()
        legal_NV = legal_by_place(v, logits_NV.device)[_row_of(place_N, v)]
        found.append(
            logits_NV.logsumexp(-1) - logits_NV.masked_fill(~legal_NV, -torch.inf).logsumexp(-1)
        )
    return torch.cat(found) if found else hidden_ND.new_zeros(0)


PLACES = (PIECE, TEXT, LENGTH, OPEN, END)


def _row_of(place_N: Tensor, v: AudioVocabulary) -> Tensor:
    row_N = place_N.clone()
    for number, place in enumerate(PLACES):
        row_N[place_N == place] = v.format.slots + number
    return row_N


def legal_by_place(v: AudioVocabulary, device: torch.device | str = "cpu") -> Tensor:
    """Boolean (places, V): each slot, then PLACES."""
    slots = v.format.slots
    legal = torch.zeros(slots + len(PLACES), v.rows, dtype=torch.bool, device=device)
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


def _chunks(
    hidden_ND: Tensor, targets: Targets, rows: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    step = max(1, CHUNK_LOGITS // rows)
    for start in range(0, len(targets.at_N), step):
        at_N = targets.at_N[start : start + step]
        yield hidden_ND[at_N], targets.target_N[start : start + step], at_N


@torch.no_grad()
def held_out(
    student: Student, coded: Sequence[Coded], teacher: Any = None, tokens: int = 8192
) -> dict[str, Any]:
    """Teacher-forced figures on passages: nats per token and per second of audio by slot, of pieces
    and lengths.

    With a teacher also KL(teacher || student) in nats per token by slot.
    """
    student.model.eval()
    v = student.vocabulary
    written = [write(c.passage, c.codes_FS, student.encode_text, v) for c in coded]
    longest = max(len(w) for w in written)
    rows = pack_rows([len(w) for w in written], range(len(written)), longest)
    slots = v.format.slots
    nats, kl = [0.0] * slots, [0.0] * slots
    frames, pieces, length_nats, count = 0, 0.0, 0.0, [0, 0]
    step = max(1, tokens // longest)
    for first in range(0, len(rows), step):
        some = rows[first : first + step]
        signals = (
            [teacher.signals([coded[i] for i in row]) for row in some]
            if teacher is not None
            else None
        )
        batch = build([[written[i] for i in row] for row in some], v, longest, signals, 0.0).to(
            student.device
        )
        hidden = hidden_ND(student, batch)
        for s, slot in enumerate(batch.slots):
            logits_NC = slot_logits_NC(student, hidden, batch, s)
            nats[s] += float(CrossEntropy()(logits_NC, slot.target_N).sum())
            if slot.teacher_NC is not None:
                kl[s] += float(ForwardKl()(logits_NC, slot.target_N, slot.teacher_NC).sum())
        frames += len(batch.slots[0].at_N)
        pieces += float(piece_nats_N(student, hidden, batch).sum())
        span = v.length_span
        length_NC = symbol_logits_NC(student, hidden, batch.lengths, span.start, span.stop).float()
        length_nats += float(CrossEntropy()(length_NC, batch.lengths.target_N - span.start).sum())
        count = [count[0] + len(batch.pieces.at_N), count[1] + len(batch.lengths.at_N)]
    found: dict[str, Any] = {
        "nats_per_token": [n / frames for n in nats],
        "nats_per_second": [n / frames * v.format.frame_rate for n in nats],
        "piece_nats_per_token": pieces / max(1, count[0]),
        "length_nats_per_token": length_nats / max(1, count[1]),
        "seconds": frames / v.format.frame_rate,
    }
    if teacher is not None:
        found["kl_per_token"] = [k / frames for k in kl]
    return found
