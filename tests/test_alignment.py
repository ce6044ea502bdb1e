"""Lyrics are placed where they are sung, confidences tell when not, nothing is invented."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill.curation.steps import Item, Sound
from distill.curation.steps._alignment import confidence, ctc, hearing, path, phones, placing
from distill.curation.steps.alignment import Settings, _stretches
from distill.errors import SettingsError
from distill.songbook import espeak
from distill.songs import Line, Section, Song, Word, read_manifest

EMBEDDED = Path(__file__).parent.parent / "distill" / "embedded" / "songs"
REAL = Path(__file__).parents[2] / "shared" / "songs" / "fantasma.mp3"
ALL = {"least_confidence": 0.0, "least_line_confidence": 0.0}


def embedded(number: int = 0) -> tuple[Song, Sound]:
    song = read_manifest(EMBEDDED / "held-out.jsonl")[number]
    wave_WC, rate = soundfile.read(song.audio, dtype="float32", always_2d=True)
    return song, Sound(wave_WC.T.copy(), rate)


def bare(song: Song) -> Song:
    sections = tuple(
        Section(s.tag, tuple(Line(line.text) for line in s.lines)) for s in song.sections
    )
    return replace(song, sections=sections)


# --- the paths -------------------------------------------------------------------------------


def scores(sounds: str, frames_each: int, sure: float = 6.0) -> np.ndarray:
    """Scores that name one class after another, "." for none, each for so many frames."""
    rows = []
    for sound in sounds:
        row = np.zeros(path.GAP + 1, np.float32)
        row[phones.INDEX["none" if sound == "." else sound]] = sure
        row[path.GAP] = row[phones.NONE]
        rows += [row] * frames_each
    return np.array(rows)


def boundaries(chain: path.Chain) -> np.ndarray:
    return np.concatenate([chain.first_U, chain.last_U + 1])


def test_constructed_sounds_are_placed_exactly():
    chain = path.chain([[tuple("sa"), tuple("mo")], [tuple("lu")]])
    passing = path.passing(scores("..samo...lu.", 10), chain, boundaries(chain))
    starts, ends = placing.medians(passing.passed_TB)[:3], placing.medians(passing.passed_TB)[3:]
    np.testing.assert_allclose(starts, [20, 40, 90], atol=0.6)
    np.testing.assert_allclose(ends, [40, 60, 110], atol=0.6)


def test_forward_backward_is_the_sum_over_all_ways():
    """Against counting: every state sequence of a short song, one by one."""
    chain = path.chain([[("s", "a"), ("m",)]])
    rng = np.random.default_rng(0)
    score_TC = rng.normal(0, 1, (8, path.GAP + 1)).astype(np.float32)
    passing = path.passing(score_TC, chain, boundaries(chain))
    states, total, passed = len(chain.class_S), 0.0, np.zeros((8, 4))

    def walk(way: list[int], weight: float) -> None:
        nonlocal total, passed
        if len(way) == 8:
            end = states - 1 - way[-1]
            weight *= 1.0 if end == 0 else chain.enter_KS[end - 1, -1] if end <= path.REACH else 0.0
            total += weight
            passed += weight * (np.array(way)[:, None] >= boundaries(chain)[None])
            return
        for reach in range(path.REACH + 1):
            to = (way[-1] if way else 0) + reach
            if to < states:
                step = chain.enter_KS[reach - 1, to] if reach else chain.stay_S[to] if way else 1.0
                if step:
                    walk(
                        [*way, to],
                        weight * step * float(np.exp(score_TC[len(way), chain.class_S[to]])),
                    )

    walk([], 1.0)
    np.testing.assert_allclose(passing.passed_TB, passed / total, atol=1e-5)


def test_memory_blocks_do_not_change_the_result(monkeypatch):
    chain = path.chain([[tuple("sa"), tuple("mo")]])
    score_TC = np.random.default_rng(1).normal(0, 2, (300, path.GAP + 1)).astype(np.float32)
    whole = path.passing(score_TC, chain, boundaries(chain))
    monkeypatch.setattr(path, "_BLOCK", 7)
    other = path.passing(score_TC, chain, boundaries(chain))
    np.testing.assert_allclose(whole.passed_TB, other.passed_TB, atol=1e-6)


def test_what_is_not_heard_leaves_the_mass_spread():
    chain = path.chain([[tuple("sa")]])
    edges = boundaries(chain)
    clear = path.passing(scores("....sa...." * 2, 10), chain, edges).passed_TB
    blank = path.passing(np.zeros((200, path.GAP + 1), np.float32), chain, edges).passed_TB
    middle = np.array([100 * path.FRAME_SECONDS])
    assert placing.masses(blank[:, :1], middle, 0.2)[0] < 0.5
    single = path.passing(scores(".....sa...", 20), chain, edges).passed_TB
    at = placing.medians(single)[:1] * path.FRAME_SECONDS
    assert placing.masses(single[:, :1], at, 0.2)[0] > 0.95
    # sung twice, asked for once: either may be meant
    twice = placing.medians(clear)[:1] * path.FRAME_SECONDS
    assert placing.masses(clear[:, :1], twice, 0.2)[0] < 0.8


# --- confidence ------------------------------------------------------------------------------


def test_fitted_confidences_are_calibrated():
    rng = np.random.default_rng(0)
    seen = rng.normal(0, 1, (5000, 7))
    truth = 1 / (1 + np.exp(-(0.3 + seen @ np.array([1.0, -0.5, 0.0, 2.0, 0.2, 0.0, -0.3]))))
    right = rng.random(5000) < truth
    sure = confidence.sure(seen, confidence.fit(seen, right))
    for low in (0.1, 0.4, 0.7):
        inside = (sure > low) & (sure < low + 0.2)
        assert abs(sure[inside].mean() - right[inside].mean()) < 0.06


# --- reading ---------------------------------------------------------------------------------


def test_words_become_sounds():
    assert phones.classes("s_ˈɛ_v_ə_n") == ("s", "e", "v", "ə", "n")
    assert phones.classes("tʃ_ˈaɪː_5") == ("t", "ʃ", "a", "i")
    assert phones.pronounce(["ooh", "ah"], "es") == {"ooh": ("u",), "ah": ("a",)}
    assert phones.units("Row, row - don't STOP!") == ["row", "row", "don't", "stop"]
    assert phones.units("好一朵 oh") == ["好", "一", "朵", "oh"]


def test_without_espeak_words_are_still_read(monkeypatch):
    monkeypatch.setattr(espeak, "installed", lambda: False)
    assert phones.pronounce(["stream"], "en")["stream"] == ("s", "t", "ɹ", "i", "m")
    assert phones.pronounce(["fantasma"], "es")["fantasma"] == tuple("fantasma")


def test_espeak_reads_and_speaks():
    if not espeak.installed():
        pytest.skip("espeak-ng is not installed (pip install 'distill[songbook]')")
    assert phones.pronounce(["fantasma"], "es")["fantasma"] == tuple("fantasma")
    assert phones.pronounce(["花"], "zh")["花"] == ("h", "w", "a")
    assert espeak.ipa(["x"], "no-such-language") == [""]
    spoken = espeak.speak("la", "es")
    assert [name.strip("ˈ") for _, name in spoken.phones if name][:2] == ["l", "a"]


# --- the step --------------------------------------------------------------------------------


def test_an_embedded_song_is_placed():
    song, sound = embedded()
    done = Settings(method="synthesis", starts="vowel", **ALL).curate(
        Item(bare(song), {"audio": sound})
    )
    assert [line.text for line in done.song.lines] == [line.text for line in song.lines]
    true = [word.start for line in song.lines for word in line.words]
    starts = [word.start for line in done.song.lines for word in line.words]
    assert np.median(np.abs(np.subtract(starts, true))) < 0.15
    assert done.remarks[-1].text.startswith(f"{len(song.lines)} of {len(song.lines)} lines placed")
    for line in done.song.lines:
        spans = [(line.start, line.start), *((w.start, w.end) for w in line.words)]
        assert all(a[1] <= b[0] + 1e-9 and b[0] < b[1] for a, b in itertools.pairwise(spans))
    again = Settings(method="synthesis", starts="vowel", **ALL).curate(
        Item(bare(song), {"audio": sound})
    )
    assert again.song == done.song


def test_wrong_lyrics_are_known_to_be_wrong():
    (song, sound), (other, _) = embedded(0), embedded(1)
    right = Settings(**ALL).curate(Item(bare(song), {"audio": sound})).song
    wrong = Settings(**ALL).curate(Item(bare(other), {"audio": sound})).song
    assert np.median([line.confidence for line in right.lines]) > 0.7
    assert np.median([line.confidence for line in wrong.lines]) < 0.3
    left = Settings().curate(Item(bare(other), {"audio": sound}))
    assert "are these its lyrics?" in left.remarks[-1].text
    assert sum(bool(line.words) for line in left.song.lines) < len(other.lines) / 2


def test_given_line_times_are_kept_and_words_found_inside():
    song, sound = embedded()
    lines = tuple(Line(line.text, line.start, line.end) for line in song.lines)
    timed = replace(song, sections=(Section("verse", lines),))
    done = Settings(starts="vowel", **ALL).curate(Item(timed, {"audio": sound})).song
    for old, new in zip(lines, done.lines, strict=True):
        assert (new.start, new.end, new.confidence) == (old.start, old.end, None)
        assert new.words and new.start <= new.words[0].start and new.words[-1].end <= new.end + 0.2
    kept = Settings().curate(Item(song, {"audio": sound}))
    assert kept.song == song and not kept.remarks  # there is nothing to tell
    anew = Settings(keep_given=False, **ALL).curate(Item(song, {"audio": sound})).song
    assert anew.lines[0].start != song.lines[0].start and anew.lines[0].confidence is not None


def test_more_words_than_memory_are_not_placed():
    ear = placing.Singing(np.zeros((60_000, phones.NONE + 1), np.float32))
    assert ear.place([["a"] * 2000], "en", 0.0, 1200.0) is None


def test_lines_are_looked_for_between_their_timed_neighbours():
    lines = (
        Line("a"),
        Line("b", 5.0, 7.0, (Word("b", 5, 6),)),
        Line("c"),
        Line("d"),
        Line("e", 9.0, None),
    )
    wanted = [line.start is None or not line.words for line in lines]
    assert list(_stretches(lines, wanted, 20.0)) == [
        (0, 1, 0.0, 5.0),
        (2, 4, 7.0, 9.0),
        (4, 5, 8.85, 20.0),
    ]


def test_low_confidence_leaves_the_coarser_grain():
    song, sound = embedded(2)
    item = Item(bare(song), {"audio": sound})
    lines = Settings(least_confidence=1.0).curate(item).song.lines
    assert all(not line.words for line in lines) and any(line.start is not None for line in lines)
    none = Settings(least_confidence=1.0, least_line_confidence=1.0).curate(item)
    assert all(line.start is None for line in none.song.lines)
    assert f"{len(lines)} left without times" in none.remarks[-1].text


def test_a_song_that_lacks_something_passes():
    song, sound = embedded()
    empty = replace(song, sections=())
    assert Settings().curate(Item(empty, {"audio": sound})).remarks[-1].text == "no lyrics to align"
    assert "no sound" in Settings().curate(Item(bare(song))).remarks[-1].text
    short = Sound(sound.wave_CW[:, :8000], sound.sample_rate)
    none = Settings().curate(Item(bare(song), {"audio": short}))
    assert all(line.start is None for line in none.song.lines)
    silent = Sound(np.zeros((2, 20 * 44100), np.float32), 44100)
    assert not any(
        line.words for line in Settings().curate(Item(bare(song), {"audio": silent})).song.lines
    )
    signs = replace(song, sections=(Section("verse", (Line("..."), Line("la la"))),))
    assert Settings(**ALL).curate(Item(signs, {"audio": sound})).song.lines[0].start is None


@pytest.mark.parametrize(
    "wrong", [{"least_confidence": 1.5}, {"method": "ctc"}, {"method": "synthesis", "model": "x"}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(SettingsError, match=r"alignment\."):
        Settings(**wrong)


def test_the_middle_of_the_stereo_picture_is_kept():
    rng = np.random.default_rng(0)
    voice, left, right = rng.normal(0, 1, (3, 48000)).astype(np.float32)
    mixed = hearing.mel_power(Sound(np.stack([voice + left, voice + right]), 16000)).sum()
    sides = hearing.mel_power(Sound(np.stack([left, right]), 16000)).sum()
    assert sides < 0.5 * hearing.mel_power(Sound(np.stack([left, left]), 16000)).sum() < mixed * 2


# --- CTC -------------------------------------------------------------------------------------


def test_ctc_path_on_constructed_emissions():
    """h e l l o with blanks: repeats need one, others need none."""
    truth = [0, 1, 1, 2, 3, 3, 0, 3, 4, 0, 0]
    logp = np.full((len(truth), 5), -8.0, np.float32)
    logp[np.arange(len(truth)), truth] = -0.01
    way = ctc.force(logp, np.array([1, 2, 3, 3, 4]), 0)
    assert way.tolist() == [-1, 0, 0, 1, 2, 2, -1, 3, 4, -1, -1]
    short = logp[:5]  # five letters and a blank need six frames
    assert ctc.force(short, np.array([1, 2, 3, 3, 4]), 0) is None


def test_ctc_words_get_their_frames():
    tokens = {"_": 0, "|": 1, "a": 2, "b": 3}
    truth = [0, 0, 2, 2, 0, 1, 0, 3, 3, 3, 0]
    logp = np.log(np.full((len(truth), 4), 0.05, np.float32))
    logp[np.arange(len(truth)), truth] = np.log(0.85)
    ear = placing.Spelling(ctc.Heard(logp, 0.1, tokens, 0))
    aligned = ear.place([["a", "b"]], "en", 0.0, 1.1)
    np.testing.assert_allclose(aligned.words.start_N, [0.2, 0.7])
    np.testing.assert_allclose(aligned.words.end_N, [0.4, 1.0])
    np.testing.assert_allclose(aligned.words.sure_N, 0.85, rtol=1e-5)
    assert ear.place([["中"]], "zh", 0.0, 1.1) is None


def test_a_ctc_model_of_the_published_layout(tmp_path):
    """Random weights: it aligns nonsense, through the files and settings of a trained one."""
    import json

    from distill.runtime import torchaudio_standin

    torchaudio_standin.install()
    import transformers

    signs = ["<pad>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    (tmp_path / "vocab.json").write_text(json.dumps({sign: n for n, sign in enumerate(signs)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(
        str(tmp_path / "vocab.json"), pad_token="<pad>", unk_token="<unk>"
    )
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(tmp_path)
    config = transformers.Wav2Vec2Config(
        vocab_size=len(signs), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, conv_dim=(8,) * 7, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2, pad_token_id=0,
    )  # fmt: skip
    transformers.Wav2Vec2ForCTC(config).save_pretrained(tmp_path)
    song, whole = embedded(7)
    sound = Sound(whole.wave_CW[:, : 10 * whole.sample_rate], whole.sample_rate)
    heard = ctc.hear(sound, str(tmp_path))
    assert abs(len(heard.logp_TV) * heard.frame_seconds - sound.seconds) < 0.1
    done = Settings(model=str(tmp_path), **ALL).curate(Item(bare(song), {"audio": sound}))
    assert all(
        len(new.words) == len(old.words)
        for new, old in zip(done.song.lines, song.lines, strict=True)
    )
    assert max(line.confidence for line in done.song.lines) < 0.5
    with pytest.raises(SettingsError, match="no CTC model"):
        ctc.load(str(tmp_path / "nothing"))


# --- a real song -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_song_is_placed_better_than_evenly():
    if not REAL.is_file():
        pytest.skip("the real songs are not beside this checkout")
    import sys

    sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))
    import alignment as bench

    song = next(s for s in bench.timed_folder(REAL.parent, "es") if s.id == REAL.stem)
    done = Settings(**ALL).curate(
        Item(
            bench.with_lines(song, lambda line: Line(line.text)),
            {"audio": bench.sound_of(song, "audio")},
        )
    )
    errors = [
        abs(new.start - old.start) for new, old in zip(done.song.lines, song.lines, strict=True)
    ]
    assert np.median(errors) < 1.0


def test_settings_are_plain():
    assert {field.name for field in dataclasses.fields(Settings)} >= {
        "method",
        "model",
        "keep_given",
    }
