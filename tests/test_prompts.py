"""How a song is written: every passage is legal id by id, and reads back as what it was."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
import tiny_bases
import tiny_singer
import torch
from tiny_singer import FORMAT, LONGEST

from distill import lyrics
from distill.errors import FitError, SettingsError, SongError, VocabularyError
from distill.lm.base import TextCoder
from distill.lm.merge import tokenizer_with_names
from distill.lm.student import graft
from distill.songs import Line, Note, Section, Song, Word
from distill.writing.grammar import Grammar
from distill.writing.prompts import (
    HEADER,
    LENGTH,
    OPEN,
    PIECE,
    TEXT,
    Coded,
    Passage,
    Piece,
    WritingSettings,
    grain_of,
    onset_of,
    passages,
    write,
)
from distill.writing.vocabulary import AudioVocabulary

WORDS = AudioVocabulary(300, FORMAT, longest=LONGEST)
TOKENIZER = tiny_bases.tokenizer()
CODER = TextCoder(TOKENIZER, len(TOKENIZER))
TIMES = ["notes", "words", "lines", "none"]


# --- reading back, by the vocabulary alone --------------------------------------------------------
@dataclass
class Read:
    text: str
    pitch: int
    length: int
    codes: list[list[int]]


def read_back(ids: list[int]) -> tuple[str, list[Read]]:
    """Header and pieces of written ids; fails where they are not a song."""
    cut = ids.index(WORDS.sing)
    assert ids[-1] == WORDS.end
    text: list[int] = []
    pieces: list[Read] = []
    at = cut + 1
    while at < len(ids) - 1:
        id = ids[at]
        if id in WORDS.text_span:
            text.append(id)
        elif id in WORDS.pitch_span:
            assert ids[at + 1] in WORDS.length_span
            pieces.append(Read(CODER.decode(text), id, ids[at + 1], []))
            text, at = [], at + 1
        else:
            frame = ids[at : at + FORMAT.slots]
            pieces[-1].codes.append(WORDS.read(torch.tensor(frame))[0].tolist())
            at += FORMAT.slots - 1
        at += 1
    assert not text
    return CODER.decode(ids[:cut]), pieces


def check_written(item: Coded) -> None:
    passage, codes_FS = item.passage, item.codes_FS
    written = write(passage, codes_FS, CODER.encode, WORDS)
    ids = written.ids_T.tolist()
    grammar, state = Grammar(WORDS), Grammar(WORDS).start()
    for id in ids[ids.index(WORDS.sing) + 1 :]:
        assert any(id in span for span in grammar.legal(state))
        state = grammar.step(state, id)
    assert state.kind == "ended" and grammar.legal(state) == ()
    header, pieces = read_back(ids)
    assert header == passage.header
    assert [piece.text for piece in pieces] == [piece.text for piece in passage.pieces]
    assert [code for piece in pieces for code in piece.codes] == codes_FS.tolist()
    for piece, written_piece in zip(passage.pieces, pieces, strict=True):
        assert written_piece.pitch == WORDS.pitch(piece.midi, piece.pitched)
        assert WORDS.frames(written_piece.length) == (None if piece.open else piece.frames)
        if piece.frames is not None:
            assert len(written_piece.codes) == piece.frames
    check_places(written, len(passage.pieces))


def check_places(written, pieces: int) -> None:
    """Each id's place, from what the ids themselves say."""
    slots, is_open, first, frame, piece, begun = FORMAT.slots, False, False, -1, 0, False
    columns = (written.ids_T, written.kind_T, written.frame_T, written.piece_T)
    rows = torch.stack(columns, 1).tolist()
    in_header = True
    for id, place, at_frame, at_piece in rows:
        slot = next((s for s in range(slots) if id in WORDS.span(s)), None)
        if in_header:
            assert (place, at_frame, at_piece) == (HEADER, -1, -1)
            in_header = id != WORDS.sing
            fresh = True  # a boundary of the grammar: nothing of the next piece has come
            continue
        if slot is not None:
            frame += slot == 0
            assert at_frame == frame and at_piece == piece
            assert place == (OPEN if is_open and slot == 0 and not first else slot)
            fresh, first = slot == slots - 1, False
            continue
        assert at_frame == -1
        if id in WORDS.length_span:
            assert place == LENGTH
            is_open, fresh, first = WORDS.frames(id) is None, True, True
        else:
            assert place == ((OPEN if is_open else PIECE) if begun and fresh else TEXT)
            if fresh and begun and id != WORDS.end:
                piece += 1
            begun, fresh = True, False
        assert at_piece == piece
    assert piece == pieces - 1


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("grain", ["finest", "note", "word", "line", "none"])
@pytest.mark.parametrize("spelling", ["phones", "letters"])
def test_random_songs_are_legal_and_read_back(times, grain, spelling):
    for seed in range(6):
        writing = WritingSettings(grain, 1 + seed % 3, spelling)
        items = tiny_singer.coded(2, writing, times, seed)
        for item in items:
            check_written(item)
        wanted = {"notes": "note", "words": "word", "lines": "line", "none": "none"}[times]
        order = ["note", "word", "line", "none"]
        coarser = max(wanted, "note" if grain == "finest" else grain, key=order.index)
        assert grain_of([item.passage for item in items], writing) == coarser


@pytest.mark.parametrize("seed", range(8))
def test_passages_hold_every_line_once_and_every_note_text_in_order(seed):
    song = tiny_singer.song(seed, lines=5)
    cut = passages(song, 25.0, LONGEST, WritingSettings(max_lines=3))
    assert [line for passage in cut for line in passage.lines] == list(song.lines)
    assert cut == passages(song, 25.0, LONGEST, WritingSettings(max_lines=3))
    assert {len(p.lines) for p in cut} <= {1, 2, 3}
    for passage in cut:
        notes = [note for line in passage.lines for note in line.notes]
        sung = [p for p in passage.pieces if p.midi is not None and not p.goes_on]
        assert [p.midi for p in sung] == [note.midi for note in notes]
        assert [p.text.split(",")[0].strip() for p in sung] == [note.text for note in notes]
        assert all(1 <= p.frames <= LONGEST for p in passage.pieces)
        assert sum(p.frames for p in passage.pieces) == passage.frames
        assert passage.start == round(passage.lines[0].start * 25)
        for text in (note.text for note in notes):
            assert text in passage.header


def line(*notes: tuple[float, float, float | None, str], end: float | None = None, **more) -> Line:
    made = tuple(Note(*note) for note in notes)
    return Line("row", 0.0, made[-1].end if end is None else end, (), made, **more)


def pieces_of(*lines: Line, **writing) -> list[Piece]:
    song = Song("s", (Section("verse", lines),), "folk", "low")
    (passage,) = passages(song, 25.0, LONGEST, WritingSettings(**{"max_lines": 1, **writing}))
    return list(passage.pieces)


def test_consonants_that_lead_into_the_next_vowel_stand_behind_the_piece_before():
    pieces = pieces_of(
        line(
            (0.2, 0.4, 60, "s t r I m"),
            (0.4, 0.6, 62, ""),
            (0.6, 0.8, 64, "l Y f"),
            (1.0, 1.2, 65, "i z"),
            end=1.4,
        )
    )
    assert [(p.text, p.midi, p.frames) for p in pieces] == [
        (", s t r", None, 5),  # the rest before the first vowel
        ("s t r I m", 60, 5),  # the next piece goes on with this vowel: no onset
        (", l", 62, 5),
        ("l Y f", 64, 5),  # the next piece is a rest
        ("", None, 5),  # and the next syllable begins with its vowel
        ("i z", 65, 5),
        ("", None, 5),
    ]
    assert onset_of("s t r I m") == "s t r"
    assert onset_of("i z") == ""
    assert onset_of("") == ""
    assert onset_of("m") == ""


def test_a_long_note_is_split_and_its_last_part_leads_into_what_follows():
    pieces = pieces_of(line((0.0, 0.04 * (3 * LONGEST + 5), 60, "r o"), (2.12, 2.32, 62, "b o t")))
    assert [(p.text, p.midi, p.frames, p.goes_on) for p in pieces] == [
        ("r o", 60, LONGEST, False),
        ("", 60, LONGEST, True),
        ("", 60, LONGEST, True),
        (", b", 60, 5, True),
        ("b o t", 62, 5, False),
    ]
    assert not any(p.open for p in pieces)
    assert "goes_on" not in repr(pieces[1])  # recorded signals are named by this


def test_a_long_unpitched_piece_is_left_open():
    words = (Word("row", 0.0, 0.4), Word("boat", 0.4, 2.0))
    pieces = pieces_of(Line("row boat", 0.0, 2.0, words))
    assert [(p.text, p.pitched, p.frames, p.open) for p in pieces] == [
        ("r o", False, 10, False),
        ("b o t", False, 40, True),
    ]
    (whole,) = pieces_of(Line("row boat", 0.0, 2.0, words), grain="line")
    assert (whole.text, whole.open, whole.frames) == ("r o, b o t", True, 50)
    (bare,) = pieces_of(Line("row boat", 0.0, 2.0, words), grain="none")
    assert bare.text == "" and bare.open


def test_a_note_shorter_than_a_frame_keeps_its_text():
    pieces = pieces_of(
        line((0.0, 0.2, 60, "r o"), (0.2, 0.21, 61, "D u"), (0.21, 0.4, 62, "b o t"))
    )
    assert [(p.text, p.midi) for p in pieces] == [("r o, D", 60), ("D u, b", 61), ("b o t", 62)]
    assert [p.frames for p in pieces] == [5, 1, 4]


def test_letters_spell_words_where_they_begin():
    notes = (Note(0.2, 0.4, 60, "r o"), Note(0.4, 0.6, 62, ""), Note(0.6, 0.8, 64, "b o t"))
    words = (Word("Row", 0.2, 0.6), Word("Boat", 0.6, 0.8))
    song = Line("Row, Boat!", 0.2, 0.8, words, notes)
    assert [p.text for p in pieces_of(song, spelling="letters")] == ["r o w", ", b", "b o a t"]
    assert [p.text for p in pieces_of(song, spelling="phones")] == ["r o", ", b", "b o t"]
    assert [p.text for p in pieces_of(song, spelling="letters", grain="word")] == [
        "r o w",
        "b o a t",
    ]


def test_a_song_without_times_is_one_open_passage():
    song = tiny_singer.song(3, times="none")
    (passage,) = passages(song, 25.0, LONGEST, WritingSettings())
    assert passage.stop == -1 and len(passage.pieces) == 1 and passage.pieces[0].open
    for line in song.lines:
        for word in lyrics.words(line.text):
            assert lyrics.sing_text(lyrics.syllables(word)[0]) in passage.header
    with pytest.raises(SongError, match="no lines"):
        passages(replace(song, sections=()), 25.0, LONGEST, WritingSettings())


def test_what_nobody_is_sure_of_is_left_out():
    """A line without trusted times belongs to no passage; unsure words fall to the line."""
    sure = Line(
        "row row",
        0.0,
        1.0,
        (Word("row", 0.1, 0.5, 0.9), Word("row", 0.5, 0.9, 0.4)),
        confidence=0.8,
    )
    lines = (
        sure,
        Line("boat"),
        Line("gently", 2.0, 3.0, confidence=0.3),
        replace(sure, start=3.0, end=4.0),
    )
    song = replace(tiny_singer.song(3), sections=(Section("v", lines),))
    cut = passages(song, 25.0, LONGEST, WritingSettings(max_lines=4))
    assert [(p.start, p.stop, len(p.lines)) for p in cut] == [(0, 25, 1), (75, 100, 1)]
    assert len(cut[0].pieces) == 1  # the line, not its words
    trusting = WritingSettings(max_lines=1, least_confidence=0.3)
    assert [len(p.lines) for p in passages(song, 25.0, LONGEST, trusting)] == [1, 1, 1]
    assert len([p for p in passages(song, 25.0, LONGEST, trusting)[0].pieces if p.text]) == 2
    with pytest.raises(SettingsError, match="least_confidence is 2"):
        WritingSettings(least_confidence=2)


def test_codes_and_pieces_that_disagree_are_refused():
    (item, *_) = tiny_singer.coded(1)
    more_FS = torch.cat([item.codes_FS, item.codes_FS[:1]])
    for codes_FS in (more_FS, item.codes_FS[:-1]):
        with pytest.raises(FitError, match=r"song-0:0.*check its times"):
            write(item.passage, codes_FS, CODER.encode, WORDS)
    with pytest.raises(SettingsError, match="max_lines is 0"):
        WritingSettings(max_lines=0)


# --- the grammar ----------------------------------------------------------------------------------
def test_random_walks_never_get_stuck_and_illegal_ids_are_refused():
    generator, grammar = random.Random(0), Grammar(WORDS)
    kinds, ended = set(), 0
    for _ in range(60):
        state = grammar.start()
        for _ in range(200):
            spans = grammar.legal(state)
            assert bool(spans) == (state.kind != "ended") and all(len(span) > 0 for span in spans)
            if not spans:
                ended += 1
                break
            legal = {id for span in spans for id in (span.start, span.stop - 1)}
            assert not legal & {WORDS.sing, *range(WORDS.used_rows, WORDS.rows)}
            illegal = generator.randrange(WORDS.rows)
            if not any(illegal in span for span in spans):
                with pytest.raises(VocabularyError, match=f"id {illegal} cannot come"):
                    grammar.step(state, illegal)
            kinds.add((state.kind, state.left is None))
            span = generator.choice(spans)
            state = grammar.step(
                state, generator.choice([span.start, generator.randrange(span.start, span.stop)])
            )
    assert ended > 5
    assert kinds >= {
        ("start", False),
        ("slot", False),
        ("slot", True),
        ("length", False),
        ("boundary", True),
    }


def test_a_length_is_kept_to_the_frame():
    grammar = Grammar(WORDS)
    state = grammar.step(grammar.step(grammar.start(), WORDS.pitch(60)), WORDS.length(2))
    for _ in range(2):
        for slot in range(FORMAT.slots):
            assert grammar.legal(state) == (WORDS.span(slot),)
            state = grammar.step(state, WORDS.span(slot).start)
    assert not any(WORDS.span(0).start in span for span in grammar.legal(state))
    assert grammar.step(state, WORDS.end).kind == "ended"


# --- text stays text ------------------------------------------------------------------------------
TRICKS = "<custom_token_5> </s> <s> <custom_token_70> row <unused_token_290>"


def test_text_that_spells_codec_tokens_gives_no_codec_id():
    student = graft(
        tiny_bases.build(tiny_bases.config()),
        TOKENIZER,
        AudioVocabulary(tiny_bases.ROWS, FORMAT),
        seed=0,
        init="mean",
    )
    words = student.vocabulary
    merged = tokenizer_with_names(student)
    plain = merged.encode(TRICKS, add_special_tokens=False)
    # a stock tokenizer would fall for it
    assert {words.base_rows + 5, words.base_rows + 70} <= set(plain)
    note = Note(0.0, 0.4, 60, TRICKS)
    line = Line(TRICKS, 0.0, 0.4, (Word(TRICKS, 0.0, 0.4),), (note,))
    for spelling in ("phones", "letters"):
        song = Song("s", (Section("verse", (line,)),), TRICKS, TRICKS)
        (passage,) = passages(song, 25.0, LONGEST, WritingSettings(spelling=spelling))
        assert isinstance(passage, Passage)
        for coder in (student.text, TextCoder(merged, student.base_pieces)):
            written = write(passage, torch.zeros(10, 2, dtype=torch.int64), coder.encode, words)
            text = written.ids_T[(written.frame_T < 0)].tolist()
            cut = text.index(words.sing)
            assert cut > 20 and all(id < student.base_pieces for id in text[:cut])
            behind = [id for id in text[cut + 1 :] if id >= words.base_rows]
            assert behind == [words.pitch(60), words.length(10), words.end]
            assert not {0, 1} & set(text)  # <s> and </s>
            assert coder.decode(text[:cut]) == passage.header
