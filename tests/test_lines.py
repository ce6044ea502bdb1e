"""Lyrics of the third edition, and Kokoro as a speaker of them."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest

from distill import lyrics
from distill.errors import SongError
from distill.lyrics import g2p
from distill.songbook import composing, kokoro, lines, rhymes, stress, words
from distill.songbook.speakers import Speakers
from distill.songbook.voice import VOICE_RATE

TRAIN = [composing.compose(1, index, "train", edition=3) for index in range(40)]
HELD_OUT = [composing.compose(2, index, "held-out", edition=3) for index in range(20)]
needs_kokoro = pytest.mark.skipif(
    not kokoro.installed(), reason=f"{kokoro.VARIABLE} names no folder with Kokoro's model"
)


def words_of(songs: list[composing.Score]) -> list[str]:
    english = (line for score in songs if score.language == "en" for line in score.lines)
    return [word for line in english for word, _ in line.words]


# --- lines ----------------------------------------------------------------------------------------


def test_every_word_of_the_book_can_be_sung_and_every_name_is_a_class() -> None:
    book = lines.book()
    rows = [*book.frames, *(entry for kind in book.classes.values() for entry in kind)]
    named = {name for row in rows for name in re.findall("[A-Z]{2,}", row)}
    assert named <= set(book.classes)
    words = {word for row in (*rows, *book.verse) for word in row.split()}
    plain = {word.lower() for word in words if not re.match("[A-Z]{2,}", word)}
    assert len(plain) > 1200
    unknown = sorted(word for word in plain if word not in g2p.lexicon())
    assert len(unknown) < 0.01 * len(plain), unknown  # lines that hold one are left out
    assert not {word for word in book.function_words if word not in g2p.lexicon()}


def test_lines_are_grammatical_where_forms_are_made() -> None:
    forms = {
        ("lily", "s"): "lilies", ("goose", "s"): "geese", ("whisper", "ing"): "whispering",
        ("sit", "ing"): "sitting", ("dance", "ing"): "dancing", ("tiptoe", "ing"): "tiptoeing",
        ("kiss", "s"): "kisses", ("deer", "s"): "deer", ("weave", ""): "weave",
    }  # fmt: skip
    for (word, ending), wanted in forms.items():
        assert words.form(word, ending) == wanted
    rng = random.Random(1)
    drawn = [lines.drawn(rng) for _ in range(2000)]
    assert not [text for text in drawn if re.search(r"\ba [aeiou]|\ban [^aeiou]|[A-Z]{2}", text)]
    assert len(set(drawn)) > 1800


def test_training_songs_hold_no_held_out_word_nor_its_sound() -> None:
    trained = words_of(TRAIN)
    assert not [word for word in trained if lines.is_held_out(word)]
    held = [word for word in words_of(HELD_OUT) if lines.is_held_out(word)]
    assert 0.12 < len(held) / len(words_of(HELD_OUT)) < 0.5
    assert not {lyrics.phones(word) for word in trained} & {lyrics.phones(word) for word in held}
    texts = {line.text for score in TRAIN for line in score.lines}
    assert not texts & {line.text for score in HELD_OUT for line in score.lines}


def test_about_a_fifth_of_the_content_words_is_held_out() -> None:
    content = [w for w in lines._lemmas().values() if not lines.is_function_word(w)]
    share = np.mean([lines.is_held_out(word) for word in set(content)])
    assert 0.14 < share < 0.26
    for form in ("dance", "dancing", "dances"):
        assert lines.is_held_out(form) == lines.is_held_out("dance")


@pytest.mark.parametrize("held_out", [False, True])
def test_stanzas_keep_their_metre_and_rhyme(held_out: bool) -> None:
    generator, used = random.Random(4), set[str]()
    for metre in rhymes.METRES:
        stanza = rhymes.stanza(generator, metre, held_out, used)
        assert tuple(len(lyrics.sing_texts(line)) for line in stanza) == metre.syllables
        assert [len(stress.of_line(line)) for line in stanza] == list(metre.syllables)
        for row, letter in enumerate(metre.scheme):
            first = metre.scheme.index(letter)
            if first < row:
                word, other = (stanza[number].split()[-1] for number in (row, first))
                assert word != other
                assert lyrics.syllables(word)[-1][1:] == lyrics.syllables(other)[-1][1:]
    assert len(used) == sum(len(metre.syllables) for metre in rhymes.METRES)


def test_stress_falls_where_it_is_spoken() -> None:
    wanted = {"the garden": "0 10", "alone": "01", "understand": "001", "sleep": "1"}
    for text, marks in wanted.items():
        assert stress.of_line(text) == [mark == "1" for mark in marks.replace(" ", "")]
    phones = lyrics.phones("garden")
    assert [mark for mark in stress.of_phones("garden", phones) if mark is not None] == [1, 0]


# --- Kokoro ---------------------------------------------------------------------------------------


def test_without_kokoro_the_error_says_what_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(kokoro.VARIABLE, raising=False)
    kokoro.opened.cache_clear()
    with pytest.raises(SongError, match="DISTILL_KOKORO names a folder"):
        Speakers().words(["row"], "somebody")
    pytest.importorskip("onnx")
    monkeypatch.setenv(kokoro.VARIABLE, str(tmp_path))
    with pytest.raises(SongError, match=r"has no kokoro\*\.onnx"):
        kokoro.opened()
    kokoro.opened.cache_clear()


@needs_kokoro
def test_a_line_is_spoken_at_once_and_its_phones_follow_each_other() -> None:
    speaker = kokoro.opened().speakers[0]
    spoken = Speakers().words(["gently", "down", "the", "stream"], speaker)
    phones = [phone for word in spoken for phone in word.phones]
    assert tuple(phone.name for phone in phones) == sum(
        (lyrics.phones(word) for word in ("gently", "down", "the", "stream")), ()
    )
    assert all(phone.start < phone.end for phone in phones)
    assert all(a.end <= b.start + 1e-6 for a, b in itertools.pairwise(phones))
    assert phones[-1].end <= len(spoken[0].voiced_F)
    vowels = [
        spoken[0].voiced_F[int((p.start + p.end) / 2)]
        for p in phones
        if p.name in ("EH", "AW", "IY")
    ]
    assert all(vowels)
    with pytest.raises(SongError, match="Kokoro takes 510"):
        Speakers().words(["row"] * 300, speaker)
    with pytest.raises(SongError, match=speaker):
        Speakers().words(["row"], "nobody")
    assert VOICE_RATE == 22_050


@needs_kokoro
def test_an_alphabet_that_lacks_letters_is_refused(tmp_path: Path) -> None:
    for file in Path(os.environ[kokoro.VARIABLE]).iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps({"vocab": {"a": 1}}))
    with pytest.raises(SongError, match="lacks"):
        kokoro.Kokoro(str(tmp_path))
