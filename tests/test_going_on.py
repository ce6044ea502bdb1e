"""Going on: a finished run with a larger budget, a singer as a base, and what each refuses."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import test_pipeline
import tiny_bases
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_pipeline import my_songs
from transformers import AutoModelForCausalLM

from distill import licences, pipeline
from distill.errors import DistillError, GraftError, SettingsError, TrainingError
from distill.lm import held
from distill.lm import student as students
from distill.lm.base import open_base
from distill.lm.merge import load_merged, merge
from distill.lm.student import LoraSettings, Student, graft, load, regraft
from distill.singing.singer import load_singer
from distill.singing.singer_folder import open_singer, read_about
from distill.tasks._continued import joined

home, cache, run = test_pipeline.home, test_pipeline.cache, test_pipeline.run
ADAPTER = "adapter_model.safetensors"
EVERY_TIE = pytest.mark.parametrize("tied", [True, False])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "singer" / ADAPTER)


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


# --- more steps -----------------------------------------------------------------------------------
def test_a_finished_run_goes_on_and_its_singer_is_made_anew(
    home: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, songs = tmp_path / "run", str(home / "songs")
    constant = {"train.schedule": "constant"}
    pipeline.run(my_songs(home, **constant), songs, folder)
    first, merged = weights(folder), (folder / "merged/model.safetensors").read_bytes()
    with caplog.at_level(logging.WARNING, "distill"):
        pipeline.run(my_songs(home, **constant, **{"train.steps": "9"}), songs, folder)
    assert "steps from 6 to 9 raised; goes on behind step 6" in caplog.text
    assert json.loads((folder / "report.json").read_text())["steps"] == 9
    assert not equal(weights(folder), first)
    assert (folder / "merged/model.safetensors").read_bytes() != merged
    at_once = tmp_path / "at once"
    pipeline.train(my_songs(home, **constant, **{"train.steps": "9"}), songs, at_once)
    assert equal(weights(folder), weights(at_once))
    with pytest.raises(TrainingError, match="steps was 9 and is now 6, and a budget can only be"):
        pipeline.train(my_songs(home, **constant), songs, folder)


# --- a singer as a base ---------------------------------------------------------------------------
def test_a_singer_goes_on_with_its_rows_its_lora_and_its_licences(
    home: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"base.singer": str(run), "base.path": "''", "base.licence": "''"}
    changes |= {"songs.voice": "high", "songs.licence": "CC-BY-SA-4.0", "train.steps": "2"}
    recipe = my_songs(home, **changes)
    stage = pipeline._stage(recipe, str(home / "songs"))
    assert "starts afresh" in capsys.readouterr().out
    theirs, _, _ = open_singer(run)
    assert equal(stage.student.state(), theirs.state()), "not where the singer stood"
    pipeline.train(recipe, str(home / "songs"), tmp_path)
    assert weights(tmp_path).keys() == weights(run).keys()
    assert not equal(weights(tmp_path), weights(run))
    first, about = read_about(run / "singer"), read_about(tmp_path / "singer")
    assert about.base == first.base
    assert about.voices == ("high", "low")
    assert about.licences["base"] == "mit"
    songs = {text for what, text in about.licences.items() if what.startswith("song")}
    assert ", ".join(sorted(songs)).count("CC-BY-SA-4.0") and "CC0-1.0" in ", ".join(songs)
    assert licences.most_restrictive(about.licences).licence == "CC-BY-SA-4.0"
    assert [(f.name, f.recipe) for f in about.lineage] == [(run.name, first.recipe)]
    load_singer(tmp_path).sing("row your boat", seed=1)


def test_a_merged_singer_gets_a_new_lora_and_its_rows_go_on(
    home: Path, run: Path, tmp_path: Path
) -> None:
    merged = run / "merged"
    changes = {"base.singer": str(merged), "base.path": "''", "train.steps": "2"}
    recipe = my_songs(home, **changes, **{"adapter.rank": "2"})
    stage = pipeline._stage(recipe, str(home / "songs"))
    assert stage.student.vocabulary == open_singer(run)[0].vocabulary
    pipeline.run(recipe, str(home / "songs"), tmp_path)
    about = read_about(tmp_path / "singer")
    assert about.base == str(merged) and len(about.lineage) == 1
    adapter, whole = open_singer(tmp_path)[0], load_merged(tmp_path / "merged")
    ids_BT = torch.arange(0, adapter.vocabulary.rows, 7)[None]
    with torch.no_grad():
        ours_BTV, theirs_BTV = (s.model(input_ids=ids_BT).logits for s in (adapter, whole))
    assert (ours_BTV - theirs_BTV).abs().max() < 2e-2  # the adapter is saved in float16
    again = my_songs(home, **{"base.singer": str(tmp_path), "base.path": "''", "adapter.rank": "2"})
    third = pipeline._stage(again, str(home / "songs"))  # and so on
    assert equal(third.student.state(), adapter.state())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base.path": "{run}"}, "is a singer, no LLM to graft; say base.singer"),
        ({"base.path": "{run}/merged"}, "is a singer, no LLM to graft; say base.singer"),
        ({"base.singer": "{run}"}, "base: names singer .* and path; give one of them"),
        ({"base.singer": "{run}", "base.path": "''", "adapter.rank": "8"}, "rank 4 and alpha 8"),
        ({"base.singer": "{run}", "base.path": "''", "adapter": "null"}, "merge it first"),
        (
            {"base.singer": "{run}", "base.path": "''", "writing.layout": "delayed"},
            "writes in layout flat, the recipe in delayed",
        ),
        (
            {"base.singer": "{run}", "base.path": "''", "codec.path": "embedded/codec"},
            "give its own codec",
        ),
    ],
)
def test_what_does_not_continue_a_singer_is_refused(
    home: Path, run: Path, changes: dict[str, str], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        recipe = my_songs(home, **{n: value.format(run=run) for n, value in changes.items()})
        pipeline._stage(recipe, str(home / "songs"))


def test_licences_of_several_makers_are_joined() -> None:
    both = joined(
        {"base": "mit", "song: a": "cc0-1.0"}, {"song: a": "cc0-1.0, cc-by-4.0", "x": "y"}
    )
    assert both == {"base": "mit", "song: a": "cc0-1.0, cc-by-4.0", "x": "y"}


# --- the graft of a singer, on tiny bases ---------------------------------------------------------
def singer_of(base: Path, dtype: str = "float32", quantise: Any = "none") -> Student:
    model, tokenizer = open_base(base, dtype, quantise)
    student = graft(model, tokenizer, tiny_bases.vocabulary(), tiny_bases.codebooks())
    student.adapt(LoraSettings(rank=4, alpha=8))
    tiny_bases.disturb(student)
    return student


@EVERY_TIE
@pytest.mark.parametrize("family", ["llama", "gemma", "gpt_neox"])
def test_a_merged_singer_is_a_base_for_stock_peft(family: str, tied: bool, tmp_path: Path) -> None:
    base = tiny_bases.write(tmp_path / "base", tiny_bases.config(family, tied))
    merge(singer_of(base), tmp_path / "merged", dtype="float32")
    whole = load_merged(tmp_path / "merged")
    ids_BT = torch.arange(0, whole.vocabulary.rows, 5)[None]
    with torch.no_grad():
        before_BTV = whole.model(input_ids=ids_BT).logits
        student = regraft(whole, str(tmp_path / "merged"))
        assert (student.model(input_ids=ids_BT).logits - before_BTV).abs().max() < 1e-5
    assert len(student.new_rows()) == (1 if tied else 2)
    student.adapt(LoraSettings(rank=2, alpha=4))
    tiny_bases.disturb(student)
    student.save_adapter(tmp_path / "adapter", dtype="float32")
    again = load(tmp_path / "merged", tmp_path / "adapter")
    assert again.vocabulary == student.vocabulary and again.base_pieces == student.base_pieces
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    plain = PeftModel.from_pretrained(stock, tmp_path / "adapter").eval()
    with torch.no_grad():
        ours_BTV = student.model(input_ids=ids_BT).logits
        assert torch.equal(again.model(input_ids=ids_BT).logits, ours_BTV)
        assert (plain(input_ids=ids_BT).logits - ours_BTV).abs().max() < 1e-5
    assert merge(again, tmp_path / "second", dtype="float32").largest_difference <= 1e-5


def test_a_base_that_names_the_new_ids_already_is_refused(tmp_path: Path) -> None:
    base = tiny_bases.write(tmp_path / "base", tiny_bases.config())
    merge(singer_of(base), tmp_path / "merged", dtype="float32")
    (tmp_path / "merged" / "distill.json").unlink()
    model, tokenizer = open_base(tmp_path / "merged")
    rows = model.get_input_embeddings().weight.shape[0]
    with pytest.raises(GraftError, match="has <custom_token_0> already; continue a singer with"):
        graft(model, tokenizer, tiny_bases.vocabulary(rows), tiny_bases.codebooks())


# --- how weights are held -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dtype", "quantise"), [("bfloat16", "none"), ("float32", "nf4"), ("float32", "int8")]
)
def test_an_adapter_is_opened_on_the_weights_it_was_trained_on(
    dtype: str, quantise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    wide = tiny_bases.config(hidden_size=64, intermediate_size=128)
    base = tiny_bases.write(tmp_path / "base", wide)
    student = singer_of(base, dtype, quantise)
    assert all(p.dtype == torch.float32 for p in student.trainable().values())
    student.save_adapter(tmp_path / "adapter", dtype="float32")
    card = json.loads((tmp_path / "adapter" / "distill.json").read_text())
    assert (card["dtype"], card["quantise"]) == (dtype, quantise)
    again = load(base, tmp_path / "adapter")
    assert str(again.dtype) == f"torch.{dtype}" and held.quantised_as(again.model) == quantise
    whole = load(base, tmp_path / "adapter", dtype="float32", quantise="none")
    ids_BT = torch.arange(0, 400, 7)[None]
    with torch.no_grad():
        ours, opened, plain = (
            s.model(input_ids=ids_BT).logits.float() for s in (student, again, whole)
        )
    assert torch.equal(opened, ours), "opened on other weights than it was trained on"
    assert not torch.equal(plain, ours)
    if quantise != "none":
        monkeypatch.setattr(students, "cannot_quantise", lambda quantise: "no such library")
        with caplog.at_level(logging.WARNING, "distill"):
            assert held.quantised_as(load(base, tmp_path / "adapter").model) == "none"
        assert f"trained on {quantise} weights, which cannot be made here" in caplog.text
        monkeypatch.setattr(held, "cannot_quantise", lambda quantise: "no such library")
        with pytest.raises(SettingsError, match="no such library"):
            load(base, tmp_path / "adapter", quantise=quantise)


def test_a_singer_loads_in_the_type_that_is_asked_for(run: Path) -> None:
    assert load_singer(run, device="cpu").student.dtype == torch.float32
    for where in (run, run / "merged"):
        half = load_singer(where, device="cpu", dtype="bfloat16")
        assert half.student.dtype == torch.bfloat16
        half.sing("row your boat", seed=1)
    quantised = load_singer(run, device="cpu", quantise="int8")
    assert held.quantised_as(quantised.student.model) == "int8"
    quantised.sing("row your boat", seed=1)
    with pytest.raises(DistillError, match="dtype is 'bf16'; it must be one of float32, bfloat16"):
        load_singer(run, dtype="bf16")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter": "null", "base.dtype": "bfloat16"}, "held in bfloat16, and adapter: null"),
        ({"adapter": "null", "base.quantise": "nf4"}, "held in nf4, and adapter: null"),
        ({"base.dtype": "half"}, 'base.dtype is "half" \\(text\\); it must be one of float32'),
    ],
)
def test_weights_that_cannot_train_are_refused(
    home: Path, changes: dict[str, str], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        my_songs(home, **changes)


def test_a_half_precision_base_trains_by_recipe_and_comes_back_so(
    home: Path, tmp_path: Path
) -> None:
    recipe = my_songs(home, **{"base.dtype": "bfloat16", "train.steps": "2"})
    pipeline.train(recipe, str(home / "songs"), tmp_path)
    assert open_singer(tmp_path)[0].dtype == torch.bfloat16
