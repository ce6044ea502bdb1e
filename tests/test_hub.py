"""A merged folder goes to a hub in one commit, comes back bit for bit, or must not go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in_hub
import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from distill import folders, hub
from distill.errors import HubError


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """A folder like the one `merge` leaves, with a very small stock model."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    with folders.atomic_folder(tmp_path / "merged") as folder:
        LlamaForCausalLM(config).save_pretrained(folder)
        (folder / "tokenizer_config.json").write_text("{}")
        about = {
            "version": 1,
            "base": "embedded/base",
            "codec": {"kind": "embedded"},
            "licences": {
                "base": "apache-2.0",
                "codec": "mit",
                "song: rows": "CC0-1.0",
                "song: boats": "cc-by-4.0, CC0-1.0",
                "teacher": "mit",
            },
            "recipe": "task: sing\nseed: 1\n",
            "styles": ["folk", "calm"],
        }
        (folder / "singer.json").write_text(json.dumps(about))
        (folder / "eval.json").write_text(
            json.dumps({"in_tune": {"share": 0.91, "interval": [0.9, 0.93]}, "lines": 60})
        )
    return tmp_path / "merged"


def change(merged: Path, **keys: object) -> None:
    """Writes keys into singer.json; the manifest goes, as it would not match."""
    about = json.loads((merged / "singer.json").read_text()) | keys
    (merged / "singer.json").write_text(json.dumps(about))
    (merged / folders.MANIFEST).unlink(missing_ok=True)


def test_what_was_pushed_comes_back(hub_server: stand_in_hub.StandInHub, merged: Path) -> None:
    pushed = hub.push(merged, "org/tiny-singer")
    back = folders.locate("org/tiny-singer")
    names = {path.relative_to(merged).as_posix() for path in merged.rglob("*") if path.is_file()}
    assert set(pushed.files) == names | {"README.md"}
    for name in names:
        assert folders.sha256_file(back / name) == folders.sha256_file(merged / name), name
    assert folders.whole(back)
    assert (back / "README.md").read_text() == pushed.card
    commits = [line for line in hub_server.asked if "/commit/" in line]
    assert commits == ["POST /api/models/org/tiny-singer/commit/main"]
    assert "POST /api/validate-yaml" in hub_server.asked
    assert hub_server.repos["org/tiny-singer"]["private"]
    ids = torch.arange(8)[None]
    with torch.no_grad():
        there = AutoModelForCausalLM.from_pretrained(back)(ids).logits
        here = LlamaForCausalLM.from_pretrained(merged)(ids).logits
    assert torch.equal(there, here)
    assert Path(snapshot_download("org/tiny-singer", revision=pushed.commit)) == back


def test_a_second_push_replaces_the_first_in_one_commit(
    hub_server: stand_in_hub.StandInHub, merged: Path
) -> None:
    first = hub.push(merged, "org/tiny-singer")
    (merged / "model.safetensors").rename(merged / "model-00001-of-00001.safetensors")
    change(merged, styles=["opera"])
    second = hub.push(merged, "org/tiny-singer")
    assert first.commit != second.commit
    held = hub_server.files("org/tiny-singer")
    assert "model.safetensors" not in held and "model-00001-of-00001.safetensors" in held
    assert b"opera" in held["README.md"]


def test_of_a_run_folder_the_merged_model_goes(merged: Path) -> None:
    (merged.parent / "steps.jsonl").write_text("")
    change(merged)
    (merged / "eval.json").unlink()
    (merged.parent / "report.json").write_text(
        '{"judged": {"shares": {"singer": {"in_tune": 0.87}}}}'
    )
    shown = hub.push(merged.parent, "org/tiny-singer", dry_run=True)
    assert "steps.jsonl" not in shown.files and "eval.json" in shown.files
    assert "| judged / shares / singer / in_tune | 0.87 |" in shown.card
    assert shown.card.count("Not measured.") == 2


def test_the_card_says_what_the_adapter_changed_and_what_is_remembered(merged: Path) -> None:
    rows = {"held_out_words": 0.021, "learnt_words": 0.034, "held_out_songs": 0.019}
    run = {"seconds": 0.4, "frames": 10, "slot0": rows, "all_slots": dict.fromkeys(rows)}
    sung = {"in_tune": 0.2, "word_error": None, "codes_changed": 0.9, "pitch_cents": 310.0}
    report = {
        "adapter": {
            "on": {"nats_per_token": [2.0, 3.0], "sung": {"in_tune": 0.9}},
            "before_training": {"kl_per_token": [4.5, 3.25], "sung": sung},
        },
        "memory": {"codes": {"training_frames": 5000, "runs": [run]}, "melodies": {}},
    }
    (merged.parent / "report.json").write_text(json.dumps(report))
    card = hub.push(merged.parent, "org/tiny-singer", dry_run=True).card
    assert "against the model before training: KL 4.5, 3.25 nats" in card
    assert "notes in tune 20% (on: 90%)" in card and "pitch 310 cents apart" in card
    assert "in runs of 0.4 s of 5,000 frames" in card and "2.1% of takes on held-out" in card
    assert "1.9% of held-out songs" in card and "Not measured." not in card


def test_the_card_says_where_the_codec_lies_and_what_its_tracks_are(merged: Path) -> None:
    def codec_row(codec: dict[str, object]) -> str:
        change(merged, codec=codec)
        card = hub.push(merged, "org/tiny-singer", dry_run=True).card
        return next(row for row in card.splitlines() if row.startswith("| codec |"))

    mimi = {"kind": "mimi", "path": "kyutai/mimi"}
    assert codec_row(mimi) == "| codec | mimi, kyutai/mimi | mit |"
    both = {"kind": "tracks", "codec": mimi, "tracks": ["vocals", "accompaniment"]}
    assert (
        codec_row(both) == "| codec | tracks (vocals, accompaniment) of mimi, kyutai/mimi | mit |"
    )
    mine = codec_row({"kind": "dac", "path": str(merged)})
    assert "in a folder of its maker" in mine and str(merged) not in mine


def test_a_codec_that_should_lie_beside_the_singer_does(merged: Path) -> None:
    own = {"kind": "embedded", "path": folders.OWN_CODEC}
    for codec in (own, {"kind": "tracks", "codec": own}):
        change(merged, codec=codec)
        with pytest.raises(HubError, match="speaks of a codec that is not there"):
            hub.push(merged, "org/tiny-singer", dry_run=True)
    with folders.atomic_folder(merged / "codec") as folder:
        (folder / "config.json").write_text("{}")
    assert "codec/config.json" in hub.push(merged, "org/tiny-singer", dry_run=True).files


def test_the_codec_of_the_package_is_under_its_licence(merged: Path) -> None:
    licences = {"base": "mit", "song": "mit"}
    change(merged, licences=licences, codec={"kind": "embedded", "path": "embedded/codec"})
    assert (
        "| codec | embedded, embedded/codec | apache-2.0 |"
        in hub.push(merged, "org/tiny-singer", dry_run=True).card
    )
    change(merged, licences=licences, codec={"kind": "dac", "path": "someone/codec"})
    with pytest.raises(HubError, match="codec is unknown"):
        hub.push(merged, "org/tiny-singer", dry_run=True)


def test_a_dry_run_shows_all_and_asks_nobody(
    hub_server: stand_in_hub.StandInHub, merged: Path
) -> None:
    shown = hub.push(merged, "org/tiny-singer", dry_run=True)
    assert shown.commit is None and hub_server.asked == []
    assert shown.files["model.safetensors"] == (merged / "model.safetensors").stat().st_size
    assert "model.safetensors" in str(shown) and "dry run" in str(shown)
    assert not (merged / "README.md").exists()


def test_the_card_is_one_that_hubs_accept(merged: Path) -> None:
    text = hub.card(merged, "org/tiny-singer", merged / "eval.json")
    assert stand_in_hub.card_problems(text) == []
    assert 'load_singer("org/tiny-singer")' in text and "$" not in text
    assert "| in_tune / share | 0.91 |" in text and "| song |  | cc0-1.0, cc-by-4.0 |" in text
    assert "```yaml\ntask: sing\nseed: 1\n```" in text and "folk, calm" in text
    assert "base_model" not in text  # an embedded base is no hub id
    change(merged, base="HuggingFaceTB/SmolLM2-135M")
    assert "base_model: HuggingFaceTB/SmolLM2-135M\nbase_model_relation: finetune" in hub.card(
        merged, "org/tiny-singer"
    )


FREE = {"base": "apache-2.0", "codec": "mit", "song": "cc0-1.0"}


@pytest.mark.parametrize(
    ("licences", "names"),
    [
        (None, "base is unknown"),
        ({**FREE, "song: x": "unknown"}, "song is unknown"),
        ({"base": "mit", "codec": "mit"}, "song is unknown"),
        ({**FREE, "song": "mit, mine"}, "song is mine"),
        ({**FREE, "teacher": ""}, "teacher is unknown"),
        ({**FREE, "teacher": "cc-by-nd-4.0"}, "teacher is under cc-by-nd-4.0"),
        ({**FREE, "base": "gemma", "song": "cc-by-nc-4.0"}, "gemma asks for the same"),
        ({**FREE, "base": "gemma", "teacher": "llama3.2"}, "asks for the same"),
    ],
)
def test_the_licence_gate_names_the_part(merged: Path, licences: object, names: str) -> None:
    change(merged, licences=licences)
    with pytest.raises(HubError, match=names):
        hub.push(merged, "org/tiny-singer", dry_run=True)


@pytest.mark.parametrize(
    ("licences", "licence"),
    [
        (FREE, "apache-2.0"),
        ({**FREE, "song": "CC-BY-NC-4.0"}, "cc-by-nc-4.0"),
        ({**FREE, "song": "cc-by-sa-4.0"}, "cc-by-sa-4.0"),
        ({**FREE, "base": "gemma"}, "gemma"),
        ({**FREE, "song": "cc-by-nc-4.0", "teacher": "cc-by-nc-sa-4.0"}, "cc-by-nc-sa-4.0"),
    ],
)
def test_the_licence_follows_from_the_parts(
    merged: Path, licences: dict[str, str], licence: str
) -> None:
    change(merged, licences=licences)
    assert f"license: {licence}\n" in hub.push(merged, "org/tiny-singer", dry_run=True).card


@pytest.mark.parametrize(
    "name", ["modeling_singer.py", "training_args.bin", "codec/weights.pt", "notes.pkl"]
)
def test_code_and_pickles_stay_at_home(merged: Path, name: str) -> None:
    (merged / name).parent.mkdir(exist_ok=True)
    (merged / name).write_bytes(b"x")
    with pytest.raises(HubError, match="never go to a hub"):
        hub.push(merged, "org/tiny-singer", dry_run=True)


def test_what_is_missing_damaged_or_remote_code_is_refused(merged: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(HubError, match="merged folder"):
        hub.push(tmp_path / "empty", "org/tiny-singer", dry_run=True)
    with pytest.raises(HubError, match="org/name"):
        hub.push(merged, "tiny-singer", dry_run=True)
    (merged / "eval.json").write_text("{}")
    with pytest.raises(HubError, match=r"damaged: eval\.json"):
        hub.push(merged, "org/tiny-singer", dry_run=True)
    config = json.loads((merged / "config.json").read_text()) | {"auto_map": {"AutoModel": "x.Y"}}
    (merged / "config.json").write_text(json.dumps(config))
    (merged / folders.MANIFEST).unlink()
    with pytest.raises(HubError, match="auto_map"):
        hub.push(merged, "org/tiny-singer", dry_run=True)


def test_a_card_of_ones_own_must_agree(hub_server: stand_in_hub.StandInHub, merged: Path) -> None:
    good = hub.card(merged, "org/tiny-singer") + "\nThank you, choir.\n"
    (merged / "README.md").write_text(good)
    assert hub.push(merged, "org/tiny-singer").card == good
    change(merged, licences={**FREE, "song": "cc-by-nc-4.0"})
    with pytest.raises(HubError, match="would allow the commercial use"):
        hub.push(merged, "org/tiny-singer")
    (merged / "README.md").write_text(good.replace("license: cc-by-4.0", "license: mine"))
    with pytest.raises(HubError, match="a licence that the hub knows"):
        hub.push(merged, "org/tiny-singer")
    (merged / "README.md").write_text("# no metadata\n")
    with pytest.raises(HubError, match="has no license"):
        hub.push(merged, "org/tiny-singer")


def test_a_public_repository_is_not_pushed_to_by_accident(
    hub_server: stand_in_hub.StandInHub, merged: Path
) -> None:
    hub.push(merged, "org/tiny-singer", private=False)
    with pytest.raises(HubError, match="public already"):
        hub.push(merged, "org/tiny-singer")


@pytest.mark.parametrize("step", ["/repos/create", "/preupload/", "/verify/", "/commit/"])
def test_a_hub_that_refuses_is_one_line_and_holds_no_half_model(
    hub_server: stand_in_hub.StandInHub, merged: Path, step: str
) -> None:
    hub_server.refuses = step
    with pytest.raises(HubError, match="the hub refused") as caught:
        hub.push(merged, "org/tiny-singer")
    assert "\n" not in str(caught.value)
    hub_server.refuses = ""
    if hub_server.repos:
        assert hub_server.files("org/tiny-singer") == {}


def test_a_hub_that_lost_a_file_is_found_out(
    hub_server: stand_in_hub.StandInHub, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = stand_in_hub.StandInHub._commit

    def forgetful(
        self: stand_in_hub.StandInHub, name: str, revision: str
    ) -> tuple[str, dict[str, str]]:
        oid, files = honest(self, name, revision)
        return oid, {path: sha for path, sha in files.items() if path != "singer.json"}

    monkeypatch.setattr(stand_in_hub.StandInHub, "_commit", forgetful)
    with pytest.raises(HubError, match=r"singer\.json is not on the hub as it was sent"):
        hub.push(merged, "org/tiny-singer")


def test_plain_processes_find_it_by_environment(
    hub_server: stand_in_hub.StandInHub, merged: Path, tmp_path: Path
) -> None:
    hub.push(merged, "org/tiny-singer")
    code = (
        "from distill import folders; print(folders.fingerprint(folders.locate('org/tiny-singer')))"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "elsewhere")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    (merged / "README.md").write_text(hub.card(merged, "org/tiny-singer", merged / "eval.json"))
    assert done.stdout.strip() == folders.fingerprint(merged)


def test_a_singer_is_loaded_from_the_hub_by_its_name(
    hub_server: stand_in_hub.StandInHub, tmp_path: Path
) -> None:
    from dataclasses import asdict

    import tiny_bases

    import distill
    from distill.codecs import embedded
    from distill.lm.merge import merge
    from distill.lm.student import graft
    from distill.singing.singer_folder import About, write_about
    from distill.writing.vocabulary import AudioVocabulary

    settings = embedded.Settings()
    codec = settings.load()
    model = tiny_bases.build(tiny_bases.config(max_position_embeddings=512))
    vocabulary = AudioVocabulary(tiny_bases.ROWS, codec.format)
    student = graft(
        model, tiny_bases.tokenizer(), vocabulary, codec.codebooks(), base="org/tiny-base"
    )
    merge(student, tmp_path / "merged")
    about = About(
        {"kind": "embedded", **asdict(settings)},
        codec.fingerprint,
        codec.format.slot_sizes,
        "org/tiny-base",
        512,
        licences={"base": "mit", "song: rows": "cc0-1.0"},
        styles=("folk",),
    )
    write_about(tmp_path / "merged", about)
    hub.push(tmp_path / "merged", "org/tiny-singer")
    notes = (distill.Note(0.2, 0.4, 60.0, "r O"), distill.Note(0.4, 0.6, 62.0, "r O"))
    line = distill.Line("row row", notes=notes)
    here = distill.load_singer(tmp_path / "merged").sing_lines([line], seed=7)[0]
    there = distill.load_singer("org/tiny-singer").sing_lines([line], seed=7)[0]
    assert torch.equal(here.codes_FS, there.codes_FS) and torch.equal(here.wave_CW, there.wave_CW)
    assert [midi for _, _, midi in there.notes if midi is not None] == [60.0, 62.0]
    assert "GET /org/tiny-singer/resolve" in " ".join(hub_server.asked)
