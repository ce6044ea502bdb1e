"""The student: first rows, text that stays text, state, adapters, merges; and what each refuses."""

from __future__ import annotations

import json
import warnings

import pytest
import tiny_bases
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
)

from distill.errors import AdapterError, FolderError, GraftError
from distill.lm import families
from distill.lm.base import TextCoder, fingerprint, open_base
from distill.lm.graft import first_rows
from distill.lm.merge import load_merged, merge
from distill.lm.student import LoraSettings, graft, load, rows_of

TRICKS = "</s> <s> <custom_token_5> row your boat <unused_token_290>"


def fresh(init="codebooks", seed=0, tied=False):
    model = tiny_bases.build(tiny_bases.config(tied=tied))
    return graft(
        model,
        tiny_bases.tokenizer(),
        tiny_bases.vocabulary(),
        tiny_bases.codebooks(),
        seed=seed,
        init=init,
    )


def trained():
    student = fresh()
    student.adapt(LoraSettings(rank=4, alpha=8))
    tiny_bases.disturb(student)
    return student


# --- first rows -----------------------------------------------------------------------------------
def test_first_rows_stand_as_far_from_the_mean_as_old_rows_and_keep_the_codebooks_geometry():
    old_VD = torch.randn(500, 32, generator=torch.Generator().manual_seed(0)) + 3.0
    words = tiny_bases.vocabulary()
    rows_ND = first_rows(old_VD, words, tiny_bases.codebooks(), 0, "codebooks")
    mean_D = old_VD.mean(0)
    distance = (old_VD - mean_D).norm(dim=1).median()
    used = words.used_rows - words.base_rows
    away_N = (rows_ND[:used] - mean_D).norm(dim=1)
    assert away_N.median() == pytest.approx(float(distance), rel=0.15)
    assert torch.allclose(rows_ND[used:], mean_D.expand(words.size - used, -1))
    for slot, book_Cd in enumerate(tiny_bases.codebooks()):
        span = words.span(slot)
        rows_CD = rows_ND[span.start - words.base_rows : span.stop - words.base_rows]
        ratio = torch.pdist(rows_CD) / torch.pdist(book_Cd)
        # an orthonormal map keeps every distance, up to one scale
        assert ratio.std() / ratio.mean() < 1e-3
    pitch = words.pitch_span.start + 2 - words.base_rows
    near = (rows_ND[pitch] - rows_ND[pitch + 1]).norm()
    assert near < 0.6 * (rows_ND[pitch] - rows_ND[pitch + 12]).norm()
    assert torch.equal(rows_ND, first_rows(old_VD, words, tiny_bases.codebooks(), 0, "codebooks"))
    assert not torch.equal(
        rows_ND, first_rows(old_VD, words, tiny_bases.codebooks(), 1, "codebooks")
    )
    close_ND = first_rows(old_VD, words, None, 0, "mean")
    assert (close_ND - mean_D).norm(dim=1).max() < 0.01 * distance


def test_codebooks_of_more_dimensions_than_the_llm_are_accepted_and_foreign_ones_refused():
    old_VD = torch.randn(100, 32)
    words = tiny_bases.vocabulary()
    wide = [torch.randn(codes, 48) for codes in tiny_bases.CODES]
    assert first_rows(old_VD, words, wide, 0, "codebooks").isfinite().all()
    for books in (None, wide[:1], [wide[1], wide[0]], [wide[0], wide[1][:, :8]]):
        with pytest.raises(GraftError):
            first_rows(old_VD, words, books, 0, "codebooks")
    with pytest.raises(GraftError, match="unknown"):
        first_rows(old_VD, words, None, 0, "meen")


# --- text stays text ------------------------------------------------------------------------------
def test_text_never_becomes_special_or_codec_ids_and_a_merged_singer_writes_it_alike(tmp_path):
    student = trained()
    ids = student.encode_text(TRICKS)
    assert max(ids) < student.base_pieces and not {0, 1} & set(ids)
    assert student.decode_text(ids) == TRICKS
    merge(student, tmp_path / "merged")
    whole = load_merged(tmp_path / "merged")
    assert whole.encode_text(TRICKS) == ids
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    words = student.vocabulary
    # plain HF does
    assert tokenizer.encode("<custom_token_5>", add_special_tokens=False) == [words.base_rows + 5]
    every = [words.name(id) for id in range(words.base_rows, words.rows)]
    assert tokenizer.convert_tokens_to_ids(every) == list(range(words.base_rows, words.rows))
    assert not set(every) & set(tokenizer.all_special_tokens)
    settings = json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == words.end


def test_a_unigram_piece_that_spells_a_special_token_is_cut():
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("\u2581", -2.0)]
    pieces += [(letter, -3.0) for letter in "<>/sabrow"]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    coder = TextCoder(tokenizer, len(tokenizer))
    for text in ("row </s> row", "</s></s>", "<s>", "a<</s>/s>"):
        ids = coder.encode(text)
        assert ids and not {1, 2} & set(ids)
    assert coder.encode("row") == tokenizer.encode("row", add_special_tokens=False)
    assert 0 in coder.encode("\u4f60")  # unknown stays unknown: it is not an order to the model


# --- forward --------------------------------------------------------------------------------------
def test_a_cache_gives_the_same_hidden_states():
    from transformers import DynamicCache

    student = trained()
    ids_BT = torch.randint(
        student.vocabulary.rows, (1, 20), generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        whole_BTD = student.hidden(ids_BT)
        cache = DynamicCache(config=student.model.config)
        parts = [student.hidden(ids_BT[:, :12], cache=cache)]
        parts += [student.hidden(ids_BT[:, t : t + 1], cache=cache) for t in range(12, 20)]
    assert torch.allclose(torch.cat(parts, dim=1), whole_BTD, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (Gemma2Config, {"head_dim": 8, "final_logit_softcapping": 2.0}),
        (CohereConfig, {"logit_scale": 0.3}),
        (GraniteConfig, {"logits_scaling": 3.0, "embedding_multiplier": 4.0}),
    ],
)
def test_soft_capping_and_scaling_are_honoured_and_a_missing_row_is_noticed(
    kind, more, monkeypatch
):
    shape = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    shape |= {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "initializer_range": 0.5,
    }
    words, books, tokenizer = (
        tiny_bases.vocabulary(),
        tiny_bases.codebooks(),
        tiny_bases.tokenizer(),
    )
    student = graft(tiny_bases.build(kind(**shape, **more)), tokenizer, words, books)
    ids_BT = torch.arange(290, 310)[None]
    with torch.no_grad():
        stock_TV = student.model(input_ids=ids_BT).logits[0]
        assert torch.allclose(
            student.logits(student.hidden(ids_BT)[0], 280, 330), stock_TV[:, 280:330], atol=1e-5
        )
    monkeypatch.setattr(families, "FAMILIES", {})
    if kind is not Gemma2Config:  # capping is found by its config's name, it has no row
        with pytest.raises(GraftError, match=r"families\.py"):
            graft(tiny_bases.build(kind(**shape, **more)), tokenizer, words, books)


def test_scores_outside_the_tables_are_refused():
    student = fresh()
    for start, end in ((-1, 5), (5, 5), (0, student.vocabulary.rows + 1)):
        with pytest.raises(GraftError):
            student.logits(torch.zeros(1, 32), start, end)


def test_half_precision_base_trains_in_float32(tmp_path):
    base = tiny_bases.write(tmp_path / "base", tiny_bases.config())
    model, tokenizer = open_base(base, dtype="bfloat16")
    student = graft(model, tokenizer, tiny_bases.vocabulary(), tiny_bases.codebooks())
    student.adapt(LoraSettings(rank=4, alpha=8))
    assert student.dtype == torch.bfloat16 and student.packing == "songs"
    assert all(parameter.dtype == torch.float32 for parameter in student.trainable().values())
    logits_TV = student.logits(student.hidden(torch.arange(290, 310)[None])[0], 0, 400)
    logits_TV.float().logsumexp(-1).sum().backward()
    assert merge(student, tmp_path / "merged", dtype="bfloat16").largest_difference < 0.05


@pytest.mark.parametrize("family", ["gemma3_text", "gpt_oss", "lfm2", "llama", "qwen3_moe"])
def test_a_base_in_bfloat16_is_packed_as_in_float32(family):
    packings = set()
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_bases.build(tiny_bases.config(family, initializer_range=0.1)).to(dtype)
        student = graft(model, tiny_bases.tokenizer(), tiny_bases.vocabulary(), init="gaussian")
        packings.add((student.packing, student.reach))
    assert len(packings) == 1


# --- state ----------------------------------------------------------------------------------------
def test_state_comes_back_and_foreign_state_is_refused():
    student, other = trained(), fresh()
    other.adapt(LoraSettings(rank=4, alpha=8), seed=5)
    state = {name: tensor.clone() for name, tensor in student.state().items()}
    other.load_state(state)
    ids_BT = torch.arange(290, 310)[None]
    with torch.no_grad():
        assert torch.equal(
            student.model(input_ids=ids_BT).logits, other.model(input_ids=ids_BT).logits
        )
    name = next(iter(state))
    for wrong in (
        {k: v for k, v in state.items() if k != name},
        state | {"x": state[name]},
        state | {name: state[name][:1]},
    ):
        with pytest.raises(AdapterError):
            other.load_state(wrong)


def test_lora_begins_the_same_for_the_same_seed_and_leaves_torchs_generator_alone():
    first, second, third = fresh(), fresh(), fresh()
    torch.manual_seed(9)
    first.adapt(LoraSettings(rank=4, alpha=8), seed=1)
    drawn = torch.rand(1)
    torch.manual_seed(9)
    assert torch.equal(drawn, torch.rand(1))
    second.adapt(LoraSettings(rank=4, alpha=8), seed=1)
    third.adapt(LoraSettings(rank=4, alpha=8), seed=2)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state().values(), second.state().values(), strict=True)
    )
    assert not all(
        torch.equal(a, b)
        for a, b in zip(first.state().values(), third.state().values(), strict=True)
    )
    with pytest.raises(GraftError, match="already"):
        first.adapt(LoraSettings())


@pytest.mark.parametrize("tied", [True, False])
def test_full_training_merges_and_goes_on_from_the_merged_folder(tied, tmp_path):
    student = fresh(tied=tied)
    student.train_all(old_rows=False)
    assert not any(".old." in name for name in student.trainable())
    student.train_all()
    tiny_bases.disturb(student)
    with pytest.raises(AdapterError, match="merge"):
        student.save_adapter(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
    assert merge(student, tmp_path / "merged").largest_difference <= 1e-5
    whole = load_merged(tmp_path / "merged")
    with pytest.raises(GraftError):
        whole.adapt(LoraSettings())
    whole.train_all()
    tiny_bases.disturb(whole)
    assert merge(whole, tmp_path / "merged").largest_difference <= 1e-5  # replaces the folder


# --- refusals -------------------------------------------------------------------------------------
def test_an_adapter_is_refused_on_another_base_of_the_same_shape(tmp_path):
    right = tiny_bases.write(tmp_path / "right", tiny_bases.config())
    wrong = tiny_bases.write(tmp_path / "wrong", tiny_bases.config(), seed=1)
    model, tokenizer = open_base(right)
    student = graft(
        model, tokenizer, tiny_bases.vocabulary(), tiny_bases.codebooks(), base="org/right"
    )
    student.adapt(LoraSettings(rank=4, alpha=8))
    student.save_adapter(tmp_path / "adapter")
    assert str(tmp_path) not in "".join(
        p.read_text() for p in (tmp_path / "adapter").glob("*.json")
    )
    load(right, tmp_path / "adapter")
    with pytest.raises(AdapterError, match="org/right"):
        load(wrong, tmp_path / "adapter")
    other_words = tiny_bases.tokenizer()
    other_words.add_tokens(["boat"])
    # the same weights, another tokenizer: ids mean something else
    other_words.save_pretrained(right)
    with pytest.raises(AdapterError):
        load(right, tmp_path / "adapter")
    (tmp_path / "adapter" / "distill.json").write_text("{}")
    with pytest.raises(AdapterError, match=r"distill\.json"):
        load(wrong, tmp_path / "adapter")
    with pytest.raises(FolderError):
        load(tmp_path / "adapter", tmp_path / "nowhere")


def test_fingerprint_is_the_same_from_memory_and_from_disk(tmp_path):
    for tied in (True, False):
        folder = tiny_bases.write(tmp_path / f"base-{tied}", tiny_bases.config("gpt_neox", tied))
        model, tokenizer = open_base(folder)
        assert fingerprint(model, tokenizer) == fingerprint(None, tokenizer, folder)
        with torch.no_grad():
            next(model.parameters())[0, 0] += 1e-3
        assert fingerprint(model, tokenizer) != fingerprint(None, tokenizer, folder)


def test_float16_adapters_say_when_a_value_does_not_fit(tmp_path):
    student = trained()
    with torch.no_grad():
        next(iter(student.trainable().values()))[0] = 1e5
    with pytest.raises(AdapterError, match="float32"):
        student.save_adapter(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_merge_is_in_the_type_of_the_bases_files_unless_asked_otherwise(tmp_path):
    model = tiny_bases.build(tiny_bases.config()).bfloat16()
    model.save_pretrained(tmp_path / "base")
    tiny_bases.tokenizer().save_pretrained(tmp_path / "base")
    student = graft(*open_base(tmp_path / "base"), tiny_bases.vocabulary(), init="gaussian")
    assert student.dtype == torch.float32  # what it is held in says nothing
    student.adapt(LoraSettings(rank=4, alpha=8))
    tiny_bases.disturb(student)
    for asked, dtype in ((None, "bfloat16"), ("float32", "float32"), ("float16", "float16")):
        merge(student, tmp_path / "merged", dtype=asked)
        tensors = load_file(tmp_path / "merged" / "model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}
        assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == dtype
    with pytest.raises(AdapterError, match="float32, float16, bfloat16"):
        merge(student, tmp_path / "merged", dtype="int3")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merge_that_says_something_else_is_not_written(dtype, tmp_path, monkeypatch):
    from distill.lm import merge as merging

    student = trained()
    honest = merging._merged_state

    def forgetful(student):  # the classic: the trained head is lost
        state = honest(student)
        state["lm_head.weight"] = state["lm_head.weight"].clone()
        state["lm_head.weight"][tiny_bases.ROWS :] = 0
        return state

    monkeypatch.setattr(merging, "_merged_state", forgetful)
    with pytest.raises(AdapterError, match=r"^merged: merged logits differ"):
        merge(student, tmp_path / "merged", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_bases_that_cannot_be_grafted_are_refused():
    tokenizer, words = tiny_bases.tokenizer(), tiny_bases.vocabulary()
    model = tiny_bases.build(tiny_bases.config())
    assert rows_of(model) == tiny_bases.ROWS
    with pytest.raises(GraftError, match="begins at 290"):
        graft(model, tokenizer, tiny_bases.vocabulary(290), tiny_bases.codebooks())
    small = tiny_bases.build(tiny_bases.config(vocab_size=200))
    with pytest.raises(GraftError, match="tokenizer"):
        graft(small, tokenizer, tiny_bases.vocabulary(200), tiny_bases.codebooks())
    shape = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    with pytest.raises(GraftError, match="bias"):
        graft(
            tiny_bases.build(PhiConfig(**shape, num_attention_heads=4)),
            tokenizer,
            words,
            tiny_bases.codebooks(),
        )


@pytest.mark.parametrize("quantise", ["nf4", "int8"])
def test_a_quantised_base_trains_and_merges(quantise, tmp_path):
    base = tiny_bases.write(
        tmp_path / "base", tiny_bases.config(hidden_size=64, intermediate_size=128)
    )
    model, tokenizer = open_base(base, quantise=quantise)
    student = graft(model, tokenizer, tiny_bases.vocabulary(), tiny_bases.codebooks())
    student.adapt(LoraSettings(rank=4, alpha=8))
    with warnings.catch_warnings():  # bitsandbytes warns where it has no backward
        warnings.simplefilter("error")
        hidden_ND = student.hidden(torch.arange(290, 310)[None])[0]
        student.logits(hidden_ND, 0, 400).float().logsumexp(-1).sum().backward()
    assert merge(student, tmp_path / "merged").largest_difference < 0.05
    student.save_adapter(tmp_path / "adapter")
    load(base, tmp_path / "adapter", quantise=quantise)
