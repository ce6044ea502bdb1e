"""What is exported, read back by our sources, by tarfile, `webdataset` and `datasets`."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from distill.audio import safe_decode
from distill.errors import AudioError, FolderError, SettingsError, SongError
from distill.exporters import datasets as to_datasets
from distill.exporters import manifest as to_manifest
from distill.exporters import ultrastar as to_ultrastar
from distill.exporters import webdataset as to_webdataset
from distill.exporters._files import key_of
from distill.exporters.ultrastar import spell
from distill.songs import Fact, Line, Note, Section, Song, Word, from_json, read_manifest
from distill.sources import Refusal
from distill.sources.folder import Settings as Folder
from distill.sources.hub import Settings as Hub


def record(path: Path, seconds: float = 6.0, pitch: float = 220.0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * 8000)) / 8000)
    soundfile.write(path, wave.astype(np.float32), 8000)
    return str(path)


def melody() -> Line:
    """ "gently down the fire": a melisma, a rest, a syllable too many for the dictionary's."""
    notes = (
        Note(0.5, 0.9, 60.0, "J e n t"), Note(0.9, 1.1, 62.0, ""), Note(1.1, 1.5, 64.0, "l I"),
        Note(1.5, 2.0, 65.0, "d W n"), Note(2.5, 2.75, 67.0, "D u"), Note(2.75, 3.5, None, "f Y R"),
    )  # fmt: skip
    words = (
        Word("gently", 0.5, 1.5),
        Word("down", 1.5, 2.0),
        Word("the", 2.5, 2.75),
        Word("fire", 2.75, 3.5),
    )
    return Line("Gently down, the fire", 0.26, 3.9, words, notes)


@pytest.fixture
def songs(tmp_path: Path) -> list[Song]:
    home = tmp_path / "found"
    boat = Song(
        id="boats/row 1",
        sections=(
            Section("verse", (melody(),)), Section("chorus", (Line("merrily", 4.0, 5.0),)),
        ),
        style="folk, calm", voice="low voice", language="en-GB", licence="CC-BY-4.0",
        source="https://example.org/boat", credit="Boat by Nobody",
        audio=record(home / "a.flac"), vocals=record(home / "a.vocals.flac", pitch=330),
        group="7", facts=(Fact("tempo_bpm", 90.5, "music", 0.4),),
    )  # fmt: skip
    timed = (Word("la", 1.0, 1.5, 0.9), Word("oh", 1.5, 2.5, 0.2))
    words = replace(
        boat, id="words", sections=(Section("verse", (Line("la oh", 1.0, 3.0, timed, (), 0.5),)),),
        split="held-out", audio=record(home / "b.wav"), vocals=None, credit="", facts=(), group="",
    )  # fmt: skip
    typed = replace(
        words, id="typed", sections=(Section("verse", (Line("nobody knows when"),)),), split="train"
    )
    return [boat, words, typed]


def without_files(song: Song) -> Song:
    return replace(song, audio=None, vocals=None, accompaniment=None)


def same_sound(song: Song, other: Song) -> bool:
    pairs = [(song.tracks[name], other.tracks[name]) for name in song.tracks]
    return song.tracks.keys() == other.tracks.keys() and all(
        Path(a).read_bytes() == Path(b).read_bytes() for a, b in pairs
    )


@pytest.mark.parametrize("link", [False, True])
def test_a_manifest_comes_back_equal(songs: list[Song], tmp_path: Path, link: bool):
    assert to_manifest.export(songs, tmp_path / "out", link=link) == []
    back = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert [without_files(song) for song in back] == [without_files(song) for song in songs]
    assert all(same_sound(a, b) for a, b in zip(songs, back, strict=True))
    assert all(
        Path(path).is_relative_to(tmp_path / "out")
        for song in back
        for path in song.tracks.values()
    )


def test_ultrastar_comes_back_note_by_note(songs: list[Song], tmp_path: Path):
    [left] = to_ultrastar.export(songs, tmp_path / "out")
    assert left.id == "typed" and "times" in left.reason
    boat, words = Folder(str(tmp_path / "out")).load()
    assert (boat.licence, boat.source, boat.credit) == (
        "CC-BY-4.0",
        "https://example.org/boat",
        "Boat by Nobody",
    )
    assert boat.language == "en" and boat.style == "folk, calm" and same_sound(songs[0], boat)
    [line, merrily] = boat.lines
    given = songs[0].lines[0]
    assert [n.text for n in line.notes] == [n.text for n in given.notes]
    assert [n.midi for n in line.notes] == [n.midi for n in given.notes]
    times = [(n.start, n.end) for n in line.notes] + [(w.start, w.end) for w in line.words]
    true = [(n.start, n.end) for n in given.notes] + [(w.start, w.end) for w in given.words]
    assert np.abs(np.array(times) - np.array(true)).max() < 0.006  # the grid is 10 ms
    assert [w.text for w in line.words] == ["gently", "down", "the", "fire"]
    assert merrily.text == "merrily"
    assert [(w.text, w.start, w.end) for w in words.lines[0].words] == [
        ("la", 1.0, 1.5),
        ("oh", 1.5, 2.5),
    ]
    assert all(note.midi is None for note in words.lines[0].notes)  # known words, unknown pitch


def test_ultrastar_loses_no_word(songs: list[Song], tmp_path: Path):
    """Notes without words, words that are not all of the line's, a word that no note begins in."""
    notes = replace(melody(), words=())
    some = Line("la oh la", 4.0, 4.8, (Word("oh", 4.2, 4.5),))
    early = Line(
        "ah la",
        4.8,
        5.8,
        (Word("ah", 5.0, 5.3), Word("la", 5.3, 5.8)),
        (Note(4.9, 5.7, 60.0, "A"),),
    )
    song = replace(songs[0], sections=(Section("verse", (notes, some, early)),))
    to_ultrastar.export([song], tmp_path / "out")
    [back] = Folder(str(tmp_path / "out")).load()
    assert [line.text for line in back.lines] == ["Gently down, the fire", "la oh la", "ah la"]


@pytest.mark.parametrize(
    ("credit", "title", "artist"),
    [
        ("Boat by Nobody; timed by Ann", "Boat", "Nobody"),
        ("words by Bob; timed by Ann", "boats/row 1", "words by Bob; timed by Ann"),
        ("Nobody", "boats/row 1", "Nobody"),
    ],
)
def test_ultrastar_says_who_made_the_song(songs: list[Song], credit: str, title: str, artist: str):
    text = to_ultrastar.text_of(replace(songs[0], credit=credit), {"audio": "a.flac"}, 1500)
    assert f"#TITLE:{title}\n#ARTIST:{artist}\n" in text


def test_letters_over_notes():
    assert spell("gently", [True, False, True]) == [" gent", "~", "ly"]
    assert spell("beautiful", [True, True, True]) == [" beau", "ti", "ful"]
    assert spell("fire", [True]) == [" fire"]
    assert spell("a", [True, True]) == [" a", "~"]
    assert spell("rhythm", [True, True]) == [" rhy", "thm"]


def test_ultrastar_songs_of_the_songbook_come_back(tmp_path: Path):
    """Every note and word of generated songs, through the format and back."""
    from distill.sources.embedded import Settings as Embedded

    songs = Embedded("held-out", 4).load()
    assert to_ultrastar.export(songs, tmp_path / "out") == []
    back = {Path(str(song.audio)).stem: song for song in Folder(str(tmp_path / "out")).load()}
    notes = wrong = 0
    for song in songs:
        for given, line in zip(song.lines, back[key_of(song.id)].lines, strict=True):
            assert line.text == given.text
            assert [w.text for w in line.words] == [w.text for w in given.words]
            for a, b in zip(given.notes, line.notes, strict=True):
                assert (a.start, a.end, a.midi) == pytest.approx(
                    (b.start, b.end, b.midi), abs=0.011
                )
                notes, wrong = notes + 1, wrong + (a.text != b.text)
    assert notes > 50 and wrong == 0


def test_webdataset_shards(songs: list[Song], tmp_path: Path):
    assert to_webdataset.export(songs, tmp_path / "out") == []
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    assert shards == ["held-out-000000.tar", "train-000000.tar"]
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as shard:
        names = shard.getnames()
        key = key_of("boats/row 1")
        assert names == [
            f"{key}.flac",
            f"{key}.vocals.flac",
            f"{key}.json",
            "typed.wav",
            "typed.json",
        ]
        assert {member.mtime for member in shard.getmembers()} == {0}
        row = json.loads(shard.extractfile(f"{key}.json").read())  # type: ignore[union-attr]
        assert row.pop("version") == 1 and row["audio"] == f"{key}.flac"
        assert without_files(from_json(row)) == without_files(songs[0])
    to_webdataset.export(songs, tmp_path / "again")
    assert all(
        (tmp_path / "out" / n).read_bytes() == (tmp_path / "again" / n).read_bytes() for n in shards
    )


def test_webdataset_reads_its_shards(songs: list[Song], tmp_path: Path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    to_webdataset.export(songs, tmp_path / "out")
    shard = str(tmp_path / "out" / "train-000000.tar")
    first, second = webdataset.WebDataset(shard, shardshuffle=False)
    assert first["__key__"] == key_of("boats/row 1") and second["__key__"] == "typed"
    assert first["flac"] == Path(str(songs[0].audio)).read_bytes()
    assert first["vocals.flac"] == Path(str(songs[0].vocals)).read_bytes()
    assert json.loads(first["json"])["id"] == "boats/row 1"


def test_webdataset_shards_have_a_limit(tmp_path: Path):
    audio = record(tmp_path / "a.flac")
    size = Path(audio).stat().st_size
    songs = [Song(f"s{n}", (Section("verse", (Line("la"),)),), audio=audio) for n in range(5)]
    limit = 2 * (size + 3000)
    to_webdataset.export(songs, tmp_path / "out", shard_bytes=limit)
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert len(shards) == 3 and all(shard.stat().st_size <= limit + 10_240 for shard in shards)
    to_webdataset.export(songs, tmp_path / "one", shard_bytes=1)
    assert len(list((tmp_path / "one").glob("*.tar"))) == 5
    with pytest.raises(SettingsError, match="shard_bytes is 0"):
        to_webdataset.export(songs, tmp_path / "none", shard_bytes=0)


def test_exports_never_overwrite(songs: list[Song], tmp_path: Path):
    (tmp_path / "out").mkdir()
    to_manifest.export(songs, tmp_path / "out")  # an empty folder may be filled
    for export in (to_manifest.export, to_ultrastar.export, to_webdataset.export):
        with pytest.raises(FolderError, match="holds something already; export to a new folder"):
            export(songs, tmp_path / "out")
        gone = [replace(songs[0], audio=str(tmp_path / "gone.flac"))]
        with pytest.raises(
            FolderError, match=r"gone\.flac: the audio of song boats/row 1 is not there"
        ):
            export(gone, tmp_path / "new")
        with pytest.raises(SongError, match="two songs share this id"):
            export([songs[1], songs[1]], tmp_path / "new")
        assert not (tmp_path / "new").exists()  # whole or not at all
    assert len(read_manifest(tmp_path / "out" / "manifest.jsonl")) == 3


# --- datasets -------------------------------------------------------------------------------------
@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    return datasets


@pytest.mark.parametrize("streaming", [True, False])
def test_a_dataset_comes_back_equal(
    library: Any, songs: list[Song], tmp_path: Path, streaming: bool
):
    silent = replace(songs[0], id="silent", audio=None, vocals=None)
    [left] = to_datasets.export([*songs, silent], tmp_path / "out", shard_bytes=1)
    assert left.id == "silent"
    assert len(list((tmp_path / "out" / "data").glob("train-*.parquet"))) == 2  # a song a shard
    back = Hub(str(tmp_path / "out"), streaming=streaming).load()
    assert [without_files(song) for song in back] == [
        without_files(songs[0]),
        without_files(songs[2]),
    ]
    assert same_sound(back[0], songs[0])
    assert Path(str(back[0].audio)).is_relative_to(tmp_path / "cache" / "audio")
    [held_out] = Hub(str(tmp_path / "out"), split="held_out", streaming=streaming).load()
    assert without_files(held_out) == without_files(songs[1])
    read = library.load_dataset(str(tmp_path / "out"), split="train")
    for name in ("audio", "vocals", "accompaniment"):
        assert isinstance(read.features[name], library.Audio)
        read = read.cast_column(name, library.Audio(decode=False))
    assert read[0]["lyrics"].startswith("[verse]\nGently down")
    assert read[0]["audio"]["bytes"][:4] == b"fLaC"


def test_a_dataset_of_others(library: Any, tmp_path: Path):
    """Columns by other names, LRC and plain lyrics, sound by path; a bad row stops no other."""
    first_wav, two = record(tmp_path / "x" / "1.flac"), record(tmp_path / "x" / "2.wav")
    (tmp_path / "x" / "3.wav").write_bytes(b"RIFF nothing")
    rows = {
        "sound": [first_wav, two, str(tmp_path / "x" / "3.wav"), two],
        "text": ["[00:01.00]la la\n[00:02.00]oh", "row row\n\nyour boat", "[00:01.00]la", ""],
        "lang": ["en", "en-GB", "en", "en"],
        "license": ["CC0-1.0", "CC-BY-4.0", "", None],
    }
    kept = library.Dataset.from_dict(rows).cast_column("sound", library.Audio())
    kept.save_to_disk(tmp_path / "out")
    columns = {"audio": "sound", "lyrics": "text", "language": "lang", "licence": "license"}
    scanned = list(
        Hub(str(tmp_path / "out"), columns=columns, style="folk", licence="unknown").scan()
    )
    first, second = scanned[:2]
    assert isinstance(first, Song)
    assert [line.start for line in first.lines] == [1.0, 2.0]
    assert first.licence == "CC0-1.0"
    assert isinstance(second, Song)
    assert (second.language, second.style, len(second.sections)) == ("en-GB", "folk", 2)
    assert first.id == "train-000001"
    assert safe_decode.promise_safely(str(first.audio)).seconds == pytest.approx(6.0)
    assert [isinstance(first_wav, Refusal) for first_wav in scanned[2:]] == [True, True]
    assert all(
        "\n" not in first_wav.reason and ", row " in first_wav.reason
        for first_wav in scanned[2:]
        if isinstance(first_wav, Refusal)
    )
    assert len(Hub(str(tmp_path / "out"), columns=columns, songs=2).load()) == 2
    with pytest.raises(SongError, match="has no column words"):
        Hub(str(tmp_path / "out"), columns={"audio": "sound", "lyrics": "words"}).load()


def test_a_test_split_is_held_out_and_languages_are_named(library: Any, tmp_path: Path):
    rows = {"audio": [record(tmp_path / "1.flac")], "lyrics": ["la la"], "language": ["Spanish"]}
    kept = library.Dataset.from_dict(rows).cast_column("audio", library.Audio())
    library.DatasetDict({"train": kept, "test": kept}).save_to_disk(tmp_path / "out")
    for split, side in (("train", "train"), ("test", "held-out")):
        [song] = Hub(str(tmp_path / "out"), split=split).load()
        assert (song.split, song.language) == (side, "es")


def test_a_dataset_may_not_name_files_of_ours(
    library: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A stranger's row that names a file on this computer is refused."""
    private = record(tmp_path / "private.wav")
    monkeypatch.setattr(
        "distill.sources.hub._rows",
        lambda _: [{"audio": {"path": private, "bytes": None}, "lyrics": "la"}],
    )
    with pytest.raises(AudioError, match="which is not in the dataset"):
        Hub("org/songs").load()
    assert len(Hub(str(tmp_path)).load()) == 1  # a dataset of our own may


def test_datasets_that_cannot_be_opened(library: Any, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FolderError, match="cannot be read"):
        Hub(str(tmp_path / "empty")).load()
    with pytest.raises(SettingsError, match=r"columns\.sound is unknown"):
        Hub("x", columns={"sound": "audio"})
    with pytest.raises(SettingsError, match="songs is 0"):
        Hub("x", songs=0)
