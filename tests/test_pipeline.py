"""The whole chain on a small folder: coded, trained, merged, sung; again; interrupted; refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_singer
import torch
from safetensors.torch import load_file
from test_codec import random_network
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill import hub, pipeline
from distill.codecs import embedded
from distill.config import recipe
from distill.config.recipe import Recipe
from distill.errors import DistillError, FolderError, SettingsError, TeacherError, TrainingError
from distill.singing.singer import load_singer
from distill.tasks import Task, _estimate, _run, _singing_run
from distill.writing.prompts import write

STEPS = 6
MY_SONGS = """
task: sing
seed: 3
songs: {{kind: folder, held_out_lines: 1, style: folk, voice: low, licence: CC0-1.0}}
codec: {{kind: embedded, path: "{home}/codec"}}
base: {{path: "{home}/base", licence: mit}}
adapter: {{rank: 4, alpha: 8}}
losses: [{{kind: cross_entropy}}]
packing: {{row_tokens: 400, rows: 2}}
train:
  {{steps: 6, learning_rate: 1e-2, warmup_steps: 1, checkpoint_every_steps: 2, precision: fp32}}
judge: {{lines: 0}}
"""
TEXT = """
task: text
seed: 0
model: {{width: 32, inner: 48, layers: 1, heads: 2, pieces: 330, text: "{home}/text"}}
row_tokens: 32
rows: 2
train: {{steps: 3, precision: fp32}}
"""
BY_TEACHER = """
task: sing
seed: 4
songs: {{kind: folder, held_out_lines: 1, style: folk, voice: low}}
codec: {{kind: embedded, path: "{home}/codec"}}
base:
  path: ""
  from_scratch: {{family: qwen3, width: 48, inner: 48, layers: 1, heads: 3, context: 512,
           tied: true, tokenizer: bytes, pieces: 300, text: "{home}/text"}}
adapter: null
teacher: {{kind: recorded, singer: "{home}/run"}}
losses: [{{kind: cross_entropy, weight: 0.3}}, {{kind: forward_kl, weight: 0.7}}]
packing: {{row_tokens: 500, rows: 2}}
train: {{steps: 3, learning_rate: 1e-2, warmup_steps: 1, precision: fp32}}
judge: {{lines: 0}}
"""


def sing_wave(seconds: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    keys = np.repeat(generator.integers(50, 65, int(seconds * 4) + 1), 4000)[
        : int(seconds * 16_000)
    ]
    phase = np.cumsum(2 * np.pi * 440 * 2 ** ((keys - 69) / 12) / 16_000)
    return (0.2 * sum(np.sin(k * phase) / k for k in range(1, 6))).astype(np.float32)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder of songs in three formats, a codec and a base."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "songs").mkdir()
    for number, form in enumerate(("mp3", "ogg", "wav")):
        soundfile.write(folder / "songs" / f"song{number}.{form}", sing_wave(4.0, number), 16_000)
        rows = [
            "[00:00.20]row your boat",
            "[00:01.50]gently down the stream",
            "[00:02.70]merrily merrily",
            "[00:03.90]",
        ]
        (folder / "songs" / f"song{number}.lrc").write_text("\n".join(rows) + "\n")
    embedded.save_codec(random_network(), folder / "codec", ["apache-2.0"])
    text = tiny_singer.text_folder(folder / "text")
    model, tokenizer = tiny_singer.make(tiny_singer.from_scratch(text=str(text)), 0)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    return folder


@pytest.fixture(autouse=True)
def cache(home, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(home / "cache"))


def my_songs(home: Path, **changes: str) -> Recipe:
    return recipe.parse(MY_SONGS.format(home=home), "my-songs", overrides=changes)


@pytest.fixture(scope="module")
def run(home, tmp_path_factory) -> Path:
    """One whole run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_CACHE", str(home / "cache"))
        printed = pipeline.run(my_songs(home), str(home / "songs"), home / "run")
    assert f"{STEPS} steps" in printed and "take.wav" in printed
    return home / "run"


def rows(folder: Path) -> list[dict]:
    return [json.loads(row) for row in (folder / "steps.jsonl").read_text().splitlines()]


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in files
    }


def test_a_folder_of_songs_becomes_a_singer_a_merged_model_and_a_take(home, run):
    assert [row["step"] for row in rows(run)] == list(range(1, STEPS + 1))
    assert {
        "slot0.cross_entropy",
        "slot1.cross_entropy",
        "pieces",
        "lengths",
        "opens",
        "format",
    } == set(rows(run)[0]["terms"])
    report = json.loads((run / "report.json").read_text())
    assert report["steps"] == STEPS and report["judged"] is None
    # two of three lines of each song
    assert report["minutes_of_song"] == pytest.approx(3 * 2.5 / 60, rel=0.05)
    before, after = report["before"]["nats_per_token"], report["after"]["nats_per_token"]
    assert report["before"]["seconds"] == pytest.approx(3 * 1.2, rel=0.05) and before != after
    assert sum(after) < sum(before)
    assert report["merged_largest_difference"] <= 1e-5
    wave, rate = soundfile.read(run / "take.wav")
    assert rate == 16_000 and len(wave) >= 640 and len(wave) % 640 == 0 and np.isfinite(wave).all()
    about = json.loads((run / "singer" / "singer.json").read_text())
    assert about["grain"] == "line" and about["styles"] == ["folk"] and about["voices"] == ["low"]
    assert about["licences"]["song: song0.mp3"] == "CC0-1.0" and set(about["slot_sizes"]) == {32}
    assert str(home / "songs") not in (run / "singer" / "singer.json").read_text()
    # nobody's disk is published
    assert str(home) not in about["recipe"] and "path: codec" in about["recipe"]
    merged = json.loads((run / "merged" / "singer.json").read_text())
    assert merged == about | {"base": "base"} and about["base"] == str(home / "base")
    texts = "".join(path.read_text() for path in (run / "merged").glob("*.json"))
    assert str(home) not in texts


def test_the_run_loads_as_a_singer_and_the_merged_model_in_plain_transformers(run):
    singer = load_singer(run, device="cpu")
    take = singer.sing("row your boat", seed=1)
    assert len(take.codes_FS) > 0 and len(take.pieces) == 1 and take.pieces[0].startswith("r o, y ")
    merged = load_singer(run / "merged", device="cpu")
    stock, tokenizer = (
        AutoModelForCausalLM.from_pretrained(run / "merged"),
        AutoTokenizer.from_pretrained(run / "merged"),
    )
    ids_BT = torch.randint(
        singer.student.vocabulary.rows, (1, 40), generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        ours_BTV = singer.student.model(input_ids=ids_BT).logits
        # the adapter is stored in half precision
        assert (stock(input_ids=ids_BT).logits - ours_BTV).abs().max() < 5e-3
        assert torch.equal(
            merged.student.model(input_ids=ids_BT).logits, stock(input_ids=ids_BT).logits
        )
    v = singer.student.vocabulary
    assert (
        tokenizer.convert_tokens_to_ids("<custom_token_1>")
        == v.end
        == stock.generation_config.eos_token_id
    )


def test_the_same_call_again_trains_nothing_and_changes_no_weight(home, run):
    kept = {name: content(run / name) for name in ("singer", "merged", "checkpoints")}
    steps, report = (
        (run / "steps.jsonl").read_bytes(),
        json.loads((run / "report.json").read_text()),
    )
    take = (run / "take.wav").read_bytes()
    printed = pipeline.run(my_songs(home), str(home / "songs"), run)
    assert f"{STEPS} steps" in printed
    assert (run / "steps.jsonl").read_bytes() == steps
    assert {name: content(run / name) for name in kept} == kept
    again = json.loads((run / "report.json").read_text())
    for key in ("steps", "before", "after", "minutes_of_song", "merged_largest_difference"):
        assert again[key] == report[key], key
    assert (run / "take.wav").read_bytes() == take


def test_an_interrupted_run_goes_on_to_the_same_weights(home, run, monkeypatch):
    folder, show = home / "interrupted", _run.show

    def impatient(steps, settings, title):
        for step in show(steps, settings, title):
            yield step
            if step.index == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(_run, "show", impatient)
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(my_songs(home), str(home / "songs"), folder)
    assert len(rows(folder)) == 3 and not (folder / "singer").exists()
    monkeypatch.setattr(_run, "show", show)
    printed = pipeline.train(my_songs(home), str(home / "songs"), folder)
    assert f"{STEPS} steps" in printed
    resumed, other = (
        load_file(where / "singer" / "adapter_model.safetensors") for where in (folder, run)
    )
    assert resumed.keys() == other.keys()
    assert all(torch.equal(resumed[name], other[name]) for name in resumed)
    losses = [[row["loss"] for row in rows(where)] for where in (folder, run)]
    assert losses[0] == losses[1]


def test_a_merge_that_was_cut_short_is_made_again(home, run):
    (run / "merged" / "singer.json").unlink()
    pipeline.run(my_songs(home), str(home / "songs"), run)
    assert (run / "merged" / "singer.json").exists()


def test_a_student_of_another_family_learns_from_the_run_as_recorded_teacher(home, run):
    taught = recipe.parse(BY_TEACHER.format(home=home), "taught")
    songs = str(home / "songs")
    printed = pipeline.encode(taught, songs).replace(",", "").split()
    passages = int(printed[0]), int(printed[printed.index("held") - 1])
    assert 3 <= passages[0] <= 6 and passages[1] == 3  # one or two of two lines; one line
    assert pipeline.record(taught, songs).startswith(f"{sum(passages)} passages")
    assert pipeline.record(taught, songs).startswith("0 passages")
    printed = pipeline.run(taught, songs, home / "taught")
    assert "KL" in printed
    report = json.loads((home / "taught" / "report.json").read_text())
    assert all(kl > 0 for kl in report["after"]["kl_per_token"])
    assert {"slot0.forward_kl", "slot1.forward_kl", "pitches.kl", "lengths.kl"} <= set(
        rows(home / "taught")[0]["terms"]
    )
    singer = load_singer(home / "taught", device="cpu")
    assert singer.student.model.config.model_type == "qwen3"
    assert len(singer.sing("row", seed=0).codes_FS) > 0
    embedded.save_codec(random_network(seed=5), home / "codec2", ["apache-2.0"])
    foreign = recipe.parse(BY_TEACHER.format(home=home).replace("/codec", "/codec2"), "foreign")
    with pytest.raises(TeacherError, match="another codec"):
        pipeline.encode(foreign, songs)


def test_a_merge_by_hand_and_what_a_recipe_means(home, run):
    printed = pipeline.merge(run, home / "by-hand")
    assert "largest difference" in printed
    about = load_singer(run, device="cpu").about
    assert load_singer(home / "by-hand", device="cpu").about == replace(about, base="base")
    assert any("2 slots" in line for line in pipeline.check(my_songs(home)))
    parts = pipeline.parts()
    assert {"model", "recorded"} <= set(parts["teachers"]) and "forward_kl" in parts["losses"]


def test_a_codec_of_ones_own_goes_where_the_singer_goes(home, run, tmp_path):
    assert json.loads((run / "singer" / "singer.json").read_text())["codec"]["path"] == "./codec"
    for part in ("singer", "merged"):
        folder = shutil.copytree(run / part, tmp_path / part)
        there, here = load_singer(folder, device="cpu"), load_singer(run / part, device="cpu")
        assert torch.equal(there.sing("row", seed=0).wave_CW, here.sing("row", seed=0).wave_CW)
        assert {path.name for path in (folder / "codec").iterdir()} >= {
            "config.json",
            "weights.safetensors",
        }
    assert {"codec/config.json", "codec/weights.safetensors"} <= set(
        hub.push(run, "org/tiny", dry_run=True).files
    )
    shutil.rmtree(tmp_path / "singer" / "codec")
    with pytest.raises(DistillError, match="codec"):
        load_singer(tmp_path / "singer", device="cpu")


def test_an_estimate_counts_what_a_run_then_holds(home, run, monkeypatch):
    monkeypatch.setattr(_estimate, "CALIBRATION", 0.0)
    mine = recipe.with_songs(my_songs(home), str(home / "songs"))
    before = content(run)
    figures = _estimate.estimate(mine)
    trained = load_file(run / "singer" / "adapter_model.safetensors")
    assert figures.trained == sum(tensor.numel() for tensor in trained.values())
    stage = _singing_run.open_stage(mine)
    v, encode = stage.student.vocabulary, stage.student.encode_text
    lengths = [len(write(c.passage, c.codes_FS, encode, v)) for c in stage.train]
    assert figures.tokens == sum(lengths) and figures.passages == len(lengths)
    whole = sum(parameter.numel() for parameter in stage.student.model.parameters())
    assert figures.trained + figures.frozen == whole
    for part in ("checkpoints", "merged", "singer", "best"):
        files = [path for path in (run / part).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files if "codec" not in path.parts)
        assert figures.disk[part] == pytest.approx(size, rel=0.1), part
    assert figures.memory > 2**20 and figures.step_seconds > 0 and figures.hours > 0
    assert {"training", "singing", "merging", "evaluations"} <= figures.seconds.keys()
    assert any("parameters" in line for line in figures.lines())
    assert content(run) == before
    text = recipe.parse(TEXT.format(home=home), "base")
    figures = _estimate.estimate(text)
    assert figures.trained > 0 and set(figures.seconds) == {"training"}


def test_songs_go_into_the_source_that_takes_a_folder(home):
    mine = my_songs(home)
    assert recipe.with_songs(mine, None) == mine
    given = recipe.with_songs(mine, "some/where")
    assert given.settings.songs.folder == "some/where" and given.settings.songs.held_out_lines == 1
    other = recipe.parse(MY_SONGS.format(home=home).replace("kind: folder, held_out_lines: 1, "
                                                            "style: folk, voice: low, "
                         "licence: CC0-1.0", "kind: embedded"), "quick")  # fmt: skip
    with pytest.raises(
        SettingsError, match=r"quick: its songs are of kind embedded; use RECIPE=my-songs"
    ):
        recipe.with_songs(other, "some/where")
    text = recipe.parse("task: text\nseed: 0\ntrain: {steps: 1}\n", "base")
    with pytest.raises(SettingsError, match="base: task text takes no songs"):
        recipe.with_songs(text, "some/where")


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({"train.learning_rate": "1e-3"}, TrainingError, "learning_rate was 0.01 and is now 0.001"),
        ({"seed": "4"}, TrainingError, "seed was 3 and is now 4"),
        ({"writing.max_lines": "1"}, TrainingError, "max_lines: 2"),
        ({"packing.row_tokens": "30"}, DistillError, "raise packing.row_tokens"),
        ({"base.path": "no/where/at/all"}, FolderError, "no such folder"),
        ({"codec.slots": "9"}, DistillError, "slots is 9"),
    ],
)
def test_another_recipe_in_the_same_folder_and_what_is_missing_are_refused(
    home, run, changes, error, complaint
):
    before = content(run)
    with pytest.raises(error, match=complaint) as refused:
        pipeline.train(my_songs(home, **changes), str(home / "songs"), run)
    assert "\n" not in str(refused.value)
    after = content(run)
    assert {name: data for name, (_, data) in after.items()} == {
        name: data for name, (_, data) in before.items()
    }


def test_no_songs_no_run(home, tmp_path):
    with pytest.raises(SettingsError, match="SONGS=FOLDER"):
        pipeline.run(my_songs(home), None, tmp_path / "run")
    with pytest.raises(FolderError):
        pipeline.run(my_songs(home), str(tmp_path / "none"), tmp_path / "run")
    with pytest.raises(SettingsError, match="not `recorded`"):
        pipeline.record(my_songs(home), str(home / "songs"))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_task_that_forgets_what_a_run_needs_cannot_be_made():
    class Forgetful(Task):
        def save(self, folder): ...

    with pytest.raises(TypeError, match="evaluate"):
        Forgetful()
