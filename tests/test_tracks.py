"""Songs of several tracks, and stereo: encoded apart, interleaved, mixed; a singer of stems."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_singer
import torch
from test_codec import random_network
from torch import Tensor

from distill import coded_songs, pipeline
from distill.audio import files as audio_files
from distill.audio import stems
from distill.codecs import embedded, tracks
from distill.config import recipe, settings
from distill.errors import AdapterError, CodecError, SettingsError, SongError
from distill.lm.graft import first_rows
from distill.singing import singer_folder
from distill.singing.singer import load_singer
from distill.songs import Line, Note, Section, Song, Word, read_manifest, write_manifest
from distill.tasks._singing_run import open_stage
from distill.writing.vocabulary import AudioVocabulary

RATE, HOP = 16_000, 640
BOTH = ("vocals", "accompaniment")


@pytest.fixture(scope="module")
def one_stream(tmp_path_factory) -> embedded.Settings:
    """A codec of one stream."""
    folder = tmp_path_factory.mktemp("codec")
    embedded.save_codec(random_network(), folder, ["apache-2.0"])
    return embedded.Settings(str(folder), slots=2)


def wave(channels: int, samples: int = 5 * HOP + 17, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))


# --- the codec ------------------------------------------------------------------------------------
def test_every_track_has_the_codes_it_would_have_alone(one_stream):
    alone, both = one_stream.load(), tracks.Settings(one_stream).load()
    assert both.format == tracks.Settings(one_stream).format and both.format.channels == 2
    assert both.format.slot_sizes == (32,) * 4 and both.format.levels == (0, 0, 1, 1)
    wave_CW = wave(2)
    codes_FS = both.encode(wave_CW)
    vocals_FS, accompaniment_FS = alone.encode(wave_CW[:1]), alone.encode(wave_CW[1:])
    assert torch.equal(codes_FS[:, [0, 2]], vocals_FS)
    assert torch.equal(codes_FS[:, [1, 3]], accompaniment_FS)
    decoded_CW = both.decode(codes_FS, wave_CW.shape[1])
    assert decoded_CW.shape == wave_CW.shape
    assert torch.equal(decoded_CW[:1], alone.decode(vocals_FS, wave_CW.shape[1]))
    apart = stems.apart(decoded_CW, both.format)
    assert list(apart) == list(BOTH) and torch.equal(apart["accompaniment"], decoded_CW[1:])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("names", [("vocals",), BOTH, ("audio", "vocals", "accompaniment")])
def test_the_laws_of_codecs_hold_for_any_number_of_tracks(one_stream, names, channels):
    codec = tracks.Settings(one_stream, names, channels).load()
    wide = len(names) * channels
    assert codec.format.streams == codec.format.channels == wide and codec.format.tracks == names
    for samples in (1, HOP, 2 * HOP + 1):
        wave_CW = wave(wide, samples)
        codes_FS = codec.encode(wave_CW)
        assert codes_FS.shape == (-(-samples // HOP), 2 * wide) and codes_FS.dtype == torch.int64
        assert codec.decode(codes_FS, samples).shape == wave_CW.shape
        assert torch.equal(codec.decode(codes_FS)[:, :samples], codec.decode(codes_FS, samples))
    books = codec.codebooks()
    assert [len(book_CD) for book_CD in books] == list(codec.format.slot_sizes)
    v = AudioVocabulary(64, codec.format)
    rows_ND = first_rows(
        torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), v, books, 0, "codebooks"
    )
    assert rows_ND.shape == (v.size, 16) and rows_ND.isfinite().all()
    for wrong_CW in (wave(wide + 1), wave(wide) * torch.nan):
        with pytest.raises(CodecError, match="encode"):
            codec.encode(wrong_CW)
    with pytest.raises(CodecError, match=r"slot 1 holds codes 32\.\.32"):
        codec.decode(torch.full((3, 2 * wide), 32).index_fill(1, torch.tensor([0]), 0))


def test_what_stands_in_the_middle_stays_there_and_stereo_loses_nothing(one_stream):
    alone, stereo = one_stream.load(), tracks.Settings(one_stream, ("audio",), 2).load()
    middle_CW = wave(1)
    codes_FS = stereo.encode(middle_CW.repeat(2, 1))
    assert torch.equal(codes_FS[:, 0::2], alone.encode(middle_CW))
    assert torch.equal(codes_FS[:, 1::2], alone.encode(torch.zeros_like(middle_CW)))  # no side
    wide_CW = wave(2, seed=1)
    assert torch.allclose(stereo._channels(stereo._streams(wide_CW)), wide_CW, atol=1e-6)
    # in mono: what the codec makes of the mid alone
    decoded_CW = stereo.decode(stereo.encode(wide_CW))
    mid_CW = alone.decode(alone.encode(wide_CW.mean(0, keepdim=True)))
    assert torch.allclose(decoded_CW.mean(0, keepdim=True), mid_CW, atol=1e-5)
    assert not torch.allclose(decoded_CW[:1], decoded_CW[1:])
    plain = tracks.Settings(one_stream, ("audio",), 2, "left_right").load()
    codes_FS = plain.encode(wide_CW)
    assert torch.equal(codes_FS[:, 1::2], alone.encode(wide_CW[1:]))
    assert torch.equal(plain.decode(codes_FS)[1:], alone.decode(alone.encode(wide_CW[1:])))


def test_two_settings_never_share_a_fingerprint_and_what_makes_no_sense_is_refused(one_stream):
    every = [
        tracks.Settings(one_stream, names, channels).load().fingerprint
        for names in (BOTH, BOTH[::-1], ("vocals",))
        for channels in (1, 2)
    ]
    every.append(tracks.Settings(one_stream, BOTH, 2, "left_right").load().fingerprint)
    assert len({*every, one_stream.load().fingerprint}) == 8
    assert tracks.Settings(one_stream).load().fingerprint == every[0]
    for wrong, complaint in (
        ({"codec": tracks.Settings(one_stream)}, "itself of kind tracks"),
        ({"tracks": ()}, "tracks are none; give one or more of audio, vocals, accompaniment"),
        ({"tracks": ("vocals", "drums")}, "each once"),
        ({"tracks": ("vocals", "vocals")}, "each once"),
        ({"channels": 3}, "channels is 3; give 1, or 2 for stereo"),
    ):
        with pytest.raises(SettingsError, match=complaint):
            tracks.Settings(**{"codec": one_stream, **wrong})


def test_a_codec_of_ones_own_goes_where_its_singer_goes_inside_tracks_too(one_stream, tmp_path):
    codec_row = {"kind": "tracks", **settings.plain(tracks.Settings(one_stream))}
    about = singer_folder.About(codec_row, "f", (32,), "", 1)
    beside = singer_folder.put_codec(tmp_path, about)
    assert beside.codec == {**codec_row, "codec": {**codec_row["codec"], "path": "./codec"}}
    loaded = singer_folder.codec_settings(tmp_path, beside)
    assert Path(loaded["codec"]["path"]).samefile(tmp_path / "codec")
    assert loaded["tracks"] == codec_row["tracks"]
    assert (
        replace(one_stream, path=loaded["codec"]["path"]).load().fingerprint
        == one_stream.load().fingerprint
    )
    for other in (
        {"kind": "embedded", "path": "embedded/codec"},
        {"kind": "dac", "path": "./codec"},
    ):
        # the package's own, and a folder that was never put beside it
        about = replace(about, codec=other)
        assert singer_folder.put_codec(tmp_path / "none", about) == about
        assert not (tmp_path / "none").exists()
        assert singer_folder.codec_settings(tmp_path, about) == other


# --- songs and sound ------------------------------------------------------------------------------
def song_of(folder: Path, name: str, lengths: dict[str, float], **more) -> Song:
    files = {}
    for number, (track, seconds) in enumerate(lengths.items()):
        files[track] = str(folder / f"{name}-{track}.wav")
        audio_files.write(files[track], wave(1, int(seconds * RATE), number), RATE)
    line = Line(
        "row boat", 0.0, 0.8, (Word("row", 0.1, 0.4), Word("boat", 0.4, 0.8)),
        (Note(0.12, 0.4, 60, "r o"), Note(0.4, 0.8, 62, "b o t")),
    )  # fmt: skip
    return Song(
        name, (Section("verse", (line,)),), "folk", "low", licence="CC0-1.0", **files, **more
    )


def test_songs_are_read_track_by_track_and_kept_by_every_file(one_stream, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    codec = tracks.Settings(one_stream).load()
    song = song_of(tmp_path, "a", {"audio": 1.0, "vocals": 1.0, "accompaniment": 0.5})
    wave_CW = stems.read(stems.files(song, codec.format), codec.format)
    assert wave_CW.shape == (2, RATE)
    assert not wave_CW[1, RATE // 2 :].any()
    assert wave_CW[1, : RATE // 2].any()
    codes_FS = coded_songs.codes_of(song, codec)
    assert codes_FS.shape == (25, 4) and torch.equal(codes_FS, codec.encode(wave_CW))
    assert torch.equal(
        coded_songs.codes_of(song, one_stream.load()),
        one_stream.load().encode(audio_files.read(song.audio, RATE)),
    )
    monkeypatch.setattr(codec, "encode", lambda wave: pytest.fail("codes are in the cache"))
    assert torch.equal(coded_songs.codes_of(song, codec), codes_FS)
    audio_files.write(tmp_path / "other.wav", wave(1, RATE, 9), RATE)
    with pytest.raises(pytest.fail.Exception):  # another accompaniment is another song
        coded_songs.codes_of(replace(song, accompaniment=str(tmp_path / "other.wav")), codec)
    for track in BOTH:
        with pytest.raises(
            SongError, match=rf"song a: it has no {track} of its own to encode.*separation"
        ):
            coded_songs.codes_of(replace(song, **{track: None}), codec)
    with pytest.raises(
        SongError, match="song a: it has no audio to encode; give it a recording or leave it out"
    ):
        coded_songs.codes_of(replace(song, audio=None), one_stream.load())


def test_a_mix_is_the_sum_and_never_clips(one_stream):
    format = tracks.Settings(one_stream).format
    soft_CW = 0.2 * wave(2)
    assert torch.allclose(stems.mixed(soft_CW, format), soft_CW.sum(0, keepdim=True))
    loud_CW = torch.full((2, 10), 0.9)
    assert torch.allclose(stems.mixed(loud_CW, format), torch.full((1, 10), 0.999))
    stereo = tracks.Settings(one_stream, BOTH, 2).format
    # vocals left, right, accompaniment left, right
    left_CW = torch.tensor([[0.1], [0.2], [0.3], [0.4]])
    assert torch.allclose(stems.mixed(left_CW, stereo), torch.tensor([[0.4], [0.6]]))
    assert stems.apart(wave(1), one_stream.format) == {}
    assert torch.equal(stems.mixed(wave(1), one_stream.format), wave(1))


# --- the whole way --------------------------------------------------------------------------------
RECIPE = """
task: sing
seed: 3
songs: {{kind: manifest, path: "{home}/songs/manifest.jsonl"}}
codec: {{kind: tracks, codec: {{kind: embedded, path: "{home}/codec"}}, channels: {channels}}}
base:
  path: ""
  from_scratch: {{family: llama, width: 32, inner: 48, layers: 1, heads: 2, context: 512,
           tied: true, tokenizer: bytes, pieces: 300, text: "{home}/text"}}
adapter: null
losses: [{{kind: cross_entropy}}]
writing: {{layout: delayed, max_lines: 1}}
packing: {{row_tokens: 400, rows: 2}}
train: {{steps: 3, learning_rate: 1e-2, warmup_steps: 1, precision: fp32}}
judge: {{lines: 0}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "songs").mkdir()
    embedded.save_codec(random_network(), folder / "codec", ["apache-2.0"])
    tiny_singer.text_folder(folder / "text")
    lengths = {"audio": 1.0, "vocals": 1.0, "accompaniment": 0.9}
    made = [
        song_of(folder / "songs", f"song{n}", lengths, split="held-out" if n == 2 else "train")
        for n in range(3)
    ]
    write_manifest(folder / "songs" / "manifest.jsonl", made)
    return folder


@pytest.fixture(scope="module")
def run(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_CACHE", str(home / "cache"))
        asked = recipe.parse(RECIPE.format(home=home, channels=1), "tracks")
        assert any("of 4 slots" in line for line in pipeline.check(asked))
        assert "3 steps" in pipeline.run(asked, None, home / "run")
    return home / "run"


def test_a_recipe_of_two_tracks_and_a_delay_becomes_a_singer_of_stems(home, run, tmp_path):
    rows = [json.loads(row) for row in (run / "steps.jsonl").read_text().splitlines()]
    assert {f"slot{s}.cross_entropy" for s in range(4)} <= set(rows[0]["terms"])
    assert all(np.isfinite(row["loss"]) for row in rows) and rows[-1]["loss"] < rows[0]["loss"]
    about = json.loads((run / "singer" / "singer.json").read_text())
    assert about["codec"]["kind"] == "tracks" and about["codec"]["codec"]["kind"] == "embedded"
    assert about["writing"]["layout"] == "delayed" and about["licences"]["codec"] == "apache-2.0"
    for where in (run, run / "merged"):
        singer = load_singer(where, device="cpu")
        assert singer.student.vocabulary.layout == "delayed"
        assert singer.student.vocabulary.order.delays == (0, 0, 1, 1)
        assert settings.plain(singer.about.writing)["layout"] == "delayed"
    line = Line("row boat", 0.0, 0.8, (), (Note(0.12, 0.4, 60, "r o"), Note(0.4, 0.8, 62, "b o t")))
    take = singer.sing("row boat\nrow boat", seed=1, score=[line, line])
    assert take.codes_FS.shape == (40, 4)
    assert take.wave_CW.shape == (1, 40 * HOP)
    assert list(take.stems) == list(BOTH)
    both_CW = singer.codec.decode(take.codes_FS)
    assert torch.equal(torch.cat(list(take.stems.values())), both_CW)
    assert torch.equal(take.wave_CW, stems.mixed(both_CW, singer.codec.format))
    saved = take.save_stems(tmp_path / "apart")
    assert [path.name for path in saved] == ["vocals.wav", "accompaniment.wav"]
    heard, rate = soundfile.read(saved[0])
    assert rate == RATE and abs(heard - take.stems["vocals"][0].numpy()).max() < 1e-3
    loud = {"vocals": torch.full((1, 9), 2.0), "accompaniment": torch.full((1, 9), 0.5)}
    heard = [
        soundfile.read(path)[0].mean()
        for path in replace(take, stems=loud).save_stems(tmp_path / "loud")
    ]
    assert heard[0] == pytest.approx(0.999, abs=1e-3)
    assert heard[0] / heard[1] == pytest.approx(4, abs=0.01)
    with pytest.raises(SettingsError, match="no stems"):
        replace(take, stems={}).save_stems(tmp_path / "none")


def test_songs_of_tracks_that_hold_none_out_are_not_judged_by_songs_without(
    home, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DISTILL_CACHE", str(home / "cache"))
    songs = [
        replace(song, split="train") for song in read_manifest(home / "songs" / "manifest.jsonl")
    ]
    write_manifest(home / "songs" / "all.jsonl", songs)
    text = RECIPE.format(home=home, channels=1).replace("manifest.jsonl", "all.jsonl")
    stage = open_stage(recipe.parse(text, "tracks"))
    assert len(stage.songs) == 3
    assert stage.held_out_songs == []
    assert "so none are" in capsys.readouterr().out
    head = text[: text.index("base:")].replace("task: sing", "task: vocoder")
    head += "network: {hop: 160, window: 640, width: 8, inner: 8, blocks: 1}\n"
    head += "crop_frames: 4\nbatch: 1\ntrain: {steps: 1, precision: fp32}\n"
    printed = pipeline.run(recipe.parse(head, "head"), None, tmp_path / "three")
    # the last recording was held out
    assert '"better"' in printed and "embedded held-out" not in capsys.readouterr().out
    write_manifest(home / "songs" / "all.jsonl", songs[:1])
    printed = pipeline.run(recipe.parse(head, "head"), None, tmp_path / "one")
    assert '"why": "no recording is held out' in printed and (tmp_path / "one" / "vocoder").is_dir()


def test_a_singer_whose_layout_was_changed_by_hand_is_refused(run):
    path = run / "merged" / "singer.json"
    text = path.read_text()
    try:
        path.write_text(text.replace('"layout": "delayed"', '"layout": "flat"', 1))
        with pytest.raises(
            AdapterError, match="says layout flat, its weights were trained on delayed"
        ):
            load_singer(run / "merged", device="cpu")
    finally:
        path.write_text(text)
