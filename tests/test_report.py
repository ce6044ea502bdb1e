"""The pages of curation: they show what the report says, run nothing that a song brings along, and
stay small."""

from __future__ import annotations

import base64
import html.parser
import io
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
from toy_steps import Level, Odd

from distill.audio import spectrogram
from distill.curation.report import index_page, song_page, templates
from distill.curation.rows import Report, Row
from distill.curation.runner import curate
from distill.curation.steps import Item, Remark, _salience
from distill.songs import Fact, Line, Note, Section, Song, Word
from distill.sources import Refusal

RATE = 16_000
SECONDS = 4.0
EVIL = "<script>alert('x')</script><!-- songs --> & \"quoted\""


def sung(midi: float = 57.0, seconds: float = SECONDS) -> np.ndarray:
    """A buzz on one key, silent in its last quarter."""
    clock_W = np.arange(round(seconds * RATE)) / RATE
    hertz = 440 * 2 ** ((midi - 69) / 12)
    wave_W = 0.1 * sum(np.sin(2 * np.pi * k * hertz * clock_W) / k for k in range(1, 12))
    return np.where(clock_W < 0.75 * seconds, wave_W, 0).astype(np.float32)


@pytest.fixture
def song(tmp_path: Path) -> Song:
    """A given line with words and notes, a guessed one, a weak one above it in time, and one
    without times."""
    path = tmp_path / "tune.wav"
    soundfile.write(path, sung(), RATE)
    words = (Word("row", 0.5, 1.0), Word("boat", 1.0, 1.5, 0.4))
    lines = (
        Line("row boat", 0.5, 1.5, words, (Note(0.5, 1.0, 57.0, "r oU"), Note(1.0, 1.5, None))),
        Line("gently", 1.5, 2.0, confidence=0.75),
    )
    other = (Line("a weak one", 1.75, 2.5, confidence=0.2), Line("nobody knows when"))
    sections = (Section("verse", lines), Section("chorus", other))
    facts = (
        Fact("key", "A minor", "music", 0.4),
        Fact("vocal_range_midi", [45, 57], "notes", 0.9),
        Fact("beats_seconds", [0.5, 1.0], "music", 0.6),
    )
    return Song("tune", sections, "folk", licence="CC0-1.0", audio=str(path), facts=facts)


def report_of(songs: Sequence[Song | Refusal], out: Path) -> Report:
    *_, report = curate(songs, [Level(), Odd("odd", "refuse")], out)
    assert isinstance(report, Report)
    return report


class Page(html.parser.HTMLParser):
    """What a browser would make of a page: its tags, with the text right behind each."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str], str]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}, ""))

    def handle_data(self, data: str) -> None:
        if self.tags:
            tag, attrs, text = self.tags[-1]
            self.tags[-1] = (tag, attrs, text + data)

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str], str]]:
        return [
            (attrs, text)
            for name, attrs, text in self.tags
            if name == tag and all(attrs.get(k.rstrip("_")) == v for k, v in wanted.items())
        ]


def style(attrs: dict[str, str], name: str) -> float:
    found = re.search(rf"(?:^|;){name}:([\d.]+)", attrs["style"])
    assert found, attrs
    return float(found[1])


# --- one song -------------------------------------------------------------------------------------
def test_a_page_needs_nothing_but_its_sound(song: Song, tmp_path: Path) -> None:
    path = index_page.write(report_of([song], tmp_path / "out"))
    for one in (path, path.parent / "pages" / "tune.html"):
        page = Page(one)
        links = [
            value
            for _, attrs, _ in page.tags
            for name, value in attrs.items()
            if name in ("src", "href")
        ]
        assert links and "<!--" not in page.source and "http" not in page.source
        for link in links:
            assert link.startswith(("data:", "#")) or (one.parent / unquote(link)).is_file(), link
    sound_W, rate = soundfile.read(path.parent / "pages" / Page(one).all("audio")[0][0]["src"])
    assert len(sound_W) / rate == SECONDS


def test_lines_and_words_lie_where_they_are_sung(song: Song, tmp_path: Path) -> None:
    report = report_of([song], tmp_path / "out")
    page = Page(index_page.write(report).parent / "pages" / "tune.html")
    bars = [(attrs, text) for attrs, text in page.all("span") if "data-start" in attrs]
    assert [(attrs["class"], text) for attrs, text in bars] == [
        ("given", "row boat"), ("guess", "gently"), ("guess weak", "a weak one"),
    ]  # fmt: skip
    places = [
        (style(attrs, "left"), style(attrs, "width"), style(attrs, "--sure")) for attrs, _ in bars
    ]
    assert places == [(12.5, 25.0, 1.0), (37.5, 12.5, 0.75), (43.75, 18.75, 0.2)]
    tops = [style(attrs, "top") for attrs, _ in bars]
    assert tops[0] == tops[1] == 0 < tops[2], "lines that overlap lie below each other"
    words = {
        text: style(attrs, "opacity") for attrs, text in page.all("span") if text in ("row", "boat")
    }
    assert words["row"] == 1 and words["boat"] == pytest.approx(0.58)
    sections = [
        (style(attrs, "left"), text)
        for attrs, text in page.all("span")
        if text in ("verse", "chorus") and "left" in attrs.get("style", "")
    ]
    assert sections == [(12.5, "verse"), (43.75, "chorus")] * 2  # at a glance, and on the strip
    assert len(page.all("tr", data_start="0.500")) == 0 and "no times" in page.source
    assert re.findall(r'tr data-start="([\d.]+)"', page.source) == ["0.500", "1.500", "1.750"]


def test_the_notes_and_the_pitch_lie_at_their_key(song: Song, tmp_path: Path) -> None:
    page = Page(
        index_page.write(report_of([song], tmp_path / "out")).parent / "pages" / "tune.html"
    )
    y = round(1000 * (1 - spectrogram.height(220)))
    assert page.all("path", class_="notes")[0][0]["d"] == f"M25 {y}h24"
    heard = page.all("path", class_="pitch")[0][0]["d"]
    start = re.match(r"M(\d+) (\d+)", heard)
    assert start and abs(int(start[2]) - y) <= 3  # 3 of 1000 are a quarter of a semitone
    # where lines are sung: 0.5 to 2.5 s
    assert 20 <= int(start[1]) <= 27 and 70 <= heard.count("l1 ") <= 100
    assert page.all("path")[2][0]["d"] == "M50 0v1M100 0v1", "beats, of 100 a second"
    elsewhere = page.all("path", class_="pitch else")[0][0]["d"]
    assert 40 <= elsewhere.count("l1 ") <= 55  # before, and until the silence at 3 s


def test_facts_and_remarks_are_told_with_how_sure_they_are(song: Song, tmp_path: Path) -> None:
    text = Page(
        index_page.write(report_of([song, replace(song, id="other")], tmp_path / "out")).parent
        / "pages"
        / "tune.html"
    ).source
    assert "A minor" in text and "0.40 (weak)" in text and "A2 to A3" in text and "0.90" in text
    assert "grouped" in text and "CC0-1.0" in text and "group level" in text
    assert "1 with given times, 2 with guessed ones, 1 with none" in text


def test_stems_have_players_and_pictures_of_their_own(song: Song, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "vocals.wav", sung(69.0), RATE)
    soundfile.write(tmp_path / "band.wav", sung(45.0, 3.0), RATE)
    song = replace(
        song, vocals=str(tmp_path / "vocals.wav"), accompaniment=str(tmp_path / "band.wav")
    )
    page = Page(
        index_page.write(report_of([song], tmp_path / "out")).parent / "pages" / "tune.html"
    )
    assert len(page.all("audio")) == len(page.all("img")) == 3
    assert [attrs["data-track"] for attrs, _ in page.all("img")] == [
        "audio",
        "vocals",
        "accompaniment",
    ]
    heard = re.match(r"M(\d+) (\d+)", page.all("path", class_="pitch")[0][0]["d"])
    assert heard and abs(int(heard[2]) - 1000 * (1 - spectrogram.height(440))) <= 3, (
        "the pitch is that of the vocals"
    )


@pytest.mark.parametrize("seconds", [0.01, 0.2, 90.0])
def test_songs_of_any_length_have_a_page(song: Song, tmp_path: Path, seconds: float) -> None:
    soundfile.write(song.audio, sung(seconds=seconds), RATE)
    soundfile.write(tmp_path / "band.wav", sung(seconds=0.5), RATE)  # a stem of another length
    page = Page(
        index_page.write(
            report_of([replace(song, accompaniment=str(tmp_path / "band.wav"))], tmp_path / "out")
        ).parent
        / "pages"
        / "tune.html"
    )
    assert len(page.all("audio")) == 2


def test_a_song_without_sound_has_a_page(song: Song, tmp_path: Path) -> None:
    path = index_page.write(report_of([replace(song, audio=None)], tmp_path / "out"))
    assert "no recording" in (path.parent / "pages" / "tune.html").read_text()


def test_the_picture_of_a_long_song_is_small() -> None:
    rng = np.random.default_rng(0)
    noise_W = rng.normal(0, 0.1, 240 * RATE).astype(np.float32)  # four minutes; nothing packs worse
    picture = spectrogram.spectrogram_png(
        noise_W, RATE, 0.02, song_page.PICTURE_COLUMNS, song_page.PICTURE_COLOURS
    )
    assert len(picture) < 200_000
    image = pytest.importorskip("PIL.Image")
    width, height = image.open(io.BytesIO(picture)).size
    assert 1000 < width <= song_page.PICTURE_COLUMNS and height == spectrogram.PICTURE_ROWS


def test_the_wave_is_drawn_as_it_is_and_once() -> None:
    wave_W = np.concatenate([np.full(500, 0.5), np.zeros(500), np.full(500, -1.0)]).astype(
        np.float32
    )
    _, paths = song_page._envelope(wave_W, 500, 3.0)
    path = re.findall(r"^M-1 100l([^z]*)z$", paths["peak"])[0]
    steps = [int(number) for number in re.findall(r"-?\d+", path)]
    x, y, points = -1, 100, []
    for right, down in zip(steps[::2], steps[1::2], strict=True):
        x, y = x + right, y + down
        points.append((x, y))
    assert (x, y) == (-1, 100)  # closed
    upper, lower = dict(points[:1500]), dict(reversed(points[1501:3001]))
    assert [upper[x] for x in (0, 499, 500, 999, 1000, 1499)] == [50, 50, 100, 100, 0, 0]
    assert all(lower[x] == 200 - upper[x] for x in range(1500))
    assert len(path) < 15_000


def test_a_picture_in_blocks_is_the_picture_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (None, 70):
        monkeypatch.setattr(spectrogram, "BLOCK_FRAMES", 10_000)
        whole = spectrogram.spectrogram_png(sung(), RATE, columns=columns)
        monkeypatch.setattr(spectrogram, "BLOCK_FRAMES", 37)
        assert spectrogram.spectrogram_png(sung(), RATE, columns=columns) == whole


def test_a_voice_is_followed_over_a_louder_band() -> None:
    clock_W = np.arange(6 * RATE) / RATE
    midi_W = 62 + 5 * np.sin(2 * np.pi * 0.3 * clock_W)  # a glide over ten semitones
    phase_W = 2 * np.pi * np.cumsum(440 * 2 ** ((midi_W - 69) / 12)) / RATE
    voice_W = sum(np.sin(k * phase_W) / k for k in range(1, 15))
    band_W = sum(np.sin(2 * np.pi * hertz * clock_W) for hertz in (55, 110, 131, 165, 220))
    found_F = _salience.track(np.asarray(0.1 * voice_W + 0.3 * band_W, np.float32))
    sung_F = midi_W[:: _salience.HOP]
    assert np.mean(np.abs(found_F[: len(sung_F)] - sung_F) < 0.5) > 0.9


# --- what a song may bring along ------------------------------------------------------------------
def test_nothing_in_a_song_runs(song: Song, tmp_path: Path) -> None:
    line = Line(EVIL, 0.5, 1.0, (Word(EVIL, 0.5, 1.0),), (), 0.5)
    evil = replace(
        song, id=EVIL, sections=(Section(EVIL, (line,)),), style=EVIL, voice=EVIL, language=EVIL,
        licence=EVIL, source=EVIL, credit=EVIL, group=EVIL, split=EVIL,
        facts=(Fact(EVIL, EVIL, EVIL, 0.5), Fact("key", {EVIL: [EVIL]}, EVIL)),
    )  # fmt: skip
    row = Row(
        EVIL,
        Item(evil),
        (Remark(EVIL, "noted", EVIL), Remark("level", "mended", EVIL)),
        4.0,
        {EVIL: 0.5},
        "key",
    )
    aside = Row(EVIL, None, (Remark(EVIL, "set aside", EVIL),))
    (tmp_path / "out").mkdir()
    path = index_page.write(Report(tmp_path / "out", (row, aside), (EVIL,), 1.0, {EVIL + "2": 0.5}))
    pages = [path, *(tmp_path / "out" / "pages").iterdir()]
    assert len(pages) == 2
    for one in pages:
        page = Page(one)
        own = Page(templates.HERE / ("index_page.html" if one == path else "song_page.html"))
        assert len(page.all("script")) == 1 == len(own.all("script")) and EVIL not in page.source
        assert not [
            attrs for _, attrs, _ in page.tags if any(name.startswith("on") for name in attrs)
        ]
        assert page.source.count("alert(") >= 5  # it is all there to be read


def test_names_that_are_no_text_do_not_stop_the_page(tmp_path: Path) -> None:
    report = report_of(
        [Refusal("s\udcff.mp3", "s\udcff.mp3: not audio; leave it out")], tmp_path / "out"
    )
    assert "s?.mp3" in index_page.write(report).read_text(encoding="utf-8")


# --- all songs ------------------------------------------------------------------------------------
def test_the_index_says_what_became_of_each(song: Song, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "low.wav", sung(45.0), RATE, subtype="FLOAT")
    songs: list[Song | Refusal] = [
        song,
        replace(song, id="odd"),
        replace(song, id="copy/of it"),
        Refusal("bad.mp3", "bad.mp3: not audio; leave it out"),
    ]
    report = report_of(songs, tmp_path / "out")
    page = Page(index_page.write(report))
    assert [attrs["data-verdict"] for attrs, _ in page.all("tr") if "data-verdict" in attrs] == [
        row.verdict for row in report.rows
    ]
    assert [attrs["data-verdict"] for attrs, _ in page.all("button")] == [
        "",
        "kept",
        "mended",
        "set aside",
    ]
    links = [attrs["href"] for attrs, _ in page.all("a")]
    assert len(links) == 2 and all((tmp_path / "out" / link).is_file() for link in links)
    text = page.source
    assert (
        "bad.mp3: not audio" in text
        and "too odd" in text
        and "grouped" in text
        and "A2 to A3" in text
    )
    assert "given, 0.47" in text or "given, 0.48" in text  # the median of 0.75 and 0.2
    assert '<td class="noted">A minor?</td>' in text, "a weak guess says so"
    stages = text[text.index("Time by stage") :]
    assert all(stage in stages for stage in ("decoding", "level, all songs", "writing"))


def test_a_thousand_songs_are_one_small_page(song: Song, tmp_path: Path) -> None:
    remarks = (
        Remark("loudness", "mended", "turned up by 3.2 dB to -16 LUFS, true peak -1.0 dB"),
        Remark("alignment", "noted", "17 lines"),
    )
    rows = tuple(
        Row(f"song {n}", Item(replace(song, id=f"song {n}")), remarks, 180.0, {"decoding": 1.0})
        for n in range(1000)
    )
    began = time.process_time()
    text = index_page.index(Report(tmp_path, rows, ("loudness",), 60.0))
    assert len(text) < 1_000_000 and time.process_time() - began < 5
    assert "50.0 h of sound" in text


def test_pages_are_made_once_and_again_when_something_changed(song: Song, tmp_path: Path) -> None:
    out = tmp_path / "out"
    songs = [song, replace(song, id="other")]

    def stamps() -> dict[str, int]:
        index_page.write(report_of(songs, out))
        return {path.name: path.stat().st_mtime_ns for path in (out / "pages").iterdir()}

    first = stamps()
    assert set(first) == {"tune.html", "other.html"} and stamps() == first
    songs[0] = replace(songs[0], style="jazz")
    second = stamps()
    assert second["tune.html"] > first["tune.html"] and second["other.html"] == first["other.html"]
    songs[1] = replace(songs[1], id="odd")  # set aside: its page goes with it
    (out / "pages" / "mine.html").write_text("<html>somebody's</html>")
    assert set(stamps()) == {"tune.html", "mine.html"}


def test_pages_do_not_depend_on_workers(song: Song, tmp_path: Path) -> None:
    report = report_of([song, replace(song, id="other")], tmp_path / "out")
    index_page.write(report)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "pages").iterdir()}
    for path in (tmp_path / "out" / "pages").iterdir():
        path.unlink()
    index_page.write(report, workers=2)
    assert {
        path.name: path.read_bytes() for path in (tmp_path / "out" / "pages").iterdir()
    } == before
    assert (
        base64.b64decode(
            re.findall(r"data:image/png;base64,([^\"]+)", before["tune.html"].decode())[0]
        )[:4]
        == b"\x89PNG"
    )
