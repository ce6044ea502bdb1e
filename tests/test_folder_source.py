"""A user's folder of recordings and lyrics: what comes out of it, what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lyric_files import BOAT, mxl, note, score
from lyric_files import refused as refuses

from distill.config import settings
from distill.errors import (
    AudioError,
    DistillError,
    FolderError,
    LyricsError,
    SettingsError,
    SongError,
)
from distill.songs import Song, Word
from distill.sources import Refusal
from distill.sources._formats import clock, language_of
from distill.sources._formats.lrc import read_lrc
from distill.sources._formats.lyrics import credit
from distill.sources._formats.text import read_text
from distill.sources._formats.ultrastar import is_ultrastar
from distill.sources.folder import Settings

LRC = """\ufeff[ti:Boat]
[ar:Nobody]
[la:en-GB]
[length:00:08]

[00:01.00]Row, row, row your boat
[00:03.50]gently down the stream
[chorus]
[00:05.25]merrily, merrily
[00:07.00]
"""


def record(path: Path, seconds: float = 8.0, rate: int = 16000, **form: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)
    soundfile.write(path, wave.astype(np.float32), rate, **form)
    return path


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    record(tmp_path / "boat.wav")
    (tmp_path / "boat.lrc").write_text(LRC, encoding="utf-8")
    return tmp_path


def refused(folder: Path, error: type[DistillError], says: str, **more) -> str:
    with pytest.raises(error, match=says) as caught:
        Settings(str(folder), **more).load()
    assert "\n" not in str(caught.value) and ": " in str(caught.value) and "; " in str(caught.value)
    return str(caught.value)


def times(text: str, seconds: float = 8.0) -> list[tuple[float | None, float | None]]:
    sections = read_lrc(text, seconds, "x.lrc").sections
    return [(line.start, line.end) for section in sections for line in section.lines]


def test_a_song_with_line_times(songs: Path):
    [song] = Settings(str(songs), licence="CC0", style="folk").load()
    assert [(section.tag, len(section.lines)) for section in song.sections] == [
        ("verse", 2),
        ("chorus", 1),
    ]
    assert [(line.start, line.end) for line in song.lines] == [(1.0, 3.5), (3.5, 5.25), (5.25, 7.0)]
    assert song.lines[0].text == "Row, row, row your boat" and song.lines[0].words == ()
    assert (song.id, song.credit, song.language, song.licence, song.style) == (
        "boat",
        "Boat by Nobody",
        "en-GB",
        "CC0",
        "folk",
    )
    assert song.audio == str((songs / "boat.wav").resolve()) and song.split == "train"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.wav", {}),
        ("a.FLAC", {"format": "FLAC"}),
        ("a.ogg", {}),
        ("a.mp3", {}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
    ],
)
def test_every_kind_of_recording(tmp_path: Path, name: str, form: dict[str, Any]):
    record(tmp_path / name, **form)
    (tmp_path / "a.lrc").write_text("[00:01]la la\n[00:02.5]oh", encoding="utf-8")
    [song] = Settings(str(tmp_path)).load()
    assert song.lines[0].end == 2.5
    assert song.lines[-1].end == pytest.approx(8.0, abs=0.2)  # with the recording


def test_plain_lyrics_have_no_times(tmp_path: Path):
    record(tmp_path / "deep" / "a.wav", 1.0)
    (tmp_path / "deep" / "a.txt").write_text(
        "[verse]\nrow row\n[chorus]\nmerrily", encoding="utf-8"
    )
    (tmp_path / "readme.txt").write_text("about this folder", encoding="utf-8")
    [song] = Settings(str(tmp_path)).load()
    assert song.id == "deep/a" and song.text == "[verse]\nrow row\n[chorus]\nmerrily"
    assert all(line.start is None and line.end is None for line in song.lines)


def test_timed_lyrics_win_over_plain_ones(songs: Path):
    (songs / "boat.txt").write_text("other", encoding="utf-8")
    assert Settings(str(songs)).load()[0].lines[0].start == 1.0


def test_words_with_times():
    text = (
        "[00:01.00]<00:01.00>row <00:01.50>row <00:02.00>your boat<00:02.75>\n"
        "[00:04.00]la <00:05.00>la"
    )
    sections = read_lrc(text, 8.0, "x.lrc").sections
    first, second = sections[0].lines
    assert first.text == "row row your boat" and (first.start, first.end) == (1.0, 2.75)
    assert first.words == (
        Word("row", 1.0, 1.5),
        Word("row", 1.5, 2.0),
        Word("your boat", 2.0, 2.75),
    )
    assert second.words == (Word("la", 4.0, 5.0), Word("la", 5.0, 8.0))


def test_stamps_of_every_form():
    assert times("[00:01]la\n[0:02.5]la\n[00:03.250]la\n[00:04:75]la") == [
        (1, 2.5),
        (2.5, 3.25),
        (3.25, 4.75),
        (4.75, 8),
    ]
    # a line sung twice
    assert times("[00:05.00][00:01.00]la la\n[00:03.00]oh") == [(1, 3), (3, 5), (5, 8)]
    assert times("[offset:+500]\n[00:01.00]la\n[00:02.00]oh") == [(0.5, 1.5), (1.5, 8)]
    assert times("[offset:-500]\n[00:01.00]la") == [(1.5, 8)]
    # what cannot be sung ends a line
    assert times("[00:01.00]la\n[00:02.00]\u266a\n[00:08.30]") == [(1, 2)]
    assert clock(62.5) == "01:02.50"


def test_a_tag_named_again_is_a_new_section():
    sections = read_lrc("[verse]\n[00:01.00]la\n[verse 2]\n[00:02.00]oh", 8.0, "x.lrc").sections
    assert [(section.tag, len(section.lines)) for section in sections] == [
        ("verse", 1),
        ("verse", 1),
    ]


def test_a_section_with_a_time_is_not_sung():
    text = (
        "[00:01.00][Verse 1]\n[00:02.00]row row\n[00:04.00] [Chorus: Ann]\n[00:05.00]oh\n"
        "[Bridge: both]\n[00:06.00]la\n[00:07.00][outro] ah\n"
    )
    read = read_lrc(text, 8.0, "x.lrc")
    sections = [
        (s.tag, [(line.text, line.start, line.end) for line in s.lines]) for s in read.sections
    ]
    assert sections == [
        ("verse", [("row row", 2, 4)]), ("chorus", [("oh", 5, 6)]), ("bridge", [("la", 6, 7)]),
        ("outro", [("ah", 7, 8)]),
    ]  # fmt: skip


def test_words_timed_in_square_brackets():
    square = "[00:01.00]row [00:01.50]row [00:02.00]your boat[00:02.75]\n[00:04.00]la"
    angled = "[00:01.00]row <00:01.50>row <00:02.00>your boat<00:02.75>\n[00:04.00]la"
    read = read_lrc(square, 8.0, "x.lrc")
    assert read == read_lrc(angled, 8.0, "x.lrc")
    line = read.sections[0].lines[0]
    assert line.text == "row row your boat"
    assert line.words[1] == Word("row", 1.5, 2.0)
    assert line.end == 2.75


def test_who_wrote_the_words_and_in_which_language():
    about = read_lrc("[au:Ann]\n[by:Bob]\n[la:English]\n[00:01.00]la", 8.0, "x.lrc").about
    assert about["language"] == "en" and credit(about) == "words by Ann; timed by Bob"
    tags = ("EN", "zh_CN", "German (Swiss), French", "Klingon!", "")
    assert [language_of(tag) for tag in tags] == ["en", "zh-CN", "de", "", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str):
    record(tmp_path / "a.wav", 1.0)
    (tmp_path / "a.txt").write_text("la tristeza es muy extraña", encoding=encoding)
    assert Settings(str(tmp_path)).load()[0].lines[0].text == "la tristeza es muy extraña"


def test_last_lines_are_held_out(songs: Path):
    train, held_out = Settings(str(songs), held_out_lines=2).load()
    assert (train.id, train.split, held_out.id, held_out.split) == (
        "boat#train",
        "train",
        "boat#held-out",
        "held-out",
    )
    assert [line.start for line in train.lines] == [1.0]
    assert [(section.tag, section.lines[0].start) for section in held_out.sections] == [
        ("verse", 3.5),
        ("chorus", 5.25),
    ]
    assert train.audio == held_out.audio


def test_settings_are_a_recipe_part(songs: Path):
    [song] = settings.parse(f"folder: {songs}\nlanguage: es", Settings).load()
    assert song.language == "en-GB"  # the file knows better
    with pytest.raises(SettingsError, match="SONGS=FOLDER"):
        Settings().load()


def test_folders_that_hold_no_songs(tmp_path: Path, songs: Path):
    refused(tmp_path / "none", FolderError, "no such folder")
    (tmp_path / "bare").mkdir()
    refused(tmp_path / "bare", FolderError, "no recording")
    refused(songs, SettingsError, "negative", held_out_lines=-1)
    refused(songs, SongError, "3 lines leave none", held_out_lines=3)
    record(songs / "boat.flac")
    refused(songs, SongError, "one recording of a name")


def test_recordings_and_lyrics_must_meet(songs: Path):
    record(songs / "lost.wav", 1.0)
    assert "lost.lrc or lost.txt" in refused(songs, SongError, "no lyrics beside it")
    (songs / "lost.wav").rename(songs / "found.wav")
    (songs / "found.txt").write_text("la", encoding="utf-8")
    (songs / "lone.lrc").write_text("[00:01]la", encoding="utf-8")
    refused(songs, SongError, "no recording of this name")
    (songs / "lone.lrc").unlink()
    refused(songs, SongError, "no times to hold lines out by", held_out_lines=1)


def test_recordings_that_are_none(songs: Path):
    (songs / "boat.wav").write_bytes(b"")
    refused(songs, AudioError, "boat.wav")
    (songs / "boat.wav").write_bytes(b"not audio" * 99)
    refused(songs, AudioError, "boat.wav")
    record(songs / "boat.wav", 0.0)
    refused(songs, AudioError, "no sound")


def test_ultrastar_headers_in_any_order(tmp_path: Path):
    record(tmp_path / "x.wav")
    record(tmp_path / "x.vocals.wav")
    text = "#CREATOR:Ann\n#YEAR:1850\n\n" + BOAT.replace("boat.wav", "X.WAV")
    (tmp_path / "boat.txt").write_text(text, encoding="utf-8")
    [song] = Settings(str(tmp_path)).load()
    assert song.lines[0].text == "Row, row your boat"
    assert song.audio == str((tmp_path / "x.wav").resolve())
    assert song.vocals == str((tmp_path / "x.vocals.wav").resolve())
    assert not is_ultrastar("# to be sung: slowly\n#TITLE\nla la")


def test_rights_of_a_song_that_is_refused_are_not_called_unused(songs: Path):
    (songs / "bad.mp3").write_bytes(b"not sound")
    (songs / "rights.csv").write_text(
        "file,licence\nbad.mp3,CC0-1.0\nboat,CC0-1.0\n", encoding="utf-8"
    )
    scanned = list(Settings(str(songs)).scan())
    assert [song.name for song in scanned if isinstance(song, Refusal)] == ["bad"]


def test_hidden_folders_hold_no_songs(songs: Path):
    record(songs / ".trash" / "old.wav")
    assert [song.id for song in Settings(str(songs)).load()] == ["boat"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no timed line"),
        ("[ti:x]\n[00:01.00]\n", "no timed line"),
        ("row row", r"boat.lrc:1: no time that can be read before 'row row'"),
        ("[00:01.00]la\nrow", r"boat.lrc:2: no time"),
        ("[0x:01]la", "no time that can be read"),
        ("[00:75.00]la", "boat.lrc:1: 00:75.00 is no time"),
        (
            "[00:01.00]la\n[00:09.00]oh",
            r"boat.lrc:2: 00:09.00 is beyond the recording \(00:08.00\)",
        ),
        ("[00:01.00]la\n[12:00.00]", "beyond the recording"),
        ("[00:01.00]la\n[00:01.00]oh", "another line starts at 00:01.00 too"),
        ("[00:01.00]<00:02.00>la <00:01.50>oh", "do not grow"),
        ("[00:03.00]<00:02.00>la", "do not grow"),
        ("[00:01.00]<00:xx>la", "is no time"),
        ("[offset:soon]\n[00:01.00]la", "no number of milliseconds"),
        ("".join(f"[00:0{n % 8}.{n:04d}]la la la la "
                 "la\n" for n in range(5000)), "no time that can be read"),
        ("[00:01.00]" + "la " * 40_000, "characters of lyrics"),
    ],
)  # fmt: skip
def test_lyrics_that_cannot_be_timed(songs: Path, text: str, says: str):
    (songs / "boat.lrc").write_text(text, encoding="utf-8")
    refused(songs, LyricsError, says)


def test_plain_lyrics_that_cannot_be_sung(tmp_path: Path):
    record(tmp_path / "a.wav", 1.0)
    lyrics = tmp_path / "a.txt"
    for content, says in (
        (b"", "empty"),
        ("\U0001f3b5".encode(), "no letter"),
        (b"la " * 40_000, "120,000 characters"),
        (b"la " * 400_000, "1,200,000 bytes"),
        (b"la\0la", "not text"),
    ):
        lyrics.write_bytes(content)
        assert "a.txt: " in refused(tmp_path, LyricsError, says)


def test_codec_tokens_in_lyrics_stay_text(tmp_path: Path):
    record(tmp_path / "a.wav")
    (tmp_path / "a.lrc").write_text("[00:01.00]<custom_token_5> I <3 row", encoding="utf-8")
    [line] = Settings(str(tmp_path)).load()[0].lines
    assert line.text == "<custom_token_5> I <3 row" and line.words == ()


# --- other forms, stems, rights, and a scan that goes on ---
def test_a_folder_of_every_form(tmp_path: Path):
    for name in ("star", "score", "packed", "stamped", "typed"):
        record(tmp_path / f"{name}.wav")
    content = score(note("C", 4, 2, "la"), head="<movement-title>Hymn</movement-title>")
    (tmp_path / "star.txt").write_text(BOAT, encoding="utf-8")
    (tmp_path / "score.xml").write_bytes(content)
    (tmp_path / "packed.mxl").write_bytes(mxl(content))
    (tmp_path / "stamped.lrc").write_text("[by:Someone]\n[00:01.00]la", encoding="utf-8")
    (tmp_path / "stamped.musicxml").write_bytes(content)
    (tmp_path / "typed.txt").write_text("la la", encoding="utf-8")
    songs = {song.id: song for song in Settings(str(tmp_path), licence="CC0-1.0").load()}
    assert {id: bool(song.lines[0].notes) for id, song in songs.items()} == {
        "packed": True, "score": True, "stamped": False, "star": True, "typed": False,
    }  # fmt: skip
    star = songs["star"]
    assert (star.credit, star.style, star.language) == (
        "Boat by Nobody; timed by Somebody",
        "folk",
        "en",
    )
    assert songs["stamped"].credit == "timed by Someone" and songs["packed"].credit == "Hymn"
    timed = {
        id: fact.value if (fact := song.fact("timed_by")) else None for id, song in songs.items()
    }
    assert timed.pop("score") == timed.pop("packed") == "no tempo: 120 assumed"
    assert timed == {"stamped": "lrc", "star": "ultrastar", "typed": None}


def test_one_bad_song_does_not_stop_the_others(tmp_path: Path):
    for name in ("a", "b", "c", "d"):
        record(tmp_path / f"{name}.wav", 2.0)
        (tmp_path / f"{name}.txt").write_text("la la", encoding="utf-8")
    (tmp_path / "b.wav").write_bytes(b"RIFF not audio")
    (tmp_path / "c.txt").write_text("", encoding="utf-8")
    (tmp_path / "d.txt").unlink()
    (tmp_path / "e.lrc").write_text("[00:01.00]la", encoding="utf-8")
    scanned = list(Settings(str(tmp_path)).scan())
    assert [song.id if isinstance(song, Song) else song.name for song in scanned] == [
        "a",
        "b",
        "c",
        "d",
        "e",
    ]
    assert [type(song) for song in scanned] == [Song, Refusal, Refusal, Song, Refusal]
    assert not scanned[3].lines  # a recording without lyrics can be looked at, and not learnt from
    for song in (*scanned[1:3], scanned[4]):
        assert isinstance(song, Refusal)
        assert str(tmp_path) in song.reason
        assert "\n" not in song.reason
    with pytest.raises(SongError, match=r"b\.wav"):
        Settings(str(tmp_path)).load()


def test_stems_by_name(tmp_path: Path):
    for name in ("boat.flac", "boat.vocals.flac", "boat.accompaniment.wav"):
        record(tmp_path / name)
    (tmp_path / "boat.txt").write_text("la la", encoding="utf-8")
    [song] = Settings(str(tmp_path)).load()
    assert {name: Path(path).name for name, path in song.tracks.items()} == {
        "audio": "boat.flac",
        "vocals": "boat.vocals.flac",
        "accompaniment": "boat.accompaniment.wav",
    }
    record(tmp_path / "boat.vocals.flac", 4.0)
    refuses(Settings(str(tmp_path)).load, "4.00 s long and its recording 8.00 s", SongError)
    (tmp_path / "boat.flac").unlink()
    refuses(Settings(str(tmp_path)).load, "a stem without its recording", SongError)


def test_stems_in_other_letters(songs: Path):
    record(songs / "boat.Vocals.wav")
    [song] = Settings(str(songs)).load()
    assert song.vocals == str((songs / "boat.Vocals.wav").resolve())


def test_ultrastar_names_its_own_files(tmp_path: Path):
    for name in ("sound.wav", "voice.wav"):
        record(tmp_path / name)
    text = BOAT.replace("#MP3:boat.wav", "#MP3:sound.wav\n#VOCALS:voice.wav")
    lyrics = tmp_path / "Nobody - Boat.txt"
    lyrics.write_text(text, encoding="utf-8")
    [song] = Settings(str(tmp_path)).load()
    assert song.id == "Nobody - Boat"
    assert song.source == "sound.wav"
    assert Path(str(song.vocals)).name == "voice.wav"
    lyrics.write_text(text.replace("sound.wav", "../sound.wav"), encoding="utf-8")
    refuses(Settings(str(tmp_path)).load, "no recording of this name", SongError)


def test_rights_of_a_folder(tmp_path: Path):
    for name in ("a", "b", "deep/c"):
        record(tmp_path / f"{name}.wav", 1.0)
        (tmp_path / f"{name}.txt").write_text("la", encoding="utf-8")
    table = tmp_path / "rights.csv"
    rows = [
        "file,licence,source,credit",
        "a.wav,CC0-1.0,,",
        'deep/c,CC-BY-4.0,web,"C, by C"',
        "*,unknown,,All",
        "",
    ]
    table.write_text("\n".join(rows), "utf-8")
    songs = Settings(str(tmp_path), licence="CC-BY-SA-4.0").load()
    assert [(s.licence, s.source, s.credit) for s in songs] == [
        ("CC0-1.0", "a.wav", ""), ("unknown", "b.wav", "All"), ("CC-BY-4.0", "web", "C, by C"),
    ]  # fmt: skip
    table.write_text("file,licence\nz.wav,CC0-1.0\n", "utf-8")
    last = list(Settings(str(tmp_path)).scan())[-1]
    assert isinstance(last, Refusal) and "no recording is named 'z.wav'" in last.reason
    refuses(Settings(str(tmp_path)).load, "no recording is named 'z.wav'", SongError)


@pytest.mark.parametrize(
    "content",
    [
        "file,license\na,b\n",
        "licence\na\n",
        'file,licence\n"a',
        "file,licence\na,b,c\n",
        "file\na\na\n",
        "file\n,\n",
        "",
    ],
)
def test_rights_that_cannot_be_read(tmp_path: Path, content: str):
    record(tmp_path / "a.wav", 1.0)
    (tmp_path / "rights.csv").write_text(content, "utf-8")
    refuses(lambda: list(Settings(str(tmp_path)).scan()), r"rights\.csv", SongError)


def test_old_encodings_by_language_and_by_name(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes("茉莉花".encode("gb18030"))
    assert read_text(path, "zh-CN") == ("茉莉花", "gb18030")
    path.write_bytes("Ночь".encode("cp1251"))
    assert read_text(path, "ru") == ("Ночь", "cp1251")
    path.write_bytes("#ENCODING:CP1250\n#TITLE:łąka".encode("cp1250"))
    assert read_text(path) == ("#ENCODING:CP1250\n#TITLE:łąka", "cp1250")
    path.write_bytes(b"#ENCODING:KLINGON\n")
    refuses(lambda: read_text(path), "klingon")
    record(tmp_path / "a.wav", 1.0)
    path.write_bytes("noël".encode("cp1252"))
    [song] = Settings(str(tmp_path)).load()
    fact = song.fact("text_encoding")
    assert fact is not None and (fact.value, fact.confidence) == ("cp1252", 0.5)


def test_a_scan_is_strict_about_settings():
    with pytest.raises(SettingsError, match="folder"):
        list(Settings().scan())
