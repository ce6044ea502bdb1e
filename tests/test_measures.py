"""The judges themselves: they must find what is there, miss what is not, and say the same twice."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from distill.errors import AudioError, DistillError
from distill.measures import Performance, Sheet, _bootstrap, judge, load, pitch, present, words

RATE = 16_000
LEAD_SECONDS = 0.2


def tone(notes: list[tuple[float, float, float]], seconds: float, cents: float = 0.0) -> np.ndarray:
    """A buzz with ten harmonics that plays the notes, so many cents too high."""
    clock_W = np.arange(round(seconds * RATE)) / RATE
    hertz_W = np.zeros_like(clock_W)
    for start, end, midi in notes:
        hertz_W[(clock_W >= start) & (clock_W < end)] = 440 * 2 ** ((midi + cents / 100 - 69) / 12)
    phase_W = 2 * np.pi * np.cumsum(hertz_W) / RATE
    wave_W = sum(np.sin(k * phase_W) / k for k in range(1, 11)) * (hertz_W > 0)
    return (0.2 * wave_W).astype(np.float32)


def tune(*midi: float, length: float = 0.4) -> list[tuple[float, float, float]]:
    return [
        (LEAD_SECONDS + i * length, LEAD_SECONDS + (i + 1) * length, m) for i, m in enumerate(midi)
    ]


def hummed(text: str, midi: tuple[float, ...], cents: float = 0.0) -> Performance:
    notes = tune(*midi)
    return Performance(
        text, tuple(text.split()), tuple(notes), tone(notes, notes[-1][1] + 0.2, cents), RATE
    )


# --- notes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cents", "share"), [(0, 1.0), (40, 1.0), (-40, 1.0), (60, 0.0), (-60, 0.0), (1200, 0.0)]
)
def test_a_note_is_in_tune_within_50_cents_and_the_octave_counts(
    cents: float, share: float
) -> None:
    take = hummed("la la la", (52, 55, 59), cents)
    figures, details = pitch.measure(take, [])
    hits, count = figures["in_tune"]
    assert hits / count == share and count == 3
    assert details["cents"] == pytest.approx([cents] * 3, abs=6)


def test_pitch_is_found_at_the_sample_rate_of_the_take() -> None:
    notes = tune(57, 60)
    # a crude 48 kHz: the images lie above hearing and above the tracker
    wave_W = np.repeat(tone(notes, 1.2), 3)
    figures, _ = pitch.measure(Performance("a b", ("a", "b"), tuple(notes), wave_W, 3 * RATE), [])
    assert figures["in_tune"] == (2, 2)


def test_an_unsung_note_is_a_miss_and_another_tune_fails() -> None:
    notes = tune(52, 55, 59, 50)
    half = Performance("x", ("x",), tuple(notes), tone(notes[:2], 2.0), RATE)
    others = [
        Sheet("short", ("y",), tuple(tune(52, 55))),
        Sheet("other", ("y",), tuple(tune(57, 50, 53, 59))),
    ]
    figures, details = pitch.measure(half, others)
    assert figures["in_tune"] == (2, 4) and details["cents"][2:] == [None, None]
    assert figures["wrong_melody_in_tune"] == (0, 4)
    assert pitch.summarise([details])["notes_not_sung"] == 2


def test_the_wrong_tune_is_never_the_right_one_and_is_strung_together_where_lines_are_short() -> (
    None
):
    own = Sheet("own", (), tuple(tune(50, 52, 53)))
    twin = Sheet("twin", (), tuple(tune(50, 52, 53)))
    assert pitch.another_melody(own, [twin]) == []
    short = Sheet("short", (), tuple(tune(60, 62)))
    assert pitch.another_melody(own, [twin, short, Sheet("shorter", (), tuple(tune(64)))]) in (
        [60, 62, 64],
        [64, 60, 62],
    )


@pytest.mark.parametrize("samples", [0, 1, 700])
def test_silence_and_scraps_are_judged_not_refused(samples: int) -> None:
    wave_W = np.zeros(samples, np.float32)
    take = Performance(
        "gently down", ("gently", "down"), ((0.0, 0.4, 60.0), (0.4, 0.8, 62.0)), wave_W, RATE
    )
    assert pitch.measure(take, [])[0]["in_tune"] == (0, 2)
    assert words.measure(take, [])[0]["word_error"][1] == 2


def test_a_waveform_that_is_none_is_refused() -> None:
    with pytest.raises(AudioError, match="NaN"):
        Performance("x", ("x",), (), np.array([0.0, np.nan], np.float32), RATE)
    with pytest.raises(AudioError, match="mono"):
        Performance("x", ("x",), (), np.zeros((1, 5), np.float32), RATE)


# --- words ----------------------------------------------------------------------------------------


def test_the_vocabulary_is_known_to_the_recogniser() -> None:
    ear = words.recogniser()
    assert len(words.vocabulary()) == len(set(words.vocabulary())) == 1199
    assert [word for word in words.vocabulary() if not ear.knows(word)] == []


def test_slots_hold_the_word_and_seven_of_its_length_that_sound_different() -> None:
    ear = words.recogniser()
    asked = ["row", "gently", "the", "amazing", "two"]
    slots = ear.slots(asked, "row gently the amazing two")
    for word, slot in zip(asked, slots, strict=True):
        assert word in slot and len(set(slot)) == len(slot) == 8
        assert {ear.syllables(other) for other in slot} == {ear.syllables(word)}
        rest = set(slot) - {word}
        assert all(set(ear.sounds(other)).isdisjoint(ear.sounds(word)) for other in rest)
    assert "too" not in slots[-1]
    # not always in one place
    assert len({slot.index(word) for word, slot in zip(asked, slots, strict=True)}) > 1


def test_slots_depend_on_the_text_alone_and_leave_out_what_they_are_told() -> None:
    fresh = words.Recogniser()
    asked = ("down", "the", "stream")
    assert (
        words.recogniser().slots(asked, "one")
        == fresh.slots(asked, "one")
        != fresh.slots(asked, "two")
    )
    banned = {word for slot in fresh.slots(asked, "one") for word in slot} - set(asked)
    assert not banned & {
        word for slot in fresh.slots(asked, "one", without=banned) for word in slot
    }


def test_a_word_without_seven_others_changes_the_chance() -> None:
    ear = words.recogniser()
    (slot,) = ear.slots(["university"], "university")
    assert 2 <= len(slot) <= 8
    take = Performance("university", ("university",), (), np.zeros(RATE, np.float32), RATE)
    assert words.measure(take, [])[1]["chance"] == pytest.approx(1 - 1 / len(slot), abs=1e-3)


def test_unknown_words_are_named_and_not_scored() -> None:
    line = ("row", "zyzzxq", "boat", "<custom_token_5>", "a|b")
    take = Performance(" ".join(line), line, (), np.zeros(RATE, np.float32), RATE)
    figures, details = words.measure(take, [])
    assert figures["word_error"][1] == 2
    assert details["not_in_dictionary"] == ["zyzzxq", "<custom_token_5>", "a|b"]
    assert words.summarise([details])["words_not_scored"] == 3


def test_the_wrong_words_are_of_another_line_and_of_equal_count() -> None:
    own = Sheet("row the boat", ("row", "the", "boat"), ())
    near, far, long = (
        Sheet(text, tuple(text.split()), ())
        for text in ("the red boat", "stars come out", "a b c d")
    )
    assert words.other_words(own, [near, far, long, own]) == far.words
    drawn = words.other_words(own, [long])
    assert (
        len(drawn) == 3
        and set(drawn) <= set(words.vocabulary())
        and not set(drawn) & set(own.words)
    )


def test_speech_is_understood_and_wrong_lyrics_are_not() -> None:
    takes = spoken(
        "row row row your boat",
        "gently down the stream",
        "life is but a dream",
        "mary had a little lamb",
    )
    report = judge({"spoken": takes}, processes=1)["rows"]["spoken"]
    assert report["figures"]["word_error"]["count"] == 19
    assert report["figures"]["word_error"]["value"] <= 0.2
    assert report["figures"]["wrong_lyrics_error"]["value"] >= 0.7
    assert report["words"]["chance"] == pytest.approx(0.875)
    noise_W = np.random.default_rng(0).normal(0, 0.1, RATE * 2).astype(np.float32)
    noise = [Performance(take.text, take.words, take.notes, noise_W, RATE) for take in takes]
    assert (
        judge({"noise": noise}, processes=1)["rows"]["noise"]["figures"]["word_error"]["value"]
        >= 0.6
    )


def test_what_is_heard_does_not_depend_on_what_was_heard_before() -> None:
    # It can only guess at hums: a decoder that is not reset guesses otherwise the second time.
    takes = [hummed("la li", (52, 55)), hummed("lo lu le", (57, 60, 52)), hummed("la lo", (50, 59))]
    ear = words.recogniser()

    def hear(take: Performance, gain: float = 1.0) -> list[str | None]:
        return ear.hear(gain * take.wave_W, RATE, ear.slots(take.words, take.text))

    forth = [hear(take) for take in takes]
    assert [hear(take) for take in reversed(takes)] == forth[::-1]
    assert hear(takes[0], 0.25) == forth[0]  # the level is evened out


def spoken(*lines: str) -> list[Performance]:
    """espeak-ng says the lines. Skips where it is not installed."""
    loader = pytest.importorskip("espeakng_loader")
    # in a process of its own: the library keeps one global state
    script = (
        "import ctypes, sys, numpy as np\n"
        f"library, data, lines = {loader.get_library_path()!r}, {loader.get_data_path()!r}, "
        f"{lines!r}\n"
        "espeak, pieces = ctypes.CDLL(library), []\n"
        "rate = espeak.espeak_Initialize(2, 500, data.encode(), 0)\n"
        "@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, "
        "ctypes.c_void_p)\n"
        "def hear(samples, count, events):\n"
        "    if samples and count > 0: pieces.append(np.ctypeslib.as_array(samples, "
        "(count,)).copy())\n"
        "    return 0\n"
        "espeak.espeak_SetSynthCallback(hear)\n"
        "espeak.espeak_SetVoiceByName(b'en-us'); espeak.espeak_SetParameter(1, 120, 0)\n"
        "waves = []\n"
        "for line in lines:\n"
        "    pieces.clear(); text = line.encode()\n"
        "    espeak.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None); "
        "espeak.espeak_Synchronize()\n"
        "    waves.append(np.concatenate(pieces).astype(np.float32) / 32768)\n"
        "np.savez(sys.stdout.buffer, rate, *waves)\n"
    )
    import io

    spoke = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    arrays = list(np.load(io.BytesIO(spoke.stdout)).values())
    rate = int(arrays[0])
    return [
        Performance(text, tuple(text.split()), (), wave_W, rate)
        for text, wave_W in zip(lines, arrays[1:], strict=True)
    ]


# --- the whole ------------------------------------------------------------------------------------


def test_judging_is_the_same_in_any_number_of_processes_and_is_json() -> None:
    lines = [hummed("la li", (52, 55)), hummed("lo lu le", (57, 60, 52)), hummed("la lo", (50, 59))]
    rows = {"codec": lines, "singer": [hummed("la li", (52, 55), 70.0), *lines[1:]]}
    one, two = judge(rows, processes=1), judge(rows, processes=2)
    assert one.pop("seconds_of_judging") > 0 and two.pop("seconds_of_judging") > 0
    assert one == two == json.loads(json.dumps(one))
    assert one["rows"]["codec"]["figures"]["in_tune"]["value"] == 1.0
    assert one["rows"]["singer"]["figures"]["in_tune"]["value"] == pytest.approx(5 / 7)
    pair = one["paired"]["singer"]["figures"]["in_tune"]
    assert one["paired"]["singer"]["against"] == "codec"
    assert pair["difference"]["value"] == pytest.approx(-2 / 7) and pair["quotient"][
        "value"
    ] == pytest.approx(5 / 7)
    assert set(one["explanations"]) == set(one["rows"]["codec"]["figures"])


def test_rows_of_other_lines_cannot_be_paired() -> None:
    rows = {"codec": [hummed("la", (52,))], "singer": [hummed("li", (52,))]}
    with pytest.raises(ValueError, match="other lines"):
        judge(rows, processes=1)
    assert judge(rows, reference=None, processes=1)["paired"] == {}


def test_every_measure_keeps_the_same_promise() -> None:
    take = hummed("la la", (52, 55))
    assert {"pitch", "words"} <= set(present())
    for kind in present():
        figures, details = load(kind).measure(take, [])
        assert set(figures) == set(load(kind).FIGURES)
        added = details.get("added", 0)  # a recogniser may write more words than were sung
        assert all(0 <= hits <= count + added for hits, count in figures.values())
        json.dumps([details, load(kind).summarise([details])])


@pytest.mark.parametrize(("kind", "library"), [("pitch", "pyworld"), ("words", "pocketsphinx")])
def test_a_missing_judge_is_named_with_what_to_install(
    kind: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DistillError, match=r'pip install "distill\[judge\]"'):
        words.Recogniser() if kind == "words" else pitch.track(np.zeros(RATE), RATE)


def test_judging_loads_no_torch() -> None:
    code = "import sys, distill.measures as m; [m.load(k) for k in m.kinds()]"
    code += "; exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- intervals ------------------------------------------------------------------------------------


def test_an_interval_holds_its_share_and_narrows_with_lines() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(4, 9, 400)
    hits = rng.binomial(counts, 0.2)
    few, many = _bootstrap.share(hits[:25], counts[:25]), _bootstrap.share(hits, counts)
    assert few.low < few.value < few.high and many.low < 0.2 < many.high
    assert (many.high - many.low) < 0.5 * (few.high - few.low)
    # words are independent here, so the binomial law holds
    expected = 1.96 * np.sqrt(0.2 * 0.8 / counts.sum())
    assert (many.high - many.low) / 2 == pytest.approx(expected, rel=0.2)
    assert _bootstrap.share(hits, counts) == many


def test_a_paired_difference_is_surer_than_its_parts() -> None:
    hard = np.arange(60) % 7  # lines differ much, the rows hardly
    counts = np.full(60, 8)
    pair = _bootstrap.difference(hard + (np.arange(60) % 10 == 0), counts, hard, counts)
    alone = _bootstrap.share(hard, counts)
    assert pair.value == pytest.approx(6 / 480) and pair.low >= 0
    assert (pair.high - pair.low) < 0.3 * (alone.high - alone.low)
    assert _bootstrap.quotient(hard, counts, hard, counts) == _bootstrap.Interval(1.0, 1.0, 1.0)
    assert _bootstrap.quotient(hard, counts, 0 * hard, counts) is None  # of nothing no part is kept


def test_nothing_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was counted"):
        _bootstrap.share([0, 0], [0, 0])
    with pytest.raises(ValueError, match="same lines"):
        _bootstrap.difference([1], [2], [1, 1], [2, 2])
