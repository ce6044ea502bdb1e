"""A note may be sung longer than a length symbol says: script, grammar and training agree how."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny_singer
import torch
from test_layouts import encode, words
from test_singer import about, check_legal
from tiny_singer import LONGEST, ToyCodec

from distill.audio.codec_format import CodecFormat
from distill.errors import TeacherError
from distill.singing.sampling import Request, Sung, script
from distill.singing.singer import Singer, load_singer
from distill.singing.singer_folder import write_about
from distill.tasks._singing_task import _longest
from distill.teachers import check_symbols
from distill.writing import layouts, prompts
from distill.writing.prompts import Passage, Piece
from distill.writing.sampling import Sampling
from distill.writing.vocabulary import AudioVocabulary, longest_of

TIED = Sampling((1.0,), 0.9, ties=True)
ROOM = 100


def walk(
    pieces: list[Piece], v: AudioVocabulary, sampling: Sampling, seed: int, room: int = ROOM
) -> tuple[list[int], Sung, list[Request]]:
    """(ids behind `sing`, what was sung, what was asked) where most lengths are the longest and
    half of the ties are taken."""
    chance, sung, ids, asked = random.Random(seed), Sung(), [], []
    steps = script(pieces, encode, v, sampling, sung, room)
    request: Request | None = next(steps)
    while request is not None:
        asked.append(request)
        spans = request.spans
        if request.forced is not None:
            id = request.forced
        elif spans[0].start in v.length_span and chance.random() < 0.8:
            id = spans[0].stop - 1
        else:
            span = chance.choice(spans)
            id = chance.randrange(span.start, span.stop)
        ids.append(id)
        try:
            request = steps.send(id)
        except StopIteration:
            request = None
    return ids, sung, asked


def unscored(seed: int) -> list[Piece]:
    """Syllables, and the rests around them, as a singer plans a line without notes."""
    chance, rest = random.Random(seed), Piece("", None, None)
    syllables = [Piece(chance.choice(tiny_singer.SYLLABLES), None, None) for _ in range(3)]
    return [*prompts.look_ahead([rest, *syllables]), rest]


@pytest.mark.parametrize("layout", layouts.names())
@pytest.mark.parametrize(("slots", "streams"), [(1, 1), (3, 1), (4, 2)])
def test_what_is_sung_is_what_training_would_have_written(layout, slots, streams):
    v = replace(words(layout, slots, streams), longest=LONGEST)
    ties = 0
    for seed in range(30):
        pieces = unscored(seed)
        ids, sung, _ = walk(pieces, v, TIED, seed)
        frames = check_legal(ids, v)
        codes_FS = v.read(torch.tensor(sung.ids))
        assert frames == len(codes_FS) == sum(piece.frames or 0 for piece in sung.pieces)
        passage = Passage("x", "", tuple(sung.pieces), 0, frames)
        written = prompts.write(passage, codes_FS, encode, v)
        assert written.ids_T.tolist() == [v.sing, *ids]
        # all that was written fits where `room` frames beside the planned pieces fit
        planned = prompts.tokens_of(Passage("x", "", tuple(pieces)), ROOM, encode, v)
        assert len(ids) + 1 <= planned
        notes = [list(group) for group in notes_of(sung.pieces)]
        assert [note[0].text for note in notes] == [piece.text for piece in pieces]
        for first, *others in notes:
            total = sum(part.frames or 0 for part in (first, *others))
            assert prompts._split(replace(first, frames=total), v.longest) == [first, *others]
        ties += len(sung.pieces) - len(pieces)
    assert ties > 20


def notes_of(pieces: list[Piece]) -> list[list[Piece]]:
    """Pieces with the parts that they go on in."""
    notes: list[list[Piece]] = []
    for piece in pieces:
        if piece.goes_on:
            notes[-1].append(piece)
        else:
            notes.append([piece])
    return notes


def test_without_ties_or_with_lengths_that_are_given_nothing_else_is_asked():
    """So that a singer of before sings its takes as before."""
    v = replace(words("flat", 2, 1), longest=LONGEST)
    for seed in range(20):
        _, sung, asked = walk(unscored(seed), v, replace(TIED, ties=False), seed)
        assert len(sung.pieces) == 5 and max(p.frames or 0 for p in sung.pieces) <= LONGEST
        assert len([r for r in asked if r.forced is None and len(r.spans) > 1]) == 0
    given = [Piece("r o", 60, LONGEST), Piece("b o t", 62, 5)]
    _, sung, asked = walk(given, v, TIED, 0)
    assert sung.pieces == given and not [r for r in asked if len(r.spans) > 1]
    assert not load_singer(device="cpu").about.sampling.ties


def test_a_piece_that_would_begin_as_the_tie_does_is_no_tie():
    """Two rests in a row: their parts look alike, so the second is the next piece."""
    v = replace(words("flat", 2, 1), longest=4)
    rests = [Piece("", None, None), Piece("", None, None)]
    for seed in range(10):
        _, sung, _ = walk(rests, v, TIED, seed, room=40)
        assert not sung.pieces[1].goes_on


def test_no_tie_without_room():
    v = replace(words("flat", 2, 1), longest=LONGEST)
    for seed in range(30):
        ids, sung, _ = walk(unscored(seed), v, TIED, seed, room=3 * LONGEST)
        frames = sum(piece.frames or 0 for piece in sung.pieces)
        ties = sum(piece.goes_on for piece in sung.pieces)
        assert frames + ties <= 3 * LONGEST  # a tie's pitch and length are a frame's worth of ids
        assert check_legal(ids, v) == frames


@pytest.mark.parametrize(
    "layout",
    [n if n == "flat" else pytest.param(n, marks=pytest.mark.slow) for n in layouts.names()],
)
def test_a_singer_sings_longer_than_its_longest_symbol(layout):
    student = tiny_singer.student(lively=0.5, layout=layout)
    takes, bound = [], LONGEST / 25 + 1e-9
    for ties in (True, False):
        sampling = Sampling((1.0,), 1.5, ties=ties)
        singer = Singer(student, ToyCodec(), about(sampling=sampling, tokens=900))
        takes.append([singer.sing("gently down the stream", seed=seed) for seed in range(12)])
    longest = [max(end - start for take in side for start, end, _ in take.notes) for side in takes]
    assert longest[0] > bound >= longest[1]
    for take in takes[0]:
        assert take.pieces == ("", "J e n t", "l I", "d W n", "D u", "s t r I m", "")
        spans = list(itertools.pairwise(take.notes))
        assert all(before[1] == pytest.approx(after[0]) for before, after in spans)


def test_a_new_vocabulary_says_as_many_seconds_at_any_frame_rate():
    for rate in (12.5, 25.0, 50.0, 75.0, 44_100 / 512):
        assert longest_of(CodecFormat(44_100, rate, (1024,) * 9)) / rate >= 2.56
    # what was written down before reads as it was, and the embedded codec's is the same
    assert longest_of(CodecFormat(24_000, 25.0, (1024, 1024))) == 64
    assert load_singer(device="cpu").student.vocabulary.longest == 64


def test_a_students_longest_length_is_its_teachers(tmp_path):
    """Of its codec's frame rate where there is none; an old teacher's is what it was."""
    student, codec = tiny_singer.student(), ToyCodec(CodecFormat(44_100, 44_100 / 512, (8, 8)))
    student.write_card(tmp_path, "merged")
    write_about(tmp_path, about())
    alone, taught = (
        SimpleNamespace(teacher=teacher)
        for teacher in (None, SimpleNamespace(singer=str(tmp_path)))
    )
    assert _longest(alone, codec) == 221  # type: ignore[arg-type]
    assert _longest(taught, codec) == LONGEST == student.vocabulary.longest  # type: ignore[arg-type]


def test_teacher_and_student_say_the_same_lengths():
    ours = words("flat", 2, 1)
    check_symbols("alto", ours, replace(ours, base_rows=77, layout="delayed"))
    with pytest.raises(TeacherError, match=r"teacher alto: .* up to 99 frames.*trained alike"):
        check_symbols("alto", replace(ours, longest=99), ours)
