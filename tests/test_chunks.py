"""Terms over whole rows, chunk by chunk: the same sum and gradient, and nothing that piles up."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tiny_singer
import torch
from torch import Tensor

from distill.lm import chunks, logits
from distill.lm.student import Student
from distill.writing import layouts
from distill.writing.batches import Batch, Targets, build
from distill.writing.prompts import WritingSettings, write

TERMS: dict[str, Callable[[Student, Tensor, Batch], Tensor]] = {
    "pieces": logits.piece_nats,
    "opens": logits.open_nats,
    "format": logits.format_nats,
}
EVERY_TERM = pytest.mark.parametrize("term", TERMS)
# what trains, and so which way is taken
TRAINED = ("lora", "all but the old rows", "all")


def make(family: str = "llama", trained: str = "lora", layout: str = "flat") -> Student:
    student = tiny_singer.student(family, layout=layout, lora=trained == "lora")
    if trained == "all but the old rows":
        student.train_all(old_rows=False)
    student.model.double()
    return student


def batch_of(student: Student, songs: int = 2) -> Batch:
    """Notes, words and lines, and the format term everywhere."""
    coded = [
        item
        for times in ("notes", "words", "lines")
        for item in tiny_singer.coded(songs, WritingSettings(max_lines=1), times)
    ]
    v = student.vocabulary
    rows = [[write(c.passage, c.codes_FS, student.encode_text, v)] for c in coded]
    return build(rows, v, max(len(row[0]) for row in rows), format_share=1.0)


def gradients(student: Student, batch: Batch, term: str) -> list[Tensor]:
    """[sum, gradient of the hidden states, of everything of the head that trains]."""
    generator = torch.Generator().manual_seed(4)
    width = student.model.config.hidden_size
    hidden_ND = torch.randn(batch.tokens, width, generator=generator, dtype=torch.float64)
    hidden_ND.requires_grad_()
    student.model.zero_grad()
    total = TERMS[term](student, hidden_ND, batch)
    (0.37 * total).backward()
    assert hidden_ND.grad is not None
    of_head = [p.grad.clone() for p in student.head.parameters() if p.grad is not None]
    return [total.detach(), hidden_ND.grad, *of_head]


def in_chunks_of(monkeypatch: pytest.MonkeyPatch, student: Student, positions: int) -> None:
    monkeypatch.setattr(chunks, "CHUNK_LOGITS", positions * student.vocabulary.rows)


@EVERY_TERM
@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_sum_and_gradient_are_those_of_all_positions_at_once(monkeypatch, family, trained, term):
    student = make(family, trained)
    batch = batch_of(student)
    in_chunks_of(monkeypatch, student, 10**6)
    wanted = gradients(student, batch, term)
    in_chunks_of(monkeypatch, student, 7)
    for ours, theirs in zip(gradients(student, batch, term), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    assert len(wanted) == 3 + (trained == "all")
    assert all(float(gradient.abs().max()) > 1e-6 for gradient in wanted)


@pytest.mark.parametrize("layout", layouts.names())
def test_a_layout_with_a_tail_too(monkeypatch, layout):
    student = make(layout=layout)
    batch = batch_of(student)
    for term in TERMS:
        in_chunks_of(monkeypatch, student, 10**6)
        wanted = gradients(student, batch, term)
        in_chunks_of(monkeypatch, student, 5)
        for ours, theirs in zip(gradients(student, batch, term), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_one_chunk_is_bit_for_bit_what_autograd_makes_of_it(monkeypatch):
    student = make()
    student.model.float()
    batch = batch_of(student)
    applied: list[object] = []
    monkeypatch.setattr(chunks._Early, "apply", lambda *given: applied.append(given))
    hidden_ND = torch.randn(batch.tokens, student.model.config.hidden_size, requires_grad=True)
    logits.piece_nats(student, hidden_ND, batch).backward()
    assert not applied


class Kept:
    """A tensor that a graph keeps; it goes when the graph goes."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def kept_bytes(student: Student, batch: Batch, term: str) -> int:
    """Bytes that the graph of a term holds until its backward pass, shared memory once."""
    kept: weakref.WeakSet[Kept] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Kept:
        kept.add(packed := Kept(tensor))
        return packed

    hidden_ND = torch.randn(batch.tokens, student.model.config.hidden_size, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed.tensor):
        total = TERMS[term](student, hidden_ND, batch)
    storages = [packed.tensor.untyped_storage() for packed in kept]
    assert total.requires_grad
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def first(batch: Batch, share: int) -> Batch:
    """The same rows with the first of each term's targets only."""

    def some(targets: Targets) -> Targets:
        count = len(targets.at_N) // share
        return Targets(targets.at_N[:count], targets.target_N[:count])

    of_format = some(Targets(batch.format_N, batch.format_kind_N))
    fewer = {"pieces": some(batch.pieces), "opens": some(batch.opens)}
    return replace(batch, **fewer, format_N=of_format.at_N, format_kind_N=of_format.target_N)


@EVERY_TERM
@pytest.mark.parametrize("trained", TRAINED)
def test_no_logits_are_kept_however_many_positions_there_are(monkeypatch, trained, term):
    student = make(trained=trained)
    student.model.float()
    in_chunks_of(monkeypatch, student, 3)
    many = batch_of(student)
    few = first(many, 3)
    counts = {
        "pieces": len(many.pieces.at_N) - len(few.pieces.at_N),
        "opens": len(many.opens.at_N) - len(few.opens.at_N),
        "format": len(many.format_N) - len(few.format_N),
    }
    allowed = 8 * student.model.config.hidden_size + 128  # a position: a row of hidden states
    grown = kept_bytes(student, many, term) - kept_bytes(student, few, term)
    assert counts[term] >= 4
    assert grown <= counts[term] * allowed < counts[term] * 4 * student.vocabulary.base_rows


def test_float16_is_computed_again_with_the_scale_of_the_backward_pass(monkeypatch):
    student = make()
    student.model.float()
    batch = batch_of(student)
    in_chunks_of(monkeypatch, student, 8)
    hidden_ND = torch.randn(batch.tokens, student.model.config.hidden_size, requires_grad=True)
    small = 2.0**-30  # gradients that float16 has no numbers for

    def gradient(scale: float) -> Any:
        hidden_ND.grad = None
        with torch.autocast("cpu", torch.float16):
            total = logits.format_nats(student, hidden_ND, batch)
        (total * small * scale).backward()
        assert hidden_ND.grad is not None
        return hidden_ND.grad / scale

    assert float(gradient(1.0).abs().max()) == 0.0
    assert float(gradient(2.0**30).abs().max()) > 0.0
