"""Notes, key, tempo, beats, range and separation, on sounds whose truth is written down here."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill import lyrics
from distill.curation.steps import Item, Sound, music, notes, separation
from distill.curation.steps import _harmony as harmony
from distill.curation.steps import _melody as melody
from distill.curation.steps import _pitch as pitch
from distill.curation.steps import _rhythm as rhythm
from distill.errors import FolderError, SettingsError
from distill.songs import Fact, Line, Note, Section, Song, Word

RATE = 16_000


# --- sounds ---------------------------------------------------------------------------------------
def sung(midi_W: np.ndarray, rate: int = RATE, loud_W: np.ndarray | float = 1.0) -> np.ndarray:
    """A buzz of 20 harmonics along a pitch curve: wave_W."""
    phase_W = 2 * np.pi * np.cumsum(440 * 2 ** ((midi_W - 69) / 12)) / rate
    hz = 440 * 2 ** ((midi_W.max() - 69) / 12)
    wave_W = np.sum([np.sin(k * phase_W) / k for k in range(1, 21) if k * hz < 0.45 * rate], axis=0)
    return (0.2 * loud_W * wave_W).astype(np.float32)


def flat(midi: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return np.full(round(seconds * rate), float(midi))


def mouth(length: int) -> np.ndarray:
    """Loudness of a syllable of `length` samples: a vowel, and 70 ms of a soft consonant."""
    closing_W = np.clip((np.arange(length)[::-1] - 0.05 * RATE) / (0.02 * RATE), 0.03, 1.0)
    return np.minimum(closing_W, np.maximum(0.03, np.arange(length) / (0.01 * RATE)))


def syllables(score: Sequence[tuple[float, float, float]], seconds: float) -> np.ndarray:
    """A voice that sings each (start, end, midi)."""
    wave_W = np.zeros(round(seconds * RATE), dtype=np.float32)
    for start, end, midi in score:
        first, length = round(start * RATE), round((end - start) * RATE)
        wave_W[first : first + length] += sung(np.full(length, float(midi)), loud_W=mouth(length))
    return wave_W


def song_of(lines: Sequence[Line], **rest: object) -> Song:
    return Song("toy", (Section("verse", tuple(lines)),), **rest)  # type: ignore[arg-type]


def heard(wave_W: np.ndarray, lines: Sequence[Line], track: str = "vocals") -> Item:
    return Item(song_of(lines), {track: Sound(wave_W[None], RATE)})


# --- pitch ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("midi", [38, 45, 52.3, 60, 67, 76, 83])
def test_a_steady_tone_is_tracked_within_5_cents(midi: float) -> None:
    tracked = pitch.track(sung(flat(midi, 1.0)))
    inner = tracked.midi_F[5:-5]
    assert not np.isnan(inner).any()
    assert np.abs(inner - midi).max() < 0.05


def test_pitch_is_the_same_at_any_sample_rate_and_loudness() -> None:
    quiet = pitch.track(pitch.at_rate(0.01 * sung(flat(57, 1.0, 44_100), 44_100), 44_100))
    assert np.abs(quiet.midi_F[5:-5] - 57).max() < 0.05


def test_a_missing_fundamental_is_still_the_pitch() -> None:
    clock_W = np.arange(RATE) / RATE
    partials = [np.sin(2 * np.pi * 110 * k * clock_W) for k in (2, 3, 4, 5)]
    wave_W = np.sum(partials, axis=0).astype(np.float32)
    assert np.abs(np.nanmedian(pitch.track(0.1 * wave_W).midi_F) - 45) < 0.05


def test_a_glide_is_followed() -> None:
    midi_W = np.linspace(50, 62, 2 * RATE)
    midi_F = pitch.track(sung(midi_W)).midi_F[10:190]
    true_F = midi_W[np.arange(10, 190) * pitch.HOP]
    assert np.abs(midi_F - true_F).max() < 0.2


@pytest.mark.parametrize("what", ["noise", "silence", "nothing", "scrap"])
def test_what_has_no_pitch_is_unvoiced(what: str) -> None:
    noise_W = (0.1 * np.random.default_rng(1).standard_normal(RATE)).astype(np.float32)
    wave_W = {
        "noise": noise_W,
        "silence": 0 * noise_W,
        "nothing": noise_W[:0],
        "scrap": noise_W[:100],
    }[what]
    tracked = pitch.track(wave_W)
    assert len(tracked.midi_F) == len(wave_W) // pitch.HOP + 1
    assert np.isnan(tracked.midi_F).mean() > 0.9


# --- notes without words --------------------------------------------------------------------------
def rows(heard: Sequence[melody.Found]) -> list[tuple[float, float, float]]:
    return [(melody.seconds(note.first), melody.seconds(note.stop), note.key) for note in heard]


def close(
    guessed: Sequence[tuple[float, float, float]], true: Sequence[tuple[float, float, float]]
) -> bool:
    """Every onset within 50 ms, every end within 100 ms, every key the same."""
    return len(guessed) == len(true) and all(
        abs(a[0] - b[0]) <= 0.05 and abs(a[1] - b[1]) <= 0.1 and a[2] == b[2]
        for a, b in zip(guessed, true, strict=True)
    )


TUNE = [(0.3, 0.8, 57.0), (0.8, 1.1, 59.0), (1.1, 1.4, 59.0), (1.4, 2.0, 52.0), (2.6, 3.2, 64.0)]


def test_notes_of_a_voice_without_words_repeated_keys_and_rests_included() -> None:
    transcribed = melody.transcribe(melody.listen(Sound(syllables(TUNE, 3.6)[None], RATE)))
    assert close(rows(transcribed), TUNE), rows(transcribed)


def test_vibrato_and_a_scoop_are_one_note() -> None:
    clock_W = np.arange(round(1.5 * RATE)) / RATE
    midi_W = 60 + 0.8 * np.sin(2 * np.pi * 5.5 * clock_W) - 2 * np.exp(-clock_W / 0.04)
    wave_W = np.pad(sung(midi_W), (RATE // 2, RATE // 2))
    transcribed = rows(melody.transcribe(melody.listen(Sound(wave_W[None], RATE))))
    assert [key for _, _, key in transcribed] == [60.0]
    assert abs(transcribed[0][0] - 0.5) < 0.06 and abs(transcribed[0][1] - 2.0) < 0.1


def test_a_voice_tuned_low_is_heard_on_its_own_keys() -> None:
    tune = [(start, end, midi - 0.4) for start, end, midi in TUNE]
    transcribed = melody.transcribe(melody.listen(Sound(syllables(tune, 3.6)[None], RATE)))
    assert [note.key for note in transcribed] == [midi for _, _, midi in TUNE]


# --- notes with words -----------------------------------------------------------------------------
LINE = Line(
    "Row a, boat away!",
    0.0,
    3.4,
    (Word("Row", 0.3, 0.8), Word("a,", 0.8, 1.1), Word("boat", 1.1, 1.4), Word("away!", 1.4, 3.2)),
)
TEXTS = [text for word in LINE.words for text in lyrics.sing_texts(word.text)]


@pytest.mark.parametrize("off", [0.0, 0.08, -0.08])
def test_syllables_are_put_on_the_notes(off: float) -> None:
    words = tuple(replace(word, start=word.start + off, end=word.end + off) for word in LINE.words)
    item = notes.Settings().curate(heard(syllables(TUNE, 3.6), [replace(LINE, words=words)]))
    sung = item.song.lines[0].notes
    assert close([(note.start, note.end, note.midi or 0) for note in sung], TUNE), sung
    assert [note.text for note in sung] == TEXTS and len(TEXTS) == 5
    fact = item.song.fact("notes_confidence")
    assert fact is not None and fact.by == "notes" and fact.value[0] > 0.7
    assert [remark.verdict for remark in item.remarks] == ["mended"]


def test_a_melisma_has_further_notes_without_text() -> None:
    wave_W = syllables([(0.3, 0.9, 57), (1.8, 2.3, 55)], 2.8)
    midi_W = np.concatenate([flat(57, 0.4), flat(60, 0.5)])
    wave_W[round(0.9 * RATE) : round(1.8 * RATE)] = sung(midi_W, loud_W=mouth(len(midi_W)))
    line = Line(
        "go there now",
        0,
        2.8,
        (Word("go", 0.3, 0.9), Word("there", 0.9, 1.8), Word("now", 1.8, 2.3)),
    )
    with_words = notes.Settings().curate(heard(wave_W, [line])).song.lines[0].notes
    assert [note.midi for note in with_words] == [57, 57, 60, 55]
    assert [bool(note.text) for note in with_words] == [True, True, False, True]
    assert abs(with_words[2].start - 1.3) < 0.05


def test_a_line_with_an_unpitched_syllable_keeps_its_words() -> None:
    wave_W = syllables(TUNE[:1] + TUNE[3:], 3.6)
    noise_W = np.random.default_rng(2).standard_normal(round(0.6 * RATE)).astype(np.float32)
    wave_W[round(0.8 * RATE) : round(1.4 * RATE)] = 0.03 * noise_W
    item = notes.Settings().curate(heard(wave_W, [LINE]))
    assert item.song.lines == (LINE,)
    assert "1 with a syllable without pitch" in item.remarks[0].text


def test_wrong_and_unsure_word_times_give_no_notes() -> None:
    wave_W = syllables(TUNE, 3.6)
    doubtful = replace(LINE, words=tuple(replace(word, confidence=0.3) for word in LINE.words))
    item = notes.Settings().curate(heard(wave_W, [doubtful]))
    assert item.song.lines == (doubtful,)
    assert "1 unsure" in item.remarks[0].text
    wanted = notes.Settings(least_confidence=0.1).curate(heard(wave_W, [doubtful]))
    assert len(wanted.song.lines[0].notes) == 5


def test_given_notes_and_lines_without_word_times_stay_as_they_are() -> None:
    given = replace(LINE, notes=(Note(0.3, 0.8, 50.0, "r o"),))
    wave_W = syllables(TUNE, 3.6)
    item = heard(wave_W, [given])
    assert notes.Settings().curate(item) == item
    untimed = notes.Settings().curate(heard(wave_W, [Line("row a boat away", 0.0, 3.4)]))
    assert untimed.song.lines[0].notes == ()
    assert untimed.remarks[0].text == "no notes looked for: no line has word times"
    silent = Item(song_of([LINE]))
    assert notes.Settings().curate(silent) == silent


def test_in_a_mix_notes_are_found_only_when_asked_for_and_count_half() -> None:
    wave_W = syllables(TUNE, 3.6)
    refused = notes.Settings().curate(heard(wave_W, [LINE], "audio"))
    assert refused.song.lines == (LINE,) and "the vocals are not apart" in refused.remarks[0].text
    apart = notes.Settings().curate(heard(wave_W, [LINE]))
    mixed = notes.Settings(least_confidence=0.2, on_mix=True).curate(heard(wave_W, [LINE], "audio"))
    assert mixed.song.lines[0].notes == apart.song.lines[0].notes
    alone = notes.Settings(unaccompanied=True).curate(heard(wave_W, [LINE], "audio"))
    assert alone.song == apart.song
    sure, half = (item.song.fact("notes_confidence") for item in (apart, mixed))
    assert sure
    assert half
    assert half.value[0] == pytest.approx(notes.MIX_FACTOR * sure.value[0], abs=2e-3)


def test_word_times_outside_the_sound_are_no_crash() -> None:
    late = replace(
        LINE, words=tuple(replace(w, start=w.start + 50, end=w.end + 50) for w in LINE.words)
    )
    crowded = replace(LINE, words=tuple(Word("away", 0.3, 0.31) for _ in range(40)))
    marks = Line("- !", 0, 1, (Word("-", 0, 0.5), Word("!", 0.5, 1)))
    lines = [late, crowded, marks]
    assert notes.Settings().curate(heard(syllables(TUNE, 3.6), lines)).song.lines == tuple(lines)


@pytest.mark.parametrize("samples", [0, 1, 50, 3000])
@pytest.mark.parametrize("level", [0.0, 0.1])
def test_scraps_and_silence_are_no_crash(samples: int, level: float) -> None:
    sound = Sound(np.full((2, samples), level, dtype=np.float32), 44_100)
    item = Item(song_of([LINE]), {"vocals": sound, "audio": sound})
    assert notes.Settings().curate(item).song.lines == (LINE,)
    assert music.Settings().curate(item).song.lines == (LINE,)


def test_the_same_item_gives_the_same_result() -> None:
    wave_W = syllables(TUNE, 3.6) + np.random.default_rng(3).normal(
        0, 0.003, round(3.6 * RATE)
    ).astype(np.float32)
    for step in (notes.Settings(), music.Settings()):
        assert (
            step.curate(heard(wave_W, [LINE])).song
            == step.curate(heard(wave_W.copy(), [LINE])).song
        )


# --- key ------------------------------------------------------------------------------------------
def chords(tonic: int, minor: bool, cents: float = 0.0, each: float = 0.8) -> np.ndarray:
    """I IV V I with bass, the fifth degree major in minor too: wave_W at the harmony's rate."""
    third = 3 if minor else 4
    triads = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7)]
    parts = []
    for triad in triads:
        keys = [48 + tonic + step for step in triad] + [36 + tonic + triad[0]]
        tones = [sung(flat(key + cents / 100, each, harmony.RATE), harmony.RATE) for key in keys]
        parts.append(sum(tones) / 4 * np.linspace(1, 0.3, len(tones[0])))
    return np.concatenate([*parts, *parts]).astype(np.float32)


@pytest.mark.parametrize("minor", [False, True])
@pytest.mark.parametrize("tonic", [0, 3, 6, 10])
@pytest.mark.parametrize("cents", [0, 30, -30])
def test_key_of_a_cadence(tonic: int, minor: bool, cents: float) -> None:
    key = harmony.key(harmony.chroma(chords(tonic, minor, cents)))
    assert key is not None
    assert key.name == f"{harmony.NAMES[tonic]} {'minor' if minor else 'major'}"
    assert 0 < key.confidence <= 1


def test_no_key_without_tones() -> None:
    assert harmony.key(harmony.chroma(np.zeros(harmony.RATE, dtype=np.float32))) is None
    assert harmony.key(np.full(12, 1 / 12)) is None


# --- tempo and beats ------------------------------------------------------------------------------
def clicks(
    bpm: float, seconds: float = 16.0, first: float = 0.4, seed: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """(wave_W, moments): decaying noise on each beat, a softer one between."""
    rng = np.random.default_rng(seed)
    wave_W = rng.normal(0, 1e-3, round(seconds * rhythm.RATE))
    moments = np.arange(first, seconds - 0.3, 60 / bpm)
    for index, moment in enumerate(np.arange(first, seconds - 0.3, 30 / bpm)):
        at, length = round(moment * rhythm.RATE), round(0.08 * rhythm.RATE)
        burst = rng.standard_normal(length) * np.exp(-np.arange(length) / (0.012 * rhythm.RATE))
        wave_W[at : at + length] += (0.4 if index % 2 == 0 else 0.08) * burst
    return wave_W.astype(np.float32), moments


@pytest.mark.parametrize("bpm", [84.0, 97.5, 120.0, 140.0])
def test_tempo_and_beats_of_clicks(bpm: float) -> None:
    wave_W, moments = clicks(bpm)
    guess = rhythm.rhythm(wave_W)
    assert guess is not None
    assert guess.tempo_bpm == pytest.approx(bpm, rel=0.005)
    beats = np.array(guess.beats)
    missed = [moment for moment in moments if np.abs(beats - moment).min() > 0.03]
    astray = [beat for beat in beats if np.abs(moments - beat).min() > 0.03]
    assert len(missed) <= 1 and not astray
    assert guess.confidence > 0.5


def test_noise_has_no_sure_tempo_and_silence_none() -> None:
    noise_W = np.random.default_rng(5).normal(0, 0.1, 16 * rhythm.RATE).astype(np.float32)
    guess = rhythm.rhythm(noise_W)
    assert guess is not None and guess.confidence < 0.3
    assert rhythm.rhythm(np.zeros(16 * rhythm.RATE, dtype=np.float32)) is None
    assert rhythm.rhythm(noise_W[: rhythm.RATE]) is None


# --- the music step -------------------------------------------------------------------------------
def test_music_knows_key_tempo_beats_and_range() -> None:
    beat_W, _ = clicks(100.0, 9.6)
    tone_W = np.repeat(chords(9, True, each=1.2), RATE // harmony.RATE)[: len(beat_W)]
    voice_W = sung(np.concatenate([flat(52, 3.2), flat(64, 3.2)]))
    tracks = {
        "audio": Sound((0.5 * beat_W + tone_W)[None], RATE),
        "vocals": Sound(np.stack([voice_W, voice_W]), RATE),
    }
    song = music.Settings().curate(Item(song_of([]), tracks)).song
    known = {fact.name: fact for fact in song.facts}
    assert set(known) == {"key", "tempo_bpm", "beats_seconds", "vocal_range_midi"}
    assert known["key"].value == "A minor"
    assert known["tempo_bpm"].value == pytest.approx(100, rel=0.01)
    assert known["vocal_range_midi"].value == [52, 64]
    assert all(fact.by == "music" and 0 <= (fact.confidence or 0) <= 1 for fact in song.facts)
    json.dumps([fact.value for fact in song.facts])
    only = music.Settings(tempo=False, range=False).curate(Item(song_of([]), tracks)).song
    assert [fact.name for fact in only.facts] == ["key"]


def test_given_facts_are_kept_and_contradictions_noted() -> None:
    sound = {"vocals": Sound(sung(np.concatenate([flat(52, 3.2), flat(64, 3.2)]))[None], RATE)}
    facts = (Fact("vocal_range_midi", [40, 64]), Fact("key", "F# major"), Fact("tempo_bpm", 77.0))
    item = music.Settings(tempo=False).curate(Item(song_of([], facts=facts), sound))
    assert item.song.facts == facts
    texts = [remark.text for remark in item.remarks]
    assert any(
        text.startswith("vocal_range_midi: given as [40, 64], heard as [52, 64]") for text in texts
    )
    assert any(text.startswith("key: given as F# major, heard as") for text in texts)
    assert {remark.verdict for remark in item.remarks} == {"noted"}
    agreeing = (Fact("vocal_range_midi", [52, 65]),)
    assert (
        not music.Settings(key=False, tempo=False)
        .curate(Item(song_of([], facts=agreeing), sound))
        .remarks
    )


@pytest.mark.parametrize(
    ("given", "heard", "differs"),
    [
        ("Db major", "C# major", False),
        ("A minor", "Am", False),
        ("C major", "A minor", True),
        ("c-moll", "C minor", False),
        ("B major", "Bb major", True),
        ("Abm", "G# minor", False),
        ("dorian on D", "D minor", False),
    ],
)
def test_keys_are_compared_by_what_they_mean(given: str, heard: str, differs: bool) -> None:
    assert music.DIFFERS["key"](given, heard) is differs


def test_octaves_of_a_tempo_are_no_contradiction() -> None:
    assert not music.DIFFERS["tempo_bpm"](60, 120.5)
    assert music.DIFFERS["tempo_bpm"](100, 120.5)


def test_range_is_that_of_the_notes_where_they_are_known() -> None:
    line = Line("la", 0, 31, notes=tuple(Note(i, i + 1, 50.0 + (i % 3), "l A") for i in range(30)))
    line = replace(line, notes=(*line.notes, Note(30, 30.2, 80.0, ""), Note(30.2, 31, None, "")))
    fact = music.vocal_range(Item(song_of([line])))
    assert fact is not None and fact.value == [50, 80] and fact.confidence == 0.9


def test_a_short_slip_of_the_voice_is_no_part_of_its_range() -> None:
    tune = [(i / 2, i / 2 + 0.5, 55.0 + 2 * (i % 3)) for i in range(40)] + [(20.0, 20.15, 79.0)]
    sound = Sound(syllables(tune, 21)[None], RATE)
    fact = music.vocal_range(Item(song_of([]), {"vocals": sound}))
    assert fact is not None and fact.value == [55, 59] and (fact.confidence or 0) > 0.5
    alone = Item(song_of([]), {"audio": sound})
    assert music.vocal_range(alone) is None
    assert music.vocal_range(alone, unaccompanied=True) == fact


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: notes.Settings(least_confidence=1.5),
        lambda: music.Settings(key=False, tempo=False, range=False),
        lambda: separation.Settings(overlap=1.0),
        lambda: separation.Settings(weights_licence=""),
    ],
)
def test_wrong_settings_are_refused(wrong: object) -> None:
    with pytest.raises(SettingsError):
        wrong()  # type: ignore[operator]


# --- separation -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def demucs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny HTDemucs with random weights, in the layout of demucs 4.1."""
    pytest.importorskip("demucs", reason="the extra `separation` is not installed")
    import torch
    from demucs.htdemucs import HTDemucs
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("demucs")
    kwargs = {
        "sources": ["drums", "bass", "other", "vocals"],
        "channels": 16,
        "t_layers": 1,
        "t_heads": 2,
    }
    kwargs |= {"nfft": 1024, "depth": 3, "samplerate": 8000, "segment": 1, "bottom_channels": 8}
    torch.manual_seed(0)
    state = {
        name: tensor.contiguous().clone()
        for name, tensor in HTDemucs(**kwargs).state_dict().items()
    }
    about = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": json.dumps(kwargs)}
    save_file(state, folder / "abcd1234.safetensors", metadata=about)
    (folder / "tiny.yaml").write_text("models: ['abcd1234']\n")
    return folder


@pytest.mark.parametrize(("channels", "rate"), [(1, 22_050), (2, 8_000)])
def test_stems_add_up_to_the_mix(demucs_folder: Path, channels: int, rate: int) -> None:
    wave_CW = (
        np.random.default_rng(6)
        .uniform(-0.7, 0.7, (channels, round(2.5 * rate)))
        .astype(np.float32)
    )
    step = separation.Settings(str(demucs_folder), "CC0-1.0")
    item = Item(song_of([]), {"audio": Sound(wave_CW, rate)})
    separated, again = step.curate(item), step.curate(item)
    mix, voice, rest = (separated.tracks[name] for name in ("audio", "vocals", "accompaniment"))
    assert voice.sample_rate == rest.sample_rate == rate
    assert voice.wave_CW.shape == rest.wave_CW.shape == wave_CW.shape
    assert voice.wave_CW.dtype == np.float32
    assert np.abs(voice.wave_CW + rest.wave_CW - mix.wave_CW).max() < 1e-6
    assert max(np.abs(track.wave_CW).max() for track in separated.tracks.values()) <= 1
    assert np.abs(voice.wave_CW).max() > 0
    assert np.array_equal(again.tracks["vocals"].wave_CW, voice.wave_CW)
    fact = separated.song.fact("stems")
    assert fact is not None and fact.value["weights_licence"] == "CC0-1.0"
    assert step.uses == {f"tool: {demucs_folder}": "CC0-1.0"}


def test_a_song_with_vocals_or_without_sound_is_left_alone() -> None:
    sound = Sound(np.zeros((1, 100), dtype=np.float32), 8000)
    for item in (Item(song_of([])), Item(song_of([]), {"audio": sound, "vocals": sound})):
        assert separation.Settings("nowhere").curate(item) == item


def mix_item() -> Item:
    return Item(song_of([]), {"audio": Sound(np.full((1, 8000), 0.1, dtype=np.float32), 8000)})


def test_without_demucs_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "demucs.apply", None)
    separation.separator.cache_clear()
    with pytest.raises(SettingsError, match=r"pip install 'distill\[separation\]'"):
        separation.Settings("nowhere").curate(mix_item())


def test_what_is_no_demucs_model_is_refused(demucs_folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    def refused(match: str, error: type[Exception] = SettingsError) -> None:
        separation.separator.cache_clear()
        with pytest.raises(error, match=match):
            separation.Settings(str(tmp_path)).curate(mix_item())

    refused("has 0 .yaml files")
    (tmp_path / "a.yaml").write_text("models: ['../x']\n")
    refused("names no models")
    (tmp_path / "a.yaml").write_text("models: ['x1']\n")
    refused("cannot be read", FolderError)
    about = {"klass": "os.system", "args": "[]", "kwargs": "{}"}
    save_file({"a": np.zeros(1, dtype=np.float32)}, tmp_path / "x1.safetensors", metadata=about)
    refused("no plain Demucs network")
    with pytest.raises(FolderError):
        separation.Settings(str(tmp_path / "gone")).curate(mix_item())
