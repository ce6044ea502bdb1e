"""From written songs to packed batches: pure functions of values.

Passages of unequal length are packed into rows of equal length; positions restart at 0 with each
passage, so that no passage attends to another. Batch k depends on nothing but (seed, k): a resumed
run sees what it would have seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.config.ranges import Checked, at_least
from distill.errors import FitError
from distill.writing.lanes import Rows, pack_lanes
from distill.writing.losses import Loss
from distill.writing.prompts import END, HEADER, OPEN
from distill.writing.signals import Signal, bucketed
from distill.writing.vocabulary import AudioVocabulary, Span

OPEN_ROWS = 8  # in which packing looks for room
BLOCK = 2**16  # passages that are packed anew for every pass; the rows of more are packed once
Lengths = Sequence[int] | NDArray[np.int32]
EPOCHS = 1_000_003  # more than a run has: each has a seed that no other run's has


@dataclass(frozen=True)
class PackingSettings(Checked):
    """Packed rows: their length in tokens, and so the longest passage; rows in a (micro-)batch."""

    row_tokens: int = at_least(1, default=1024)
    rows: int = at_least(1, default=4)


class Written(Protocol):
    """As much of a `prompts.Written` as a batch needs."""

    @property
    def ids_T(self) -> Tensor: ...
    @property
    def kind_T(self) -> Tensor: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Targets:
    """Flat index of each *predicting* token, its target, and a teacher's log-probabilities: of all
    outcomes C, or, where kept_NK says which, of K of them and of all others as one."""

    at_N: Tensor
    target_N: Tensor
    teacher_NC: Tensor | None = None
    kept_NK: Tensor | None = None

    def to(self, device: torch.device) -> Targets:
        teacher_NC = None if self.teacher_NC is None else self.teacher_NC.to(device)
        kept_NK = None if self.kept_NK is None else self.kept_NK.to(device)
        return Targets(self.at_N.to(device), self.target_N.to(device), teacher_NC, kept_NK)

    def nats_N(self, loss: Loss, logits_NC: Tensor) -> Tensor:
        """A loss on these targets; one that listens to a top-K teacher, on its outcomes."""
        if self.kept_NK is not None and loss.needs_teacher:
            logits_NC = bucketed(logits_NC, self.kept_NK)
        return loss(logits_NC, self.target_N, self.teacher_NC)


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
            raise _too_long(index, length, row_tokens)
        fit = next((i for i, (room, _) in enumerate(open_rows) if room >= length), len(open_rows))
        if fit == len(open_rows):
            open_rows.append((row_tokens, []))
        room, members = open_rows[fit]
        open_rows[fit] = (room - length, [*members, index])
        if len(open_rows) > OPEN_ROWS:
            fullest = min(range(len(open_rows)), key=lambda i: open_rows[i][0])
            closed.append(open_rows.pop(fullest)[1])
    return closed + [members for _, members in open_rows]


class Epoch(Sequence[list[list[int]]]):
    """The batches of one pass over the data, batch -> row -> passages, each made when asked for."""

    def __init__(self, rows: Rows, order: Sequence[int] | NDArray[np.int64], size: int) -> None:
        self.rows, self.order, self.size = rows, order, size

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    @overload
    def __getitem__(self, index: int) -> list[list[int]]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[list[int]]]: ...
    def __getitem__(self, index: int | slice) -> list[list[int]] | list[list[list[int]]]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        members_N, starts_R = self.rows
        own = self.order[numbers * self.size : (numbers + 1) * self.size]
        return [members_N[starts_R[row] : starts_R[row + 1]].tolist() for row in own]


def epoch(
    lengths: Lengths, packing: PackingSettings, seed: int, number: int, rows: Rows | None = None
) -> Epoch:
    """The batches of one pass over the data, a smaller last one too.

    Up to BLOCK passages are packed anew for every pass. Of more, the rows are packed once
    (`packed_once`, which `rows` may bring), and every pass shuffles the rows.
    """
    generator = torch.Generator().manual_seed(seed * EPOCHS + number)
    if len(lengths) > BLOCK:
        rows = rows or packed_once(lengths, packing, seed)
    else:
        order = torch.randperm(len(lengths), generator=generator).tolist()
        packed = pack_rows([*map(int, lengths)], order, packing.row_tokens)
        members_N = np.fromiter(itertools.chain.from_iterable(packed), np.int32)
        rows = Rows(members_N, np.cumsum([0, *map(len, packed)]))
    shuffled_R = torch.randperm(len(rows.starts_R) - 1, generator=generator)
    return Epoch(rows, shuffled_R.numpy(), packing.rows)


def packed_once(lengths: Lengths, packing: PackingSettings, seed: int) -> Rows:
    """The rows of very many passages, drawn together at random: strangers share a row in every
    pass. So the number of batches is known, and batch k is found without those before it."""
    lengths_N = np.asarray(lengths, np.int32)
    longest = int(lengths_N.argmax())
    if lengths_N[longest] > packing.row_tokens:
        raise _too_long(longest, int(lengths_N[longest]), packing.row_tokens)
    generator = torch.Generator().manual_seed(seed * EPOCHS + EPOCHS - 1)
    order_N = torch.randperm(len(lengths_N), generator=generator).numpy().astype(np.int32)
    return pack_lanes(lengths_N, order_N, packing.row_tokens, OPEN_ROWS)


def schedule(
    lengths: Lengths, packing: PackingSettings, seed: int, start: int = 0, stride: int = 1
) -> Iterator[list[list[int]]]:
    """Endless batches of passage indices: number `start`, and every `stride`-th from there on."""
    rows, first = None, 0
    if len(lengths) > BLOCK:
        rows = packed_once(lengths, packing, seed)
        first, start = divmod(start, -(-(len(rows.starts_R) - 1) // packing.rows))
    for number in itertools.count(first):
        batches = epoch(lengths, packing, seed, number, rows)
        own = range(start, len(batches), stride)
        for index in own:
            yield batches[index]
        start += len(own) * stride - len(batches)


def _too_long(index: int, length: int, row_tokens: int) -> FitError:
    sizes = f"passage {index} has {length} tokens, rows hold {row_tokens}"
    return FitError(f"{sizes}; raise packing.row_tokens")


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
        replace(
            targets(within(span), span.start, [signal.slots[slot] for signal in teacher]),
            kept_NK=_together([signal.kept_FK(slot) for signal in teacher]),
        )
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


def _together(kept: Sequence[Tensor | None]) -> Tensor | None:
    """The kept codes of all signals of a batch; None where they are whole."""
    some = [codes_FK for codes_FK in kept if codes_FK is not None]
    return torch.cat(some) if some else None


def _fill(rows: Sequence[Sequence[Written]], row_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """ids_BT, positions_BT (from 0 in each passage, and in the padding) and kind_BT of rows."""
    ids_BT = torch.zeros(len(rows), row_tokens, dtype=torch.int64)
    positions_BT = torch.arange(row_tokens).repeat(len(rows), 1)
    kind_BT = torch.full((len(rows), row_tokens), HEADER)
    for row, members in enumerate(rows):
        sizes = [len(written) for written in members]
        starts = [*itertools.accumulate(sizes, initial=0)]
        stop = starts[-1]
        if members:
            torch.cat([written.ids_T for written in members], out=ids_BT[row, :stop])
            torch.cat([written.kind_T for written in members], out=kind_BT[row, :stop])
        lasts = torch.tensor([*sizes, row_tokens - stop])
        positions_BT[row] -= torch.tensor(starts).repeat_interleave(lasts)
    return ids_BT, positions_BT, kind_BT
