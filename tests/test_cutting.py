"""A song whose lines are longer than a row is cut, and what is lost is said."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tiny_singer
import torch
from test_layouts import encode
from tiny_singer import FORMAT, LONGEST, ToyCodec

from distill import coded_songs
from distill.audio.codec_format import CodecFormat
from distill.errors import FitError
from distill.songs import Line, Note, Section, Song, Word
from distill.writing import line_parts
from distill.writing.prompts import Passage, WritingSettings, passages, tokens_of
from distill.writing.vocabulary import AudioVocabulary, longest_of

V = AudioVocabulary(300, FORMAT, longest=LONGEST)


def within(tokens: int, v: AudioVocabulary = V) -> Callable[[Passage], bool]:
    return lambda passage: tokens_of(passage, passage.frames, encode, v) <= tokens


def cut(song: Song, tokens: int, **writing: Any) -> list[Passage]:
    settings = WritingSettings(**{"max_lines": 3, **writing})
    return passages(song, 25.0, LONGEST, settings, within(tokens))


def syllable(text: str) -> str:
    """A piece without the onset that leads into the next."""
    return text.split(",")[0].strip()


@pytest.mark.parametrize("tokens", [120, 200, 400, 4000])
@pytest.mark.parametrize("seed", range(8))
def test_every_note_is_sung_once_in_order_in_passages_that_fit(seed, tokens):
    song = tiny_singer.song(seed, lines=6)
    made = cut(song, tokens)
    notes = [note for line in song.lines for note in line.notes]
    sung = [p for passage in made for p in passage.pieces if p.midi is not None and not p.goes_on]
    assert [(p.midi, syllable(p.text)) for p in sung] == [(n.midi, n.text) for n in notes]
    assert made == cut(song, tokens)  # it depends on song and settings alone
    assert len({passage.id for passage in made}) == len(made)
    fits = within(tokens)
    for passage in made:
        single = [note for line in passage.lines for note in line.notes if note.text]
        assert fits(passage) or len(single) <= 1  # a syllable is the least there is
        assert passage.frames == sum(piece.frames for piece in passage.pieces)
    if tokens == 4000:
        plain = passages(song, 25.0, LONGEST, WritingSettings(max_lines=3))
        assert made == plain


@pytest.mark.parametrize("seed", range(6))
def test_a_line_is_cut_without_a_gap_and_says_what_is_sung(seed):
    song = tiny_singer.song(seed, lines=3)
    for number, line in enumerate(song.lines):
        parts = [
            p
            for p in cut(song, 150, max_lines=1)
            if p.id.split(":")[1].split(".")[0] == str(number)
        ]
        assert parts[0].start == round(line.start * 25)
        for before, after in itertools.pairwise(parts):
            assert before.stop - 1 <= after.start <= before.stop  # a note has a frame at least
        for part in parts:
            texts = [note.text for each in part.lines for note in each.notes if note.text]
            assert part.header.partition("\n")[2].strip() == ", ".join(texts)
        if len(parts) > 1:
            words = [word for part in parts for each in part.lines for word in each.words]
            assert tuple(words) == line.words  # one that is cut through counts for its beginning


def test_fewer_lines_come_before_parts_of_one():
    lines = tuple(
        Line(f"row {n}", 2.0 * n, 2.0 * n + 2.0, (), (Note(2.0 * n, 2.0 * n + 2, 60, "r o"),))
        for n in range(4)
    )
    song = Song("abc", (Section("v", lines),), "folk", "low")
    wide = [len(p.lines) for p in passages(song, 25.0, 64, WritingSettings(max_lines=4))]
    assert max(wide) > 1
    narrow = passages(
        song, 25.0, 64, WritingSettings(max_lines=4), within(200, replace(V, longest=64))
    )
    assert [len(p.lines) for p in narrow] == [1, 1, 1, 1]
    assert [p.id for p in narrow] == ["abc:0", "abc:1", "abc:2", "abc:3"]  # whole lines


def worded(*starts: float, end: float) -> Line:
    ends = [*starts[1:], end]
    words = tuple(Word(f"w{n}", *times) for n, times in enumerate(zip(starts, ends, strict=True)))
    return Line(" ".join(word.text for word in words), starts[0], end, words)


def test_lines_with_times_of_words_are_cut_between_them():
    song = Song("s", (Section("v", (worded(0.0, 1.0, 2.0, 3.0, 4.0, end=5.0),)),), "folk", "low")
    made = cut(song, 150)
    assert [p.id for p in made] == ["s:0.0", "s:0.1", "s:0.2"] or len(made) > 1
    assert " ".join(line.text for p in made for line in p.lines) == song.lines[0].text
    assert [(p.start, p.stop) for p in made] == list(
        itertools.pairwise([made[0].start, *(p.stop for p in made)])
    )
    assert made[0].start == 0 and made[-1].stop == 125
    # words that nobody is sure of are no places to cut at
    unsure = replace(
        song.lines[0], words=tuple(replace(w, confidence=0.1) for w in song.lines[0].words)
    )
    (whole,) = cut(replace(song, sections=(Section("v", (unsure,)),)), 150)
    assert whole.frames == 125
    (whole,) = cut(song, 150, grain="line")
    assert whole.frames == 125


def test_a_word_is_cut_where_its_vowel_is_sung_and_within_only_in_phones():
    notes = (Note(0.2, 1.0, 60, "D A"), Note(1.0, 1.8, 62, "l I"), Note(2.1, 3.0, 64, "b o t"))
    words = (Word("dolly", 0.1, 1.9), Word("boat", 1.9, 3.0))
    line = Line("dolly boat", 0.0, 3.2, words, notes)
    assert line_parts.word_borders(line) == [2.1]
    assert line_parts.syllable_borders(line) == [1.0, 2.1]
    first, second = line_parts.cut(line, 2.1)
    assert (first.text, first.end, second.start, second.text) == ("dolly", 2.1, 2.1, "boat")
    assert first.notes + second.notes == notes and first.words + second.words == words
    first, second = line_parts.cut(line, 1.0)
    assert (first.text, second.text) == ("dolly", "boat")
    assert [note.text for note in second.notes] == ["l I", "b o t"]
    song = Song("s", (Section("v", (line,)),), "f", "l")
    phones, letters = (cut(song, 90, spelling=spelling) for spelling in ("phones", "letters"))
    assert [len([n for li in p.lines for n in li.notes]) for p in phones] == [1, 1, 1]
    assert [
        [syllable(p.text) for p in passage.pieces if p.midi and not p.goes_on]
        for passage in letters
    ] == [["d o l l y", ""], ["b o a t"]]


# --- over the songs of a run ----------------------------------------------------------------------
class Fitted:
    """What a run keeps of songs, what it says of the rest; seconds of all and of what is lost."""

    def __init__(self, songs: list[Song], tokens: int, monkeypatch, **writing: Any) -> None:
        seconds = [max([2.0, *(line.end or 0.0 for line in song.lines)]) + 0.1 for song in songs]
        codes = [torch.zeros(round(25 * s), 2, dtype=torch.int64) for s in seconds]
        monkeypatch.setattr(coded_songs, "codes_of_all", lambda songs, codec: iter(codes))

        def count(passage: Passage, frames: int) -> int:
            return tokens_of(passage, frames, encode, V)

        settings = WritingSettings(**writing)
        fits = lambda passage: count(passage, passage.frames) <= tokens  # noqa: E731
        every = [*coded_songs.code(songs, ToyCodec(), LONGEST, settings, fits)]
        self.aside: list[str] = []
        self.coded = [*coded_songs.fitting(every, count, tokens, 25.0, self.aside)]
        self.seconds = sum(len(item.codes_FS) for item in every) / 25
        self.lost = self.seconds - sum(len(item.codes_FS) for item in self.coded) / 25


def test_what_is_lost_is_counted_in_seconds_and_refused_when_it_is_most(monkeypatch):
    songs = [tiny_singer.song(seed, lines=4) for seed in range(3)]
    whole = Fitted(songs, 4000, monkeypatch)
    assert (whole.aside, whole.lost) == ([], 0) and whole.seconds > 10
    narrow = Fitted(songs, 220, monkeypatch)
    assert len(narrow.coded) > len(whole.coded)
    assert (
        0.8 * whole.seconds < narrow.seconds <= whole.seconds and narrow.lost < 0.2 * whole.seconds
    )
    # a line that nobody can cut
    long = Line("gently down the stream", 0.0, 8.0)
    songs = [replace(songs[0], id="long", sections=(Section("v", (long,)),)), *songs]
    some = Fitted(songs, 200, monkeypatch)
    assert 8.0 <= some.lost < some.seconds / 2
    *lines, share = some.aside
    assert any(
        words.startswith("long:0.0: needs ") and "a row holds 200; set aside" in words
        for words in lines
    )
    said = f"{some.lost:.1f} of {some.seconds:.1f} s ({some.lost / some.seconds:.1%})"
    assert share == f"{said} of the song fit no row and are left out"
    with pytest.raises(FitError, match=r"rows of 200 tokens cannot hold 100 % .*row_tokens"):
        Fitted(songs[:1], 200, monkeypatch)
    untimed = [tiny_singer.song(1, times="none")]
    with pytest.raises(FitError, match="give line or word times"):
        Fitted(untimed, 60, monkeypatch)


@pytest.mark.parametrize("max_lines", [1, 2])
def test_nothing_of_songs_in_dac_at_44_khz_with_nine_slots_is_lost(max_lines):
    """86 frames a second of nine tokens: a row of 4,096 holds five seconds."""
    rate = 44_100 / 512
    format = CodecFormat(44_100, rate, (1024,) * 9)
    v = AudioVocabulary(300, format, longest=longest_of(format))
    lost, whole, fits = 0, 0, within(4096, v)
    for seed in range(20):
        song = tiny_singer.song(seed, lines=6)
        settings = WritingSettings(max_lines=max_lines)
        plain = passages(song, rate, v.longest, settings)
        whole += sum(map(fits, plain)) == len(plain)
        lost += sum(not fits(p) for p in passages(song, rate, v.longest, settings, fits))
    assert whole < 18 and lost == 0
