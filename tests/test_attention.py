"""Songs attended to one by one: states and gradients as with a mask over the whole row."""

from __future__ import annotations

import pytest
import tiny_bases
import torch

from distill.lm import attention
from distill.lm.attention import NAME
from distill.lm.student import graft

POSITIONS_BT = torch.cat([torch.arange(13), torch.arange(20), torch.arange(7)]).repeat(2, 1)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt_neox"])
def test_attending_song_by_song_is_attending_with_a_mask(family):
    model = tiny_bases.build(tiny_bases.config(family))
    student = graft(model, tiny_bases.tokenizer(), tiny_bases.vocabulary(), tiny_bases.codebooks())
    assert student.packing == "songs"
    student.train_all()
    ids_BT = torch.randint(
        tiny_bases.ROWS, POSITIONS_BT.shape, generator=torch.Generator().manual_seed(0)
    )
    hidden = {}
    for packing in ("songs", "positions"):
        student.packing = packing
        student.model.zero_grad()
        hidden_BTD = student.hidden(ids_BT, POSITIONS_BT)
        hidden_BTD.square().sum().backward()
        hidden[packing] = [
            hidden_BTD.detach(),
            *(p.grad.clone() for p in student.trainable().values() if p.grad is not None),
        ]
    for ours, theirs in zip(hidden["songs"], hidden["positions"], strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()) + 1e-6)
    leaked_BTD = student.hidden(ids_BT)  # one song of 40 tokens: what would be seen without borders
    assert not torch.allclose(leaked_BTD, hidden["songs"][0], atol=1e-3)


def test_the_model_is_as_it_was_after_the_forward():
    model = tiny_bases.build(tiny_bases.config("llama"))
    student = graft(model, tiny_bases.tokenizer(), tiny_bases.vocabulary(), tiny_bases.codebooks())
    student.hidden(torch.zeros_like(POSITIONS_BT), POSITIONS_BT)
    assert model.config._attn_implementation != NAME
    with pytest.raises(IndexError):
        student.hidden(torch.full_like(POSITIONS_BT, 10**6), POSITIONS_BT)
    assert model.config._attn_implementation != NAME


def test_layers_that_run_again_in_the_backward_pass_keep_songs_apart_too():
    model = tiny_bases.build(tiny_bases.config("llama"))
    student = graft(model, tiny_bases.tokenizer(), tiny_bases.vocabulary(), tiny_bases.codebooks())
    student.train_all()
    model.train()
    ids_BT = torch.randint(
        tiny_bases.ROWS, POSITIONS_BT.shape, generator=torch.Generator().manual_seed(0)
    )
    gradients = []
    for again in (False, True):
        if again:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        student.hidden(ids_BT, POSITIONS_BT).square().sum().backward()
        gradients.append(
            [p.grad.clone() for p in student.trainable().values() if p.grad is not None]
        )
    for once, twice in zip(*gradients, strict=True):
        assert torch.allclose(once, twice, atol=1e-4 * float(once.abs().max()) + 1e-6)


def test_one_forward_inside_another_leaves_the_outer_songs_as_they_were():
    config = tiny_bases.build(tiny_bases.config("llama")).config
    with attention.apart(config, POSITIONS_BT):
        outer = attention._lengths[:]
        with attention.apart(config, POSITIONS_BT[:1, 5:] + 0):
            assert attention._lengths == [8, 20, 7]
        assert attention._lengths == outer == [13, 20, 7] * 2
        assert config._attn_implementation == NAME
    assert attention._lengths == [] and config._attn_implementation != NAME
