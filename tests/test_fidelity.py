"""eval/fidelity.py on songs made of tones, through plain PCM, a byte a slot, with known faults."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fidelity
import fidelity_page
import likeness
import numpy as np
import pytest
import torch
from test_codec import random_network
from torch import Tensor

from distill.audio import files as audio_files
from distill.audio.codec_format import CodecFormat
from distill.codecs import embedded
from distill.songs import Line, Note, Section, Song, read_manifest, write_manifest

RATE = 16_000


class Pcm:
    """A frame is a sample of 16-bit PCM, slot 0 its high byte; `sharp` plays it too fast."""

    def __init__(self, slots: int, sharp: float) -> None:
        self.format, self.sharp, self.fingerprint = (
            CodecFormat(RATE, RATE, (256,) * slots),
            sharp,
            "pcm",
        )

    def encode(self, wave_CW: Tensor) -> Tensor:
        whole_W = (wave_CW[0].clamp(-1, 1) * 32767).round().long() + 32768
        return torch.stack([whole_W // 256, whole_W % 256], 1)[:, : self.format.slots]

    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        low_F = codes_FS[:, 1] if self.format.slots == 2 else 128
        wave_CW = ((codes_FS[:, 0] * 256 + low_F - 32768).float() / 32767)[None]
        at_W = torch.arange(wave_CW.shape[1]).mul(self.sharp).long() % wave_CW.shape[1]
        return wave_CW[:, at_W][:, :samples]


@dataclass(frozen=True)
class PcmSettings:
    slots: int | None = 1
    sharp: float = 1.0

    @property
    def format(self) -> CodecFormat:
        return self.load().format

    def load(self) -> Pcm:
        return Pcm(self.slots or 2, self.sharp)


def melody(notes: tuple[Note, ...], seconds: float) -> Tensor:
    clock_W = np.arange(round(seconds * 22050)) / 22050
    hertz_W = np.zeros_like(clock_W)
    for note in notes:
        assert note.midi is not None
        hertz_W[(clock_W >= note.start) & (clock_W < note.end)] = 440 * 2 ** ((note.midi - 69) / 12)
    phase_W = 2 * np.pi * np.cumsum(hertz_W) / 22050
    return torch.tensor(
        0.2 * sum(np.sin(k * phase_W) / k for k in range(1, 9)) * (hertz_W > 0)
    ).float()[None]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two songs of two lines in two voices, 22.05 kHz, the second one not English."""
    folder = tmp_path_factory.mktemp("songs")
    songs = []
    for name, language, lowest in (("tenor, breathy", "en", 50), ("alto", "zh", 60)):
        notes = tuple(
            Note(0.2 + 0.4 * k, 0.6 + 0.4 * k, lowest + 2 * (k % 5), "") for k in range(8)
        )
        lines = tuple(
            Line(
                text,
                notes[4 * n].start - 0.1,
                notes[4 * n + 3].end + 0.1,
                notes=notes[4 * n : 4 * n + 4],
            )
            for n, text in enumerate(("row the boat", "down the stream"))
        )
        audio_files.write(folder / f"{language}.wav", melody(notes, 3.6), 22050)
        songs.append(
            Song(
                language,
                (Section("verse", lines),),
                voice=name,
                language=language,
                audio=f"{language}.wav",
            )
        )
    write_manifest(folder / "manifest.jsonl", songs)
    return folder / "manifest.jsonl"


def run(
    monkeypatch: pytest.MonkeyPatch, out: Path, settings: Any, *arguments: str
) -> dict[str, Any]:
    monkeypatch.setattr(fidelity, "codec_settings", lambda _: settings)
    monkeypatch.setattr(fidelity.settings, "plain", lambda chosen: {"path": "pcm"})
    assert fidelity.main([*arguments, "--processes", "1", "--out", str(out)]) == 0
    return json.loads((out / "report.json").read_text())


def test_a_codec_that_keeps_everything_loses_nothing(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run(monkeypatch, tmp_path, PcmSettings(), "--songs", str(manifest), "--judged", "1,2")
    both, tenor, alto = (report["voices"][voice] for voice in ("all", "tenor", "alto"))
    assert both["2 slots"]["in_tune_before"]["count"] == 16
    assert both["2 slots"]["in_tune_before"]["value"] == 1
    for figure in ("in_tune_quotient", "still_in_tune"):
        assert both["2 slots"][figure]["value"] == both["2 slots"][figure]["low"] == 1
    assert tenor["2 slots"]["word_error_before"]["count"] == 6
    assert alto["2 slots"]["word_error_before"] is None
    assert tenor["2 slots"]["word_error_difference"] == {"value": 0, "low": 0, "high": 0}
    coarse, fine = report["likeness"]["all"]["1"], report["likeness"]["all"]["2"]
    assert fine["mel"]["value"] < 0.3 < 1 < coarse["mel"]["value"]
    assert fine["stoi"]["value"] > 0.99 > coarse["stoi"]["value"]
    assert report["rates"]["2"] == [2 * RATE, 16 * RATE / 1000]
    assert [of["frames"] for of in report["codebooks"]] == 2 * [2 * round(3.6 * RATE)]
    assert {of["slots"] for of in report["speed"]} == {1, 2}
    assert min(report["speed"][0].values()) > 0


def test_a_codec_out_of_tune_is_found_out(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharp = PcmSettings(2, 2 ** (1.5 / 12))
    report = run(
        monkeypatch, tmp_path, sharp, "--songs", str(manifest), "--slots", "2", "--lines", "2"
    )
    figures = report["voices"]["all"]["2 slots"]
    assert figures["lines"] == 2 and figures["in_tune_before"]["value"] == 1
    assert figures["in_tune_quotient"]["value"] < 0.5 and figures["still_in_tune"]["value"] < 0.5


def test_files_are_heard_in_pieces_against_their_own_pitch(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "PIECE_SECONDS", 2.0)
    file = str(manifest.parent / "en.wav")
    kept = run(monkeypatch, tmp_path / "kept", PcmSettings(2), file, "--slots", "2")
    lost = run(
        monkeypatch, tmp_path / "lost", PcmSettings(2, 2 ** (1.5 / 12)), file, "--slots", "2"
    )
    assert kept["lines"] == 2 and kept["seconds"] == pytest.approx(3.6) and kept["voices"] == {}
    assert kept["likeness"]["en"]["2"]["pitch"]["value"] > 0.95
    assert lost["likeness"]["en"]["2"]["pitch"]["value"] < 0.5
    page = (tmp_path / "kept" / "report.html").read_text()
    assert page.count("data:audio/ogg") == 4 and "<!-- " not in page


@dataclass(frozen=True)
class TwoSettings:
    """The same codec for vocals and accompaniment, the latter too fast."""

    sharp: float = 2 ** (1.5 / 12)

    @property
    def format(self) -> CodecFormat:
        return CodecFormat(RATE, RATE, (256,) * 4, 2, tracks=("vocals", "accompaniment"), streams=2)

    def load(self) -> Any:
        return TwoPcm(self)


class TwoPcm:
    def __init__(self, settings: TwoSettings) -> None:
        self.format, self.fingerprint = settings.format, "two"
        self.codecs = [Pcm(2, 1.0), Pcm(2, settings.sharp)]

    def encode(self, wave_CW: Tensor) -> Tensor:
        both = [
            codec.encode(part_CW)
            for codec, part_CW in zip(self.codecs, wave_CW.split(1), strict=True)
        ]
        return torch.stack(both, -1).flatten(1)

    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        return torch.cat(
            [codec.decode(codes_FS[:, n::2], samples) for n, codec in enumerate(self.codecs)]
        )


def test_tracks_are_heard_apart_and_in_the_mix(
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    band = (
        melody(tuple(Note(0.3 * k, 0.3 * k + 0.3, 40 + 3 * (k % 4), "") for k in range(10)), 3.2)
        / 8
    )
    audio_files.write(manifest.parent / "band.wav", band, 22050)
    songs = [
        replace(song, vocals=song.audio, accompaniment=str(manifest.parent / "band.wav"))
        for song in read_manifest(manifest)
    ]
    write_manifest(manifest.parent / "tracks.jsonl", songs)
    where = str(manifest.parent / "tracks.jsonl")
    report = run(monkeypatch, tmp_path / "out", TwoSettings(), "--songs", where)
    assert report["track"] == "vocals + accompaniment" and report["lines"] == 3 * 4
    assert list(report["voices"])[:3] == ["mix", "vocals", "accompaniment"]
    assert {"mix: tenor", "vocals: alto", "accompaniment: tenor"} < set(report["voices"])
    figures = {
        name: report["voices"][name]["4 slots"] for name in ("mix", "vocals", "accompaniment")
    }
    assert (
        figures["vocals"]["in_tune_before"]["count"]
        == figures["mix"]["in_tune_before"]["count"]
        == 16
    )
    assert figures["vocals"]["still_in_tune"]["value"] == 1 and figures["vocals"]["lines"] == 4
    assert (
        figures["accompaniment"]["in_tune_before"]
        is figures["accompaniment"]["word_error_before"]
        is None
    )
    mel = {name: report["likeness"][name]["4"]["mel"]["value"] for name in figures}
    assert mel["vocals"] < 0.3 < mel["accompaniment"]
    assert mel["vocals"] < mel["mix"] < mel["accompaniment"]
    assert len(report["codebooks"]) == 4
    for arguments in (["--songs", where, "--track", "vocals"], [str(manifest.parent / "band.wav")]):
        assert fidelity.main([*arguments, "--out", str(tmp_path / "no")]) == 2
        assert "hears vocals, accompaniment apart" in capsys.readouterr().err
    assert fidelity.main(["--songs", str(manifest), "--out", str(tmp_path / "no")]) == 2
    assert "has no vocals of its own" in capsys.readouterr().err


def test_the_page_needs_nothing_else_and_shows_every_voice(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run(
        monkeypatch,
        tmp_path,
        PcmSettings(2),
        "--songs",
        str(manifest),
        "--slots",
        "2",
        "--examples",
        "2",
    )
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert not re.search(r"(src|href)=[\"'](?!data:)", page) and "<!-- " not in page
    # two lines, before and after
    assert page.count("data:audio/ogg") == page.count("data:image/png") == 4
    shown = fidelity_page.chosen(report, report, 2)
    assert {report["voice_of_line"][number] for number in shown} == {"tenor", "alto"}
    for row in text.split("\n"):
        if row.startswith("|"):
            assert row.count("|") == row.count(" | ") + 2
    assert "| DAC 44.1 kHz, 9 slots | 775 | 7.75 |" in text
    assert "| Mimi 24 kHz, 8 slots | 100 | 1.10 |" in text


def test_a_codec_is_held_once_for_all_its_numbers_of_slots(tmp_path: Path) -> None:
    embedded.save_codec(random_network(), tmp_path)
    chosen = embedded.Settings(str(tmp_path))
    made = fidelity.codecs(chosen, None)
    assert list(made) == [1, 2, 3, 4] and len({id(codec.network) for codec in made.values()}) == 1
    wave_CW = 0.1 * torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))
    for slots, codec in made.items():
        alone = replace(chosen, slots=slots).load()
        codes_FS = alone.encode(wave_CW)
        assert codec.format == alone.format and torch.equal(codec.encode(wave_CW), codes_FS)
        assert torch.equal(codec.decode(codes_FS), alone.decode(codes_FS))


def test_of_no_note_in_tune_no_share_is_kept() -> None:
    line = {"figures": {"in_tune": (0, 2), "word_error": (1, 4)}, "pitch": {"cents": [200.0, None]}}
    rows = {row: {"per_line": [line]} for row in (fidelity.UNCODED, "1 slots")}
    report = {"rows": rows, "voice_of_line": ["alto"], "track_of_line": [""]}
    figures = fidelity.shares_by_voice(report)["alto"]["1 slots"]
    assert figures["in_tune_before"]["count"] == 2
    assert figures["word_error_difference"]["value"] == 0
    assert figures["in_tune_quotient"] is figures["still_in_tune"] is None


def test_codebook_use_is_counted() -> None:
    codes_FS = torch.tensor([[0, 3], [1, 3], [0, 3], [1, 3]])
    first, second = likeness.codebook_use([codes_FS[:1], codes_FS[1:]], (4, 4))
    assert (first["used"], first["share"], first["frames"]) == (2, 0.5, 4)
    assert first["perplexity"] == pytest.approx(2) and second["perplexity"] == pytest.approx(1)


def test_likeness_of_noise_added() -> None:
    """A gain of e is one nat of mel; more noise is a worse figure; silence is not counted."""
    rng = torch.Generator().manual_seed(0)
    wave_W = 0.1 * torch.randn(2 * RATE, generator=rng)
    total, frames = likeness.mel(wave_W, math.e * wave_W, RATE)
    assert total / frames == pytest.approx(1, abs=1e-3)
    noisy = [wave_W + level * torch.randn(len(wave_W), generator=rng) for level in (0.01, 0.1, 1.0)]
    intelligible = [likeness.stoi(wave_W, each)[0] for each in noisy]
    assert intelligible == sorted(intelligible, reverse=True)
    assert intelligible[0] > 0.9 > intelligible[2]
    assert likeness.stoi(wave_W[:1600], wave_W[:1600]) == (0.0, 0)
    if likeness.has_pesq():
        assert likeness.pesq(wave_W, wave_W)[0] > 4.6 > likeness.pesq(wave_W, noisy[2])[0]
        assert likeness.pesq(torch.zeros(RATE), torch.zeros(RATE))[1] == 0
        value, counted = likeness.pesq(wave_W, torch.zeros_like(wave_W))
        assert counted == 1 and value < 1.5  # a codec that falls silent is not left out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none.wav"], "none.wav"),
        (["--songs", "none.jsonl"], "none.jsonl"),
        (["none.wav", "--codec", "kind=dacc path=x"], "did you mean dac"),
        (["none.wav", "--codec", "nowhere"], "nowhere"),
        (["none.wav", "--judged", "7"], "slots"),
        (["none.wav", "--codec", "kind=tracks codec.kind=embedded"], "vocals, accompaniment apart"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fidelity.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert complaint in printed and printed.count("\n") == 1 and not (tmp_path / "out").exists()
