"""Laws of the graft, for ten tiny random bases: five families, head tied and untied."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_bases
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from distill.lm.base import open_base
from distill.lm.merge import load_merged, merge
from distill.lm.student import LoraSettings, graft, load

EVERY_CASE = pytest.mark.parametrize(("family", "tied"), tiny_bases.CASES)


def fresh(family, tied):
    model = tiny_bases.build(tiny_bases.config(family, tied))
    return graft(model, tiny_bases.tokenizer(), tiny_bases.vocabulary(), tiny_bases.codebooks())


@EVERY_CASE
def test_text_logits_are_bit_identical_and_scores_are_the_stock_logits(family, tied):
    stock = tiny_bases.build(tiny_bases.config(family, tied))
    student = fresh(family, tied)
    assert student.tied is tied and len(student.new_rows()) == (1 if tied else 2)
    ids_BT = torch.randint(tiny_bases.ROWS, (2, 40), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before_BTV = stock(input_ids=ids_BT).logits
        assert torch.equal(
            student.model(input_ids=ids_BT).logits[..., : tiny_bases.ROWS], before_BTV
        )
        # LoRA's B begins at zero: still the same text LLM
        student.adapt(LoraSettings(rank=4, alpha=8))
        assert torch.equal(
            student.model(input_ids=ids_BT).logits[..., : tiny_bases.ROWS], before_BTV
        )
        tiny_bases.disturb(student)
        mixed_BT = torch.randint(
            student.vocabulary.rows, (2, 40), generator=torch.Generator().manual_seed(4)
        )
        all_BTV = student.model(input_ids=mixed_BT).logits
        assert not torch.allclose(
            student.model(input_ids=ids_BT).logits[..., : tiny_bases.ROWS], before_BTV
        )
        hidden_ND = student.hidden(mixed_BT).flatten(0, 1)
        span = student.vocabulary.span(1)
        for start, end in [
            (span.start, span.stop),
            (0, 10),
            (290, 310),
            (0, student.vocabulary.rows),
        ]:
            ours_NC = student.logits(hidden_ND, start, end)
            assert torch.allclose(ours_NC, all_BTV.flatten(0, 1)[:, start:end], atol=1e-5)


@EVERY_CASE
def test_a_song_packed_second_is_the_song_alone(family, tied):
    student = fresh(family, tied)
    assert student.packing == "songs"
    ids_BT = torch.randint(
        student.vocabulary.rows, (2, 30), generator=torch.Generator().manual_seed(5)
    )
    positions_BT = torch.cat([torch.arange(13), torch.arange(17)]).expand(2, -1)
    with torch.no_grad():
        alone_BTD = student.hidden(ids_BT[:, 13:])
        for packing in ("songs", "positions", "mask"):
            student.packing = packing
            packed_BTD = student.hidden(ids_BT, positions_BT)
            assert torch.allclose(packed_BTD[:, 13:], alone_BTD, atol=1e-5)
        # without positions they do see each other: the test can fail
        seen_BTD = student.hidden(ids_BT)[:, 13:]
        assert not torch.allclose(seen_BTD, alone_BTD, atol=1e-3)


@EVERY_CASE
def test_only_new_rows_and_lora_get_gradients(family, tied):
    student = fresh(family, tied)
    student.adapt(LoraSettings(rank=4, alpha=8))
    old = {
        name: p for name, p in student.model.named_parameters() if name not in student.trainable()
    }
    ids_BT = torch.randint(
        student.vocabulary.rows, (1, 30), generator=torch.Generator().manual_seed(6)
    )
    logits_TV = student.logits(student.hidden(ids_BT)[0], 0, student.vocabulary.rows)
    logits_TV.logsumexp(-1).sum().backward()
    assert all(parameter.grad is None for parameter in old.values())
    for name, parameter in student.trainable().items():
        assert parameter.grad is not None and parameter.dtype == torch.float32
        assert ".lora_A" in name or parameter.grad.abs().sum() > 0  # A waits for B to leave zero
    kinds = {
        name.rpartition(".")[2] if name.endswith(".new") else "lora" for name in student.trainable()
    }
    assert kinds == {"new", "lora"}


@EVERY_CASE
def test_adapter_on_disk_is_plain_peft_and_merges_to_the_same_logits(family, tied, tmp_path: Path):
    base = tiny_bases.write(tmp_path / "base", tiny_bases.config(family, tied))
    model, tokenizer = open_base(base)
    student = graft(model, tokenizer, tiny_bases.vocabulary(), tiny_bases.codebooks())
    student.adapt(LoraSettings(rank=4, alpha=8))
    tiny_bases.disturb(student)
    student.save_adapter(tmp_path / "adapter", dtype="float32")
    rows = student.vocabulary.rows
    ids_BT = torch.randint(rows, (2, 40), generator=torch.Generator().manual_seed(7))

    resized = AutoModelForCausalLM.from_pretrained(base)
    resized.resize_token_embeddings(rows, mean_resizing=False)
    plain = PeftModel.from_pretrained(resized, tmp_path / "adapter").eval()
    again = load(base, tmp_path / "adapter")
    with torch.no_grad():
        ours_BTV = student.model(input_ids=ids_BT).logits
        assert ours_BTV.shape[-1] == rows and ours_BTV.abs().max() > 0.5
        assert (plain(input_ids=ids_BT).logits - ours_BTV).abs().max() <= 1e-5
        assert torch.equal(again.model(input_ids=ids_BT).logits, ours_BTV)

    merged = merge(again, tmp_path / "merged")
    assert merged.largest_difference <= 1e-5 and merged.tied is tied
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert stock.config.vocab_size == rows and stock.config.tie_word_embeddings is tied
    assert type(stock) is type(plain.get_base_model()) and stock.config.model_type == family
    whole = load_merged(tmp_path / "merged")
    hidden_ND = torch.randn(3, 32, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        assert (stock(input_ids=ids_BT).logits - ours_BTV).abs().max() <= 1e-5
        assert torch.allclose(
            whole.logits(hidden_ND, 290, 310), student.logits(hidden_ND, 290, 310), atol=1e-5
        )
    assert whole.base_fingerprint == student.base_fingerprint
    names = load_file(tmp_path / "merged" / "model.safetensors")
    assert sum(tensor.shape == (rows, 32) for tensor in names.values()) == (1 if tied else 2)
