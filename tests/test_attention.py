"""Songs attended to one by one: states and gradients as with a mask over the whole row."""

from __future__ import annotations

import json
import threading

import pytest
import tiny_bases
import torch

from distill.lm import attention
from distill.lm.merge import merge
from distill.lm.student import Student, graft

POSITIONS_BT = torch.cat([torch.arange(13), torch.arange(20), torch.arange(7)]).repeat(2, 1)
OTHERS_BT = torch.cat([torch.arange(4), torch.arange(30), torch.arange(6)]).repeat(2, 1)


def grafted(family: str = "llama", **more) -> Student:
    model = tiny_bases.build(tiny_bases.config(family, **more))
    return graft(model, tiny_bases.tokenizer(), tiny_bases.vocabulary(), tiny_bases.codebooks())


def ids() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(tiny_bases.ROWS, POSITIONS_BT.shape, generator=generator)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt_neox"])
def test_attending_song_by_song_is_attending_with_a_mask(family):
    student = grafted(family)
    assert student.packing == "songs"
    student.train_all()
    hidden = {}
    for packing in ("songs", "positions", "masks", "rows"):
        student.packing = packing
        student.model.zero_grad()
        hidden_BTD = student.hidden(ids(), POSITIONS_BT)
        hidden_BTD.square().sum().backward()
        hidden[packing] = [
            hidden_BTD.detach(),
            *(p.grad.clone() for p in student.trainable().values() if p.grad is not None),
        ]
    for packing in ("songs", "masks", "rows"):
        for ours, theirs in zip(hidden[packing], hidden["positions"], strict=True):
            assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()) + 1e-6)
    leaked_BTD = student.hidden(ids())  # one song of 40 tokens: what would be seen without borders
    assert not torch.allclose(leaked_BTD, hidden["songs"][0], atol=1e-3)


def test_with_its_own_masks_or_none_the_model_is_the_stock_model_bit_for_bit(tmp_path):
    stock = tiny_bases.build(tiny_bases.config())
    student = grafted()
    assert student.model.config._attn_implementation == attention.NAME
    mask_BT = torch.ones_like(POSITIONS_BT)
    mask_BT[0, :5] = 0
    with torch.no_grad():
        for attention_mask in (None, mask_BT):
            ours, theirs = (
                model.base_model(input_ids=ids(), attention_mask=attention_mask)
                for model in (student.model, stock)
            )
            assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)
    merge(student, tmp_path / "merged")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert attention.NAME not in json.dumps(config)


def test_two_threads_in_one_model_at_the_same_time_read_their_own_songs():
    """A live teacher makes batches in a thread, while the same model may be read elsewhere."""
    student = grafted()
    together, read = threading.Barrier(2, timeout=60), {}
    with torch.no_grad():
        wanted = {key: student.hidden(ids(), at) for key, at in (("a", POSITIONS_BT),)}
        wanted["b"] = student.hidden(ids(), OTHERS_BT)

    def wait(*_: object) -> None:
        together.wait()  # both threads stand before the last layer

    hook = student.body.layers[-1].register_forward_pre_hook(wait)

    def run(key: str, positions_BT: torch.Tensor) -> None:
        with torch.no_grad():
            read[key] = student.hidden(ids(), positions_BT)

    pairs = (("a", POSITIONS_BT), ("b", OTHERS_BT))
    threads = [threading.Thread(target=run, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hook.remove()
    assert read.keys() == wanted.keys()
    assert all(torch.equal(read[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("reentrant", [False, True])
def test_layers_that_run_again_in_the_backward_pass_keep_songs_apart_too(reentrant, monkeypatch):
    student = grafted()
    student.train_all()
    student.model.train()
    called, plain = [], attention.scaled_dot_product_attention

    def counted(*args, **more):
        called.append(more["is_causal"])
        return plain(*args, **more)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", counted)
    gradients, calls = [], []
    for again in (False, True):
        if again:
            student.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        student.model.zero_grad()
        called.clear()
        student.hidden(ids(), POSITIONS_BT).square().sum().backward()
        calls.append(len(called))
        gradients.append(
            [p.grad.clone() for p in student.trainable().values() if p.grad is not None]
        )
    assert calls[0] == 2 * 6 and calls[1] == 2 * calls[0]  # layers * songs, and once more
    for once, twice in zip(*gradients, strict=True):
        assert torch.allclose(once, twice, atol=1e-4 * float(once.abs().max()) + 1e-6)


def test_a_token_asks_no_module_of_the_model_anything(monkeypatch):
    student = grafted()
    cache = student.new_cache()
    with torch.no_grad():
        student.hidden(ids()[:, :5], POSITIONS_BT[:, :5], cache)

        def refuse(*_: object, **__: object):
            raise AssertionError("walked over the modules")

        monkeypatch.setattr(torch.nn.Module, "named_modules", refuse)
        student.hidden(ids()[:, 5:6], POSITIONS_BT[:, 5:6], cache)
        student.hidden(ids(), POSITIONS_BT)


def test_a_song_beyond_the_window_is_a_row_of_its_own_and_one_within_it_is_attended_to_alone(
    monkeypatch,
):
    student = grafted("mistral/window")
    assert (student.packing, student.reach) == ("songs", tiny_bases.WINDOW)
    rows, one_song_a_row = [], Student._one_song_a_row
    monkeypatch.setattr(
        Student, "_one_song_a_row", lambda *args: rows.append(1) or one_song_a_row(*args)
    )
    within_BT = (torch.arange(40) % tiny_bases.WINDOW).repeat(2, 1)
    student.hidden(ids(), within_BT)
    assert not rows
    student.hidden(ids(), POSITIONS_BT)
    assert rows


def test_rows_of_songs_hold_every_song_once_and_at_most_twice_their_tokens():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 300, (200,), generator=generator).tolist()
    songs, tokens = [], 0
    for starts_S, lengths_S in attention.rows_of_songs(lengths):
        songs += zip(starts_S.tolist(), lengths_S.tolist(), strict=True)
        tokens += len(lengths_S) * int(lengths_S.max())
    begin = 0
    for length in lengths:
        assert (begin, length) in songs
        begin += length
    assert len(songs) == len(lengths) and sum(lengths) <= tokens < 2 * sum(lengths)


@pytest.mark.parametrize("share", [0.01, 0.001])
def test_a_small_leak_between_songs_is_not_believed(share):
    """A family whose first token reaches all of its row, however little: a tenth used to pass."""
    model = tiny_bases.build(tiny_bases.config())
    forward = model.model.forward

    def leaky(*args, **more):
        output = forward(*args, **more)
        first_B1D = output.last_hidden_state[:, :1]
        output.last_hidden_state = output.last_hidden_state + share * first_B1D
        return output

    model.model.forward = leaky
    # a cache would not see the row's first token again: this family sings by magic
    sings = pytest.MonkeyPatch()
    sings.setattr("distill.lm.graft_checks._sings_alike", lambda *_: True)
    try:
        student = graft(
            model, tiny_bases.tokenizer(), tiny_bases.vocabulary(), tiny_bases.codebooks()
        )
    finally:
        sings.undo()
    assert student.packing == "rows"
    with torch.no_grad():
        alone_BTD = student.hidden(ids()[:, 13:33])
        assert torch.allclose(student.hidden(ids(), POSITIONS_BT)[:, 13:33], alone_BTD, atol=1e-5)
