"""distill/coded_songs.py: codes are made once, whole or not at all, and never read again when
anything they depend on changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from distill import coded_songs
from distill.audio import files as audio_files
from distill.audio.codec_format import CodecFormat
from distill.codecs.embedded import Settings
from distill.coded_songs import codes_of, codes_of_all
from distill.errors import AudioError, DistillError, SongError
from distill.runtime import workers
from distill.songs import Song

RATE, HOP = 8000, 80


class Loudness:
    """A codec of one or two slots: how loud every frame of 10 ms is. It remembers what it was
    given."""

    device = torch.device("cpu")

    def __init__(
        self,
        slots: int = 1,
        fingerprint: str = "one",
        tracks: tuple[str, ...] = (),
        fail_after: int = 99,
    ) -> None:
        streams = max(1, len(tracks))
        self.format = CodecFormat(
            RATE, RATE / HOP, (256,) * slots * streams, streams, tracks, streams
        )
        self.fingerprint, self.asked, self.fail_after = fingerprint, [], fail_after

    def encode(self, wave_CW: Tensor) -> Tensor:
        if len(self.asked) >= self.fail_after:
            raise RuntimeError("the power went")
        self.asked.append(wave_CW.shape)
        wave_CW = torch.nn.functional.pad(wave_CW, (0, -wave_CW.shape[1] % HOP))
        level_F = wave_CW.abs().mean(0).reshape(-1, HOP).mean(1)
        return (255 * level_F).long()[:, None].expand(-1, self.format.slots).contiguous()


class Many(Loudness):
    def encode_many(self, waves: list[Tensor]) -> list[Tensor]:
        self.batches = [*getattr(self, "batches", []), [wave_CW.shape[1] for wave_CW in waves]]
        return [self.encode(wave_CW) for wave_CW in waves]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "codes"


def song(folder: Path, name: str, seconds: float = 0.5, seed: int = 0, rate: int = RATE) -> Song:
    noise_W = np.random.default_rng(seed).uniform(-0.9, 0.9, round(seconds * rate)) * np.linspace(
        0, 1, round(seconds * rate)
    )
    soundfile.write(folder / f"{name}.flac", noise_W, rate)
    return Song(name, (), audio=str(folder / f"{name}.flac"))


def kept(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_codes_are_made_once(tmp_path: Path, cache: Path) -> None:
    codec, row = Loudness(), song(tmp_path, "a")
    first_FS, again_FS = codes_of(row, codec), codes_of(row, codec)
    assert torch.equal(first_FS, again_FS) and first_FS.dtype == again_FS.dtype == torch.int64
    assert torch.equal(first_FS, Loudness().encode(audio_files.read(row.audio, RATE)))
    assert codec.asked == [(1, RATE // 2)] and len(kept(cache)) == 1


def test_stale_codes_are_never_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = song(tmp_path, "a")
    old_FS = codes_of(row, Loudness())
    song(tmp_path, "a", seed=1)  # the same path, other bytes
    new_FS = codes_of(row, Loudness())
    assert not torch.equal(old_FS, new_FS)
    assert torch.equal(new_FS, Loudness().encode(audio_files.read(row.audio, RATE)))
    for number, codec in enumerate((Loudness(fingerprint="other weights"), Loudness(slots=2)), 3):
        codes_of(row, codec)
        assert len(codec.asked) == 1 and len(kept(cache)) == number
    for module, name in (
        (soundfile, "__libsndfile_version__"),
        (soundfile, "__version__"),
        (audio_files.soxr, "__version__"),
    ):
        codec = Loudness()
        codes_of(row, codec)
        assert codec.asked == []
        with monkeypatch.context() as patch:
            patch.setattr(module, name, "99.0")
            codes_of(row, codec)
        assert len(codec.asked) == 1
    song(tmp_path, "b", seed=1)  # other path, same bytes
    codec = Loudness()
    assert (
        torch.equal(codes_of(Song("b", (), audio=str(tmp_path / "b.flac")), codec), new_FS)
        and not codec.asked
    )


def test_tracks_are_part_of_the_name_and_become_channels(tmp_path: Path, cache: Path) -> None:
    vocals, band = song(tmp_path, "v", 0.5), song(tmp_path, "b", 0.6, seed=1)
    both = Song("x", (), audio=vocals.audio, vocals=vocals.audio, accompaniment=band.audio)
    codec = Loudness(tracks=("vocals", "accompaniment"))
    assert len(codes_of(both, codec)) == 60 and codec.asked == [(2, round(0.6 * RATE))]
    other = Loudness(tracks=("accompaniment", "vocals"))
    codes_of(both, other)
    assert len(codec.asked) == len(other.asked) == 1 and len(kept(cache)) == 2
    with pytest.raises(SongError, match="song v: it has no vocals of its own to encode"):
        codes_of(vocals, codec)


def test_interrupted_work_goes_on_where_it_stopped(tmp_path: Path, cache: Path) -> None:
    songs = [song(tmp_path, name, 0.4 + 0.1 * n, seed=n) for n, name in enumerate("abcd")]
    with pytest.raises(RuntimeError, match="power"):
        list(codes_of_all(songs, Loudness(fail_after=3), processes=0))
    assert len(kept(cache)) == 3 and {path.suffix for path in kept(cache)} == {".npy"}
    codec = Loudness()
    found = list(codes_of_all([*songs, songs[0]], codec, processes=0))
    assert len(codec.asked) == 1 and len(kept(cache)) == 4
    for row, codes_FS in zip([*songs, songs[0]], found, strict=True):
        assert torch.equal(codes_FS, Loudness().encode(audio_files.read(row.audio, RATE)))


@pytest.mark.parametrize("gpu", [False, True])
def test_songs_go_together_on_a_gpu_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    monkeypatch.setattr(coded_songs, "BATCH_SECONDS", 1.4)
    monkeypatch.setattr(Many, "device", torch.device("cuda" if gpu else "cpu"))
    lengths = (0.2, 0.5, 0.3, 0.5, 0.6, 0.5, 0.301, 1.6)
    songs = [song(tmp_path, f"s{n}", seconds, seed=n) for n, seconds in enumerate(lengths)]
    codec = Many()
    found = list(codes_of_all(songs, codec, processes=0))
    # the first one and what is longer than a batch went alone
    together = [[4800, 4000], [4000, 4000, 2408]]
    assert getattr(codec, "batches", []) == (together if gpu else [])
    assert len(codec.asked) == 8
    for row, codes_FS in zip(songs, found, strict=True):
        assert torch.equal(codes_FS, Loudness().encode(audio_files.read(row.audio, RATE)))


def test_few_songs_wait_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    songs, read = [song(tmp_path, f"s{n}", 0.2, seed=n) for n in range(8)], []
    real, codec, most = coded_songs.stems.read, Loudness(), []
    monkeypatch.setattr(
        coded_songs.stems, "read", lambda files, format: read.append(files) or real(files, format)
    )
    encode = codec.encode
    codec.encode = lambda wave_CW: most.append(len(read) - len(codec.asked)) or encode(wave_CW)  # type: ignore[method-assign]
    list(codes_of_all(songs, codec, processes=0))
    # the one being encoded, the one that showed it would not fit beside it, and those read ahead
    assert len(read) == 8 and max(most) <= coded_songs.AHEAD + 2


def test_processes_are_started_only_where_they_pay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs, dealt = [song(tmp_path, f"s{n}", 0.2, seed=n) for n in range(3)], []

    def deal(entries: Any, codec: Any, engine: workers.Local) -> None:
        dealt.append(engine.workers)
        coded_songs._encode(entries, codec)

    monkeypatch.setattr(coded_songs, "_deal", deal)
    monkeypatch.setattr(coded_songs.torch, "get_num_threads", lambda: 2)
    list(codes_of_all(songs, Loudness(fingerprint="quick")))
    assert dealt == []
    monkeypatch.setattr(coded_songs, "WORTHWHILE_SECONDS", 0.0)
    list(codes_of_all(songs, Loudness(fingerprint="slow")))
    assert dealt == [2]
    monkeypatch.setattr(Loudness, "device", torch.device("cuda"))  # which one process keeps busy
    list(codes_of_all(songs, Loudness(fingerprint="on a GPU")))
    assert dealt == [2]


def test_several_processes_give_the_same_codes_and_name_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs = [song(tmp_path, f"s{n}", 0.3 + 0.1 * n, seed=n, rate=22050) for n in range(3)]
    codec = Settings().load()
    together = list(codes_of_all(songs, codec, processes=2))
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "other"))
    for one_FS, other_FS in zip(together, codes_of_all(songs, codec, processes=0), strict=True):
        assert torch.equal(one_FS, other_FS)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "third"))
    # s0 here, the rest there
    monkeypatch.setattr(
        coded_songs.audio_files, "seconds", lambda file: 1.0 if "s0" in file else 2.0
    )
    soundfile.write(songs[2].audio, np.zeros(1000), 8000)
    with pytest.raises(AudioError, match=r"s2.flac: is silent"):
        list(codes_of_all(songs, codec, processes=2))
    monkeypatch.setattr(workers.sys, "executable", "/bin/false")
    with pytest.raises(DistillError, match="ended with status 1"):
        coded_songs._deal(coded_songs._entries([songs[1]], codec), codec, workers.Local(1))
