"""A graft starts no worse than knowing nothing: for every tiny family, however loud its tables."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny_bases
import torch

from distill.lm import logits
from distill.lm.loudness import excess_nats
from distill.lm.student import Student, graft
from distill.writing.prompts import Coded, Passage, Piece

EVERY_CASE = pytest.mark.parametrize(("family", "tied"), tiny_bases.QUICK_CASES)
USUAL = pytest.mark.parametrize(
    ("family", "tied"), [case for case in tiny_bases.QUICK_CASES if case[0] in tiny_bases.BOTH]
)
SLACK = 0.1  # nats, as the issue of first losses allows


def grafted(family: str, tied: bool, loud: float, soft: bool = True, **more: Any) -> Student:
    """A grafted base whose rows are `loud` times what a random one's are."""
    model = tiny_bases.build(tiny_bases.config(family, tied))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(loud)
    words, books = tiny_bases.vocabulary(), tiny_bases.codebooks()
    return graft(model, tiny_bases.tokenizer(), words, books, soft=soft, **more)


def sung(seed: int) -> Coded:
    """A passage of random notes; a few codes come far more often than others, as in real songs."""
    chance = torch.Generator().manual_seed(seed)
    keys = torch.randint(46, 72, (5,), generator=chance).tolist()
    frames = torch.randint(1, 8, (5,), generator=chance).tolist()
    pieces = tuple(Piece("b o t", float(key), n) for key, n in zip(keys, frames, strict=True))
    total = sum(frames)
    codes = [
        (torch.rand(total, generator=chance) ** 2 * size).long().clamp(max=size - 1)
        for size in tiny_bases.CODES
    ]
    return Coded(Passage("song", "style: calm\nboat\n", pieces, 0, total), torch.stack(codes, 1))


def nats(student: Student) -> dict[str, float]:
    """First losses, less what knowing nothing costs."""
    figures = logits.held_out(student, [sung(seed) for seed in range(8)])
    by_slot = zip(figures["nats_per_token"], tiny_bases.CODES, strict=True)
    worse = {f"slot{slot}": n - math.log(size) for slot, (n, size) in enumerate(by_slot)}
    lengths = len(student.vocabulary.length_span)
    return worse | {"lengths": figures["length_nats_per_token"] - math.log(lengths)}


@EVERY_CASE
def test_no_block_begins_worse_than_a_guess(family: str, tied: bool) -> None:
    before = nats(grafted(family, tied, loud=25.0, soft=False))
    assert max(before.values()) > SLACK, "this base was never loud, so nothing is shown"
    after = nats(grafted(family, tied, loud=25.0))
    lengths = after.pop("lengths")
    assert all(value <= SLACK for value in after.values()), (before, after)
    # forty of them, so this figure is a rough one
    assert lengths <= min(3.5 * SLACK, before["lengths"] + SLACK)


@USUAL
def test_a_quiet_base_begins_as_it_would_without(family: str, tied: bool) -> None:
    soft, hard = (grafted(family, tied, loud=0.1, soft=soft) for soft in (True, False))
    for name, rows_ND in hard.new_rows().items():
        assert torch.equal(rows_ND, soft.new_rows()[name]), name


@USUAL
def test_a_block_keeps_its_mean_and_what_no_hidden_state_hears(family: str, tied: bool) -> None:
    soft, hard = (grafted(family, tied, loud=25.0, soft=soft) for soft in (True, False))
    *inputs, head = soft.new_rows()
    v = soft.vocabulary
    for name in inputs:  # an untied base reads its codes as it reads its words
        assert torch.equal(soft.new_rows()[name], hard.new_rows()[name])
    for span in (v.span(0), v.span(1), v.pitch_span, v.length_span):
        block = slice(span.start - v.base_rows, span.stop - v.base_rows)
        ours_CD, theirs_CD = (s.new_rows()[head][block].detach() for s in (soft, hard))
        assert torch.allclose(ours_CD.mean(0), theirs_CD.mean(0), rtol=1e-3, atol=1e-3)
        ours_CD, theirs_CD = ours_CD - ours_CD.mean(0), theirs_CD - theirs_CD.mean(0)
        kept = float(ours_CD.norm() / theirs_CD.norm())
        assert 0.001 < kept <= 1.0001
    rest = slice(v.used_rows - v.base_rows, None)  # control ids and padding belong to no block
    for rows in (slice(0, 2), rest):
        assert torch.equal(soft.new_rows()[head][rows], hard.new_rows()[head][rows])


def test_excess_is_the_cross_entropy_of_codes_that_are_equally_likely() -> None:
    logits_NC = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)) * 3
    every = torch.nn.functional.cross_entropy(
        logits_NC.repeat_interleave(7, 0), torch.arange(7).repeat(5)
    )
    assert excess_nats(logits_NC) == pytest.approx(float(every) - math.log(7), abs=1e-5)
    assert excess_nats(torch.zeros(2, 7)) == pytest.approx(0.0, abs=1e-9)
