"""The songbook: what a seed composes, what the voice sings, and the songs inside the package."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile

from distill import lyrics
from distill.errors import FolderError, SettingsError, SongError
from distill.sources import embedded, songbook
from distill.sources._songbook import melodies, scores, traditional, verses
from distill.sources._songbook.singing import SAMPLE_RATE
from distill.sources._songbook.voice import Voice

TRAIN = [scores.compose(1, index, "train") for index in range(40)]
HELD_OUT = [scores.compose(2, index, "held-out") for index in range(15)]


def sung_words(composed: list[scores.Score]) -> list[str]:
    return [word for score in composed for line in score.lines for word, _ in line.words]


def test_training_songs_hold_no_held_out_word_and_held_out_songs_hold_a_third() -> None:
    assert not [word for word in sung_words(TRAIN) if verses.is_held_out(word)]
    share = np.mean([verses.is_held_out(word) for word in sung_words(HELD_OUT)])
    assert 0.25 < share < 0.45
    trained = {lyrics.phones(word) for word in sung_words(TRAIN)}
    assert not [
        word for word in sung_words(HELD_OUT) if verses.is_held_out(word) and lyrics.phones(word) in trained
    ]


def test_about_a_fifth_of_the_content_words_is_held_out() -> None:
    nouns = len(verses.choices("N", False)), len(verses.choices("N", True))
    assert 0.14 < nouns[1] / sum(nouns) < 0.26
    assert len(verses.vocabulary()) > 1500


def test_a_seed_is_a_song_and_another_seed_another() -> None:
    assert scores.compose(1, 3, "train") == TRAIN[3]
    assert scores.compose(2, 3, "train").lines != TRAIN[3].lines


def test_notes_touch_lie_on_the_grid_and_end_at_home() -> None:
    for score in TRAIN[:10]:
        song = scores.as_song(score, None)
        for line in song.lines:
            times = [time for note in line.notes for time in (note.start, note.end)]
            assert line.start is not None and line.end is not None
            assert np.allclose(
                np.array([*times, line.start, line.end]) * 25 % 1, [0.0], atol=1e-6
            ) or np.allclose((np.array([*times, line.start, line.end]) * 25 + 0.5) % 1, 0.5, atol=1e-6)
            assert all(a.end == b.start for a, b in zip(line.notes, line.notes[1:], strict=False))
            assert line.notes[0].start == pytest.approx(line.start + 0.24)
            assert line.end == pytest.approx(line.notes[-1].end + 0.4)
            assert all(0.239 < note.end - note.start < 0.81 for note in line.notes)
            assert line.words[0].start == line.notes[0].start and line.words[-1].end == line.notes[-1].end
            pieces = [lyrics.sing_text(s) for word in line.words for s in lyrics.syllables(word.text)]
            assert [note.text for note in line.notes if note.text] == pieces


def test_a_chorus_returns_unchanged() -> None:
    twice = [score for score in TRAIN if [tag for tag, _ in score.sections].count("chorus") == 2]
    assert twice
    for score in twice:
        first, second = (lines for tag, lines in score.sections if tag == "chorus")
        assert first == second


def test_lines_end_on_the_home_chord_and_stay_in_the_voice() -> None:
    dice = random.Random(5)
    for _ in range(50):
        manner = melodies.choose_manner(dice)
        pitches = melodies.walk(manner, 9, dice)
        assert min(pitches) >= melodies.LOWEST and max(pitches) <= melodies.HIGHEST
        third = 3 if manner.scale == "minor" else 4
        assert (pitches[-1] - manner.tonic) % 12 in (0, third, 7)
        assert all((p - manner.tonic) % 12 in melodies.SCALES[manner.scale] for p in pitches)


def test_traditional_songs_are_for_judging_only() -> None:
    songs = traditional.songs()
    assert len(songs) == 33 and {song.split for song in songs} == {"held-out"}


@pytest.fixture(scope="module")
def voice() -> Voice:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("pyworld")
    return Voice()


def test_the_voice_says_the_phones_asked_for_whatever_came_before(voice: Voice) -> None:
    first, events = voice.sound(lyrics.phones("stream"))
    assert [name.strip("'") for _, name in events if not name.startswith("_")] == ["s", "t", "r", "i:", "m"]
    voice.sound(lyrics.phones("yesterday"))
    again, _ = voice.sound(lyrics.phones("stream"))
    assert np.array_equal(first, again)


def test_a_word_that_sounds_otherwise_is_refused(voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [(0, "s"), (100, "t"), (200, "_:")]
    monkeypatch.setattr(voice, "sound", lambda phones: (np.zeros(400), events))
    with pytest.raises(SongError, match="leave this word out"):
        voice.speak(("S", "IY", "T"))


def test_a_sung_line_has_its_length_and_its_melody(voice: Voice) -> None:
    pyworld = pytest.importorskip("pyworld")
    score = scores.compose(7, 0, "train")
    song = scores.as_song(score, None)
    wave = songbook.sing_score(score, voice)
    assert len(wave) == round((song.lines[-1].end or 0) * SAMPLE_RATE)
    assert np.abs(wave).max() < 1
    line = song.lines[0]
    piece = wave[: round((line.end or 0) * SAMPLE_RATE)].astype(np.float64)
    f0, time = pyworld.harvest(piece, SAMPLE_RATE, f0_floor=65.0, f0_ceil=900.0)
    off = []
    for note in line.notes:
        length = note.end - note.start
        inside = (time > note.start + 0.3 * length) & (time < note.start + 0.8 * length) & (f0 > 0)
        wanted = 440 * 2 ** (((note.midi or 0) - 69) / 12)
        off.append(abs(1200 * np.log2(np.median(f0[inside]) / wanted)))
    assert np.mean(np.array(off) < 50) >= 0.8


def test_a_render_goes_on_where_it_stopped_and_gives_the_same_bytes(voice: Voice, tmp_path) -> None:
    whole = songbook.render(tmp_path / "whole", 0.004, 4)
    songbook.render(tmp_path / "parts", 0.0001, 4)
    parts = songbook.render(tmp_path / "parts", 0.004, 4)
    assert [song.id for song in parts] == [song.id for song in whole]
    for one, other in zip(whole, parts, strict=True):
        assert one.sections == other.sections
        assert np.array_equal(soundfile.read(str(one.audio))[0], soundfile.read(str(other.audio))[0])
    with pytest.raises(FolderError, match="another seed"):
        songbook.render(tmp_path / "parts", 0.004, 5)


def test_wrong_hours_are_refused(tmp_path) -> None:
    with pytest.raises(SettingsError, match="hours"):
        songbook.Settings(folder=str(tmp_path), hours=0).load()
    with pytest.raises(SettingsError, match="workers"):
        songbook.Settings(folder=str(tmp_path), workers=0).load()


def test_without_espeak_the_error_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SongError, match=r"pip install 'distill\[songbook\]'"):
        Voice()


def test_the_embedded_songs_are_whole_and_the_two_kinds_share_no_held_out_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, held_out = embedded.Settings().load(), embedded.Settings(split="held-out").load()
    assert sum(len(song.lines) for song in held_out) >= 64
    for song in train + held_out:
        info = soundfile.info(str(song.audio))
        assert info.samplerate == SAMPLE_RATE
        assert info.frames == round((song.lines[-1].end or 0) * SAMPLE_RATE)
    known = {word.text for song in train for line in song.lines for word in line.words}
    assert not [word for word in known if verses.is_held_out(word)]
    assert {song.split for song in held_out} == {"held-out"}
    with pytest.raises(SettingsError, match="songs"):
        embedded.Settings(songs=0).load()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_embedded_songs_are_what_their_seeds_compose_in_any_process(hash_seed: str) -> None:
    program = (
        "from distill.sources import embedded\n"
        "from distill.sources._songbook import scores\n"
        "for split, seed in (('train', 1), ('held-out', 2)):\n"
        "    for index, song in enumerate(embedded.Settings(split=split).load()):\n"
        "        assert scores.as_song(scores.compose(seed, index, split), song.audio) == song, song.id\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}
    )
