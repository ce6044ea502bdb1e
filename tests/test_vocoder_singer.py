"""A vocoder head by recipe, and with a singer: measured, carried, chosen, refused, pushed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_pipeline import MY_SONGS, cache, home  # noqa: F401  (fixtures: a folder of songs, a codec, a base)

from distill import hub, pipeline
from distill.config import recipe
from distill.errors import AdapterError, CodecError, HubError, SettingsError
from distill.singing.singer import load_singer
from distill.singing.singer_folder import read_about
from distill.vocoders.codec import CodecVocoder
from distill.vocoders.head import HeadVocoder, read_config

VOCODER = """
task: vocoder
seed: 5
songs: {{kind: folder, held_out_lines: 1, licence: CC0-1.0}}
codec: {{kind: embedded, path: "{home}/codec", slots: null}}
network: {{hop: 160, window: 640, width: 24, inner: 32, blocks: 2, coarse_blocks: 1}}
batch: 2
crop_frames: 12
train: {{steps: 8, learning_rate: 3e-3, warmup_steps: 1, precision: fp32}}
"""


@pytest.fixture(scope="module")
def head(home: Path) -> Path:  # noqa: F811
    """A head trained by its recipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_CACHE", str(home / "cache"))
        made = recipe.parse(VOCODER.format(home=home), "vocoder-mine")
        printed = pipeline.run(made, str(home / "songs"), home / "vocoder-run")
    assert "8 steps" in printed and '"better"' in printed
    return home / "vocoder-run"


@pytest.fixture(scope="module")
def run(home: Path, head: Path) -> Path:  # noqa: F811
    """A singer that goes with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_CACHE", str(home / "cache"))
        text = MY_SONGS.format(home=home) + f'vocoder: {{kind: head, path: "{head}/vocoder"}}\n'
        pipeline.run(recipe.parse(text, "my-songs"), str(home / "songs"), home / "with-head")
    return home / "with-head"


def test_a_recipe_makes_a_head_and_lets_one_listen(home: Path, head: Path) -> None:  # noqa: F811
    report = json.loads((head / "report.json").read_text())
    assert report["better"] in ("codec", "head") and len(report["mel_l1_by_slots"]) == 4
    assert report["head"]["silence_dbfs"] <= -60 and report["head"]["peak"] <= 1
    config = read_config(head / "vocoder")
    assert config["codec"].kind == "embedded" and config["codec"].format.slots == 4
    board = EventAccumulator(
        str(head / "tensorboard" / "sound"), size_guidance={"images": 0, "audio": 0}
    ).Reload()
    for name in ("song", "head"):
        assert len(board.Audio(name)) >= 2 and board.Audio(name)[0].sample_rate == 16_000
        picture = board.Images(f"{name}/spectrogram")[0].encoded_image_string
        assert picture.startswith(b"\x89PNG")
    weights = (head / "vocoder" / "weights.safetensors").read_bytes()
    again = recipe.parse(VOCODER.format(home=home), "vocoder-mine")
    pipeline.run(again, str(home / "songs"), head)
    assert (head / "vocoder" / "weights.safetensors").read_bytes() == weights


def test_a_singer_carries_its_head_and_uses_the_better(run: Path, head: Path) -> None:
    card = read_about(run / "singer").vocoder
    assert card is not None and card.seconds > 0
    wanted = "head" if card.mel_l1_head < card.mel_l1_codec else "codec"
    assert card.better == wanted == "head"  # the codec's weights are random
    codes_FS = None
    for where in (run, run / "merged"):
        singer = load_singer(where, device="cpu")
        assert isinstance(singer.vocoder, HeadVocoder) and singer.vocoder.format.slots == 2
        take = singer.sing("row your boat", seed=1)
        codes_FS = take.codes_FS if codes_FS is None else codes_FS
        assert take.wave_CW.shape[1] == len(take.codes_FS) * singer.vocoder.hop
        assert torch.equal(take.wave_CW, singer.vocoder.decode(take.codes_FS))
        plain = load_singer(where, device="cpu", vocoder="codec")
        assert isinstance(plain.vocoder, CodecVocoder)
        same = plain.sing("row your boat", seed=1)
        assert torch.equal(same.codes_FS, take.codes_FS)
        assert not torch.equal(same.wave_CW, take.wave_CW)
        assert torch.equal(same.wave_CW, plain.codec.decode(take.codes_FS))
    assert read_about(run / "singer").licences["vocoder"] == "apache-2.0, CC0-1.0"


def test_what_measured_worse_is_used_only_when_asked_for(run: Path) -> None:
    path = run / "merged" / "singer.json"
    text = path.read_text()
    row = json.loads(text)
    try:
        path.write_text(json.dumps({**row, "vocoder": {**row["vocoder"], "better": "codec"}}))
        assert isinstance(load_singer(run / "merged", device="cpu").vocoder, CodecVocoder)
        forced = load_singer(run / "merged", device="cpu", vocoder="head")
        assert isinstance(forced.vocoder, HeadVocoder)
        path.write_text(json.dumps({**row, "vocoder": {**row["vocoder"], "fingerprint": "0" * 64}}))
        with pytest.raises(AdapterError, match="speaks of 000000000000"):
            load_singer(run / "merged", device="cpu")
        del row["vocoder"]
        path.write_text(json.dumps(row))
        assert isinstance(load_singer(run / "merged", device="cpu").vocoder, CodecVocoder)
        with pytest.raises(SettingsError, match="has no vocoder head"):
            load_singer(run / "merged", device="cpu", vocoder="head")
        with pytest.raises(SettingsError, match="give codec or head"):
            load_singer(run / "merged", device="cpu", vocoder="hed")  # type: ignore[arg-type]
    finally:
        path.write_text(text)


def test_a_damaged_head_is_refused_and_the_codec_still_sings(run: Path) -> None:
    path = run / "merged" / "vocoder" / "weights.safetensors"
    data = path.read_bytes()
    try:
        path.write_bytes(data[:1000])
        with pytest.raises(CodecError, match="cut short"):
            load_singer(run / "merged", device="cpu")
        assert (
            load_singer(run / "merged", device="cpu", vocoder="codec").sing("row", seed=0).seconds
            > 0
        )
        weights = safetensors.torch.load(data)
        weights["project.weight"][0, 0] = float("nan")
        safetensors.torch.save_file(weights, path)
        with pytest.raises(CodecError, match="NaN"):
            load_singer(run / "merged", device="cpu")
    finally:
        path.write_bytes(data)


def test_it_is_merged_and_pushed_with_its_singer(
    run: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    pipeline.merge(run, tmp_path / "by-hand")
    assert isinstance(load_singer(tmp_path / "by-hand", device="cpu").vocoder, HeadVocoder)
    # the songs' licence is another test's matter
    monkeypatch.setattr(hub, "gate", lambda *args, **keys: None)
    pushed = hub.push(tmp_path / "by-hand", "org/name", dry_run=True)
    assert {"vocoder/config.json", "vocoder/weights.safetensors"} <= set(pushed.files)
    assert "| vocoder |" in pushed.card and "what makes the sound: head" in pushed.card
    weights = tmp_path / "by-hand" / "vocoder" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(HubError, match="vocoder: damaged: weights"):
        hub.push(tmp_path / "by-hand", "org/name", dry_run=True)
    (tmp_path / "by-hand" / "vocoder" / "config.json").unlink()
    with pytest.raises(HubError, match="vocoder that is not there"):
        hub.push(tmp_path / "by-hand", "org/name", dry_run=True)
