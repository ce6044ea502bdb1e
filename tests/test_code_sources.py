"""Songs that come as codes: YuE's fine-tuning rows and Muse's chats, as their guides show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.config import settings
from distill.errors import FolderError, SongError
from distill.songs import Song
from distill.sources import Refusal
from distill.sources.muse import Settings as Muse
from distill.sources.yue import Settings as Yue


def value(song: Song, name: str) -> Any:
    fact = song.fact(name)
    return fact.value if fact is not None else None


def yue_row(folder: Path, **changed: Any) -> dict[str, Any]:
    """The guide's own example, with lyrics."""
    for name in ("dummy", "dummy.Vocals", "dummy.Instrumental"):
        (folder / "npy").mkdir(parents=True, exist_ok=True)
        np.save(folder / "npy" / f"{name}.npy", np.zeros((8, 1000), np.int16))
    row: dict[str, Any] = {
        "id": "1", "codec": "npy/dummy.npy", "vocals_codec": "npy/dummy.Vocals.npy",
        "instrumental_codec": "npy/dummy.Instrumental.npy", "audio_length_in_sec": 20.0,
        "msa": [
            {"start": 0, "end": 5.5, "label": "intro"},
            {"start": 5.5, "end": 20, "label": "chorus"},
        ],
        "genres": "male, youth, rock",
    }  # fmt: skip
    texts = [
        (0, 5.5, "[intro]\n\n"),
        (5.5, 6.5, "[verse]\nrow row\ndown the stream\n\n"),
        (12, 8, "merrily\n"),
    ]
    segments = [
        {
            "offset": at, "duration": long, "codec_frame_start": at * 50,
            "codec_frame_end": (at + long) * 50, "line_content": text,
        }
        for at, long, text in texts
    ]  # fmt: skip
    return row | {"splitted_lyrics": {"segmented_lyrics": segments}} | changed


def test_yue_rows(tmp_path: Path):
    path = tmp_path / "jsonl" / "dummy.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(yue_row(tmp_path)) + "\n", encoding="utf-8")
    [song] = settings.parse(f"path: {path}\nlicence: CC0-1.0", Yue).load()
    assert song.text == "[verse]\nrow row\ndown the stream\n[chorus]\nmerrily"
    assert song.style == "male, youth, rock"
    assert [(line.start, line.end) for line in song.lines] == [(None, None), (None, None), (12, 20)]
    assert value(song, "codes_path_vocals") == str((tmp_path / "npy/dummy.Vocals.npy").resolve())
    assert value(song, "codes_path_instrumental") and value(song, "codes_frame_rate_hz") == 50
    assert value(song, "sections")[0] == {"tag": "intro", "start": 0, "end": 5.5}
    assert song.audio is None


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"audio_length_in_sec": 40.0}, "not 50 a second"),
        ({"audio_length_in_sec": -1}, "lasts -1"),
        ({"vocals_codec": "npy/none.npy"}, "is nowhere above"),
        ({"splitted_lyrics": {}}, "not a row of YuE"),
        ({"splitted_lyrics": {"segmented_lyrics": []}}, "no section has a word"),
        ({"codec": None, "vocals_codec": None, "instrumental_codec": None}, "names no codes"),
        (
            {
                "splitted_lyrics": {
                    "segmented_lyrics": [
                        {
                            "offset": 5,
                            "duration": 6,
                            "codec_frame_start": 0,
                            "codec_frame_end": 550,
                            "line_content": "la",
                        }
                    ]
                }
            },
            "codec_frame_start is 0, which is not at 5 s",
        ),
        ({"msa": [{"start": 3, "end": 1, "label": "x"}]}, "a section from 3 to 1 s"),
    ],
)
def test_yue_rows_that_are_none(tmp_path: Path, changed: dict[str, Any], says: str):
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps(yue_row(tmp_path, **changed)) + "\n" + json.dumps(yue_row(tmp_path)),
        encoding="utf-8",
    )
    first, second = Yue(str(path)).scan()
    assert isinstance(first, Refusal) and says in first.reason and "\n" not in first.reason
    assert isinstance(second, Song)
    with pytest.raises((SongError, FolderError), match=says):
        Yue(str(path)).load()


def test_yue_paths_start_where_its_guide_starts_them(tmp_path: Path):
    """finetune/example/jsonl/dummy.jsonl names example/npy/dummy.npy."""
    row = yue_row(tmp_path / "finetune" / "example")
    row |= {key: f"example/{row[key]}" for key in ("codec", "vocals_codec", "instrumental_codec")}
    path = tmp_path / "finetune" / "example" / "jsonl" / "dummy.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(row), encoding="utf-8")
    [song] = Yue(str(path)).load()
    assert value(song, "codes_path_mix") == str(
        (tmp_path / "finetune/example/npy/dummy.npy").resolve()
    )


def test_yue_codes_are_never_a_pickle(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(yue_row(tmp_path)), encoding="utf-8")
    for content in (np.array([[object()]], object), np.zeros(9), np.zeros((8, 1000))):
        np.save(tmp_path / "npy" / "dummy.npy", content, allow_pickle=True)
        [refusal] = Yue(str(path)).scan()
        assert isinstance(refusal, Refusal) and "dummy.npy" in refusal.reason


def muse_row(*codes: int, **more: Any) -> dict[str, Any]:
    """As examples/train_inputs/messages.jsonl writes it, in English."""
    sung = "".join(f"<AUDIO_{code}>" for code in codes)
    turns = [
        "Please generate a song in the following style:Pop, Piano.\nNext, I will tell you the "
        "requirements and lyrics for "
        "the song fragment to be generated, section by section.\n[Intro][desc:A gentle piano.]",
        f"[SOA]{sung}[EOA]",
        "[Verse 1][desc:The voice enters.][lyrics:\nrow row\ndown the stream][phoneme:\nR OW1\nD]",
        f"[SOA]{sung}{sung}[EOA]",
        "[Pre-Chorus2][desc:Louder.][lyrics:\nmerrily]",
        f"[SOA]{sung}[EOA]",
    ]
    roles = ("user", "assistant")
    return {
        "messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)],
        **more,
    }


@pytest.mark.parametrize("listed", [False, True])
def test_muse_rows(tmp_path: Path, listed: bool):
    path = tmp_path / "messages.jsonl"
    row = muse_row(*range(25), song_id="s7", track_index=1, lang="en")
    path.write_text(json.dumps([row], indent=1) if listed else json.dumps(row), encoding="utf-8")
    [song] = Muse(str(path), cache=str(tmp_path / "cache")).load()
    assert song.id == "s7-1"
    assert song.style == "Pop, Piano"
    assert song.language == "en"
    assert song.audio is None
    assert song.text == "[verse]\nrow row\ndown the stream\n[pre-chorus]\nmerrily"
    assert [(line.start, line.end) for line in song.lines] == [
        (None, None),
        (None, None),
        (3.0, 4.0),
    ]
    codes_SF = np.load(value(song, "codes_path_mix"))
    assert codes_SF.shape == (1, 100) and codes_SF[0, :25].tolist() == list(range(25))
    assert [(s["tag"], s["start"], s["end"]) for s in value(song, "sections")] == [
        ("Intro", 0, 1), ("Verse 1", 1, 3), ("Pre-Chorus2", 3, 4),
    ]  # fmt: skip


def test_muse_labels_of_its_own_examples(tmp_path: Path):
    """infer/test.jsonl: no ids, no language, empty answers, and labels such as "Chorus (Outro)"."""
    lyrics = "[lyrics:\n你是我心中，\n最美的旋律]"
    asked = f"[Chorus (Outro)][desc:It ends [softly]]{lyrics}[phoneme:\nn i sp]"
    turns = [
        *muse_row()["messages"],
        {"role": "user", "content": asked},
        {"role": "assistant", "content": ""},
    ]
    for turn in turns[1::2]:
        turn["content"] = ""
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"messages": turns}, ensure_ascii=False), encoding="utf-8")
    [song] = Muse(str(path), language="zh", cache=str(tmp_path / "cache")).load()
    assert (song.id, song.language, song.facts) == ("test-000001", "zh", ())
    assert song.sections[-1].tag == "chorus-outro" and song.lines[-1].text == "最美的旋律"


def test_muse_rows_that_are_none(tmp_path: Path):
    turns = [{"role": "user", "content": "sing"}, {"role": "assistant", "content": ""}]
    rows = [
        muse_row(16_384),
        {"messages": []},
        {"messages": turns[1:]},
        {"messages": 3},
        {},
        {"messages": turns},
        muse_row(),
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("not json\n" + "\n".join(map(json.dumps, rows)) + "\n[1]\n", encoding="utf-8")
    songs = list(Muse(str(path), cache=str(tmp_path / "cache")).scan())
    assert [isinstance(song, Song) for song in songs] == [False] * 7 + [True, False]
    assert all(
        "\n" not in song.reason and "; " in song.reason
        for song in songs
        if isinstance(song, Refusal)
    )
    # for inference: lyrics, no codes
    assert isinstance(songs[7], Song) and songs[7].fact("codes_path_mix") is None


def test_a_missing_file():
    with pytest.raises(FolderError, match="no such file"):
        Yue("none.jsonl").load()
