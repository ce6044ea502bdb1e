"""distill/audio/files.py: what goes in comes out, and a bad file is named."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy import signal
from test_safe_decode import m4a, stand_in_ffmpeg

from distill.audio import files as audio_files
from distill.errors import AudioError


def tone(seconds: float = 0.5, rate: int = 16000, hertz: float = 440.0) -> torch.Tensor:
    return 0.5 * torch.sin(6.2831853 * hertz * torch.arange(int(seconds * rate)) / rate)[None]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    wave_CW = tone()
    assert audio_files.write(tmp_path / "a.wav", wave_CW, 16000) == 1.0
    back_CW = audio_files.read(tmp_path / "a.wav", 16000)
    assert back_CW.shape == wave_CW.shape and back_CW.dtype == torch.float32
    assert float((back_CW - wave_CW).abs().max()) < 2 / 32768
    assert audio_files.seconds(tmp_path / "a.wav") == pytest.approx(0.5)
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_a_wave_above_full_scale_is_turned_down_not_clipped(tmp_path: Path) -> None:
    gain = audio_files.write(tmp_path / "a.wav", 4 * tone(), 16000)
    back_CW = audio_files.read(tmp_path / "a.wav", 16000)
    assert gain == pytest.approx(0.4995, abs=1e-3)
    assert float((back_CW / gain - 4 * tone()).abs().max()) < 1e-3


def test_resampling_keeps_pitch_and_length(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", tone(1.0, 44100, 1000.0).T.numpy(), 44100)
    wave_CW = audio_files.read(tmp_path / "a.flac", 16000)
    assert abs(wave_CW.shape[1] - 16000) <= 1
    assert (
        float((wave_CW[:, 2000:14000] - tone(1.0, 16000, 1000.0)[:, 2000:14000]).abs().max()) < 1e-3
    )


PAIRS = [(44_100, 24_000), (48_000, 24_000), (24_000, 16_000), (16_000, 24_000), (22_050, 24_000)]


def pure(rate: int, hertz: float) -> torch.Tensor:
    """1.5 s of a sine of full scale; its phase in float64, whose rounding nobody hears."""
    return torch.sin(
        2 * torch.pi * hertz * torch.arange(3 * rate // 2, dtype=torch.float64) / rate
    ).float()[None]


def spectrum_dB(wave_CW: torch.Tensor, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies, and levels against a sine of full scale; side lobes lie below -92 dB."""
    middle_W = wave_CW[0, rate // 4 : rate // 4 + rate].double().numpy()
    window_W = signal.windows.blackmanharris(len(middle_W))
    level_H = 2 * np.abs(np.fft.rfft(middle_W * window_W)) / window_W.sum()
    return np.fft.rfftfreq(len(middle_W), 1 / rate), 20 * np.log10(level_H + 1e-12)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_tone_of_1_khz_keeps_its_level_and_length(source: int, target: int) -> None:
    wave_CW = audio_files.resample(pure(source, 1000.0), source, target)
    assert abs(wave_CW.shape[1] - 1.5 * target) <= 1
    _, level_H = spectrum_dB(wave_CW, target)
    assert level_H.max() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_nothing_folds_or_is_mirrored_above_minus_80_db(source: int, target: int) -> None:
    """Tones that the new rate cannot hold are gone; those that both hold have no mirror image."""
    lost = [
        round(target / 2 * factor)
        for factor in (1.005, 1.1, 1.3, 1.6)
        if target * factor < 0.98 * source
    ]
    kept = [round(min(source, target) / 2 * factor) for factor in (0.1, 0.5, 0.8, 0.9)]
    for hertz in [*lost, *kept]:
        hertz_H, level_H = spectrum_dB(
            audio_files.resample(pure(source, hertz), source, target), target
        )
        away = np.abs(hertz_H - hertz) > 20
        assert level_H[away].max() < -80, hertz
        assert hertz not in kept or level_H[~away].max() == pytest.approx(0, abs=0.1)
    assert len(lost) >= (target < source)


def test_m4a_is_read_where_ffmpeg_is_and_refused_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = m4a(tmp_path / "a.m4a", 44100, 44100)
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(AudioError, match=r"needs the program ffmpeg.*install it or convert"):
        audio_files.read(path, 16000)
    monkeypatch.setenv("PATH", str(stand_in_ffmpeg(tmp_path / "bin", 44100)))
    assert audio_files.read(path, 16000).shape == (1, 16000)
    assert audio_files.decoder(path) != audio_files.decoder(tmp_path / "a.wav")


def test_channels(tmp_path: Path) -> None:
    stereo_CW = torch.cat([tone(), torch.zeros_like(tone())])
    audio_files.write(tmp_path / "a.wav", stereo_CW, 16000)
    assert float((audio_files.read(tmp_path / "a.wav", 16000) - tone() / 2).abs().max()) < 1e-3
    audio_files.write(tmp_path / "b.wav", tone(), 16000)
    assert audio_files.read(tmp_path / "b.wav", 16000, channels=2).shape == (2, 8000)
    soundfile.write(tmp_path / "c.wav", np.full((8, 3), 0.1), 16000)
    with pytest.raises(AudioError, match="3 channels"):
        audio_files.read(tmp_path / "c.wav", 16000, channels=2)


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty", b""), ("text", b"la la la " * 50), ("header", b"RIFF\x04\0\0\0WAVE")],
)
def test_not_audio(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / f"{name}.wav").write_bytes(content)
    with pytest.raises(AudioError, match=name):
        audio_files.read(tmp_path / f"{name}.wav", 16000)


def test_missing_silent_nan_and_empty(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such audio file"):
        audio_files.read(tmp_path / "none.wav", 16000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(1000), 16000)
    with pytest.raises(AudioError, match="silent"):
        audio_files.read(tmp_path / "silent.wav", 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan, 0.2]), 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        audio_files.read(tmp_path / "nan.wav", 16000)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    with pytest.raises(AudioError, match="no sound"):
        audio_files.read(tmp_path / "none.wav", 16000)


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_truncated(tmp_path: Path, ending: str) -> None:
    noise_W = np.random.default_rng(0).uniform(-0.5, 0.5, 48000)
    soundfile.write(tmp_path / f"whole.{ending}", noise_W, 16000)
    data = (tmp_path / f"whole.{ending}").read_bytes()
    (tmp_path / f"half.{ending}").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="half"):
        audio_files.read(tmp_path / f"half.{ending}", 16000)


def test_a_small_file_may_not_unpack_into_all_memory(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", tone(2.0).T.numpy(), 16000)
    with pytest.raises(AudioError, match="limit"):
        audio_files.read(tmp_path / "a.flac", 16000, largest_bytes=100_000)
    assert audio_files.read(tmp_path / "a.flac", 16000, largest_bytes=128_000).shape == (1, 32000)
    with pytest.raises(AudioError, match="limit"):
        audio_files.read(tmp_path / "a.flac", 96000, largest_bytes=128_000)


def test_a_streamed_wav_without_length_is_no_truncated_one(tmp_path: Path) -> None:
    audio_files.write(tmp_path / "a.wav", tone(), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(bytes(data))
    assert audio_files.read(tmp_path / "a.wav", 16000).shape[1] == 8000


def test_nothing_is_written_of_a_broken_wave(tmp_path: Path) -> None:
    for wave_CW in (torch.tensor([[0.1, float("nan")]]), torch.zeros(1, 0), torch.zeros(5)):
        with pytest.raises(AudioError):
            audio_files.write(tmp_path / "a.wav", wave_CW, 16000)
    assert not list(tmp_path.iterdir())
