"""From written songs to packed batches: pure functions of values.

Passages of unequal length are packed into rows of equal length; positions restart at 0 with each
passage, so that no passage attends to another. Batch k depends on nothing but (seed, k): a resumed
run sees what it would have seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from distill.config.ranges import Checked, at_least
from distill.errors import FitError
from distill.lm.prompts import END, HEADER, OPEN, Written
from distill.lm.signals import Signal
from distill.lm.vocabulary import AudioVocabulary, Span

OPEN_ROWS = 8  # in which packing looks for room
EPOCHS = 1_000_003  # more than a run has: each has a seed that no other run's has


@dataclass(frozen=True)
class PackingSettings(Checked):
    """Packed rows: their length in tokens, and so the longest passage; rows in a (micro-)batch."""

    row_tokens: int = at_least(1, default=1024)
    rows: int = at_least(1, default=4)


@dataclass(frozen=True)
class Targets:
    """Flat index of each *predicting* token, its target, and a teacher's log-probabilities."""

    at_N: Tensor
    target_N: Tensor
    teacher_NC: Tensor | None = None

    def to(self, device: torch.device) -> Targets:
        teacher_NC = None if self.teacher_NC is None else self.teacher_NC.to(device)
        return Targets(self.at_N.to(device), self.target_N.to(device), teacher_NC)


@dataclass(frozen=True)
class Batch:
    """Packed rows and what each position must say next.

    slots[s]: audio targets of slot s as codes, in frame order. pieces, lengths, opens: targets as
    ids, audio ids among them (which code it is is its slot's target). pitches: pitch symbols among
    the pieces, as offsets. format_N: sampled positions for the format term, format_kind_N theirs.
    """

    ids_BT: Tensor
    positions_BT: Tensor
    slots: tuple[Targets, ...]
    pieces: Targets
    lengths: Targets
    opens: Targets
    pitches: Targets
    format_N: Tensor
    format_kind_N: Tensor
    audio_seconds: float

    @property
    def tokens(self) -> int:
        """Tokens in the rows, padding included: what the hardware works on."""
        return self.ids_BT.numel()

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {n: v.to(device) if hasattr(v, "to") else v for n, v in values.items()}
        return Batch(**moved | {"slots": tuple(slot.to(device) for slot in self.slots)})


def pack_rows(lengths: Sequence[int], order: Sequence[int], row_tokens: int) -> list[list[int]]:
    """First-fit packing over OPEN_ROWS rows; passage indices by row, in order of closing."""
    open_rows: list[tuple[int, list[int]]] = []
    closed: list[list[int]] = []
    for index in order:
        length = lengths[index]
        if length > row_tokens:
            sizes = f"passage {index} has {length} tokens, rows hold {row_tokens}"
            raise FitError(f"{sizes}; raise packing.row_tokens")
        fit = next((i for i, (room, _) in enumerate(open_rows) if room >= length), len(open_rows))
        if fit == len(open_rows):
            open_rows.append((row_tokens, []))
        room, members = open_rows[fit]
        open_rows[fit] = (room - length, [*members, index])
        if len(open_rows) > OPEN_ROWS:
            fullest = min(range(len(open_rows)), key=lambda i: open_rows[i][0])
            closed.append(open_rows.pop(fullest)[1])
    return closed + [members for _, members in open_rows]


def epoch(
    lengths: Sequence[int], packing: PackingSettings, seed: int, number: int
) -> list[list[list[int]]]:
    """The batches of one pass over the data, a smaller last one too: batch -> row -> passages."""
    generator = torch.Generator().manual_seed(seed * EPOCHS + number)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    rows = pack_rows(lengths, order, packing.row_tokens)
    shuffled = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
    return [shuffled[i : i + packing.rows] for i in range(0, len(shuffled), packing.rows)]


def schedule(
    lengths: Sequence[int], packing: PackingSettings, seed: int, start: int = 0
) -> Iterator[list[list[int]]]:
    """Endless batches of passage indices from batch `start` on."""
    for number in itertools.count():
        batches = epoch(lengths, packing, seed, number)
        yield from batches[start:]
        start = max(0, start - len(batches))


def build(
    rows: Sequence[Sequence[Written]],
    vocabulary: AudioVocabulary,
    row_tokens: int,
    signals: Sequence[Sequence[Signal]] | None = None,
    format_share: float = 1 / 16,
    seed: int = 0,
) -> Batch:
    """Pack written passages (row by row) into one Batch; `signals` has the same shape as `rows`."""
    ids_BT, positions_BT, kind_BT = _fill(rows, row_tokens)
    ids_N, kind_N = ids_BT.flatten(), kind_BT.flatten()
    teacher = [signal for row in signals or () for signal in row]

    def targets(mask_N: Tensor, first: int = 0, logp_NC: Sequence[Tensor] = ()) -> Targets:
        at_N = mask_N.nonzero().flatten()
        return Targets(at_N - 1, ids_N[at_N] - first, torch.cat([*logp_NC]) if logp_NC else None)

    def within(span: Span) -> Tensor:
        return (ids_N >= span.start) & (ids_N < span.stop)

    spans = [vocabulary.span(slot) for slot in range(vocabulary.format.slots)]
    slots = [
        targets(within(span), span.start, [signal.slots[slot] for signal in teacher])
        for slot, span in enumerate(spans)
    ]
    song_N = kind_N != HEADER
    is_pitch_N = song_N & within(vocabulary.pitch_span)
    is_length_N = song_N & within(vocabulary.length_span)
    is_piece_N = (kind_N < HEADER) & (kind_N != OPEN) & (kind_N != END) & ~is_length_N
    song_at_N = song_N.nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    format_N = song_at_N[torch.rand(len(song_at_N), generator=generator) < format_share]
    pitch_PK = [signal.pitch_PK for signal in teacher]
    return Batch(
        ids_BT,
        positions_BT,
        slots=tuple(slots),
        pieces=targets(is_piece_N),
        lengths=targets(is_length_N, logp_NC=[signal.length_PL for signal in teacher]),
        opens=targets(kind_N == OPEN),
        pitches=targets(is_pitch_N, vocabulary.pitch_span.start, pitch_PK),
        format_N=format_N - 1,
        format_kind_N=kind_N[format_N],
        audio_seconds=len(slots[0].at_N) / vocabulary.format.frame_rate,
    )


def _fill(rows: Sequence[Sequence[Written]], row_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """ids_BT, positions_BT (from 0 in each passage, and in the padding) and kind_BT of rows."""
    ids_BT = torch.zeros(len(rows), row_tokens, dtype=torch.int64)
    positions_BT = torch.arange(row_tokens).repeat(len(rows), 1)
    kind_BT = torch.full((len(rows), row_tokens), HEADER)
    for row, members in enumerate(rows):
        start = 0
        for written in members:
            stop = start + len(written)
            ids_BT[row, start:stop] = written.ids_T
            kind_BT[row, start:stop] = written.kind_T
            positions_BT[row, stop:] = torch.arange(row_tokens - stop)
            start = stop
    return ids_BT, positions_BT, kind_BT
