"""Every layout: nothing lost, nothing doubled, one grammar, no slip of a slot unnoticed."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import tiny_singer
import torch
from tiny_singer import LONGEST, kind_of_token

from distill.audio.codec_format import CodecFormat
from distill.errors import SettingsError, VocabularyError
from distill.writing import layouts
from distill.writing.grammar import Grammar, State
from distill.writing.prompts import HEADER, Coded, WritingSettings, passages, write
from distill.writing.vocabulary import AudioVocabulary

SHAPES = [(1, 1), (2, 1), (3, 1), (5, 1), (2, 2), (4, 2), (6, 3), (3, 3)]  # (slots, streams)
EVERY = pytest.mark.parametrize("layout", layouts.names())


def words(layout: str, slots: int = 2, streams: int = 1) -> AudioVocabulary:
    sizes = tuple(5 + slot % 3 for slot in range(slots))
    format = CodecFormat(16_000, 25.0, sizes, streams, streams=streams)
    return AudioVocabulary(300, format, longest=LONGEST, layout=layout)


def codes(v: AudioVocabulary, frames: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [torch.randint(size, (frames,), generator=generator) for size in v.format.slot_sizes], 1
    )


def encode(text: str) -> list[int]:
    """One id a letter."""
    return [ord(letter) % 300 for letter in text]


def coded(v: AudioVocabulary, times: str, seed: int, lines: int = 1) -> list[Coded]:
    song = tiny_singer.song(seed, lines=2, times=times)
    cut = passages(song, 25.0, LONGEST, WritingSettings(max_lines=lines))
    return [Coded(p, codes(v, p.frames if p.stop >= 0 else 1 + seed, seed)) for p in cut]


def sung(ids: list[int], v: AudioVocabulary) -> list[int]:
    return [id for id in ids if id in v.audio_span]


def refused(ids: list[int], v: AudioVocabulary, state: State) -> bool:
    """Whether these ids cannot go on a song from `state` to its end."""
    try:
        for id in ids:
            state = Grammar(v).step(state, id)
    except VocabularyError:
        return True
    return state.kind != "ended"


# --- the order of codes ---------------------------------------------------------------------------
def by_definition(delays: tuple[int, ...], frames: int) -> list[tuple[int, int]]:
    """Step by step, as the chapter's head draws it."""
    return [
        (step - delay, slot)
        for step in range(frames + max(delays))
        for slot, delay in enumerate(delays)
        if 0 <= step - delay < frames
    ]


@EVERY
@pytest.mark.parametrize(("slots", "streams"), SHAPES)
def test_every_code_is_written_once_and_read_back(layout, slots, streams):
    v = words(layout, slots, streams)
    order = v.order
    assert order.delays[0] == 0
    assert all(
        0 <= later - delay <= 1
        for delay, later in zip(order.delays, order.delays[1:], strict=False)
    )
    for frames in range(9):
        frame_N, slot_N = order.order(frames)
        pairs = list(zip(frame_N.tolist(), slot_N.tolist(), strict=True))
        assert pairs == by_definition(order.delays, frames) and len(set(pairs)) == frames * slots
        assert order.starts(frames)[:-1] == [pairs.index((frame, 0)) for frame in range(frames)]
        begun = [min(frame, order.depth) for frame in range(frames)]
        in_steps = [slot for frame in begun for slot in order.step(frame)]
        assert order.starts(frames)[-1] == len(in_steps)
        assert slot_N.tolist() == in_steps + list(order.tail(min(frames, order.depth)))
        codes_FS = codes(v, frames)
        ids_N = v.spell(codes_FS)
        assert ids_N.tolist() == [v.span(s).start + int(codes_FS[f, s]) for f, s in pairs]
        assert torch.equal(v.read(ids_N), codes_FS)


def test_the_layouts_are_those_of_their_papers():
    v = words("delayed", 3)
    letters = [
        "abc"[s] + str(f) for f, s in zip(*(x.tolist() for x in v.order.order(3)), strict=True)
    ]
    assert " ".join(letters) == "a0 a1 b0 a2 b1 c0 b2 c1 c2"
    assert words("delayed", 6, 2).order.delays == (0, 0, 1, 1, 2, 2)  # MusicGen's for stereo
    assert words("flat", 6, 2).order.delays == (0,) * 6


def test_a_lost_or_foreign_id_is_named_by_frame_and_slot():
    v = words("delayed", 3)
    ids_N = v.spell(codes(v, 4))
    ids_N[4] = v.span(0).start  # b1, behind a0 a1 b0 a2
    with pytest.raises(
        VocabularyError, match=rf"frame 1: id {v.span(0).start} is not a code of slot 1"
    ):
        v.read(ids_N)
    with pytest.raises(VocabularyError, match="whole frames of 3"):
        v.read(ids_N[:-1])


def test_an_unknown_layout_is_refused_and_an_old_vocabulary_is_flat():
    with pytest.raises(SettingsError, match="layout is 'diagonal'; give one of delayed, flat"):
        WritingSettings(layout="diagonal")
    v = words("delayed", 4, 2)
    v = replace(v, format=replace(v.format, tracks=("vocals", "accompaniment")))
    assert AudioVocabulary.from_json(v.to_json()) == v
    row = json.loads(words("flat").to_json())
    for later in ("tracks", "streams"):
        del row["format"][later]
    del row["layout"]
    assert AudioVocabulary.from_json(json.dumps(row)) == words("flat")


# --- writing and the grammar ----------------------------------------------------------------------
@EVERY
@pytest.mark.parametrize(("slots", "streams"), SHAPES)
@pytest.mark.parametrize("times", ["notes", "words", "lines", "none"])
def test_what_is_written_is_what_the_grammar_says(layout, slots, streams, times):
    v, flat = words(layout, slots, streams), words("flat", slots, streams)
    for seed in range(2):
        for item in coded(v, times, seed, 1 + seed):
            written = write(item.passage, item.codes_FS, encode, v)
            ids, cut = written.ids_T.tolist(), int((written.kind_T == HEADER).sum())
            assert ids[cut - 1] == v.sing and ids[-1] == v.end
            grammar, state = Grammar(v), Grammar(v).start()
            for id, kind in zip(ids[cut:], written.kind_T[cut:].tolist(), strict=True):
                assert kind == kind_of_token(state)
                state = grammar.step(state, id)
            assert state.kind == "ended" and grammar.legal(state) == ()
            assert torch.equal(v.read(torch.tensor(sung(ids, v))), item.codes_FS)
            assert len(ids) == len(write(item.passage, item.codes_FS, encode, flat))
            frame = -1
            for t, (id, at) in enumerate(zip(ids, written.frame_T.tolist(), strict=True)):
                if id in v.audio_span:
                    slot = next(s for s in range(slots) if id in v.span(s))
                    assert id - v.span(slot).start == int(item.codes_FS[at, slot])
                    frame += slot == 0
                    piece = int(written.piece_T[t])
                    if slot == 0:  # a frame belongs to the piece that stands before its slot 0
                        ends = [
                            sum(p.frames or 99 for p in item.passage.pieces[: n + 1])
                            for n in range(piece + 1)
                        ]
                        assert at == frame and ([0, *ends][piece] <= at < ends[piece])


@EVERY
@pytest.mark.parametrize(("slots", "streams"), [shape for shape in SHAPES if shape[0] > 1])
def test_no_slip_of_a_slot_goes_unnoticed(layout, slots, streams):
    """One id of another slot, one lost or one doubled, wherever: every such song is refused."""
    v = words(layout, slots, streams)
    for times in ("notes", "words", "lines", "none"):
        for item in coded(v, times, 2)[:2]:
            item = shortened(item)
            ids = write(item.passage, item.codes_FS, encode, v).ids_T.tolist()
            ids = ids[ids.index(v.sing) + 1 :]
            state = Grammar(v).start()
            for at, id in enumerate(ids):
                if id in v.audio_span:
                    others = [v.span(slot).start for slot in range(slots) if id not in v.span(slot)]
                    assert all(refused([other, *ids[at + 1 :]], v, state) for other in others), at
                    assert refused(ids[at + 1 :], v, state) and refused(
                        [id, *ids[at:]], v, state
                    ), at
                state = Grammar(v).step(state, id)
            assert state.kind == "ended"


def shortened(item: Coded) -> Coded:
    """Its first pieces, of at most five frames each."""
    pieces = tuple(replace(p, frames=min(p.frames or 5, 5)) for p in item.passage.pieces[:4])
    frames = sum(p.frames for p in pieces)
    return Coded(replace(item.passage, pieces=pieces), item.codes_FS[:frames].repeat(6, 1)[:frames])


@EVERY
@pytest.mark.parametrize(("slots", "streams"), SHAPES)
def test_whatever_the_grammar_lets_through_can_be_decoded(layout, slots, streams):
    v, generator, ended = words(layout, slots, streams), random.Random(slots), 0
    for _ in range(25):
        grammar, state, ids, owed = Grammar(v), Grammar(v).start(), [], 0
        while state.kind != "ended" and len(ids) < 400:
            spans = grammar.legal(state)
            assert spans and all(len(span) > 0 for span in spans)
            span = generator.choice(spans)
            ids.append(generator.randrange(span.start, min(span.stop, span.start + 6)))
            state = grammar.step(state, ids[-1])
            if ids[-1] in v.length_span:
                owed += v.frames(ids[-1]) or 0
        if state.kind == "ended":
            ended += 1
            codes_FS = v.read(torch.tensor(sung(ids, v)))
            is_open = v.length(None) in ids
            assert len(codes_FS) > owed if is_open else len(codes_FS) == owed
            assert torch.equal(v.spell(codes_FS), torch.tensor(sung(ids, v)))
    assert ended > 5
