"""A recogniser that nobody here made: texts are counted as its authors count, and where one is at
hand it must understand speech and fail the controls."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from test_measures import RATE, hummed, spoken, tone, tune

from distill.errors import DistillError
from distill.measures import Performance, Sheet, absent, dictation, judge, present, swift_f0
from distill.measures.dictation import Count, count, spelled_alike

needs_whisper = pytest.mark.skipif(dictation.absent() is not None, reason=str(dictation.absent()))
needs_swift = pytest.mark.skipif(swift_f0.absent() is not None, reason=str(swift_f0.absent()))


@pytest.mark.parametrize(
    ("sung", "written", "wanted"),
    [
        ("Row, row, row your boat!", "row row row your boat", Count(0, 0, 0, 5)),
        ("Don't you know", "do not you know", Count(0, 0, 0, 4)),
        ("the colour of two stars", "The color of 2 stars.", Count(0, 0, 0, 5)),
        ("down the stream", "down a stream of gold", Count(1, 0, 2, 3)),
        ("down the stream", "", Count(0, 3, 0, 3)),
        ("down the stream", "[Music]", Count(0, 3, 0, 3)),
    ],
)
def test_words_are_counted_as_whispers_authors_count_them(
    sung: str, written: str, wanted: Count
) -> None:
    assert count(sung, written, "en") == wanted


def test_characters_are_counted_where_no_spaces_are_written() -> None:
    assert count("一闪一闪亮晶晶", "一闪一闪亮晶", "zh") == Count(0, 1, 0, 7)
    assert count("Sur le pont d'Avignon", "sur le pont d’avignon", "fr") == Count(0, 0, 0, 5)


def test_a_text_of_marks_alone_counts_nothing() -> None:
    assert count("(la)", "anything", "en").of == 0
    assert spelled_alike("  ", "en") == ""


def test_what_cannot_be_measured_is_said_and_the_rest_is_measured() -> None:
    code = """
import json, sys
sys.path.insert(0, "tests")
from test_measures import hummed
from distill.measures import judge
print(json.dumps(judge({"one": [hummed("row the boat", (52, 55, 59))]}, processes=1)))
"""
    given = os.environ | {"HF_HUB_CACHE": "/nowhere", "HF_HUB_OFFLINE": "1"}
    given.pop(dictation.VARIABLE, None)
    asked = {**given, dictation.VARIABLE: "no-such-size"}
    for environment, words in ((given, "DISTILL_WHISPER=base"), (asked, "no-such-size")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert '"dictation": "measures.dictation: ' in done.stdout and words in done.stdout
        assert '"in_tune"' in done.stdout and '"dictation_error"' not in done.stdout


@needs_whisper
def test_speech_is_written_down_and_another_lines_words_are_not_found() -> None:
    takes = spoken("row row row your boat", "gently down the stream", "life is but a dream")
    row = judge({"spoken": takes}, processes=1)["rows"]["spoken"]
    assert row["figures"]["dictation_error"]["value"] <= 0.3
    assert row["figures"]["wrong_lyrics_dictation"]["value"] >= 0.8
    assert row["dictation"]["recogniser"]


@needs_whisper
def test_silence_is_all_missed_a_hum_adds_little_and_the_same_is_heard_twice() -> None:
    silent = Performance("row the boat", ("row", "the", "boat"), (), np.zeros(RATE), RATE)
    assert dictation.measure(silent, [])[0]["dictation_error"] == (3, 3)
    hum = hummed("row the boat", (52, 55, 59))
    first, second = (dictation.measure(hum, []) for _ in range(2))
    assert first == second and first[0]["dictation_error"][0] <= 24
    long = Performance("row " * 300, ("row",) * 300, (), hum.wave_W, RATE)
    assert dictation.measure(long, [])[0]["dictation_error"][1] == 300
    unknown = Performance("row", ("row",), (), hum.wave_W, RATE, language="xx")
    assert dictation.measure(unknown, [])[0]["dictation_error"] == (0, 0)


def test_a_folder_that_is_no_recogniser_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(dictation.VARIABLE, str(tmp_path))
    dictation.recogniser.cache_clear()
    try:
        with pytest.raises(DistillError, match=r"cannot be opened .* name another"):
            dictation.recogniser()
    finally:
        dictation.recogniser.cache_clear()


# --- a second tracker -----------------------------------------------------------------------------


@needs_swift
def test_two_trackers_hear_a_tone_alike_and_an_empty_take_as_unsung() -> None:
    figures, details = swift_f0.measure(hummed("la la la", (52, 55, 59), cents=20), [])
    assert figures == {"in_tune_swift_f0": (3, 3), "trackers_agree": (3, 3)}
    assert details["cents"] == pytest.approx([20] * 3, abs=12)
    flat = swift_f0.measure(hummed("la la la", (52, 55, 59), cents=-70), [])[0]
    assert flat == {"in_tune_swift_f0": (0, 3), "trackers_agree": (3, 3)}
    for samples in (0, 1, 300):
        nothing = Performance("la", ("la",), ((0, 0.4, 60),), np.zeros(samples), RATE)
        assert swift_f0.measure(nothing, [])[0]["in_tune_swift_f0"] == (0, 1)


@needs_swift
def test_where_the_trackers_part_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tune(52, 55, 59)
    take = Performance("x", ("x",), tuple(notes), tone(notes, 1.6), RATE)
    first_F = swift_f0.track_of(take)
    first_F[len(first_F) // 3 : 2 * len(first_F) // 3] += 12
    monkeypatch.setattr(swift_f0, "track_of", lambda _: first_F)
    assert swift_f0.measure(take, [])[0]["trackers_agree"] == (2, 3)


def test_present_and_absent_are_all_there_is() -> None:
    from distill.measures import kinds

    assert sorted([*present(), *absent()]) == kinds()
    assert Sheet("x", ("x",), ()).language == "en"
