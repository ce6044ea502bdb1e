"""The songbook: what a seed composes, what voices sing, how stems add up, the shipped songs."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pack_songs
import pytest
import soundfile

from distill import lyrics
from distill.errors import FolderError, SettingsError, SongError
from distill.lyrics.g2p import LETTER_OF, VOWELS
from distill.songbook import (
    band,
    bars,
    composing,
    harmony,
    instruments,
    mandarin,
    scores,
    stanzas,
    traditional,
    tunes,
    verses,
    vocoding,
)
from distill.songbook.singers import SINGERS
from distill.songbook.singing import GRID_SECONDS
from distill.songbook.speakers import Speakers
from distill.songbook.voice import VOICE_RATE, Voice
from distill.songs import Song
from distill.sources import embedded, songbook

TRAIN = [composing.compose(1, index, "train") for index in range(60)]
HELD_OUT = [composing.compose(2, index, "held-out") for index in range(30)]
SONGS = [(score, scores.as_song(score, None)) for score in TRAIN]


def sung_words(composed: list[scores.Score], language: str = "en") -> list[str]:
    return [
        word
        for score in composed
        if score.language == language
        for line in score.lines
        for word, _ in line.words
    ]


# --- words ----------------------------------------------------------------------------------------


def test_training_songs_hold_no_held_out_word_and_held_out_songs_hold_a_third() -> None:
    assert not [word for word in sung_words(TRAIN) if verses.is_held_out(word)]
    held = [word for word in sung_words(HELD_OUT) if verses.is_held_out(word)]
    assert 0.2 < len(held) / len(sung_words(HELD_OUT)) < 0.5
    trained = {lyrics.phones(word) for word in sung_words(TRAIN)}
    assert not [word for word in held if lyrics.phones(word) in trained]


def test_training_songs_hold_no_held_out_chinese_sound() -> None:
    trained, held_out = sung_words(TRAIN, "zh"), sung_words(HELD_OUT, "zh")
    assert len(set(trained)) > 100
    assert not [character for character in trained if songbook.is_held_out(character)]
    assert 0.08 < np.mean([songbook.is_held_out(character) for character in held_out]) < 0.4
    sounds = {mandarin.readings()[character] for character in trained}
    assert not [c for c in held_out if songbook.is_held_out(c) and mandarin.readings()[c] in sounds]


def test_about_a_fifth_of_the_content_words_is_held_out() -> None:
    nouns = len(verses.choices("N", False)), len(verses.choices("N", True))
    assert 0.14 < nouns[1] / sum(nouns) < 0.26
    parts = [(part, held) for part in (*verses.book.WORDS, *verses.FORMS) for held in (False, True)]
    assert (
        len({w for part in parts for phrase in verses.choices(*part) for w in phrase.split()})
        > 2000
    )
    words = [
        (len(mandarin.choices(part, False)), len(mandarin.choices(part, True)))
        for part in "NLPAVTD"
    ]
    kept, out = map(sum, zip(*words, strict=True))
    assert 0.1 < out / (kept + out) < 0.26
    assert len(mandarin.readings()) > 300


@pytest.mark.parametrize("held_out", [False, True])
def test_stanzas_keep_their_metre_and_rhyme(held_out: bool) -> None:
    generator, used = random.Random(4), set[str]()
    for metre in stanzas.METRES:
        lines = stanzas.stanza(generator, metre, held_out, used)
        assert tuple(len(lyrics.sing_texts(line)) for line in lines) == metre.syllables
        assert [len(stanzas.stresses(line)) for line in lines] == list(metre.syllables)
        for row, letter in enumerate(metre.scheme):
            first = metre.scheme.index(letter)
            if first < row:
                word, other = (lines[number].split()[-1] for number in (row, first))
                assert word != other
                assert lyrics.syllables(word)[-1][1:] == lyrics.syllables(other)[-1][1:]
    assert len(used) == sum(len(metre.syllables) for metre in stanzas.METRES)


def test_stress_falls_where_it_is_spoken() -> None:
    assert stanzas.stresses("the garden is alone forever") == [
        False, True, False, False, False, True, False, True, False,
    ]  # fmt: skip


def test_chinese_lines_have_their_length_and_rhyme() -> None:
    generator = random.Random(4)
    for count in (5, 7):
        first, second, third, fourth = mandarin.stanza(generator, count, 4, False, set())
        assert {len(line) for line in (first, second, third, fourth)} == {count}
        assert mandarin.rhymes(second[-1], first[-1])
        assert mandarin.rhymes(fourth[-1], first[-1]) or mandarin.rhymes(fourth[-1], third[-1])
    assert mandarin.rhymes("光", "香") and not mandarin.rhymes("光", "山")


def test_every_chinese_character_is_one_syllable_of_known_letters() -> None:
    for character in mandarin.readings():
        onset, nucleus, coda = mandarin.syllable(character)
        assert set(onset + nucleus + coda) <= set(LETTER_OF.values())
        assert nucleus in VOWELS and not set(onset + coda) & set(VOWELS)
    assert lyrics.sing_text(mandarin.syllable("花")) == "h w A"
    assert lyrics.sing_text(mandarin.syllable("月")) == "y e"


def test_users_songs_are_spelled_as_the_songbook_is() -> None:
    generator = random.Random(5)
    same = []
    for line in (
        line for _ in range(40) for line in mandarin.stanza(generator, 7, 4, False, set())
    ):
        ours = [mandarin.syllable(character) for character in line]
        same += [
            [mine] == read
            for mine, read in zip(ours, lyrics.read(lyrics.words(line), "zh"), strict=True)
        ]
    assert np.mean(same) > 0.995  # pypinyin takes 暖和 for a word wherever the two meet


def test_a_chinese_character_has_one_reading() -> None:
    for words in mandarin._book().values():
        for word, pinyin in words:
            assert tuple(mandarin.readings()[character] for character in word) == pinyin


# --- bars, chords, tunes --------------------------------------------------------------------------


def test_the_grid_is_exact_on_beats_and_whole_between() -> None:
    grid = bars.Bars("4/4", 13, 6)
    assert [grid.step(tick) for tick in (-16, -2, 0, 1, 2, 4, 16)] == [-46, 0, 6, 10, 13, 19, 58]
    assert grid.tempo_bpm == pytest.approx(115.38, abs=0.01)
    assert bars.Bars("6/8", 24).ticks == 12 and bars.Bars("6/8", 24).step(2) == 8


def test_keys_and_chords_have_their_names() -> None:
    names = [bars.chord_name(bars.Key(0, "major").chord(degree)) for degree in range(7)]
    assert names == ["C", "Dm", "Em", "F", "G", "Am", "Bdim"]
    minor = bars.Key(9, "minor")
    assert minor.name == "A minor" and bars.chord_name(minor.chord(4)) == "E"


def test_chords_found_for_a_tune_hold_it() -> None:
    tune = [(0, 8, 60), (8, 16, 64), (16, 24, 65), (24, 32, 69), (32, 48, 67), (48, 64, 60)]
    assert harmony.fit(tune, 16, 4, bars.Key(0, "major")) == [0, 3, 0, 0]


def test_a_seed_is_a_song_and_another_seed_another() -> None:
    assert composing.compose(1, 3, "train") == TRAIN[3]
    assert composing.compose(2, 3, "train").lines != TRAIN[3].lines


def test_songs_are_varied() -> None:
    notes = [note for _, song in SONGS for line in song.lines for note in line.notes]
    lengths = np.array([note.end - note.start for note in notes])
    pitches = [note.midi or 0 for note in notes]
    assert 0.119 < lengths.min() < 0.17 and 0.9 < lengths.max() < 1.201
    assert np.mean(lengths < 0.41) > 0.6  # short enough for words to be heard
    assert max(pitches) - min(pitches) >= 24
    assert {score.voice for score in TRAIN} == set(SINGERS)
    assert {score.language for score in TRAIN} == {"en", "zh"}
    assert {score.setting.accompaniment for score in TRAIN} == set(composing.ACCOMPANIMENTS)
    assert {score.setting.bars.metre for score in TRAIN} == set(bars.METRES)
    assert {tag for score in TRAIN for tag, _ in score.sections} == {"verse", "chorus", "bridge"}
    pairs = [
        pair for _, song in SONGS for line in song.lines for pair in itertools.pairwise(line.notes)
    ]
    leaps = [abs((a.midi or 0) - (b.midi or 0)) for a, b in pairs]
    assert 0.02 < np.mean(np.array(leaps) > 4) < 0.3
    assert any(note.text == "" for note in notes)  # a melisma
    assert max(b.start - a.end for a, b in pairs) > 0.1  # a rest


def check_times(score: scores.Score, song: Song) -> None:
    """What holds of every song in bars."""
    assert len(song.lines) == len(score.lines)
    end = score.steps * 0.04
    for line, later in zip(song.lines, [*song.lines[1:], None], strict=True):
        assert line.start is not None and line.end is not None and line.notes
        assert line.notes[0].start == pytest.approx(line.start + 0.24)
        assert all(
            a.end <= b.start + 1e-6 for a, b in zip(line.notes, line.notes[1:], strict=False)
        )
        limit = end if later is None or later.start is None else later.start
        assert line.start >= 0 and line.notes[-1].end <= line.end + 1e-6 <= limit + 2e-6
        assert line.words[0].start == line.notes[0].start
        assert line.words[-1].end == line.notes[-1].end
        assert [word.text for word in line.words] == (
            list(line.text) if song.language == "zh" else line.text.split()
        )
        times = np.array([time for note in line.notes for time in (note.start, note.end)]) * 25
        assert np.abs(times - times.round()).max() < 1e-6
        assert all(0.119 < note.end - note.start < 1.201 for note in line.notes)


def test_times_are_in_order_and_on_the_grid() -> None:
    for score, song in SONGS:
        check_times(score, song)
        if song.language == "en":
            for line in song.lines:
                syllables = [note.text for note in line.notes if note.text]
                assert syllables == lyrics.sing_texts(line.text)


def test_facts_are_what_was_composed() -> None:
    for score, song in SONGS:
        facts = {fact.name: fact.value for fact in song.facts}
        assert all(fact.by == "given" and fact.confidence is None for fact in song.facts)
        singer = SINGERS[score.voice]
        lowest, highest = facts["vocal_range_midi"]
        assert singer.lowest <= lowest < highest <= singer.highest
        tonic, mode = facts["key"].split()
        assert mode in song.style.split(", ")
        scale = set(bars.MAJOR if mode == "major" else (*bars.MINOR, 11))
        home = bars.PITCHES.index(tonic)
        pitches = [int(note.midi or 0) for line in song.lines for note in line.notes]
        assert all((pitch - home) % 12 in scale for pitch in pitches)
        beats, downbeats = facts["beats_seconds"], facts["downbeats_seconds"]
        assert np.diff(beats) == pytest.approx(60 / facts["tempo_bpm"], abs=1e-3)
        assert downbeats == beats[:: bars.METRES[facts["metre"]][0]]
        assert len(beats) % len(downbeats) == 0
        assert [start for start, _, _ in facts["chords"]] == downbeats
        assert all(a[1] == b[0] for a, b in zip(facts["chords"], facts["chords"][1:], strict=False))
        assert facts["chords"][-1][1] <= score.steps * 0.04
        assert song.voice.startswith(score.voice) and song.licence == "CC0-1.0"
        assert facts["accompaniment"] in song.style


def test_tunes_lie_on_their_chords() -> None:
    on_chord = []
    for score, song in SONGS:
        chords = {chord[0]: chord[2] for chord in song.fact("chords").value}  # type: ignore[union-attr]
        for line in song.lines:
            for note in line.notes:
                if note.start in chords:
                    bar = song.fact("downbeats_seconds").value.index(note.start)  # type: ignore[union-attr]
                    on_chord.append(int(note.midi or 0) % 12 in score.setting.chords[bar])
    assert np.mean(on_chord) > 0.9


def test_lines_end_on_their_chord_and_sections_at_home() -> None:
    ends = []
    for score in TRAIN:
        ends += [
            lines[-1].notes[-1][2] % 12 == score.setting.key.tonic for _, lines in score.sections
        ]
    assert np.mean(ends) > 0.8


def test_a_chorus_returns_unchanged() -> None:
    twice = [score for score in TRAIN if [tag for tag, _ in score.sections].count("chorus") == 2]
    assert twice
    for score in twice:
        first, second = (lines for tag, lines in score.sections if tag == "chorus")
        assert first == second


def test_second_verses_take_up_the_tune_of_the_first() -> None:
    shared = []
    for score in TRAIN:
        verses_ = [lines for tag, lines in score.sections if tag == "verse"]
        if len(verses_) == 2:
            assert verses_[0] != verses_[1]
            pairs = zip(*verses_, strict=True)
            shared += [
                [s.notes[0][2] for _, w in a.words for s in w]
                == [s.notes[0][2] for _, w in b.words for s in w]
                for a, b in pairs
            ]
    assert np.mean(shared) > 0.5


def test_choices_narrow_what_is_drawn_and_leave_the_rest() -> None:
    for index in range(6):
        whole = composing.compose(5, index, "train", languages=("en",))
        alone = composing.compose(5, index, "train", languages=("en",), accompaniments=("none",))
        assert alone.setting.accompaniment == "none"
        assert alone.sections == whole.sections and "guitar" not in alone.style
        assert alone.setting.firsts[0] < 50  # no introduction


def test_crowded_syllables_have_room() -> None:
    beats = [tunes.Beat(True, 5, True)] * 6
    grid = bars.Bars("4/4", 12)
    rhythm = tunes.rhythm(beats, grid, random.Random(0), True)
    assert tunes.fits(beats, rhythm, grid) and rhythm.spans[-1][1] <= rhythm.bars * grid.ticks


# --- traditional songs ----------------------------------------------------------------------------


def test_traditional_songs_are_for_judging_only_and_fill_their_bars() -> None:
    songs = traditional.songs(accompaniments=("guitar", "none"))
    assert len(songs) > 60 and {song.split for song in songs} == {"held-out"}
    assert {song.language for song in songs} == {"en", "zh"}
    assert {song.voice for song in songs} == set(SINGERS)
    assert len({song.id for song in songs}) == len(songs)
    for score in songs:
        song = scores.as_song(score, None)
        check_times(score, song)
        lowest, highest = song.fact("vocal_range_midi").value  # type: ignore[union-attr]
        assert SINGERS[score.voice].lowest <= lowest and highest <= SINGERS[score.voice].highest


def test_a_traditional_song_that_breaks_its_bars_is_refused() -> None:
    broken = traditional._SONGS[0]._replace(rows=("twinkle|C4:1 C4:2",))
    with pytest.raises(SongError, match="inside a bar"):
        traditional._read(broken)


# --- sound ----------------------------------------------------------------------------------------


def test_the_vocoder_keeps_pitch_and_power() -> None:
    frames, rate = 200, 22_050
    flat_FQ = np.zeros((frames, 257), np.float32)
    for hertz in (110.0, 440.0):
        tone_W = vocoding.synthesize(
            flat_FQ,
            np.full_like(flat_FQ, 0.01),
            np.full(frames, hertz),
            np.ones(frames, bool),
            rate,
            0,
        )
        assert len(tone_W) == rate
        spectrum = np.abs(np.fft.rfft(tone_W[2048:-2048] * np.hanning(rate - 4096)))
        peak = spectrum[: int(1.5 * hertz * (rate - 4096) / rate)].argmax() * rate / (rate - 4096)
        assert peak == pytest.approx(hertz, abs=1.5)
        assert np.sqrt((tone_W**2).mean()) == pytest.approx(1, rel=0.1)
    noise_W = vocoding.synthesize(
        flat_FQ, np.ones_like(flat_FQ), np.full(frames, 110.0), np.zeros(frames, bool), rate, 0
    )
    assert np.sqrt((noise_W[500:-500] ** 2).mean()) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("name", sorted(instruments.INSTRUMENTS))
def test_instruments_are_in_tune(name: str) -> None:
    wave_W = instruments.tone(name, 57, VOICE_RATE)[: 2 * VOICE_RATE]
    spectrum = np.abs(np.fft.rfft(wave_W * np.hanning(len(wave_W)), 16 * len(wave_W)))
    hertz = np.arange(len(spectrum)) * VOICE_RATE / (16 * len(wave_W))
    near = (hertz > 200) & (hertz < 240)
    cents = 1200 * np.log2(hertz[near][spectrum[near].argmax()] / 220)
    assert abs(cents) < 5


@pytest.mark.parametrize("style", composing.ACCOMPANIMENTS)
def test_accompaniment_begins_its_bars_on_the_downbeats(style: str) -> None:
    score = composing.compose(3, 1, "train", accompaniments=(style,))
    band_W = band.play(score.setting, VOICE_RATE, score.id)
    assert len(band_W) == round(score.steps * 0.04 * VOICE_RATE)
    assert np.abs(band_W).max() == pytest.approx(1)
    first = round(score.setting.bars.seconds(0) * VOICE_RATE)
    assert np.abs(band_W[:first]).max() == 0 and np.abs(band_W[first : first + 2205]).max() > 0.01
    assert np.array_equal(band_W, band.play(score.setting, VOICE_RATE, score.id))


@pytest.fixture(scope="module")
def voice() -> Voice:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("pyworld")
    return Voice()


def test_the_voice_says_the_phones_asked_for_whatever_came_before(voice: Voice) -> None:
    first, events = voice.sound(lyrics.phones("stream"))
    assert [name.strip("'") for _, name in events if not name.startswith("_")] == [
        "s",
        "t",
        "r",
        "i:",
        "m",
    ]
    voice.sound(lyrics.phones("yesterday"))
    again, _ = voice.sound(lyrics.phones("stream"))
    assert np.array_equal(first, again)


def test_a_word_that_sounds_otherwise_is_refused(
    voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [(0, "s"), (100, "t"), (200, "_:")]
    monkeypatch.setattr(voice, "sound", lambda phones: (np.zeros(400), events))
    with pytest.raises(SongError, match="leave this word out"):
        voice.speak(("S", "IY", "T"))


def test_a_pinyin_syllable_has_onset_vowel_and_coda(voice: Voice) -> None:
    word, before = voice.speak_pinyin("xiang")
    assert [phone.name for phone in word.phones] == ["S;", "'iA", "N"] and before == 1
    word, before = voice.speak_pinyin("song")
    assert len(word.phones) == 3 and before == 1
    with pytest.raises(SongError, match="cannot say"):
        voice.speak_pinyin("xiong")


@pytest.mark.parametrize("name", SINGERS)
def test_every_voice_sings_its_melody(voice: Voice, name: str) -> None:
    pyworld = pytest.importorskip("pyworld")
    score = composing.compose(7, 1, "train", (name,), ("en",), ("none",))
    score = dataclasses.replace(
        score, sections=((score.sections[0][0], score.sections[0][1][:1]),),
        setting=dataclasses.replace(score.setting, firsts=score.setting.firsts[:1]),
    )  # fmt: skip
    song = scores.as_song(score, None)
    wave_W = songbook.sing_score(score, Speakers())
    assert len(wave_W) == round(score.steps * 0.04 * VOICE_RATE) and 0.3 < np.abs(wave_W).max() < 1
    piece_W = wave_W[: round((song.lines[0].end or 0) * VOICE_RATE)].astype(np.float64)
    f0_F, time_F = pyworld.harvest(piece_W, VOICE_RATE, f0_floor=65.0, f0_ceil=900.0)
    cents = []
    for note in song.lines[0].notes:
        length = note.end - note.start
        inside = (
            (time_F > note.start + 0.3 * length) & (time_F < note.start + 0.8 * length) & (f0_F > 0)
        )
        cents.append(
            abs(
                1200
                * np.log2(np.median(f0_F[inside]) / (440 * 2 ** (((note.midi or 0) - 69) / 12)))
            )
        )
    assert np.mean(np.array(cents) < 50) >= 0.8


# --- folders of songs -----------------------------------------------------------------------------

SHORT = {"hours": 0.004, "seed": 4}


def files(songs: list[Song]) -> list[bytes]:
    return [Path(path).read_bytes() for song in songs for path in song.tracks.values()]


def test_a_render_goes_on_where_it_stopped_and_gives_the_same_bytes(voice: Voice, tmp_path) -> None:
    settings = songbook.Settings(str(tmp_path / "whole"), **SHORT)
    whole = settings.load()
    parts = dataclasses.replace(settings, folder=str(tmp_path / "parts"))
    dataclasses.replace(parts, hours=0.0001).load()
    again = parts.load()
    assert [dataclasses.replace(song, audio="", vocals="", accompaniment="") for song in whole] == [
        dataclasses.replace(song, audio="", vocals="", accompaniment="") for song in again
    ]
    assert files(whole) == files(again)
    assert parts.load() == again  # nothing left to sing
    for other in ({"seed": 5}, {"split": "held-out"}, {"voices": ("soprano",)}):
        with pytest.raises(FolderError, match="another seed"):
            dataclasses.replace(parts, **other).load()
    for song in whole:
        mixed, vocals, accompaniment = (
            soundfile.read(path, dtype="int16")[0] for path in song.tracks.values()
        )
        assert np.array_equal(mixed, vocals + accompaniment)
        assert 20_000 < np.abs(mixed.astype(int)).max() < 32_767
        assert len(mixed) == soundfile.info(str(song.vocals)).frames
        silent = vocals[: round(((song.lines[0].start or 0) - 0.01) * VOICE_RATE)]
        assert not silent.any() and np.abs(accompaniment[: len(silent)]).max() > 300


def test_the_voice_alone(voice: Voice, tmp_path) -> None:
    settings = songbook.Settings(str(tmp_path / "alone"), **SHORT, accompaniment=("none",))
    alone = settings.load()
    info = soundfile.info(str(alone[0].audio))
    assert info.samplerate == VOICE_RATE
    assert info.frames == round(settings.score(0).steps * GRID_SECONDS * VOICE_RATE)
    assert list(alone[0].tracks) == ["audio"] and "guitar" not in alone[0].style


def test_mandarin_is_sung(voice: Voice, tmp_path) -> None:
    (song,) = songbook.Settings(str(tmp_path), 0.0001, languages=("zh",)).load()
    assert song.language == "zh" and songbook.mandarin.readings()[song.lines[0].words[0].text]
    assert np.abs(soundfile.read(str(song.vocals))[0]).max() > 0.1


def test_wrong_settings_are_refused(tmp_path) -> None:
    for wrong in (
        {"hours": 0}, {"workers": 0}, {"voices": ("baritone",)}, {"languages": ()},
        {"accompaniment": ("kazoo",)},
    ):  # fmt: skip
        (name,) = wrong
        with pytest.raises(SettingsError, match=f"songbook.{name}"):
            songbook.Settings(str(tmp_path), **wrong)


def test_without_espeak_the_error_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SongError, match=r"pip install 'distill\[songbook\]'"):
        Voice()


# --- the songs inside the package -----------------------------------------------------------------


def test_the_embedded_songs_are_whole_and_the_two_kinds_share_no_held_out_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, held_out = embedded.Settings().load(), embedded.Settings(split="held-out").load()
    assert sum(len(song.lines) for song in held_out) >= 64
    for split, seed, songs in (("train", 1, train), ("held-out", 2, held_out)):
        alone = songbook.Settings("", 1, seed, split, languages=("en",), accompaniment=("none",))
        for index, song in enumerate(songs):
            info, steps = soundfile.info(str(song.audio)), alone.score(index).steps
            assert info.samplerate == pack_songs.SAMPLE_RATE
            assert info.frames == round(steps * GRID_SECONDS * pack_songs.SAMPLE_RATE)
    assert {song.voice.partition(",")[0] for song in train} == set(SINGERS)
    assert {song.voice.partition(",")[0] for song in held_out} == set(SINGERS)
    known = {word.text for song in train for line in song.lines for word in line.words}
    assert not [word for word in known if verses.is_held_out(word)]
    assert {song.split for song in held_out} == {"held-out"}
    with pytest.raises(SettingsError, match="songs"):
        embedded.Settings(songs=0).load()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_songs_are_what_their_seeds_compose_in_any_process(hash_seed: str) -> None:
    program = (
        "from distill.sources import embedded, songbook\n"
        "from distill.songbook import composing, scores\n"
        "for split, seed in (('train', 1), ('held-out', 2)):\n"
        "    alone = songbook.Settings('', 1, seed, split, languages=('en',), "
        "accompaniment=('none',))\n"
        "    for index, song in enumerate(embedded.Settings(split=split).load()):\n"
        "        assert scores.as_song(alone.score(index), song.audio) == song, song.id\n"
        "import hashlib\n"
        "plans = [composing.compose(1, k, 'train') for k in range(6)]\n"
        "print(hashlib.sha256(str(plans).encode()).hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[-1] == hashlib.sha256(str(TRAIN[:6]).encode()).hexdigest()
