"""The embedded codec on disk, its quantiser, and task codec (its laws: laws/test_codecs.py)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from distill.audio import files as audio_files
from distill.codecs import embedded
from distill.codecs._network import CodecNetwork, NetworkSettings, ResidualQuantiser
from distill.errors import CodecError, FolderError, SettingsError, SongError
from distill.songs import Line, Section, Song, write_manifest
from distill.sources import manifest
from distill.tasks._sound import end_to_end
from distill.tasks.codec import CodecTask, Settings, SongBuffer, SpectralDistance

SMALL = NetworkSettings(
    codes=32, latent_width=8, encoder_widths=(24, 32), decoder_width=32, decoder_blocks=2
)


def melody(seconds: float, rate: int = 16000) -> Tensor:
    keys = torch.tensor([48, 52, 55, 60, 57, 53, 50, 47])
    key_W = keys[(torch.arange(int(seconds * rate)) // (rate // 4)) % len(keys)]
    phase_W = torch.cumsum(440 * 2 ** ((key_W - 69) / 12) / rate, 0) * 6.2831853
    return (0.1 * torch.stack([torch.sin(k * phase_W) / k for k in range(1, 9)]).sum(0))[None]


def random_network(seed: int = 0, settings: NetworkSettings = SMALL) -> CodecNetwork:
    torch.manual_seed(seed)
    network = CodecNetwork(settings)
    network.quantiser.codebooks_SCD.normal_()
    return network


def embedded_codec(folder: Path) -> embedded.EmbeddedCodec:
    embedded.save_codec(random_network(), folder)
    return embedded.Settings(str(folder), slots=2).load()


def test_the_licence_of_weights_is_stated_known_or_unknown(tmp_path: Path) -> None:
    from distill.codecs import dac, encodec, mimi, snac, tracks, xcodec

    own = embedded.Settings(str(tmp_path))
    embedded.save_codec(random_network(), tmp_path)
    assert own.terms == "unknown" and embedded.Settings().terms == "apache-2.0"
    same = own.load().fingerprint
    embedded.save_codec(random_network(), tmp_path, ["CC-BY-4.0", "CC0-1.0", "CC-BY-4.0"])
    assert own.load().fingerprint == same  # of what decides the codes, nothing else
    assert own.terms == "CC-BY-4.0, CC0-1.0" and replace(own, licence="mit").terms == "mit"
    assert (dac.Settings("44khz").terms, dac.Settings("mine.pth").terms) == ("mit", "unknown")
    assert (mimi.Settings().terms, mimi.Settings("kyutai/mimi@v1").terms) == (
        "cc-by-4.0",
        "cc-by-4.0",
    )
    assert tracks.Settings(mimi.Settings("someone/mimi")).terms == "unknown"
    assert encodec.Settings().terms == "cc-by-nc-4.0, mit"
    assert encodec.Settings("mine").terms == "cc-by-nc-4.0, unknown"
    assert (snac.Settings().terms, xcodec.Settings().terms) == ("mit", "unknown")


# --- embedded: on disk ----------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    codec = embedded_codec(tmp_path)
    again = embedded.Settings(str(tmp_path), slots=2).load()
    assert again.fingerprint == codec.fingerprint
    assert embedded.Settings(str(tmp_path), slots=2).format == codec.format
    assert embedded.Settings(str(tmp_path), slots=None).format.slot_sizes == (32,) * 4
    four_FS = embedded.Settings(str(tmp_path), slots=4).load().encode(melody(1.0))
    assert torch.equal(four_FS[:, :2], codec.encode(melody(1.0)))
    embedded.save_codec(random_network(seed=1), tmp_path)
    assert embedded.Settings(str(tmp_path)).load().fingerprint != codec.fingerprint
    with pytest.raises(CodecError, match="1 to 4"):
        embedded.Settings(str(tmp_path), slots=5).load()


def nan_weight(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "weights.safetensors")
    weights["head.out.bias"][0] = float("nan")
    safetensors.torch.save_file(weights, folder / "weights.safetensors")


def cut_weights(folder: Path) -> None:
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[: len(data) // 2])


def other_sizes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["network"]["latent_width"] = 16
    (folder / "config.json").write_text(json.dumps(config))


def later_version(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "version": 99}))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (nan_weight, "NaN"),
        (cut_weights, "cut short"),
        (other_sizes, "as in config"),
        (later_version, "version 99"),
        (lambda folder: (folder / "config.json").unlink(), "missing"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a codec's configuration"),
    ],
)
def test_a_damaged_codec_is_named(
    tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    embedded_codec(tmp_path)
    damage(tmp_path)
    with pytest.raises(CodecError, match=complaint):
        embedded.Settings(str(tmp_path)).load()


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    network = random_network()
    network.head.out.bias.data[0] = 1e6  # more than half precision holds
    with pytest.raises(CodecError, match=r"head.out.bias"):
        embedded.save_codec(network, tmp_path / "codec")
    assert not (tmp_path / "codec").exists()


def test_a_frame_reaches_no_further_than_the_context_says(tmp_path: Path) -> None:
    full = NetworkSettings(codes=32, latent_width=8, encoder_widths=(24, 32), decoder_width=32)
    embedded.save_codec(random_network(settings=full), tmp_path)
    codec = embedded.Settings(str(tmp_path)).load()
    codes_FS = codec.encode(melody(3.0))
    other_FS = codes_FS.clone()
    other_FS[40] = (other_FS[40] + 1) % 32
    differs_W = (codec.decode(codes_FS) - codec.decode(other_FS))[0].abs() > 0
    frames = differs_W.nonzero()[:, 0] // 640
    assert bool(differs_W[40 * 640 : 41 * 640].any())
    assert int(frames.min()) >= 40 - codec.context_frames
    assert int(frames.max()) <= 40 + codec.context_frames


# --- quantiser ------------------------------------------------------------------------------------


def test_the_quantiser_fills_its_codebooks_and_every_slot_helps() -> None:
    torch.manual_seed(0)
    quantiser = ResidualQuantiser(slots=3, codes=64, width=4, ring=2048)
    data_ND = torch.randn(4096, 4)
    quantiser.remember(data_ND[:1500])
    quantiser.remember(data_ND[1500:])
    quantiser.start(seed=1)
    for step in range(200):
        # the data has moved: codes must follow, dead ones restart
        batch_ND = torch.randn(256, 4) + 1.0
        codes_NS, vectors_SND = quantiser.quantise(batch_ND)
        quantiser.follow(batch_ND, codes_NS, vectors_SND, seed=step, decay=0.9)
    test_ND = torch.randn(8192, 4) + 1.0
    codes_NS, vectors_SND = quantiser.quantise(test_ND)
    errors = [float((test_ND - vectors_SND[:slots].sum(0)).square().mean()) for slots in (1, 2, 3)]
    assert errors[0] < 0.25 and errors[1] < 0.5 * errors[0] and errors[2] < 0.5 * errors[1]
    assert min(len(codes_NS[:, slot].unique()) for slot in range(3)) >= 60
    assert torch.allclose(quantiser.look_up(codes_NS), vectors_SND.sum(0))


# --- task -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Song]:
    folder = tmp_path_factory.mktemp("songs")
    songs = []
    for number, seconds in enumerate((4.0, 6.0, 0.5)):
        audio_files.write(folder / f"{number}.wav", melody(seconds), 16000)
        section = Section("verse", (Line("la"),))
        songs.append(
            Song(
                f"song-{number}",
                (section,),
                audio=str(folder / f"{number}.wav"),
                split="train" if number != 1 else "held-out",
            )
        )
    write_manifest(folder / "manifest.jsonl", songs)
    return songs


def small_task(songs: list[Song], seed: int = 3) -> CodecTask:
    settings = Settings(songs=None, network=SMALL, batch=4, crop_frames=16, unquantised=6)
    return CodecTask(settings, SongBuffer(songs, 16000, 1.0, seed), seed)


def learn(task: CodecTask, optimizer: torch.optim.Optimizer, first: int, last: int) -> list[float]:
    batches, totals = task.batches(torch.Generator().manual_seed(5), first), []
    for _ in range(first, last):
        terms = task.loss(next(batches))
        total = torch.stack(
            [task.loss_weights()[name] * sum_ / count for name, (sum_, count) in terms.items()]
        ).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    return totals


def test_the_task_learns_saves_and_evaluates(songs: list[Song], tmp_path: Path) -> None:
    task = small_task(songs)
    assert {id(p) for group in task.parameters() for p in group["params"]} == {
        id(p) for p in task.network.parameters()
    }
    totals = learn(task, torch.optim.AdamW(task.parameters(), lr=2e-3), 0, 40)
    assert bool(task.network.quantiser.started)
    assert sum(totals[-5:]) < 0.8 * sum(totals[:5])
    figures = task.evaluate([song for song in songs if song.split == "held-out"])
    assert figures["seconds"] == pytest.approx(6.0) and len(figures["mel_l1_by_slots"]) == 4
    assert all(0 < value < 5 for value in figures["mel_l1_by_slots"])
    assert all(1 <= used <= 32 for used in figures["codes_used"])
    task.save(tmp_path)
    codec = embedded.Settings(str(tmp_path), slots=4).load()
    wave_CW = melody(4.0)
    straight = task.network.quantiser.quantise(task.network.latent(wave_CW)[0])[0]
    # half precision moves few codes
    assert float((codec.encode(wave_CW) == straight).float()[:, 0].mean()) > 0.95
    held_out = [song for song in songs if song.split == "held-out"]
    # whole frames, and no more
    assert task.evaluate(2 * held_out, seconds=2.01)["seconds"] == pytest.approx(2.0)
    with pytest.raises(SongError, match="held-out"):
        task.evaluate([])


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"batch": 0}, "batch is 0; it must be 1 or more"),
        ({"crop_frames": 7}, "crop_frames is 7; it must be 8 or more"),
        ({"hours": 0.0}, r"hours is 0\.0; it must be a number above 0"),
        ({"dropout": 1.5}, "dropout"),
        ({"disturbed": -0.5}, "disturbed"),
        ({"sung_slots": 5}, "sung_slots is 5, the network has 4"),
        ({"sung_slots": 0}, "sung_slots is 0"),
    ],
)
def test_a_recipe_that_means_nothing_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        Settings(songs=None, network=SMALL, **wrong)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"slots": 0}, "slots is 0"),
        ({"hop": 660}, "multiple of 8"),
        ({"encoder_widths": (8, 8, 8)}, "give two"),
        ({"synthesis_window": 961}, "synthesis_window is 961"),
        ({"synthesis_window": 160}, "half the hop"),
        ({"pitch_window": 32}, "widen it"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        replace(SMALL, **wrong)


def test_resuming_from_state_is_exact(songs: list[Song]) -> None:
    through = small_task(songs)
    # no moments: the weights and buffers are all its state
    optimizer = torch.optim.SGD(through.parameters(), lr=1e-3)
    learn(through, optimizer, 0, 5)
    state = {name: value.clone() for name, value in through.state().items()}
    learn(through, optimizer, 5, 12)  # crosses the k-means start
    resumed = small_task(songs)
    resumed.load_state(state)
    learn(resumed, torch.optim.SGD(resumed.parameters(), lr=1e-3), 5, 12)
    assert bool(resumed.network.quantiser.started)
    for name, value in through.state().items():
        assert torch.equal(value, resumed.state()[name]), name


def test_batches_depend_on_their_number_alone_and_stay_inside_a_song(songs: list[Song]) -> None:
    task = small_task(songs)
    from_zero = task.batches(torch.Generator().manual_seed(5), 0)
    third = [next(from_zero) for _ in range(4)][3]
    again = next(task.batches(torch.Generator().manual_seed(5), 3))
    assert torch.equal(third.wave_BW, again.wave_BW) and torch.equal(third.slots_B, again.slots_B)
    assert int(third.slots_B.min()) >= 1 and int(third.slots_B.max()) <= 4
    buffer = SongBuffer(songs, 16000, 1.0, 0)
    buffer.samples_W = torch.repeat_interleave(
        torch.arange(1, 4, dtype=torch.int16), torch.diff(buffer.ends_N, prepend=torch.tensor([0]))
    )
    chance = torch.Generator().manual_seed(0)
    for _ in range(200):
        values = set(buffer.crop(10240, chance).mul(32767).round().int().tolist())
        assert len(values - {0}) == 1  # one song, then at most silence


def test_the_distance_is_zero_only_for_the_same_sound() -> None:
    distance, wave_BW = SpectralDistance(16000), melody(1.28)
    assert max(float(value) for value in distance(wave_BW, wave_BW)) < 1e-4
    quieter = [float(value) for value in distance(0.5 * wave_BW, wave_BW)]
    noisy = [float(value) for value in distance(wave_BW + 0.1 * torch.randn_like(wave_BW), wave_BW)]
    assert all(0.1 < a < b for a, b in zip(quieter, noisy, strict=True))


def test_waves_are_laid_end_to_end_and_let_go() -> None:
    for shape in ((), (2,)):
        waves = [torch.randint(99, (*shape, length)) for length in (3, 1, 5)]
        whole = torch.cat(waves, -1)
        made, ends_N = end_to_end(waves)
        assert torch.equal(made, whole) and ends_N.tolist() == [3, 4, 9] and waves == []


def test_no_song_with_audio_is_an_error() -> None:
    with pytest.raises(SongError, match="no training song"):
        SongBuffer([Song("a", (Section("verse", (Line("la"),)),))], 16000, 1.0, 0)


def test_the_manifest_source(songs: list[Song], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(songs[0].audio or "").parent
    monkeypatch.setenv("DISTILL_DATA", str(folder))
    assert [song.id for song in manifest.Settings("manifest.jsonl").load()] == [
        "song-0",
        "song-1",
        "song-2",
    ]
    held_out = manifest.Settings("manifest.jsonl", split="held-out").load()
    assert [song.id for song in held_out] == ["song-1"]
    assert len(manifest.Settings("manifest.jsonl", hours=3.0 / 3600).load()) == 1
    assert (
        len(Settings(songs=manifest.Settings("manifest.jsonl"), network=SMALL).task(0).songs.ends_N)
        == 2
    )
    with pytest.raises(FolderError, match="DISTILL_DATA"):
        manifest.Settings("none.jsonl").load()
    with pytest.raises(SongError, match="split"):
        manifest.Settings("manifest.jsonl", split="test").load()


def test_several_processes_are_refused(songs: list[Song], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_DATA", str(Path(songs[0].audio or "").parent))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="start it with one"):
        Settings(songs=manifest.Settings("manifest.jsonl"), network=SMALL).task(0)


def test_a_folder_of_manifests_is_read_whole(
    songs: list[Song], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b", "a"):
        shutil.copytree(Path(songs[0].audio or "").parent, tmp_path / "many" / name)
    (tmp_path / "many" / "none").mkdir()
    monkeypatch.setenv("DISTILL_DATA", str(tmp_path))
    many = manifest.Settings("many").load()
    assert [Path(str(song.audio)).parent.name for song in many] == ["a"] * 3 + ["b"] * 3
    with pytest.raises(FolderError, match="no such manifest"):
        manifest.Settings("many/none").load()
