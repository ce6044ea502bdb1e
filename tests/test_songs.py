"""Songs as values, and manifests: what goes in comes out, and what is broken is named."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from distill.errors import FolderError, SongError
from distill.songs import (
    Line,
    Note,
    Section,
    Song,
    Word,
    from_json,
    read_manifest,
    to_json,
    write_manifest,
)
from distill.sources import Refusal, manifest

LINE = Line(
    "row your böat\u2028",
    0.24,
    2.5,
    (Word("row", 0.3, 0.8),),
    (Note(0.3, 0.7, 60.5, "r o"), Note(0.7, 1.0, None)),
)
SONG = Song(
    "a/1", (Section("verse", (LINE, Line("gently"))), Section("chorus", (Line("down", 3.0, 4.0),))),
    "folk, calm", "low", "en", "CC0-1.0", "songbook", "nobody", None, "held-out",
)  # fmt: skip


def test_a_song_is_its_lines_and_its_text():
    assert [line.text for line in SONG.lines] == ["row your böat\u2028", "gently", "down"]
    assert SONG.text == "[verse]\nrow your böat\u2028\ngently\n[chorus]\ndown"
    assert from_json(json.loads(json.dumps(to_json(SONG)))) == SONG


def test_a_manifest_comes_back_equal_with_audio_beside_it(tmp_path):
    first = replace(SONG, audio=str(tmp_path / "wavs" / "1.flac"))
    songs = [first, SONG, replace(SONG, id="3", audio="3.wav")]
    write_manifest(tmp_path / "m.jsonl", songs)
    rows = [json.loads(row) for row in (tmp_path / "m.jsonl").read_text().split("\n") if row]
    assert [row["audio"] for row in rows] == ["wavs/1.flac", None, "3.wav"]
    assert all(row["version"] == 1 for row in rows)
    assert read_manifest(tmp_path / "m.jsonl") == [
        first,
        SONG,
        replace(songs[2], audio=str(tmp_path / "3.wav")),
    ]
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "m.jsonl").rename(tmp_path / "moved" / "m.jsonl")
    assert read_manifest(moved)[0].audio == str(tmp_path / "moved" / "wavs" / "1.flac")


def test_audio_outside_of_the_manifests_folder_is_refused(tmp_path):
    for audio in (str(tmp_path / "1.wav"), "../1.wav"):
        with pytest.raises(SongError, match="outside"):
            write_manifest(tmp_path / "in" / "m.jsonl", [replace(SONG, audio=audio)])
    assert not (tmp_path / "in" / "m.jsonl").exists()


def good() -> dict:
    return {"version": 1, **to_json(SONG)}


def without(key: str) -> dict:
    return {name: value for name, value in good().items() if name != key}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({**good(), "version": 2}, "another version than 1"),
        (without("sections"), "a/1.*sections"),
        (without("id"), "id"),
        ({**good(), "tempo": 90}, "a/1.*tempo"),
        ({**good(), "sections": None}, "a/1"),
        ({**good(), "sections": [{"tag": "verse"}]}, "a/1.*lines"),
        ({**good(), "sections": [{"tag": "verse", "lines": [{"start": 1}]}]}, "a/1.*text"),
        (
            {
                **good(),
                "sections": [{"tag": "v", "lines": [{"text": "a", "notes": [{"begin": 0}]}]}],
            },
            "a/1.*begin",
        ),
        ({**good(), "id": 5}, "5.*id is 5"),
        ({**good(), "audio": ["1.wav"]}, "a/1.*audio is"),
        ({**good(), "licence": None}, "a/1.*licence is null"),
        ({**good(), "sections": {"tag": "verse"}}, "a/1.*sections is dict"),
        ({**good(), "sections": ["verse"]}, "a/1.*sections is str"),
        (
            {**good(), "sections": [{"tag": "v", "lines": [{"text": 7}]}]},
            "a/1.*sections.lines.text is 7",
        ),
        (
            {**good(), "sections": [{"tag": "v", "lines": [{"text": "a", "start": "0:01"}]}]},
            "a/1.*lines.start",
        ),
        (
            {**good(), "sections": [{"tag": "v", "lines": [{"text": "a", "start": math.nan}]}]},
            "a/1.*NaN",
        ),
        (
            {**good(), "sections": [{"tag": "v", "lines": [{"text": "a", "end": 10**400}]}]},
            "a/1.*lines.end",
        ),
        ({**good(), "facts": [{"name": "key"}]}, "a/1.*facts.value is missing"),
        ([1, 2], "version"),
        (5, "version"),
        (None, "version"),
    ],
)
def test_a_broken_row_is_named_with_its_file_and_number(tmp_path, row, complaint):
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(good()) + "\n\n" + json.dumps(row) + "\n")
    with pytest.raises(SongError, match=f"m.jsonl:3: .*{complaint}"):
        read_manifest(path)


def test_a_row_cut_short_and_what_is_no_manifest_are_refused(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(good()) + "\n" + json.dumps(good())[:-7])
    with pytest.raises(SongError, match=r"m\.jsonl:2: not JSON"):
        read_manifest(path)
    path.write_bytes(b"RIFF\xff\xfe\x00\x80")
    with pytest.raises(SongError, match="UTF-8"):
        read_manifest(path)
    with pytest.raises(FolderError, match="no such manifest"):
        read_manifest(tmp_path / "none.jsonl")


def test_one_bad_row_of_a_manifest_does_not_stop_the_others(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = [good(), {**good(), "id": "b", "style": 3}, {**good(), "id": "c"}]
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"id": "d", "sec\n', encoding="utf-8")
    scanned = list(manifest.Settings(str(path)).scan())
    assert [song.id for song in scanned if isinstance(song, Song)] == ["a/1", "c"]
    reasons = [song.reason for song in scanned if isinstance(song, Refusal)]
    assert ["m.jsonl:2: song b" in reasons[0], "m.jsonl:4: not JSON" in reasons[1]] == [True, True]
    with pytest.raises(SongError, match=r"m\.jsonl:2: song b"):
        manifest.Settings(str(path)).load()
