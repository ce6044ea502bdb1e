"""The evaluation as a command, with a singer made of tones, and the page it leaves behind."""

from __future__ import annotations

import base64
import functools
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import page
import picture
import pytest
import run
import soundfile
import torch

import distill
from distill import songs
from distill.audio import spectrogram
from distill.audio.codec_format import CodecFormat
from distill.errors import SongError
from distill.measures import Performance, judge
from distill.singing import evaluate

RATE = 16_000


def tone(notes: list[tuple[float, float, float]], seconds: float) -> np.ndarray:
    clock_W = np.arange(round(seconds * RATE)) / RATE
    hertz_W = np.zeros_like(clock_W)
    for start, end, midi in notes:
        hertz_W[(clock_W >= start) & (clock_W < end)] = 440 * 2 ** ((midi - 69) / 12)
    phase_W = 2 * np.pi * np.cumsum(hertz_W) / RATE
    wave_W = 0.2 * sum(np.sin(k * phase_W) / k for k in range(1, 9)) * (hertz_W > 0)
    return wave_W.astype(np.float32)


def performance(text: str, *midi: float, offset: float = 0.0) -> Performance:
    notes = [(0.1 + 0.3 * i, 0.4 + 0.3 * i, m) for i, m in enumerate(midi)]
    sung = [(start, end, m + offset) for start, end, m in notes]
    wave_W = tone(sung, 0.2 + 0.3 * len(midi))
    return Performance(text, tuple(text.split()), tuple(notes), wave_W, RATE)


@pytest.fixture(scope="module")
def report() -> tuple[dict[str, Any], dict[str, list[Performance]]]:
    rows = {
        "codec": [
            performance("row the boat", 52, 55, 57),
            performance("down <b> stream", 50, 52, 59),
        ],
        "singer": [
            performance("row the boat", 52, 55, 57),
            performance("down <b> stream", 50, 52, 59, offset=1),
        ],
    }
    head = {"suite": "two-lines", "lines": 2, "words": {"asked": 6, "distinct": 6}}
    nats = {"nats_per_second": [1.5, 20.25], "seconds": 3.0}
    singers = {"singer": {"where": "x", "nats": nats, "kl": [0.125], "real_time_factor": 3.0}}
    return head | judge(rows, processes=1) | {"singers": singers}, rows


def test_the_page_holds_everything_it_shows(
    report: tuple[dict[str, Any], dict[str, list[Performance]]],
) -> None:
    text = page.page(*report, examples=2)
    assert not re.search(r"(src|href)=[\"'](?!data:)", text) and "<!-- " not in text
    assert "down &lt;b&gt; stream" in text and "down <b> stream" not in text
    assert "1.500 20.250" in text and "nats per second" in text and "0.125" in text
    sounds = re.findall(r"data:audio/ogg;base64,([A-Za-z0-9+/=]+)", text)
    images = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)
    assert len(sounds) == len(images) == 4
    wave_W, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert rate == spectrogram.OPUS_RATE and len(wave_W) / rate == pytest.approx(1.1, abs=0.02)
    assert text.count('class="bad"') == 3 and text.count('class="good"') == 9


def test_a_page_of_twelve_lines_is_small() -> None:
    rng = np.random.default_rng(0)
    noise_W = rng.normal(0, 0.1, 4 * RATE).astype(np.float32)  # nothing packs worse
    megabytes = (
        len(spectrogram.opus(noise_W, RATE)) + len(spectrogram.spectrogram_png(noise_W, RATE))
    ) / 2**20
    assert 12 * 3 * 4 / 3 * megabytes < 6


def test_a_spectrogram_shows_a_tone_where_the_score_is_drawn() -> None:
    image = pytest.importorskip("PIL.Image")
    wave_W = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    picture = image.open(io.BytesIO(spectrogram.spectrogram_png(wave_W, RATE)))
    level_HF = np.asarray(picture)
    assert level_HF.shape[0] == spectrogram.PICTURE_ROWS and 90 <= level_HF.shape[1] <= 100
    loudest = level_HF.astype(float).mean(1).argmax() / (spectrogram.PICTURE_ROWS - 1)
    assert 1 - loudest == pytest.approx(spectrogram.height(440), abs=0.02)


@pytest.mark.parametrize("samples", [0, 100])
def test_a_take_of_nothing_can_be_shown(samples: int) -> None:
    assert spectrogram.spectrogram_png(np.zeros(samples, np.float32), RATE).startswith(b"\x89PNG")
    assert spectrogram.opus(np.zeros(samples, np.float32), RATE).startswith(b"OggS")


def test_examples_go_from_the_worst_line_to_the_best() -> None:
    lines = [
        {"figures": {"word_error": [wrong, 4], "in_tune": [4, 4]}} for wrong in (0, 3, 1, 4, 2)
    ]
    report = {"rows": {"singer": {"per_line": lines}}}
    assert page.chosen(report, 3) == [3, 4, 0]
    assert page.chosen(report, 9) == [3, 1, 4, 2, 0]


# --- the command ----------------------------------------------------------------------------------


@dataclass
class Take:
    wave_CW: torch.Tensor
    sample_rate: int
    notes: list[tuple[float, float, float]]
    compute_seconds: float = 0.5
    stems: dict[str, torch.Tensor] = field(default_factory=dict)


class Tones:
    """A singer with a perfect codec that sings every score with a buzz, a semitone sharp."""

    codec = SimpleNamespace(
        format=CodecFormat(RATE, 25.0, (1,)),
        encode=lambda wave_CW: wave_CW,
        decode=lambda codes_FS: codes_FS,
    )

    def knows(self, language: str) -> bool:
        return language == "en"

    def sing_lines(
        self,
        lines: Any,
        styles: Any,
        voices: Any,
        seed: int,
        temperature: Any,
        language: Any = None,
    ) -> list[Take]:
        assert len(lines) == len(styles) == len(voices)
        takes = []
        for line in lines:
            # a lead-in of its own
            notes = [(note.start + 0.1, note.end + 0.1, note.midi) for note in line.notes]
            sharp = [(start, end, midi + 1) for start, end, midi in notes]
            takes.append(Take(torch.from_numpy(tone(sharp, notes[-1][1] + 0.1))[None], RATE, notes))
        return takes

    def nats(self, held_out: Any) -> dict[str, Any]:
        return {"nats_per_second": [2.25, 1.5], "songs": len(held_out)}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge within this process: starting two more takes longer than these few seconds of song."""
    monkeypatch.setattr(run, "judge", functools.partial(judge, processes=1))


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One song of three lines with notes, as a manifest; the second line begins 1.4 s into it."""
    monkeypatch.setattr(distill, "load_singer", lambda *where: Tones(), raising=False)
    monkeypatch.setattr(run, "kl", lambda singer, held_out, teacher: [0.125])
    monkeypatch.delenv("DISTILL_DATA", raising=False)
    midi = [(52, 55, 57), (50, 57, 53), (59, 50, 55)]
    lines, notes = [], []
    for i, pitches in enumerate(midi):
        own = [
            (1.4 * i + 0.2 + 0.3 * k, 1.4 * i + 0.5 + 0.3 * k, float(m))
            for k, m in enumerate(pitches)
        ]
        notes += own
        with_text = tuple(songs.Note(*note, text="l a") for note in own)
        text = ("row the boat", "down the stream", "life a dream")[i]
        lines.append(songs.Line(text, 1.4 * i, 1.4 * (i + 1), (), with_text))
    soundfile.write(tmp_path / "song.wav", tone(notes, 4.2), RATE)
    song = songs.Song(
        "a", (songs.Section("verse", tuple(lines)),), "folk", audio="song.wav", split="held-out"
    )
    songs.write_manifest(tmp_path / "manifest.jsonl", [song])
    path = tmp_path / "suite.yaml"
    path.write_text(
        f"songs: {{kind: manifest, path: {tmp_path / 'manifest.jsonl'}, split: held-out}}\n"
        "lines: 3\n"
    )
    return path


def test_the_command_judges_ceilings_and_singers_on_the_same_lines(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = ["one=embedded", "two=adapters/two", "--teacher", "embedded", "--suite", str(suite)]
    assert run.main([*asked, "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert list(report["rows"]) == ["uncoded", "codec", "one", "two"]
    assert report["rows"]["codec"]["figures"]["in_tune"] | {"low": 1, "high": 1} == {
        "value": 1.0, "low": 1, "high": 1, "hits": 9, "count": 9,
    }  # fmt: skip
    assert report["rows"]["one"]["figures"]["in_tune"]["value"] == 0
    assert report["paired"]["one"]["figures"]["in_tune"]["difference"]["value"] == -1
    assert report["singers"]["two"]["where"] == "adapters/two"
    first = report["singers"]["one"]
    assert first["nats"]["nats_per_second"] == [2.25, 1.5] and first["kl"] == [0.125]
    assert report["singers"]["one"]["real_time_factor"] == pytest.approx(3 * 1.3 / 1.5)
    assert report["words"] == {"asked": 9, "distinct": 8}
    assert (out / "report.html").stat().st_size > 10_000
    assert "in tune" in capsys.readouterr().out


def test_a_singer_that_sings_another_score_is_found_out(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stubborn(Tones):
        def sing_lines(self, *given: Any, **more: Any) -> list[Take]:
            takes = super().sing_lines(*given, **more)
            takes[0].notes[0] = (*takes[0].notes[0][:2], 99.0)
            return takes

    monkeypatch.setattr(distill, "load_singer", lambda *where: Stubborn())
    assert run.main(["--suite", str(suite), "--out", str(tmp_path / "out")]) == 2
    assert "another score" in capsys.readouterr().err


def test_fewer_lines_are_spread_over_the_songs() -> None:
    assert [evaluate.spread(range(10), 4), evaluate.spread([1, 2], 5)] == [[0, 2, 5, 7], [1, 2]]


def test_takes_of_anybody_are_judged(tmp_path: Path) -> None:
    rows = []
    for i, (text, midi) in enumerate(
        {"row the boat": (52, 55, 57), "down the stream": (50, 57, 53)}.items()
    ):
        take = performance(text, *midi)
        # stereo is averaged
        soundfile.write(tmp_path / f"{i}.wav", np.stack([take.wave_W] * 2, 1), RATE)
        rows.append({"line": text, "wav": f"{i}.wav", "notes": take.notes})
    (tmp_path / "takes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run.main(["--takes", str(tmp_path / "takes.jsonl"), "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rows"]["takes"]["figures"]["in_tune"]["hits"] == 6 and report["paired"] == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no take"),
        ("not json", "takes.jsonl:1"),
        ('{"line": "a", "notes": []}', "wav"),
        ('{"line": "a", "wav": "none.wav", "notes": []}', "cannot be read"),
    ],
)
def test_bad_takes_are_named_in_one_line(
    text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "takes.jsonl").write_text(text)
    assert run.main(["--takes", str(tmp_path / "takes.jsonl"), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert complaint in printed and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_picture_shows_every_take_on_one_scale_of_time() -> None:
    takes = [performance("row", 52), performance("row the boat", 52, 55, 57)]
    shown = picture.picture(takes)
    width, height = (int.from_bytes(shown[at : at + 4], "big") for at in (16, 20))
    assert width == 2 * spectrogram.levels(takes[1].wave_W, RATE).shape[1]
    assert height == 2 * 2 * spectrogram.PICTURE_ROWS + picture.GAP
    line = songs.Line("row the boat", 0.0, 1.0, notes=(songs.Note(0.0, 1.0, 52, "row"),))
    asked = [evaluate.Asked(line, songs.Song("s", (), voice="alto"), 0.0, 1.0)]
    assert picture.chosen(asked, "row", "al") is asked[0]
    with pytest.raises(SongError, match="no held-out line begins with 'row' in a voice 'bass'"):
        picture.chosen(asked, "row", "bass")
