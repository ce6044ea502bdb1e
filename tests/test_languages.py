"""Lyrics without a score are read in the language of the singer's songs, and files say which."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import tiny_singer
from test_singer import SCORE, about
from tiny_singer import ToyCodec

from distill import cli, hub, lyrics
from distill.curation.steps.language import likeliest
from distill.errors import LyricsError, SettingsError
from distill.singing import evaluate
from distill.singing import singer as singing
from distill.singing.singer import Singer, load_singer
from distill.singing.singer_folder import About, read_about, write_about
from distill.songs import Line, Section, Song, primary
from distill.tasks._singing_run import _languages
from distill.writing.prompts import header

SPANISH = "la cucaracha ya no puede"
ENGLISH = "amazing grace how sweet the sound"


@pytest.fixture(scope="module")
def student():
    return tiny_singer.student(lively=0.5)


def singer_of(student: Any, *languages: str, **more: Any) -> Singer:
    return Singer(student, ToyCodec(), about(languages=languages, **more))


def sung(singer: Singer, text: str, **more: Any) -> tuple[str, ...]:
    pieces = singer.sing(text, seed=1, **more).pieces
    return tuple(piece for piece in pieces if piece)


def read(text: str, language: str) -> tuple[str, ...]:
    return tuple(lyrics.sing_texts(text, language))


def test_the_language_of_its_songs_is_how_it_reads(student):
    assert read(SPANISH, "es") != read(SPANISH, "en")
    assert sung(singer_of(student, "es"), SPANISH) == read(SPANISH, "es")
    assert sung(singer_of(student), SPANISH) == read(SPANISH, "en")  # singers that say nothing
    assert sung(singer_of(student), SPANISH, language="es-MX") == read(SPANISH, "es")
    plan = singer_of(student, "es")._plan(Line(SPANISH), "folk", "low", "es")
    assert plan.header == header("folk", "low", [Line(SPANISH)], about().writing, "es")
    assert ", ".join(read(SPANISH, "es")) in plan.header


@pytest.mark.parametrize("grain", ["word", "line"])
def test_coarser_singers_read_it_too(student, grain):
    pieces = sung(singer_of(student, "es", grain=grain), SPANISH)
    assert ", ".join(pieces) == ", ".join(read(SPANISH, "es"))


def test_of_several_the_likeliest_is_taken_unless_one_is_asked_for(student):
    both = singer_of(student, "en", "es")
    assert sung(both, SPANISH) == read(SPANISH, "es")
    assert sung(both, ENGLISH) == read(ENGLISH, "en")
    assert sung(both, SPANISH, language="en") == read(SPANISH, "en")
    lines = [Line(SPANISH), Line(ENGLISH)]
    takes = both.sing_lines(lines, seed=1)
    for take, text, language in zip(takes, (SPANISH, ENGLISH), ("es", "en"), strict=True):
        assert tuple(piece for piece in take.pieces if piece) == read(text, language)
    asked = both.sing_lines(lines, seed=1, language=["en", None])
    assert tuple(piece for piece in asked[0].pieces if piece) == read(SPANISH, "en")


def test_a_language_that_it_never_heard_is_refused_with_those_it_knows(student):
    with pytest.raises(SettingsError, match=r"language 'fr': this singer never heard it; it knows"):
        sung(singer_of(student, "es", "en"), "au clair", language="fr")
    with pytest.raises(SettingsError, match="1 languages for 2 lines"):
        singer_of(student, "es").sing_lines([Line("a"), Line("b")], language=["es"])
    with pytest.raises(LyricsError):
        singer_of(student, "es", "en").sing("!!!")


def test_likeliest_keeps_to_the_languages_it_is_given():
    assert likeliest([SPANISH], ("en", "es")) == "es"
    assert likeliest(["好一朵美丽的茉莉花"], ("en", "zh")) == "zh"
    assert likeliest(["さくら さくら", "東京"], ("en", "ja", "zh")) == "ja"
    assert likeliest(["아리랑 아리랑"], ("en", "ko")) == "ko"
    assert likeliest(["아리랑 아리랑"], ("en", "es")) == "en"  # none of them: the commonest
    assert likeliest(["la la la"], ("es", "en")) == "es"  # nothing said: the commonest
    assert likeliest([SPANISH], ("en", "zh")) == "en"


def test_evaluation_sings_each_song_in_its_language_as_far_as_it_is_known(student, monkeypatch):
    heard: list[Any] = []
    monkeypatch.setattr(
        singing.Singer, "sing_lines", lambda self, *given: heard.append(given) or []
    )
    songs = [
        Song(str(n), (Section("", (SCORE,)),), "folk", "low", language=language)
        for n, language in enumerate(("es-AR", "fr", "", "en"))
    ]
    asked = evaluate.lines_of(songs)
    with pytest.raises(ValueError, match="shorter"):
        evaluate.sing(singer_of(student, "en", "es"), asked, 0, None)
    assert heard[0][-1] == ["es-AR", None, None, "en"]


# --- files ----------------------------------------------------------------------------------------
def test_singer_json_lists_the_languages_of_its_songs_the_commonest_first(tmp_path):
    songs = [
        Song(str(n), (), language=language)
        for n, language in enumerate(("es", "en-GB", "en", "", "zh", "en_US"))
    ]
    assert _languages(songs) == ("en", "es", "zh")
    assert primary(" EN-gb ") == "en"
    write_about(tmp_path, about(languages=("en", "es")))
    assert read_about(tmp_path).languages == ("en", "es")
    row = json.loads((tmp_path / "singer.json").read_text())
    del row["languages"]  # as earlier versions wrote it
    (tmp_path / "singer.json").write_text(json.dumps(row))
    assert read_about(tmp_path) == replace(about(), languages=())


def test_the_card_says_the_languages(tmp_path):
    for languages, wanted in ((("es", "zh"), ["es", "zh"]), ((), ["en"])):
        given: About = about(languages=languages)
        write_about(tmp_path, given)
        (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
        text = hub.card(tmp_path, "org/name")
        assert hub.ModelCard(text).data.to_dict()["language"] == wanted


def test_the_card_says_what_stands_before_a_song(tmp_path):
    write_about(tmp_path, about())
    (tmp_path / "config.json").write_text("{}")
    nothing = "stands nothing: give its ids with `add_special_tokens=False`."
    assert nothing in hub.card(tmp_path, "org/name")
    (tmp_path / "distill.json").write_text('{"opening": []}')
    assert nothing in hub.card(tmp_path, "org/name")
    (tmp_path / "distill.json").write_text('{"opening": [1]}')
    tokens = {"added_tokens": [{"id": 1, "content": "<s>"}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokens))
    assert "stands `<s>` (id 1), which its tokenizer writes by itself." in hub.card(tmp_path, "o/n")


def test_the_command_line_asks_for_a_language(student, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(singing, "load_singer", lambda *a, **b: singer_of(student, "en", "es"))
    wav = tmp_path / "a.wav"
    asked = ["sing", "embedded", SPANISH, "--seed", "1", "--save", str(wav)]
    assert cli.main([*asked, "--language", "es"]) == 0 and wav.is_file()
    assert cli.main([*asked, "--language", "fr"]) == 2
    assert "language 'fr'" in capsys.readouterr().err
    (tmp_path / "lines.txt").write_text(SPANISH + "\n" + ENGLISH + "\n")
    out = ["--lines", str(tmp_path / "lines.txt"), "--out", str(tmp_path / "out")]
    assert cli.main(["sing", "embedded", *out, "--seed", "1"]) == 0
    rows = (tmp_path / "out" / "takes.jsonl").read_text().splitlines()
    assert [json.loads(row)["language"] for row in rows] == ["es", "en"]


def test_the_embedded_singer_reads_english_as_before():
    singer = load_singer(device="cpu")
    assert singer.about.languages == () and singer.language_of([SPANISH]) == "en"
