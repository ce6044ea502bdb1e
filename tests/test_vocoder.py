"""The vocoder head: its level, how far it hears, its folder; and the task that trains it."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny_vocoder
import torch
from torch import Tensor

from distill.audio import files as audio_files
from distill.audio.codec_format import CodecFormat
from distill.codecs import embedded, tracks
from distill.config import recipe
from distill.errors import CodecError, SettingsError, SongError
from distill.songs import Line, Section, Song
from distill.tasks._sound import compare, silence
from distill.tasks.vocoder import AdversarySettings, CodedSongs, VocoderTask, divided
from distill.training.trainer import train
from distill.vocoders import samples_a_frame
from distill.vocoders._network import HeadNetwork, HeadSettings, limit
from distill.vocoders.codec import CodecVocoder
from distill.vocoders.head import (
    CodecCard,
    HeadVocoder,
    Settings,
    load_head,
    read_config,
    save_head,
)

SONG = Song("a", (Section("verse", (Line("la"),)),))
PLAYED = AdversarySettings(start=2, periods=(3,), windows=(512,))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocoder")


@pytest.fixture(autouse=True)
def cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_CACHE", str(home / "cache"))


@pytest.fixture(scope="module")
def codec(home: Path) -> Any:
    return tiny_vocoder.codec_in(home / "codec")


@pytest.fixture(scope="module")
def songs(home: Path) -> list[Any]:
    return tiny_vocoder.songs_in(home)


def codes(frames: int, slots: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(32, (frames, slots), generator=torch.Generator().manual_seed(seed))


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "frame_rate", "channels", "head", "samples"),
    [
        (16_000, 25.0, 1, HeadSettings(hop=160, window=640), 640),
        (16_000, 50.0, 1, HeadSettings(sample_rate=24_000, hop=240, window=960), 480),
        (24_000, 12.5, 1, HeadSettings(sample_rate=48_000, hop=480, window=1920), 3840),
        (44_100, 44_100 / 512, 2, HeadSettings(hop=512, window=2048, coarse_blocks=0), 512),
        (48_000, 150.0, 2, HeadSettings(hop=320, window=1280), 320),
        (
            44_100,
            100.0,
            1,
            HeadSettings(hop=147, window=588),
            441,
        ),  # odd: the inverse STFT gives a sample too many
    ],
)
def test_any_codec_any_rate_mono_or_stereo(
    rate: int, frame_rate: float, channels: int, head: HeadSettings, samples: int
) -> None:
    format = CodecFormat(rate, frame_rate, (8, 8), channels)
    network = HeadNetwork(replace(head, width=8, inner=8, blocks=1), format, 4)
    made_CW = HeadVocoder(network, format, "x").decode(codes(30, 2) % 8)
    assert made_CW.shape == (channels, 30 * samples) and float(made_CW.abs().max()) < 1
    assert (channels == 1) or not torch.equal(made_CW[0], made_CW[1])


def test_what_does_not_divide_is_refused() -> None:
    format = CodecFormat(16_000, 25.0, (8,))
    with pytest.raises(SettingsError, match=r"hop is 150.*640 samples.*say 160"):
        HeadSettings(hop=150, window=600).for_codec(format)
    with pytest.raises(CodecError, match="no whole number of samples at 44101 Hz"):
        HeadSettings(sample_rate=44_101, hop=1, window=4).for_codec(format)
    with pytest.raises(CodecError, match="no whole number"):
        samples_a_frame(CodecFormat(16_000, 30.0, (8,)), 16_000)
    for wrong, complaint in (
        ({"window": 500}, "window is 500"),
        ({"window": 320}, "window is 320"),
        ({"sample_rate": 8000}, "16000 to 48000"),
        ({"width": 0}, "width is 0"),
        ({"coarse_blocks": -1}, "coarse_blocks"),
    ):
        with pytest.raises(SettingsError, match=complaint):
            HeadSettings(**wrong)  # type: ignore[arg-type]


# --- level ----------------------------------------------------------------------------------------


def test_the_limit_leaves_sound_alone_and_never_clips() -> None:
    quiet = torch.linspace(-0.9, 0.9, 1001)
    assert torch.equal(limit(quiet), quiet)
    loud = torch.linspace(-40, 40, 4001)
    bent = limit(loud)
    assert float(bent.abs().max()) <= 1 and bool((bent.diff() >= 0).all())
    assert torch.equal(limit(-loud), -bent)
    slope = torch.autograd.functional.jacobian(limit, torch.tensor([0.8999, 0.9001])).diagonal()
    assert float(slope[0]) == 1 and float(slope[1]) == pytest.approx(1, abs=1e-4)


def test_no_weights_make_dc_or_clip(codec: Any) -> None:
    network = tiny_vocoder.network_of(codec)
    with torch.no_grad():
        for head in network.heads:
            head.out.bias[:4] = 6.0  # an e^6 of 0 to 75 Hz, in every frame
            head.out.weight.normal_(std=0.3)
    vocoder = HeadVocoder(network, codec.format, "x")
    loud_CW = vocoder.decode(codes(200))
    assert 0.9 < float(loud_CW.abs().max()) <= 1
    before_CW = network.sound(network.slots[0](codes(200)[None, :, 0]))[0].detach()
    assert float(before_CW.abs().max()) > 0.5
    assert abs(float(before_CW.mean())) < 2e-3 * float(before_CW.square().mean().sqrt())


def test_silence_is_silent_and_what_is_near_it_is_not(codec: Any) -> None:
    still_FS = silence(codec, 10)
    assert len(still_FS) == 10 and len(still_FS.unique(dim=0)) == 1
    network = tiny_vocoder.network_of(codec)
    network.silence_S = tuple(still_FS[0].tolist())
    vocoder = HeadVocoder(network, codec.format, "x")
    assert float(vocoder.decode(still_FS.repeat(9, 1)).abs().max()) == 0  # below any dBFS
    mixed_FS = torch.cat([codes(20), still_FS.repeat(4, 1), codes(20, seed=1)])
    sound_FW = vocoder.decode(mixed_FS)[0].reshape(-1, vocoder.hop)
    level_F = sound_FW.abs().amax(1)
    assert bool((level_F[:22] > 0).all()) and bool((level_F[-22:] > 0).all())
    assert float(level_F[24:-24].max()) == 0
    steps_W = vocoder.decode(mixed_FS)[0].diff().abs()
    network.silence_S = None
    # no click
    assert float(steps_W.max()) <= 1.1 * float(vocoder.decode(mixed_FS)[0].diff().abs().max())


def test_the_ramps_of_silence_are_the_same_wherever_they_stand(codec: Any) -> None:
    network, still_S = tiny_vocoder.network_of(codec), (1, 2, 3)
    codes_FS = codes(6000)
    codes_FS[torch.arange(6000) // 10 % 2 == 0] = torch.tensor(still_S)
    whole_W = network._gain(codes_FS[None], still_S)[0, 0]
    piece_W = network._gain(codes_FS[None, 5000:5050], still_S)[0, 0]
    inner = slice(5 * network.hop, -5 * network.hop)
    assert 0.5 < float(whole_W.mean()) < 0.9
    assert set(whole_W[320::640].round(decimals=2).tolist()) == {0.0, 1.0}
    assert torch.equal(piece_W[inner], whole_W[5000 * network.hop : 5050 * network.hop][inner])


# --- how far it hears -----------------------------------------------------------------------------


def test_the_context_is_as_far_as_a_change_is_heard_and_no_farther(codec: Any) -> None:
    network = tiny_vocoder.network_of(codec).double()
    ahead = network.context_frames
    one_FS = codes(6 * ahead)
    other_FS = one_FS.clone()
    other_FS[3 * ahead] = (one_FS[3 * ahead] + 1) % 32
    with torch.no_grad():
        waves = [
            network.heads[0](
                network.backbone(
                    network.finer(
                        network.coarse(
                            network.project(
                                sum(e(c[None, :, s]) for s, e in enumerate(network.slots))
                            ).mT
                        )
                    )
                )
            )
            for c in (one_FS, other_FS)
        ]
    far = ((waves[0] - waves[1])[0].abs() > 0).nonzero()[:, 0] // network.hop - 3 * ahead
    assert int(far.min()) == -ahead and int(far.max()) == ahead


def test_safe_decode_in_blocks_is_the_network_on_the_whole(codec: Any) -> None:
    vocoder = HeadVocoder(tiny_vocoder.network_of(codec), codec.format, "x")
    codes_FS = codes(40 * vocoder.context_frames)
    with torch.inference_mode():
        whole_CW = vocoder.network(codes_FS[None])[0]
    assert float((vocoder.decode(codes_FS) - whole_CW).abs().max()) <= 1e-5


def test_a_stream_needs_no_more_memory_for_a_longer_song(codec: Any) -> None:
    vocoder = HeadVocoder(tiny_vocoder.network_of(codec), codec.format, "x")
    given: list[int] = []

    def sound(codes_FS: Tensor) -> Tensor:
        # all that is kept of what came before, seen or not
        given.append(codes_FS.untyped_storage().nbytes())
        return torch.zeros(1, len(codes_FS) * vocoder.hop)

    vocoder._sound = sound  # type: ignore[method-assign]

    def most(frames: int) -> int:
        given.clear()
        chunks, alive = (codes(25) for _ in range(frames // 25)), []
        for piece_CW in vocoder.stream(chunks):
            alive.append(weakref.ref(piece_CW))
            assert sum(piece() is not None for piece in alive) == 1
        return max(given)

    assert most(15_000) == most(500)  # 10 min and 20 s


# --- on disk --------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_for_its_codec_or_its_first_slots(
    home: Path, codec: Any, tmp_path: Path
) -> None:
    head = tiny_vocoder.head_in(tmp_path / "head", codec)
    again = Settings(str(tmp_path / "head")).load(codec)
    assert torch.equal(again.decode(codes(30)), head.decode(codes(30)))
    assert again.fingerprint == head.fingerprint
    assert read_config(tmp_path / "head")["licences"] == {
        "codec": "apache-2.0",
        "song: x": "CC0-1.0",
    }
    fewer = Settings(str(tmp_path / "head")).load(
        embedded.Settings(str(home / "codec"), slots=1).load()
    )
    assert fewer.decode(codes(30)[:, :1]).shape == (1, 30 * 640)
    with pytest.raises(CodecError, match=r"knows 3 slots.*has 4"):
        Settings(str(tmp_path / "head")).load(
            embedded.Settings(str(home / "codec"), slots=4).load()
        )
    other = tiny_vocoder.codec_in(tmp_path / "other")
    other.fingerprint = "f" * 64
    with pytest.raises(
        CodecError, match=rf"made for codec embedded {codec.fingerprint[:12]}.*ffffffffffff"
    ):
        Settings(str(tmp_path / "head")).load(other)


def nan_weight(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "weights.safetensors")
    weights["heads.0.out.bias"][0] = float("nan")
    safetensors.torch.save_file(weights, folder / "weights.safetensors")


def cut_weights(folder: Path) -> None:
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[: len(data) // 2])


def pickled(folder: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, folder / "weights.safetensors")


def config_with(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        for name, value in changes.items():
            section, _, inner = name.partition("__")
            if inner:
                config[section][inner] = value
            else:
                config[section] = value
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (nan_weight, "NaN"),
        (cut_weights, "cut short"),
        (pickled, "cut short"),
        (config_with(network__width=32), "as in config"),
        (config_with(network__blocks=3), "do not belong together"),
        (config_with(network__hop=150, network__window=600), "hop must divide"),
        (config_with(version=99), "version 99"),
        (config_with(network__width=24.5), "not this codec's configuration"),
        (config_with(latent_width=-1), "not this codec's configuration"),
        (config_with(silence=[1]), "not a vocoder head's"),
        (config_with(silence=[1, 2, 900]), "silence is"),
        (config_with(kind="os.system"), "os.system version 1"),
        (
            config_with(codec__format={"sample_rate": "x", "frame_rate": 25, "slot_sizes": [8]}),
            "not a voc",
        ),
        (config_with(network__class_path="os.system"), "not a vocoder head's"),
        (lambda folder: (folder / "config.json").unlink(), "missing"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a vocoder head's"),
    ],
)
def test_a_damaged_head_is_named(
    codec: Any, tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    tiny_vocoder.head_in(tmp_path / "head", codec)
    damage(tmp_path / "head")
    with pytest.raises(CodecError, match=complaint) as refused:
        load_head(tmp_path / "head", codec)
    assert "\n" not in str(refused.value)


def test_weights_that_are_not_finite_are_not_saved(codec: Any, tmp_path: Path) -> None:
    network = tiny_vocoder.network_of(codec)
    network.heads[0].out.bias.data[0] = 1e6  # more than half precision holds
    with pytest.raises(CodecError, match=r"heads\.0\.out\.bias"):
        save_head(
            network, tmp_path / "head", CodecCard("embedded", codec.fingerprint, codec.format), {}
        )
    assert not (tmp_path / "head").exists()


# --- task -----------------------------------------------------------------------------------------


def test_crops_are_codes_beside_their_own_sound(home: Path, codec: Any, songs: list[Any]) -> None:
    learnt = [song for song in songs if song.split == "train"]
    buffer = CodedSongs(learnt, codec, 16_000, 640, 1.0, 0)
    assert len(buffer.codes_FS) * 640 == buffer.wave_CW.shape[1] and len(buffer.ends_N) == 2
    buffer.codes_FS[:] = torch.arange(len(buffer.codes_FS), dtype=torch.int32)[:, None]
    frame_F = torch.arange(len(buffer.codes_FS), dtype=torch.int16)
    buffer.wave_CW[:] = frame_F.repeat_interleave(640)[None]
    still_FS, chance = torch.full((30, 3), -7), torch.Generator().manual_seed(0)
    padded = 0
    for _ in range(100):
        codes_FS, wave_CW = buffer.crop(still_FS, chance)
        number_F = (wave_CW.reshape(-1, 640) * 32767).round().long()
        sung_F = codes_FS[:, 0] >= 0
        assert torch.equal(number_F[sung_F], codes_FS[sung_F, :1].expand(-1, 640))
        assert bool((wave_CW.reshape(-1, 640)[~sung_F] == 0).all())
        inside_F = codes_FS[sung_F, 0]
        song_F = torch.searchsorted(buffer.ends_N, inside_F, right=True)
        assert len(song_F.unique()) == 1 and bool((inside_F.diff() == 1).all())
        padded += int((~sung_F).sum())
    assert padded > 0  # the song of half a second is shorter than a crop


def test_what_is_held_out_is_never_heard() -> None:
    def song(recording: str, split: str = "train") -> Any:
        return replace(SONG, id=recording, audio=recording, split=split)

    def audio_of(songs: list[Any], apart: bool = False) -> list[list[str | None]]:
        return [[song.audio for song in part] for part in divided(songs, apart)]

    assert audio_of([song("a"), song("b", "held-out"), song("c")]) == [["a", "c"], ["b"]]
    by_lines = [song(name, split) for name in "abc" for split in ("train", "held-out")]
    assert audio_of(by_lines) == [["a", "b"], ["c"]]
    assert audio_of([song("a"), song("b")], apart=True) == [["a", "b"], []]
    assert audio_of([song("a")]) == [["a"], []]
    assert audio_of([song(f"{n:02}") for n in range(20)])[1] == ["09", "19"]
    assert audio_of([replace(SONG, audio=None), song("a"), song("b")]) == [["a"], ["b"]]


def test_batches_depend_on_their_number_alone(home: Path, songs: list[Any], codec: Any) -> None:
    task = tiny_vocoder.task_of(home / "codec", songs, adversary=PLAYED, silence=0.3)
    from_zero = task.batches(torch.Generator().manual_seed(5), 0)
    batches = [next(from_zero) for _ in range(12)]
    again = next(task.batches(torch.Generator().manual_seed(5), 3))
    for value, value_again in zip(vars(batches[3]).values(), vars(again).values(), strict=True):
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(value_again))
    assert [batch.played for batch in batches[:4]] == [False, False, True, True]
    slots = torch.cat([batch.slots_B for batch in batches])
    assert set(slots.tolist()) == {1, 2, 3}
    silent = [not bool(wave_CW.any()) for batch in batches for wave_CW in batch.wave_BCW]
    assert 0 < sum(silent) < len(silent)


def learn(task: VocoderTask, steps: int, rate: float = 3e-3) -> list[float]:
    optimizer = torch.optim.AdamW(task.parameters(), lr=rate, betas=(0.8, 0.95))
    batches, totals = task.batches(torch.Generator().manual_seed(5), 0), []
    for _ in range(steps):
        terms = task.loss(next(batches))
        total = torch.stack([task.loss_weights()[n] * s / c for n, (s, c) in terms.items()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    return totals


def test_it_learns_saves_and_is_measured_beside_its_codec(
    home: Path, songs: list[Any], codec: Any, tmp_path: Path
) -> None:
    task = tiny_vocoder.task_of(home / "codec", songs)
    totals = learn(task, 18)
    assert sum(totals[-4:]) < 0.8 * sum(totals[:4])
    figures = task.evaluate([])
    assert figures["seconds"] == pytest.approx(6.0) and len(figures["mel_l1_by_slots"]) == 3
    assert figures["mel_l1_by_slots"][-1] == figures["head"]["mel_l1"]
    assert figures["head"]["mel_l1"] < figures["codec"]["mel_l1"]  # whose weights are random
    assert figures["head"]["silence_dbfs"] <= -60 and figures["better"] == "head"
    assert figures["head"]["peak"] <= 1 and figures["head"]["mean"] < 1e-3
    sounds = task.sounds()
    assert sounds["song"].shape == sounds["head"].shape
    task.save(tmp_path / "head")
    loaded = load_head(tmp_path / "head", task.codec)
    away_CW = loaded.decode(codes(30)) - task.vocoder().decode(codes(30))
    assert float(away_CW.abs().max()) < 1e-2  # half precision
    assert json.loads((tmp_path / "head" / "config.json").read_text())["licences"] == {
        "codec": "apache-2.0",
        f"song: {songs[0].id}": "CC0-1.0",
        f"song: {songs[2].id}": "CC0-1.0",
    }


class Stereo:
    """A codec of two channels at 16 kHz: a frame is the loudest of 16 levels a channel."""

    fingerprint = "stereo" * 10
    device = torch.device("cpu")
    format = CodecFormat(16_000, 25.0, (16, 16), 2)

    def encode(self, wave_CW: Tensor) -> Tensor:
        padded_CW = torch.nn.functional.pad(wave_CW, (0, -wave_CW.shape[1] % 640))
        return (padded_CW.reshape(2, -1, 640).abs().amax(2) * 15).round().long().clamp(0, 15).T

    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        return (codes_FS.T / 15 * 0.1).repeat_interleave(640, 1)[:, :samples]

    def codebooks(self) -> list[Tensor]:
        return [torch.arange(16.0)[:, None] / 16 * torch.ones(1, 4) for _ in range(2)]


def test_a_stereo_codec_with_a_head_at_another_rate(home: Path, songs: list[Any]) -> None:
    small = HeadSettings(sample_rate=24_000, hop=240, window=960, width=16, inner=16, blocks=1)
    settings = tiny_vocoder.settings_of(
        home / "codec", songs, network=small, dropout=0.0, silence=0.0
    )
    task = VocoderTask(settings, Stereo(), songs, 1)
    batch = next(task.batches(torch.Generator().manual_seed(5), 0))
    assert batch.wave_BCW.shape == (4, 2, 12 * 960) and batch.codes_BFS.shape == (4, 12, 2)
    totals = learn(task, 12, 1e-2)
    assert totals[-1] < totals[0]
    figures = task.evaluate([])
    assert figures["seconds"] == pytest.approx(6.0)
    assert figures["head"]["silence_dbfs"] <= -60 and figures["codec"]["mel_l1"] > 0
    assert task.vocoder().decode(codes(5, 2) % 16).shape == (2, 5 * 960)


def test_a_track_is_not_chosen_for_a_codec_that_chooses_its_own(
    home: Path, songs: list[Any]
) -> None:
    apart = tracks.Settings(embedded.Settings(str(home / "codec")))
    with pytest.raises(SettingsError, match="track is vocals"):
        replace(tiny_vocoder.settings_of(home / "codec", songs), codec=apart, track="vocals")


def test_tracks_coded_apart_are_learnt_apart(home: Path, songs: list[Any]) -> None:
    codec: Any = Stereo()
    codec.format = CodecFormat(
        16_000, 25.0, (16, 16), 2, tracks=("vocals", "accompaniment"), streams=2
    )
    codec.fingerprint = "apart" * 10
    quiet = home / "quiet.wav"
    audio_files.write(quiet, 0.1 * audio_files.read(songs[1].audio, 16_000), 16_000)
    both = replace(songs[1], split="train", vocals=songs[1].audio, accompaniment=str(quiet))
    lacking = replace(songs[0], vocals=songs[0].audio)
    frames = audio_files.read(quiet, 16_000).shape[1] // 640
    codes_FS = torch.zeros(frames, 2, dtype=torch.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.coded_songs.codes_of", lambda song, codec: codes_FS)
        buffer = CodedSongs([lacking, both], codec, 16_000, 640, 1.0, 0)
    loud, soft = buffer.wave_CW.float().square().mean(1).sqrt().tolist()
    assert len(buffer.ends_N) == 1 and soft == pytest.approx(0.1 * loud, rel=0.01)


def test_a_head_that_speaks_into_silence_is_not_better(
    home: Path, codec: Any, songs: list[Any]
) -> None:
    # nobody told it what silence is
    vocoder = HeadVocoder(tiny_vocoder.network_of(codec), codec.format, "x")
    figures = compare({"codec": vocoder, "head": vocoder}, codec, songs[:1])
    assert figures["head"]["silence_dbfs"] > -60 and figures["better"] == "codec"
    with pytest.raises(SongError, match="held-out"):
        compare({"codec": vocoder}, codec, [])


def test_seconds_are_measured_in_whole_frames_of_songs_long_enough(
    home: Path, codec: Any, songs: list[Any]
) -> None:
    vocoders: Any = {"codec": CodecVocoder(codec)}
    # the rest is less than a frame
    assert compare(vocoders, codec, songs, seconds=4.01)["seconds"] == 4
    # shorter than the windows of the distance
    audio_files.write(home / "short.wav", tiny_vocoder.melody(0.05), 16_000)
    short = replace(SONG, audio=str(home / "short.wav"))
    assert compare(vocoders, codec, [short, songs[0]])["seconds"] == 4
    with pytest.raises(SongError, match=r"0.25 s of audio"):
        compare(vocoders, codec, [short])


def test_one_backward_pass_gives_each_side_its_own_gradient(
    home: Path, songs: list[Any], codec: Any
) -> None:
    """Against the two separate passes of the paper's code."""
    task = tiny_vocoder.task_of(home / "codec", songs, adversary=replace(PLAYED, start=0), batch=1)
    assert task.adversary is not None
    batch = next(task.batches(torch.Generator().manual_seed(5), 0))
    terms = task.loss(batch)
    assert set(terms) == set(task.loss_weights()) == set(task.counts(batch))
    torch.stack([task.loss_weights()[n] * s / c for n, (s, c) in terms.items()]).sum().backward()
    together = [p.grad.clone() for p in (*task.network.parameters(), *task.adversary.parameters())]
    task.network.zero_grad()
    task.adversary.zero_grad()
    made_BW = task.network(batch.codes_BFS, batch.slots_B).flatten(0, 1)
    true_BW = batch.wave_BCW.flatten(0, 1)
    hinge, features = task.adversary.fooled(made_BW, true_BW)
    mel_B, stft_B = task.distance(made_BW, true_BW)
    (mel_B.mean() + 0.5 * stft_B.mean() + PLAYED.weight * (hinge + features)).backward()
    assert all(p.grad is None or not bool(p.grad.any()) for p in task.adversary.parameters())
    network = [p.grad.clone() for p in task.network.parameters()]
    task.network.zero_grad()
    (PLAYED.weight * task.adversary.judged(made_BW.detach(), true_BW)).backward()
    assert all(p.grad is None or not bool(p.grad.any()) for p in task.network.parameters())
    judged = [p.grad for p in task.adversary.parameters()]
    for gradient, wanted in zip(together, [*network, *judged], strict=True):
        assert wanted is not None and torch.allclose(gradient, wanted, atol=1e-6, rtol=1e-3)


def test_an_interrupted_run_goes_on_to_the_same_weights_adversary_and_all(
    home: Path, songs: list[Any], tmp_path: Path
) -> None:
    def run(folder: Path, until: int) -> VocoderTask:
        task = tiny_vocoder.task_of(
            home / "codec", songs, adversary=replace(PLAYED, periods=()), batch=2
        )
        settings = replace(task.settings.train, checkpoint_every_steps=3)
        for step in train(task, settings, folder, seed=1):
            if step.index == until:
                break
        return task

    through = run(tmp_path / "through", 99)
    run(tmp_path / "cut", 3)  # the adversary began at the third
    resumed = run(tmp_path / "cut", 99)
    assert {name.partition(".")[0] for name in through.state()} >= {
        "adversary",
        "backbone",
        "slots",
    }
    for name, value in through.state().items():
        assert torch.equal(value, resumed.state()[name]), name
    rows = [
        [
            json.loads(row)["terms"]
            for row in (tmp_path / f / "steps.jsonl").read_text().splitlines()
        ]
        for f in ("through", "cut")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 6
    assert "judged" not in rows[0][1] and rows[0][2]["judged"] > 0


@pytest.mark.parametrize("name", ["vocoder-embedded", "vocoder-dac"])
def test_the_recipes_mean_what_they_say(name: str) -> None:
    known = recipe.load(name)
    assert known.task == "vocoder" and recipe.parse(known.yaml(), name) == known


def test_the_embedded_recipe_fits_its_codec() -> None:
    settings = recipe.load("vocoder-embedded").settings
    made = settings.network.for_codec(settings.codec.format)
    assert made.sample_rate == settings.codec.format.sample_rate
