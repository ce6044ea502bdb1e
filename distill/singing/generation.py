"""Passages sung side by side: the loop between a student and the scripts of what it sings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from distill.lm.folding import folded
from distill.lm.student import Student
from distill.singing.sampling import Request, Sampling, Script, Sung, proceed, sample, script, send
from distill.writing.prompts import Passage
from distill.writing.vocabulary import Span


def generate(
    student: Student,
    passages: Sequence[Passage],
    rooms: Sequence[int],
    seeds: Sequence[int],
    sampling: Sampling,
) -> list[Sung]:
    """What each passage becomes, one id a step, with a key-value cache and LoRA folded meanwhile.

    rooms: the frames that fit each passage. Each draws from a generator of its own seed, so that a
    take does not depend on its neighbours.
    """
    sung = [Sung() for _ in passages]
    scripts = [
        script(passage.pieces, student.encode_text, student.vocabulary, sampling, result, room)
        for passage, result, room in zip(passages, sung, rooms, strict=True)
    ]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    headers = [student.opened(passage.header) for passage in passages]
    with folded(student), torch.inference_mode():
        _follow(student, scripts, headers, sampling, generators)
    return sung


def _follow(
    student: Student,
    scripts: Sequence[Script],
    headers: Sequence[Sequence[int]],
    sampling: Sampling,
    generators: Sequence[torch.Generator],
) -> None:
    """Reads the headers, then answers every script until all have ended."""
    device = student.device
    ids_BT, mask_BT = (side.to(device) for side in _left_padded(headers))
    positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
    requests: list[Request | None] = [next(steps) for steps in scripts]
    cache, alone = student.new_cache(), len(scripts) == 1
    while any(request is not None for request in requests):
        hidden_BTD = student.hidden(ids_BT, positions_BT, cache, None if alone else mask_BT)
        hidden_BD = hidden_BTD[:, -1]
        chosen = _sample(student, hidden_BD, requests, sampling, generators)
        read: list[list[int]] = [[0] for _ in scripts]
        for row, id in enumerate(chosen):
            if id is None:
                continue
            resample = partial(
                _sample_one, student, hidden_BD[row : row + 1], sampling, generators[row]
            )
            id, requests[row] = send(scripts[row], id, resample)
            read[row] = [id]
        if alone:
            requests[0] = _read_forced(scripts[0], requests[0], read[0])
        ids_BT = torch.tensor(read, device=device)
        more = ids_BT.shape[1]
        positions_BT = positions_BT[:, -1:] + torch.arange(1, more + 1, device=device)
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(scripts), more)], -1)


def _left_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(ids_BT, mask_BT) of rows that end together; what stands before them is masked."""
    width = max(map(len, rows))
    ids_BT = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask_BT = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids_BT, mask_BT


def _read_forced(steps: Script, request: Request | None, ids: list[int]) -> Request | None:
    """Forced ids in a row go into `ids`, to be read in one pass; the first request that is none."""
    while request is not None and request.forced is not None:
        ids.append(request.forced)
        request = proceed(steps, request.forced)
    return request


def _sample(
    student: Student,
    hidden_BD: Tensor,
    requests: Sequence[Request | None],
    sampling: Sampling,
    generators: Sequence[torch.Generator],
) -> list[int | None]:
    """The next id of every passage; rows with the same legal spans share one matrix product."""
    chosen = [None if request is None else request.forced for request in requests]
    groups: dict[tuple[Span, ...], list[tuple[int, Request]]] = {}
    for row, request in enumerate(requests):
        if request is not None and request.forced is None:
            groups.setdefault(request.spans, []).append((row, request))
    for spans, group in groups.items():
        rows_ND = hidden_BD[[row for row, _ in group]]
        logits_NC = torch.cat([student.logits(rows_ND, s.start, s.stop) for s in spans], -1)
        for logits_C, (row, request) in zip(logits_NC.float().cpu(), group, strict=True):
            index = sample(logits_C, request, sampling, generators[row])
            chosen[row] = _id_at(spans, index)
    return chosen


def _sample_one(
    student: Student,
    hidden_1D: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
    request: Request,
) -> int:
    """The id of one passage that answers one request."""
    (id,) = _sample(student, hidden_1D, [request], sampling, [generator])
    assert id is not None
    return id


def _id_at(spans: Sequence[Span], index: int) -> int:
    """The id at an index into spans that are laid end to end."""
    for span in spans:
        if index < len(span):
            return span.start + index
        index -= len(span)
    raise IndexError(f"{index} ids behind the last span")
