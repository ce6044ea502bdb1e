"""From written songs to packed batches: pure functions of values.

Passages of unequal length are packed into rows of equal length; positions restart at 0 with each
passage, so that no passage attends to another. Batch k depends on nothing but (seed, k): a resumed
run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from distill.errors import FitError, SettingsError
from distill.lm.prompts import END, HEADER, OPEN, Written
from distill.lm.signals import Signal
from distill.lm.vocabulary import AudioVocabulary


@dataclass(frozen=True)
class PackingSettings:
    """row_tokens: length of a packed row, and so the longest passage. rows: rows in a
    (micro-)batch."""

    row_tokens: int = 1024
    rows: int = 4

    def __post_init__(self) -> None:
        for name in ("row_tokens", "rows"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class Targets:
    """Positions that predict something of one kind: flat index into (B*T) of the *predicting*
    token, and its target."""

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
    ids, audio ids among them where a frame or a tail is one of several outcomes (which code it is,
    its slot says). pitches: the pitch symbols among the pieces (their offset in the pitch block),
    for the teacher's sake. format_N: a sample of positions at which the format term is taken, with
    their place in format_place_N.
    """

    ids_BT: Tensor
    positions_BT: Tensor
    slots: tuple[Targets, ...]
    pieces: Targets
    lengths: Targets
    opens: Targets
    pitches: Targets
    format_N: Tensor
    format_place_N: Tensor
    audio_seconds: float

    @property
    def tokens(self) -> int:
        """Tokens in the rows, padding included: what the hardware works on."""
        return self.ids_BT.numel()

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {
            n: v.to(device) if isinstance(v, Tensor | Targets) else v for n, v in moved.items()
        }
        return Batch(**{**moved, "slots": tuple(slot.to(device) for slot in self.slots)})


def pack_rows(lengths: Sequence[int], order: Sequence[int], row_tokens: int) -> list[list[int]]:
    """First-fit packing over a small window of open rows; returns passage indices by row, in order
    of closing."""
    open_rows: list[tuple[int, list[int]]] = []
    closed: list[list[int]] = []
    for index in order:
        length = lengths[index]
        if length > row_tokens:
            raise FitError(
                f"passage {index} has {length} tokens, rows hold {row_tokens}; raise "
                "packing.row_tokens"
            )
        fit = next((i for i, (room, _) in enumerate(open_rows) if room >= length), None)
        if fit is None:
            open_rows.append((row_tokens, []))
            fit = len(open_rows) - 1
        room, members = open_rows[fit]
        members.append(index)
        open_rows[fit] = (room - length, members)
        if len(open_rows) > 8:
            fullest = min(range(len(open_rows)), key=lambda i: open_rows[i][0])
            closed.append(open_rows.pop(fullest)[1])
    return closed + [members for _, members in open_rows]


def epoch(
    lengths: Sequence[int], packing: PackingSettings, seed: int, number: int
) -> list[list[list[int]]]:
    """The batches of one pass over the data: batch -> row -> passage indices. A last, smaller batch
    is kept."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    rows = pack_rows(lengths, order, packing.row_tokens)
    shuffled = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
    return [shuffled[i : i + packing.rows] for i in range(0, len(shuffled), packing.rows)]


def schedule(
    lengths: Sequence[int], packing: PackingSettings, seed: int, start: int = 0
) -> Iterator[list[list[int]]]:
    """Endless batches of passage indices from batch `start` on."""
    number = 0
    while True:
        batches = epoch(lengths, packing, seed, number)
        yield from batches[start:]
        start = max(0, start - len(batches))
        number += 1


def build(
    rows: Sequence[Sequence[Written]],
    vocabulary: AudioVocabulary,
    row_tokens: int,
    signals: Sequence[Sequence[Signal]] | None = None,
    format_share: float = 1 / 16,
    seed: int = 0,
) -> Batch:
    """Pack written passages (row by row) into one Batch; `signals` has the same shape as `rows`."""
    count = len(rows)
    ids_BT = torch.zeros(count, row_tokens, dtype=torch.int64)
    positions_BT = torch.arange(row_tokens).repeat(count, 1)
    place_BT = torch.full((count, row_tokens), HEADER)
    flat_signals: list[Signal] = []
    for row, members in enumerate(rows):
        at = 0
        for column, written in enumerate(members):
            stop = at + len(written)
            ids_BT[row, at:stop] = written.ids_T
            place_BT[row, at:stop] = written.place_T
            positions_BT[row, at:] = torch.arange(row_tokens - at)
            at = stop
            if signals is not None:
                flat_signals.append(signals[row][column])
        positions_BT[row, at:] = torch.arange(row_tokens - at)
    return _targets(ids_BT, positions_BT, place_BT, vocabulary, flat_signals, format_share, seed)


def _targets(
    ids_BT: Tensor,
    positions_BT: Tensor,
    place_BT: Tensor,
    vocabulary: AudioVocabulary,
    signals: list[Signal],
    format_share: float,
    seed: int,
) -> Batch:
    ids, place = ids_BT.flatten(), place_BT.flatten()

    def targets(mask: Tensor, first: int = 0, teacher: list[Tensor] | None = None) -> Targets:
        found = mask.nonzero().flatten()
        return Targets(found - 1, ids[found] - first, torch.cat(teacher) if teacher else None)

    slots = []
    for slot in range(vocabulary.format.slots):
        span = vocabulary.span(slot)
        mask = (ids >= span.start) & (ids < span.stop)
        slots.append(targets(mask, span.start, [s.slots[slot] for s in signals]))
    pitch, length = vocabulary.pitch_span, vocabulary.length_span
    is_pitch = (place != HEADER) & (ids >= pitch.start) & (ids < pitch.stop)
    is_length = (place != HEADER) & (ids >= length.start) & (ids < length.stop)
    predicted = (place != HEADER).nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    sample = predicted[torch.rand(len(predicted), generator=generator) < format_share]
    frames = len(slots[0].at_N)
    return Batch(
        ids_BT,
        positions_BT,
        tuple(slots),
        targets((place < HEADER) & (place != OPEN) & (place != END) & ~is_length),
        targets(is_length, teacher=[s.length_PL for s in signals]),
        targets(place == OPEN),
        targets(is_pitch, pitch.start, [s.pitch_PK for s in signals]),
        sample - 1,
        place[sample],
        frames / vocabulary.format.frame_rate,
    )
