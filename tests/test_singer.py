"""The singer: legal to the last id, repeatable, true to its score, loaded as it was saved."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import pytest
import soundfile
import tiny_singer
import torch
from test_codec import random_network
from tiny_singer import FORMAT, LONGEST, ToyCodec

import distill.singing.generation
import distill.singing.singer
from distill.audio.codec_format import CodecFormat
from distill.codecs import embedded
from distill.errors import (
    AdapterError,
    CodecError,
    FitError,
    FolderError,
    LyricsError,
    SettingsError,
)
from distill.lm.base import open_base
from distill.lm.merge import merge
from distill.lm.student import LoraSettings, graft, rows_of
from distill.singing.sampling import Request, Sampling, Sung, sample, script
from distill.singing.singer import Singer, load_singer
from distill.singing.singer_folder import About, read_about, write_about
from distill.songs import Line, Note, Section, Song
from distill.teachers.model import kl
from distill.writing import layouts
from distill.writing.grammar import Grammar
from distill.writing.prompts import Passage, Piece, passages
from distill.writing.vocabulary import AudioVocabulary

SCORE = Line(
    "row your boat", 0.0, 2.0, (),
    (
        Note(0.24, 0.6, 60, "r o"), Note(0.6, 0.8, 62, ""),
        Note(0.8, 1.2, 64, "y O r"), Note(1.28, 1.6, 55, "b o t"),
    ),
)  # fmt: skip


def about(**more) -> About:
    values = {
        "codec": {"kind": "toy"},
        "codec_fingerprint": ToyCodec.fingerprint,
        "slot_sizes": FORMAT.slot_sizes,
    }
    return About(
        **{**values, "base": "", "tokens": 600, "styles": ("folk",), "voices": ("low",), **more}
    )


@pytest.fixture(scope="module", params=layouts.names())
def student(request):
    return tiny_singer.student(lively=0.5, layout=request.param)


@pytest.fixture
def singer(student):
    return Singer(student, ToyCodec(), about())


@pytest.fixture
def sent(monkeypatch) -> dict[object, list[int]]:
    """Every id that is sung, behind `sing`, by passage."""
    by_step: dict[object, list[int]] = {}

    def watched(*arguments):
        steps = script(*arguments)
        ids = by_step.setdefault(steps, [])
        request = next(steps)
        while True:
            ids.append((yield request))
            try:
                request = steps.send(ids[-1])
            except StopIteration:
                return
            if request.instead:
                ids.pop()  # a drawn stop, which is not written

    monkeypatch.setattr(distill.singing.generation, "script", watched)
    return by_step


def check_legal(ids: list[int], v: AudioVocabulary) -> int:
    """Ids behind `sing` walk the grammar to its end; gives how many frames they are."""
    grammar, state = Grammar(v), Grammar(v).start()
    for id in ids:
        state = grammar.step(state, id)
    assert state.kind == "ended"
    return sum(id in v.span(v.format.slots - 1) for id in ids)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 10.0])
def test_every_id_is_legal_whatever_the_temperature(singer, sent, temperature):
    lines = [SCORE, Line("gently down the stream"), Line("merrily")]
    takes = singer.sing_lines(lines, seed=1, temperature=temperature)
    takes += singer.sing_lines([Line("life is but a dream")], seed=2, temperature=temperature)
    every = list(sent.values())
    assert len(every) == 4
    v = singer.student.vocabulary
    frames = Counter(check_legal(ids, v) for ids in every)
    assert frames == Counter(len(take.codes_FS) for take in takes) and 0 not in frames
    assert {tuple(v.spell(take.codes_FS).tolist()) for take in takes} == {
        tuple(id for id in ids if id in v.audio_span) for ids in every
    }


def test_open_pieces_end_where_a_stop_is_drawn_and_within_the_room(student, sent):
    v = student.vocabulary
    lengths = set()
    for grain, text in (
        ("line", "row your boat"),
        ("word", "gently down the stream"),
        ("none", "row"),
    ):
        singer = Singer(student, ToyCodec(), about(grain=grain, tokens=260))
        head = 1 + len(student.encode_text(singer._plan(Line(text), "folk", "low").header))
        for seed in range(6):
            (take,) = singer.sing_lines([Line(text)], seed=seed, temperature=2.0)
            ids = list(sent.values())[-1]
            assert check_legal(ids, v) == len(take.codes_FS)
            assert head + len(ids) <= 260 and all(midi is None for _, _, midi in take.notes)
            lengths.add(len(take.codes_FS))
            assert {v.pitch(None, known=False)} == {id for id in ids if id in v.pitch_span}
        wanted = {
            "line": ("r o, y O r, b o t",),
            "word": ("J e n t, l I", "d W n", "D u", "s t r I m"),
            "none": ("",),
        }
        assert take.pieces == wanted[grain]
    assert len(lengths) > 3


def same(take, other) -> bool:
    return torch.equal(take.codes_FS, other.codes_FS) and take.notes == other.notes


def test_greedy_and_seeded_takes_repeat_and_other_seeds_differ(singer):
    text = "[verse]\nrow your boat\ngently down"
    greedy = [singer.sing(text, seed=seed, temperature=0.0) for seed in (1, 2)]
    assert same(*greedy)
    torch.rand(3)
    first, second, other = (singer.sing(text, seed=seed, temperature=1.0) for seed in (7, 7, 8))
    assert same(first, second)
    assert torch.equal(first.wave_CW, second.wave_CW)
    assert not same(first, other)
    assert first.seed == 7 and first.text == text
    unseeded = [singer.sing("row", temperature=1.0) for _ in range(3)]
    assert len({take.seed for take in unseeded}) > 1
    again = singer.sing("row", seed=unseeded[0].seed, temperature=1.0)
    assert same(again, unseeded[0])  # a take says how to sing it again


def test_a_take_does_not_depend_on_its_neighbours(singer):
    lines = [
        SCORE,
        Line("gently down the stream"),
        Line("row"),
        replace(SCORE, text="boat"),
        Line("sweet bell"),
    ]
    together = singer.sing_lines(lines, seed=11)
    for number, line in enumerate(lines):
        (alone,) = singer.sing_lines([line], seed=11 + number)
        assert same(alone, together[number]) and alone.seed == together[number].seed
    in_pairs = singer.sing_lines(lines, seed=11, at_once=2)
    assert all(same(take, other) for take, other in zip(in_pairs, together, strict=True))


def test_a_score_is_followed_exactly(singer):
    take = singer.sing("row your boat", seed=3, score=[SCORE])
    sung = [(start, end, midi) for start, end, midi in take.notes if midi is not None]
    assert sung == [(0.24, 0.6, 60), (0.6, 0.8, 62), (0.8, 1.2, 64), (1.28, 1.6, 55)]
    assert take.notes[0] == (0.0, 0.24, None) and take.notes[-1] == (1.6, 2.0, None)
    # no gap
    assert [start for start, _, _ in take.notes][1:] == [end for _, end, _ in take.notes][:-1]
    assert [p for p in take.pieces if p] == ["r o", "y O r", "b o t"]
    assert len(take.pieces) == len(take.notes)
    assert len(take.codes_FS) == 50 and take.seconds == 2.0 and take.wave_CW.shape == (1, 32_000)
    low = replace(SCORE, notes=tuple(replace(note, midi=note.midi - 12) for note in SCORE.notes))
    other = singer.sing("row your boat", seed=3, score=[low])
    assert [midi for _, _, midi in other.notes if midi] == [48, 50, 52, 43]
    assert not torch.equal(other.codes_FS, take.codes_FS)
    with pytest.raises(LyricsError, match="the score has 1 lines, the lyrics 2"):
        singer.sing("row\nboat", score=[SCORE])


def test_a_note_longer_than_a_length_symbol_is_one_note_of_the_take(singer):
    long = Line("row boat", 0.0, 3.0, (), (Note(0.2, 2.2, 60, "r o"), Note(2.2, 2.6, 62, "b o t")))
    assert LONGEST / 25 < 2.0 / 3
    take = singer.sing("row boat", seed=3, score=[long])
    assert take.notes == ((0.0, 0.2, None), (0.2, 2.2, 60), (2.2, 2.6, 62), (2.6, 3.0, None))
    assert take.pieces == ("", "r o", "b o t", "")


def test_lyrics_without_a_score_get_notes(singer):
    v = singer.student.vocabulary
    takes = [singer.sing("gently down the stream", seed=seed, temperature=1.0) for seed in range(4)]
    for take in takes:
        assert take.pieces == ("", "J e n t", "l I", "d W n", "D u", "s t r I m", "")
        silent, *sung, last = take.notes
        assert silent[2] is None and last[2] is None
        assert all(
            midi is not None and v.lowest_midi <= midi <= v.highest_midi for _, _, midi in sung
        )
        spans = [end - start for start, end, _ in take.notes]
        assert all(1 / 25 - 1e-9 <= span <= LONGEST / 25 + 1e-9 for span in spans)
        assert sum(spans) * 25 == pytest.approx(len(take.codes_FS))
    assert len({take.notes for take in takes}) == 4
    letters = Singer(
        singer.student, ToyCodec(), about(writing=replace(about().writing, spelling="letters"))
    )
    assert letters.sing("gently down", seed=0).pieces == ("", "g e n t l y", "d o w n", "")


def test_lines_of_a_song_are_joined_in_one_take(singer):
    lines = ["row your boat", "gently down"]
    whole = singer.sing("\n".join(lines), seed=5, temperature=1.0)
    parts = singer.sing_lines([Line(text) for text in lines], seed=5, temperature=1.0)
    assert torch.equal(whole.codes_FS, torch.cat([part.codes_FS for part in parts]))
    shift = parts[0].seconds
    later = [(start + shift, end + shift, midi) for start, end, midi in parts[1].notes]
    assert [midi for *_, midi in whole.notes] == [midi for *_, midi in (*parts[0].notes, *later)]
    for note, other in zip(whole.notes, (*parts[0].notes, *later), strict=True):
        assert note[:2] == pytest.approx(other[:2])
    assert whole.seconds == pytest.approx(sum(part.seconds for part in parts))


def test_what_cannot_be_sung_is_refused(singer):
    for text in ("", "  \n", "[verse]", "♪ ♪", "row " * 6000):
        with pytest.raises(LyricsError):
            singer.sing(text)
    with pytest.raises(LyricsError, match="at least one"):
        singer.sing_lines([])
    with pytest.raises(LyricsError, match="no word"):
        singer.sing_lines([Line("...")])
    with pytest.raises(SettingsError, match="temperature is -1"):
        singer.sing("row", temperature=-1)
    with pytest.raises(SettingsError, match="2 styles or voices for 1 lines"):
        singer.sing_lines([Line("row")], style=["a", "b"])
    with pytest.raises(
        SettingsError, match="voice 'opera': this singer never heard it; it knows 'low'"
    ):
        singer.sing("row", voice="opera")
    with pytest.raises(SettingsError, match="voice 'low, breathy'"):
        singer.sing("row", voice="low, breathy")


def test_a_voice_may_join_what_was_heard_apart(singer):
    other = Singer(
        singer.student,
        singer.codec,
        replace(singer.about, voices=("low, breathy", "alto")),
        singer.vocoder,
    )
    other._check_voices(["alto, breathy", "low", "", "alto"])
    with pytest.raises(SettingsError, match="knows 'low', 'breathy', 'alto'"):
        other._check_voices(["alto", "alto, straight"])


def notes_line(count: int) -> Line:
    notes = tuple(Note(0.4 * n, 0.4 * n + 0.4, 60 + n % 5, "r o") for n in range(count))
    return Line("row " * count, 0.0, 0.4 * count, (), notes)


def test_a_song_that_cannot_fit_is_refused_with_the_length_that_would(singer):
    with pytest.raises(FitError) as refused:
        singer.sing_lines(
            [notes_line(60)], style="a style of some length, slow, far away and very calm"
        )
    words = str(refused.value).replace(",", "").split()
    assert "24.0 s of song needs" in str(refused.value) and "holds 600" in str(refused.value)
    fits = float(words[words.index("shorten") + 3])
    assert 2 < fits < 24
    style = "a style of some length, slow, far away and very calm"
    singer.sing_lines([notes_line(int(fits / 0.4))], style=style, seed=0)  # what it says does fit
    with pytest.raises(FitError):
        singer.sing_lines([notes_line(int(fits / 0.4) + 3)], style=style)
    with pytest.raises(FitError, match="shorten it to"):
        singer.sing_lines([Line("merrily " * 40)])


@pytest.mark.parametrize("frame_rate", [12.5, 25.0, 80.0])
def test_a_syllable_is_expected_to_take_its_time_at_any_frame_rate(student, frame_rate):
    codec = ToyCodec()
    codec.format = replace(FORMAT, frame_rate=frame_rate)
    with pytest.raises(FitError, match="s of song needs") as refused:
        Singer(student, codec, about()).sing_lines([Line("merrily " * 300)])
    seconds = float(str(refused.value).split(" s of song")[0].split()[-1])
    frames = seconds * student.vocabulary.format.frame_rate
    assert frames == pytest.approx(0.4 * frame_rate * 3 * 300, rel=0.01)


def test_what_is_made_up_stays_within_what_the_model_holds(student, sent, monkeypatch):
    """Lengths are drawn from what is left, so a composed line never runs past the context."""
    monkeypatch.setattr(distill.singing.singer, "SYLLABLE_SECONDS", 0.08)  # far too few
    singer, free = (
        Singer(student, ToyCodec(), about(tokens=110)),
        Singer(student, ToyCodec(), about()),
    )
    head = 1 + len(student.encode_text(singer._plan(Line("row your boat"), "folk", "low").header))
    for seed in range(4):
        (take,) = singer.sing_lines([Line("row your boat")], seed=seed, temperature=10.0)
        assert head + len(list(sent.values())[-1]) <= 110 and len(take.pieces) == 5
        free.sing_lines([Line("row your boat")], seed=seed, temperature=10.0)
    # with room, it would have gone further
    assert max(head + len(ids) for ids in sent.values()) > 110


# --- choosing -------------------------------------------------------------------------------------
def drawn(
    sampling: Sampling, temperature: float, logits_C: torch.Tensor, times: int = 2500
) -> Counter:
    generator, request = torch.Generator().manual_seed(0), Request((), temperature)
    return Counter(sample(logits_C, request, sampling, generator) for _ in range(times))


def test_choosing_follows_temperature_top_k_and_top_p():
    shares_C = torch.tensor([0.05, 0.5, 0.15, 0.3])
    logits_C, plain = shares_C.log(), Sampling((1.0,), 1.0)
    assert drawn(plain, 0.0, logits_C, 20) == {1: 20}
    once = drawn(plain, 1.0, logits_C)
    assert all(once[i] / 2500 == pytest.approx(float(shares_C[i]), abs=0.035) for i in range(4))
    cold_C = (logits_C / 0.5).softmax(-1)
    cold = drawn(plain, 0.5, logits_C)
    assert all(cold[i] / 2500 == pytest.approx(float(cold_C[i]), abs=0.035) for i in range(4))
    two = drawn(Sampling((1.0,), 1.0, top_k=2), 1.0, logits_C)
    assert set(two) == {1, 3} and two[1] / 2500 == pytest.approx(0.625, abs=0.035)
    assert set(drawn(Sampling((1.0,), 1.0, top_k=1), 1.0, logits_C, 50)) == {1}
    assert set(drawn(Sampling((1.0,), 1.0, top_k=9), 1.0, logits_C)) == {0, 1, 2, 3}
    kept = drawn(Sampling((1.0,), 1.0, top_p=0.79), 1.0, logits_C)
    assert set(kept) == {1, 3} and kept[1] / 2500 == pytest.approx(0.625, abs=0.035)
    assert set(drawn(Sampling((1.0,), 1.0, top_p=0.81), 1.0, logits_C)) == {1, 2, 3}
    assert set(drawn(Sampling((1.0,), 1.0, top_p=1e-9), 1.0, logits_C, 50)) == {1}
    assert set(drawn(Sampling((1.0,), 1.0, top_p=1.0), 1.0, logits_C)) == {0, 1, 2, 3}


def test_whether_a_piece_goes_on_is_drawn_at_the_models_own_odds():
    """One stop against forty codes: cold over all of them, a piece would nearly always stop."""
    logits_C = torch.cat([torch.tensor([0.2, 0.1]), torch.full((40,), 0.7 / 40)]).log()
    generator = torch.Generator().manual_seed(0)
    for temperature in (0.2, 1.0):
        request = Request((), temperature, codes=40)
        chosen = Counter(
            sample(logits_C, request, Sampling((temperature,), 1.0), generator) for _ in range(2000)
        )
        assert chosen[0] / 2000 == pytest.approx(0.3, abs=0.035) and chosen[1] == 0
        assert len(chosen) == 41 and set(chosen) - {0} == set(range(2, 42))
    assert sample(logits_C, Request((), 0.0, codes=40), Sampling((0.0,), 1.0), generator) >= 2
    assert (
        sample(logits_C.flip(0), Request((), 0.0, codes=2), Sampling((0.0,), 1.0), generator) == 0
    )


def test_what_has_no_probability_is_never_chosen():
    logits_C = torch.tensor([-200.0, 0.0, -200.0])
    for value in (0.0, 1 - 2**-24):  # the lowest and the highest that torch.rand gives
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", lambda *_, generator, value=value: torch.tensor(value))
            assert sample(logits_C, Request((), 1.0), Sampling((1.0,), 1.0, top_k=1), None) == 1
            assert sample(logits_C.flip(0), Request((), 1.0), Sampling((1.0,), 1.0), None) == 1


def test_each_slot_has_its_temperature_and_the_last_one_repeats(student):
    sampling = Sampling((0.1, 0.7), 0.9)
    assert [sampling.level(level) for level in range(4)] == [0.1, 0.7, 0.7, 0.7]
    v, sung = student.vocabulary, Sung()
    asked = []
    steps = script([Piece("r o", None, None)], student.encode_text, v, sampling, sung, 50)
    request = next(steps)
    while True:
        asked.append(request)
        id = request.forced if request.forced is not None else request.spans[0].start + 3
        try:
            request = steps.send(id)
        except StopIteration:
            break
    of_slots = [[w.temperature for w in asked if w.spans == (v.span(s),)] for s in range(2)]
    assert of_slots == [[0.1] * 4, [0.7] * 4]  # the fourth length symbol from 1: four frames
    score = [w for w in asked if w.forced is None and w.spans[0].start < v.audio_span.start]
    assert [w.temperature for w in score] == [0.9, 0.9]
    assert asked[-1].forced == v.end and sung.pieces == [Piece("r o", 24, 4)]


@pytest.mark.parametrize("layout", layouts.names())
def test_the_coarsest_slot_of_every_track_is_drawn_alike(layout):
    v = AudioVocabulary(
        300, CodecFormat(16_000, 25.0, (7,) * 4, streams=2), longest=LONGEST, layout=layout
    )
    steps, asked = script([Piece("", 60, 3)], list, v, Sampling((0.1, 0.7), 0.9), Sung(), 50), []
    request = next(steps)
    with pytest.raises(StopIteration):
        while True:
            asked.append(request)
            request = steps.send(
                request.forced if request.forced is not None else request.spans[0].start
            )
    by_slot = [{w.temperature for w in asked if w.spans == (v.span(s),)} for s in range(4)]
    assert by_slot == [{0.1}, {0.1}, {0.7}, {0.7}]


@pytest.mark.parametrize("layout", layouts.names())
@pytest.mark.parametrize(("slots", "streams"), [(1, 1), (3, 1), (4, 1), (4, 2), (3, 3)])
def test_whatever_is_answered_a_script_makes_whole_frames(layout, slots, streams):
    """Every slot count and layout, lengths given, drawn and open; a stop is drawn 1 time in 9."""
    v = AudioVocabulary(
        300,
        CodecFormat(16_000, 25.0, (7,) * slots, streams=streams),
        longest=LONGEST,
        layout=layout,
    )
    pieces = [
        Piece("r o", 60, 5),
        Piece("b o t", None, None),
        Piece("D u", None, None, False, open=True),
    ]
    for seed in range(12):
        generator, sung, ids, stopped = random.Random(seed), Sung(), [], False
        some = [generator.choice(pieces) for _ in range(generator.randint(1, 4))]
        steps = script(some, lambda text: [5], v, Sampling((1.0,), 1.0), sung, 40)
        request = next(steps)
        while request is not None:
            assert request.instead == stopped
            spans, goes_on = request.spans, generator.random() > 1 / 9
            if request.codes:
                spans = spans[-1:] if goes_on else spans[:-1]
            span = generator.choice(spans) if request.forced is None else None
            id = request.forced if span is None else generator.randrange(span.start, span.stop)
            stopped = bool(request.codes) and not goes_on
            ids += [] if stopped else [id]
            try:
                request = steps.send(id)
            except StopIteration:
                request = None
        assert check_legal(ids, v) == sum(piece.frames for piece in sung.pieces) <= 40
        codes_FS = v.read(torch.tensor(sung.ids))
        assert sung.ids == [id for id in ids if id in v.audio_span]
        assert len(codes_FS) == sum(piece.frames for piece in sung.pieces)
        assert len(sung.pieces) == len(some)
        assert all(
            piece.frames == 5
            for asked, piece in zip(some, sung.pieces, strict=True)
            if asked.frames
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperatures": ()},
        {"temperatures": (0.5, -1.0)},
        {"score_temperature": -0.1},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": -1.0},
    ],
)
def test_senseless_sampling_is_refused(wrong):
    with pytest.raises(SettingsError, match=r"give|must be"):
        Sampling(**{"temperatures": (1.0,), **wrong})


# --- takes and folders ----------------------------------------------------------------------------
def test_a_take_is_saved_as_a_wave_file_of_its_length(singer, tmp_path):
    take = singer.sing("row", seed=1, score=[SCORE])
    path = take.save(tmp_path / "take.wav")
    wave, rate = soundfile.read(path)
    assert rate == 16_000 and len(wave) == 32_000 == take.wave_CW.shape[1]
    assert abs(wave - take.wave_CW[0].numpy()).max() < 1e-3
    page = take._repr_html_()
    assert "<audio" in page and "data:image/png" in page


@pytest.fixture(scope="module")
def singer_home(tmp_path_factory):
    """A codec, a base, and one singer on them as adapter and as merged folder."""
    home = tmp_path_factory.mktemp("singer")
    embedded.save_codec(random_network(), home / "codec")
    codec = embedded.Settings(str(home / "codec"), slots=2).load()
    model, tokenizer = tiny_singer.make(tiny_singer.from_scratch(), 0)
    model.save_pretrained(home / "base")
    tokenizer.save_pretrained(home / "base")
    model, tokenizer = open_base(home / "base")
    student = graft(
        model,
        tokenizer,
        AudioVocabulary(rows_of(model), codec.format, longest=LONGEST),
        codec.codebooks(),
    )
    student.adapt(LoraSettings(rank=4, alpha=8))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in student.trainable().items():
            amount = 0.5 if name.endswith(".new") else 0.05
            parameter.add_(torch.randn(parameter.shape, generator=generator) * amount)
    singer_about = about(
        codec={"kind": "embedded", "path": str(home / "codec"), "slots": 2},
        codec_fingerprint=codec.fingerprint,
        slot_sizes=codec.format.slot_sizes,
        base=str(home / "base"),
        recipe="seed: 1\n",
    )
    student.save_adapter(home / "run" / "singer", "float32")
    merge(student, home / "merged")
    for folder in (home / "run" / "singer", home / "merged"):
        write_about(folder, singer_about)
    return home, Singer(student, codec, singer_about)


def test_adapter_and_merged_form_load_and_sing_the_same(singer_home):
    home, ours = singer_home
    ids_BT = torch.randint(
        ours.student.vocabulary.rows, (1, 30), generator=torch.Generator().manual_seed(1)
    )
    take = ours.sing("row your boat", seed=4)
    with torch.no_grad():
        wanted_BTV = ours.student.model(input_ids=ids_BT).logits
        for where in (home / "run", home / "run" / "singer", home / "merged"):
            singer = load_singer(where, device="cpu")
            assert (singer.student.model(input_ids=ids_BT).logits - wanted_BTV).abs().max() < 2e-5
            assert singer.about == ours.about == read_about(home / "merged")
            assert same(singer.sing("row your boat", seed=4), take)
    assert take.wave_CW.shape == (1, 640 * len(take.codes_FS)) and take.wave_CW.isfinite().all()


def test_another_codec_or_base_or_folder_is_refused(singer_home, tmp_path):
    home, ours = singer_home
    text = (home / "merged" / "singer.json").read_text()
    row = json.loads(text)
    embedded.save_codec(random_network(seed=9), tmp_path / "codec")
    try:
        for wrong in (tmp_path / "codec", tmp_path / "none"):
            complaint = {**row, "codec": {**row["codec"], "path": str(wrong)}}
            (home / "merged" / "singer.json").write_text(json.dumps(complaint))
            with pytest.raises((AdapterError, FolderError, CodecError)) as refused:
                load_singer(home / "merged")
            if wrong.exists():
                assert "give it its own codec" in str(refused.value)
                assert ours.codec.fingerprint[:12] in str(refused.value)
        more = {**row, "codec": {**row["codec"], "slots": 3}}
        (home / "merged" / "singer.json").write_text(json.dumps(more))
        with pytest.raises(AdapterError, match=r"speaks \(.*its weights were trained on"):
            load_singer(home / "merged")
        (home / "merged" / "singer.json").write_text(json.dumps({**row, "version": 9}))
        with pytest.raises(FolderError, match="version 9"):
            load_singer(home / "merged")
        (home / "merged" / "singer.json").write_text(text[:50])
        with pytest.raises(FolderError, match="holds no singer"):
            load_singer(home / "merged")
    finally:
        (home / "merged" / "singer.json").write_text(text)
    # another base of the same shape
    other, tokenizer = tiny_singer.make(tiny_singer.from_scratch(), 1)
    other.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    adapter = home / "run" / "singer" / "singer.json"
    try:
        for base, complaint in (
            (tmp_path / "base", "was made for base"),
            (tmp_path / "gone", "base cannot be opened"),
        ):
            adapter.write_text(json.dumps({**row, "base": str(base)}))
            with pytest.raises(AdapterError, match=complaint):
                load_singer(home / "run")
    finally:
        adapter.write_text(text)
    with pytest.raises(FolderError):
        load_singer(tmp_path / "nowhere")
    with pytest.raises(FolderError, match="holds no singer"):
        load_singer(tmp_path)


def test_figures_of_songs_are_those_of_their_passages(singer_home, tmp_path, monkeypatch):
    """nats and kl, from audio files through codec and cache."""
    home, ours = singer_home
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    wave_CW = ours.sing("row your boat", seed=4, score=[SCORE]).wave_CW
    soundfile.write(tmp_path / "a.wav", wave_CW[0].numpy(), 16_000)
    song = Song("a", (Section("verse", (SCORE,)),), "folk", "low", audio=str(tmp_path / "a.wav"))
    first = ours.nats([song])
    assert first["seconds"] == 2.0 and all(n > 0 for n in first["nats_per_token"])
    monkeypatch.setattr(ours.codec, "encode", lambda wave: pytest.fail("codes are in the cache"))
    assert ours.nats([song]) == first
    itself = load_singer(home / "run", device="cpu")
    assert all(abs(kl) < 1e-4 for kl in kl(ours, [song], itself))
    (passage,) = passages(song, 25.0, LONGEST, ours.about.writing)
    assert isinstance(passage, Passage) and passage.frames == 50
