"""Lyrics with flipped bits, torn ends, foreign encodings, huge numbers: refused, and soon."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lyric_files import BOAT, END, START, mxl, note, record, score

from distill.errors import LyricsError
from distill.songs import Song
from distill.sources import Refusal
from distill.sources._formats.lyrics import form_of, read_lyrics
from distill.sources._formats.musicxml import read_musicxml
from distill.sources._formats.text import read_text
from distill.sources._formats.xml import read_score
from distill.sources.folder import Settings

LRC = (
    b"[ti:Boat]\n[offset:+50]\n[00:01.00]<00:01.00>row <00:01.50>row\n[00:03.50]gently down\n"
    b"[chorus]\n[00:05.25]merrily\n"
)
TXT = "[Verse]\nrow row row your boat\ngently down the stream\n\n[Chorus]\nla tristeza extraña"
SEEDS: dict[str, bytes] = {
    "lrc": LRC,
    "txt": TXT.encode(),
    "ultrastar": BOAT.replace("\nE\n", "\nP2\n: 50 4 0 la\n- 55\nE\n").encode(),
    "musicxml": score(
        '<sound tempo="90"/>' + note("C", 4, 2, "Gen", "begin") + note("D", 4, 2, "tly", "end"),
        START + note("E", 4, 2, "down") + note("", 0, 2),
        note("F", 4, 2, "oh") + END,
    ),
    "mxl": mxl(score(note("C", 4, 2, "la"))),
}
TOKENS = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"99999999999999999999", b"-1", b"1e308", b"NaN",
    b"[", b"]", b"<", b">", b"&", b":", b"#", b"\n", b"\r", b"~", b"E\n", b"P1\n", b"- 5\n",
    b"[99:99.99]", b"<00:00.00>", b"\xf0\x9f\x8e\xb5", b"\xd8\x00", b"</measure>",
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"<backup><duration>9</duration></backup>",
    b"0" * 5000, b"a" * 3000,
]  # fmt: skip


def mutated(content: bytes, generator: random.Random) -> bytes:
    """One to eight changes: bits, bytes, ends, doubling, tokens, encoding, order."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 8)):
        at, how = generator.randrange(len(data) + 1), generator.randrange(8)
        if how == 0 and at < len(data):
            data[at] ^= 1 << generator.randrange(8)
        elif how == 1 and at < len(data):
            data[at] = generator.randrange(256)
        elif how == 2 and generator.random() < 0.3:
            del data[at:]
        elif how == 3:
            data[at:at] = generator.choice(TOKENS)
        elif how == 4:
            data[at:at] = data[at : at + generator.randint(1, 60)] * generator.choice((1, 2, 50))
        elif how == 5:
            del data[at : at + generator.randint(1, 40)]
        elif how == 6 and generator.random() < 0.2:
            encoding = generator.choice(("utf-16", "utf-32", "utf-7", "cp037"))
            data = bytearray(data.decode("utf-8", "replace").encode(encoding, "replace"))
        elif how == 7:
            swap = generator.randrange(len(data) + 1)
            data = data[min(at, swap) :] + data[: min(at, swap)]
    return bytes(data)


def damaged(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    generator = random.Random(seed)
    for number in range(count):
        form = list(SEEDS)[number % len(SEEDS)]
        yield form, mutated(SEEDS[form], generator)


def read_any(form: str, content: bytes, folder: Path) -> object:
    """As the folder source reads it, without the recording."""
    path = folder / "a.bin"
    path.write_bytes(content)
    if form in ("musicxml", "mxl"):
        return read_musicxml(read_score(path), 8.0, str(path), "en")
    text, _ = read_text(path)
    seen = "lrc" if form == "lrc" else form_of(text)
    return read_lyrics(
        text, "plain" if form == "txt" and seen == "lrc" else seen, 8.0, str(path), "en"
    )


def survive(count: int, seed: int, folder: Path) -> int:
    """How many damaged files could be read; anything but one line of LyricsError fails."""
    read = 0
    for number, (form, content) in enumerate(damaged(count, seed)):
        try:
            assert read_any(form, content, folder) is not None
            read += 1
        except LyricsError as error:
            assert "\n" not in str(error) and len(str(error)) < 600, (number, form, error)
        except Exception as error:
            raise AssertionError(f"mutation {number} of seed {seed} ({form}): {error!r}") from error
    return read


def test_damaged_lyrics_are_refused_in_one_line(tmp_path: Path):
    assert 20 < survive(200, 7, tmp_path) < 180  # neither too weak nor too strong a test


@pytest.mark.slow
def test_many_damaged_lyrics_are_refused_in_one_line(tmp_path: Path):
    assert 200 < survive(2_000, 11, tmp_path) < 1_800


def test_a_folder_of_damaged_lyrics_is_scanned_to_its_end(tmp_path: Path):
    recording = record(tmp_path / "0.wav", 8.0).read_bytes()
    endings = {
        "lrc": ".lrc",
        "txt": ".txt",
        "ultrastar": ".txt",
        "musicxml": ".musicxml",
        "mxl": ".mxl",
    }
    for number, (form, content) in enumerate(damaged(30, 3)):
        (tmp_path / f"{number}.wav").write_bytes(recording)
        (tmp_path / f"{number}{endings[form]}").write_bytes(content)
    songs = list(Settings(str(tmp_path)).scan())
    assert len(songs) == 30 and {type(song) for song in songs} == {Song, Refusal}


BIG = 2 * 2**20
NOTE = note("C", 4, 1, "la")
ROOM = BIG // len(NOTE)
ONE_AFTER_ANOTHER = b"".join(b": %d 1 0 ~\n" % n for n in range(25_000))
ONE_WORD = b"".join(b": %d 1 0 la\n" % n for n in range(25_000))
MANY_PARTS = score(NOTE).replace(b"</part>", b"</part>" + b"<part><measure/></part>" * 30_000)
MANY_LYRICS = NOTE.replace("</note>", "<lyric><text>la</text></lyric>" * 30_000 + "</note>")
OFTEN = END.replace("/>", ' times="20"/>', 1)
HEAVY: dict[str, tuple[str, bytes]] = {
    "one row with all times": ("lrc", b"[00:01.00]" * 39_000 + b"la"),
    "a row for every time": ("lrc", b"[00:01.00]" * 150 + b"la " * 6_000),
    "endless word times": ("lrc", b"[00:01.00]" + b"<00:01.00>" * 39_000),
    "one note after another": ("ultrastar", b"#BPM:6000\n" + ONE_AFTER_ANOTHER),
    "one word on all notes": ("ultrastar", b"#BPM:6000\n" + ONE_WORD),
    "an endless row": ("ultrastar", b"#BPM:6000\n: 0 4 0 " + b" " * 300_000 + b"la"),
    "all notes in one measure": ("musicxml", score(NOTE * (ROOM - 100))),
    "a measure for every note": ("musicxml", score(*[NOTE] * 8_000)),
    "everything repeated": ("musicxml", score(*[START + NOTE + END] * 4_000)),
    "repeats without an end": ("musicxml", score(*[NOTE] * 4_000, OFTEN)),
    "a hundred thousand parts": ("musicxml", MANY_PARTS),
    "a tempo for every moment": ("musicxml", score('<sound tempo="90"/>' * 30_000 + NOTE * 1_000)),
    "all lyrics on one note": ("musicxml", score(MANY_LYRICS)),
    "one word of megabytes": ("musicxml", score(note("C", 4, 1, "la" * 2_000_000))),
    "nothing but elements": (
        "musicxml", b"<score-partwise>" + b"<a/>" * 400_000 + b"</score-partwise>",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_lyrics_take_no_time(tmp_path: Path, name: str):
    """Files that are allowed by their size and meant to be slow."""
    form, content = HEAVY[name]
    began = time.process_time()
    try:
        read_any(form, content, tmp_path)
    except LyricsError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
    assert time.process_time() - began < 10
