"""How a song is written for an LLM.

    header, `sing`, then for each piece of text:  text* pitch length frame^length ..., `end`

(a `layout` may write a frame's finer codes some frames later; those still owed at the end stand
before `end`.)

Each piece of text stands *directly before* the frames it is sung to. That is the lever of the whole
library: the same small model sings at its codec's ceiling this way and at chance when the lyrics
are only a prefix. A piece is a note's syllable when the song knows its notes, else a word, a line,
or nothing: the finest grain the song's times allow.

A note begins with its vowel, so the consonants that lead into the *next* vowel sound inside the
present note. A note-wise piece therefore looks ahead: `s t r I m, d` is the syllable "strIm"
followed by a syllable that starts with d.

What may come next is said in one place (grammar.py): `Written.place_T` names for every id what it
was chosen among.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from distill import lyrics
from distill.errors import FitError, SettingsError, SongError
from distill.lm import layouts
from distill.lm.vocabulary import AudioVocabulary
from distill.songs import Line, Note, Song, Word

Grain = Literal["finest", "note", "word", "line", "none"]
JOIN = ", "


@dataclass(frozen=True)
class WritingSettings:
    """How songs are cut and spelled.

    grain: the finest piece of text to use. max_lines: lines in one passage (one training example,
    one context). least_confidence: times that a machine found and is less sure of (0 to 1) are not
    used: then the coarser grain is. spelling: pieces as phones (one letter each, see `lyrics`) or
    as plain letters of the word. layout: the order in which a frame's codes are written (see
    `layouts`).
    """

    grain: Grain = "finest"
    max_lines: int = 2
    spelling: Literal["phones", "letters"] = "phones"
    least_confidence: float = 0.5
    layout: str = "flat"

    def __post_init__(self) -> None:
        layouts.check(self.layout)
        if self.max_lines < 1:
            raise SettingsError(f"max_lines is {self.max_lines}; a passage has at least 1 line")
        if not 0 <= self.least_confidence <= 1:
            raise SettingsError(
                f"least_confidence is {self.least_confidence}; give a share from 0 to 1"
            )

    def trusts(self, timed: Line | Word) -> bool:
        """Whether the times of a line or word are to be used."""
        return timed.confidence is None or timed.confidence >= self.least_confidence


@dataclass(frozen=True)
class Piece:
    """Text begun here, its MIDI pitch (None: rest) and its frames (None: not decided yet).

    `pitched` False: nobody knows the pitch. `open`: the length symbol leaves the end of the piece
    to the singer. `goes_on`: a part of the note before it, which was longer than a length symbol
    can say (nothing that is written depends on it, so neither does the name of a recorded signal).
    """

    text: str
    midi: float | None
    frames: int | None
    pitched: bool = True
    open: bool = False
    goes_on: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class Passage:
    """Some consecutive lines of a song as they are written: frames `start` to `stop` of the song's
    codes."""

    id: str
    header: str
    pieces: tuple[Piece, ...]
    start: int = 0
    stop: int = 0
    lines: tuple[Line, ...] = ()

    @property
    def frames(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Coded:
    """A passage with the codes_FS (F frames, S slots; int64) it is sung as."""

    passage: Passage
    codes_FS: Tensor


# --- from songs to passages -----------------------------------------------------------------------
def header(
    style: str, voice: str, lines: Sequence[Line], settings: WritingSettings, language: str = "en"
) -> str:
    """The text before the song: style, voice and the whole lyrics, spelled as the pieces will be."""
    words = "\n".join(JOIN.join(_line_texts(line, settings, language)) for line in lines)
    return f"style: {style}; voice: {voice}\n{words}\n"


def passages(
    song: Song, frame_rate: float, longest: int, settings: WritingSettings
) -> list[Passage]:
    """Cut a song into passages of 1 to `max_lines` lines; the cut depends on the song's id alone.

    A line without times that can be trusted is left out, and no passage reaches across it: its
    words are sung there. A song without any such times is one passage, its whole lyrics. Raises
    SongError for one without lines.
    """
    lines = song.lines
    timed = [
        line.start is not None and line.end is not None and settings.trusts(line) for line in lines
    ]
    if not any(timed):
        return [_untimed(song, settings)]
    chooser = random.Random(song.id)
    found, first = [], 0
    while first < len(lines):
        stop = min(len(lines), first + chooser.randint(1, settings.max_lines))
        stop = next((n for n in range(first, stop) if not timed[n]), stop)
        if stop > first:
            take = lines[first:stop]
            found.append(_passage(f"{song.id}:{first}", song, take, frame_rate, longest, settings))
        first = max(stop, first + 1)
    return found


def _untimed(song: Song, settings: WritingSettings) -> Passage:
    """A song without times: its lyrics are a prefix, one open piece holds all frames (stop = -1: to
    the end)."""
    if not song.lines:
        raise SongError(f"song {song.id}: it has no lines; give it lyrics")
    text = header(song.style, song.voice, song.lines, settings, song.language)
    return Passage(
        f"{song.id}:all", text, (Piece("", None, None, False, open=True),), 0, -1, song.lines
    )


def _passage(
    id: str,
    song: Song,
    lines: Sequence[Line],
    frame_rate: float,
    longest: int,
    settings: WritingSettings,
) -> Passage:
    start = round((lines[0].start or 0.0) * frame_rate)
    # (first frame, frame after the last, piece without its frames)
    timed: list[tuple[int, int, Piece]] = []
    for line in lines:
        timed += _timed_pieces(line, frame_rate, settings, song.language)
    stop = max(round((lines[-1].end or 0.0) * frame_rate), timed[-1][1] if timed else 0)
    pieces = _fill(timed, start, stop, longest)
    text = header(song.style, song.voice, lines, settings, song.language)
    return Passage(
        id, text, pieces, start, start + sum(piece.frames or 0 for piece in pieces), tuple(lines)
    )


def _timed_pieces(
    line: Line, frame_rate: float, settings: WritingSettings, language: str
) -> list[tuple[int, int, Piece]]:
    def frame(seconds: float) -> int:
        return round(seconds * frame_rate)

    grain = settings.grain
    if grain in ("finest", "note") and line.notes:
        texts = note_texts(line, settings)
        return [
            (frame(note.start), frame(note.end), Piece(text, note.midi, None))
            for note, text in zip(line.notes, texts, strict=True)
        ]
    if grain in ("finest", "note", "word") and line.words and all(map(settings.trusts, line.words)):
        return [
            (frame(word.start), frame(word.end), Piece(JOIN.join(texts), None, None, False))
            for word, texts in zip(
                line.words,
                words_texts([w.text for w in line.words], settings, language),
                strict=True,
            )
        ]
    text = "" if grain == "none" else JOIN.join(_line_texts(line, settings, language))
    return [(frame(line.start or 0.0), frame(line.end or 0.0), Piece(text, None, None, False))]


def _fill(
    timed: list[tuple[int, int, Piece]], start: int, stop: int, longest: int
) -> tuple[Piece, ...]:
    """Give every piece its frames, put rests in the gaps, split what is longer than a length symbol
    can say.

    What is shorter than a frame gets one, so that its text is sung, and moves what follows.
    """
    whole: list[Piece] = []
    now = start
    for index, (first, last, piece) in enumerate(timed):
        first = max(first, now)
        following = timed[index + 1][0] if index + 1 < len(timed) else stop
        last = max(first + 1, min(last, following, stop))
        if first > now:
            whole.append(Piece("", None, first - now))
        whole.append(replace(piece, frames=last - first))
        now = last
    if stop > now:
        whole.append(Piece("", None, stop - now))
    return tuple(look_ahead([part for piece in whole for part in _split(piece, longest)]))


def _split(piece: Piece, longest: int) -> list[Piece]:
    frames = piece.frames
    if frames is None or frames <= longest:
        return [piece]
    if not piece.pitched:  # nobody knows where inside a line or word we are: leave its length open
        return [replace(piece, open=True)]
    parts = [replace(piece, frames=longest)]
    return parts + _split(replace(piece, text="", frames=frames - longest, goes_on=True), longest)


def look_ahead(pieces: Sequence[Piece]) -> list[Piece]:
    """Write behind each pitched piece the consonants that lead into the next one."""
    found = []
    for index, piece in enumerate(pieces):
        following = next((p for p in pieces[index + 1 : index + 2] if p.pitched), None)
        onset = onset_of(following.text) if following is not None and piece.pitched else ""
        found.append(replace(piece, text=f"{piece.text}{JOIN}{onset}".strip()) if onset else piece)
    return found


def onset_of(text: str) -> str:
    """The consonants a piece begins with: "s t r I m" -> "s t r"; none if it has no vowel."""
    letters = text.split()
    for index, letter in enumerate(letters):
        if letter in lyrics.VOWELS:
            return " ".join(letters[:index])
    return ""


def note_texts(line: Line, settings: WritingSettings) -> list[str]:
    """The piece of text begun on each note of a line, in the recipe's spelling."""
    if settings.spelling == "phones":
        return [note.text for note in line.notes]
    return [_letters_of_note(line, index, note) for index, note in enumerate(line.notes)]


def _letters_of_note(line: Line, index: int, note: Note) -> str:
    """Plain letters: the first note of a word carries all of its letters, the others go on."""
    word = next((w for w in line.words if w.start - 1e-6 <= note.start < w.end - 1e-6), None)
    begun = word is not None and (index == 0 or line.notes[index - 1].start < word.start - 1e-6)
    return " ".join(word.text.lower()) if begun and word is not None else ""


def words_texts(
    words: Sequence[str], settings: WritingSettings, language: str = "en"
) -> list[list[str]]:
    """The pieces of each word of a line that no notes are known for: its syllables, or all its
    letters."""
    if settings.spelling == "letters":
        return [[" ".join(word.lower())] for word in words]
    return [[lyrics.sing_text(one) for one in word] for word in lyrics.read(words, language)]


def _line_texts(line: Line, settings: WritingSettings, language: str) -> list[str]:
    if settings.spelling == "phones" and line.notes:
        return [note.text for note in line.notes if note.text]
    return [
        text for word in words_texts(lyrics.words(line.text), settings, language) for text in word
    ]


def grain_of(passages: Sequence[Passage], settings: WritingSettings) -> Grain:
    """How finely these passages were in fact written; a singer taught on them writes lyrics without
    a score so."""
    pieces = [piece for passage in passages for piece in passage.pieces]
    if any(piece.midi is not None for piece in pieces):
        return "note"
    if not any(piece.text for piece in pieces):
        return "none"
    by_words = settings.grain != "line" and any(
        line.words for passage in passages for line in passage.lines
    )
    return "word" if by_words else "line"


# --- writing --------------------------------------------------------------------------------------
HEADER, PIECE, LENGTH, OPEN, TEXT, END = -1, -2, -3, -4, -5, -6


@dataclass(frozen=True)
class Written:
    """A passage as token ids.

    ids_T: all ids. place_T: what each id is predicted as: its slot (>= 0), HEADER (no loss), PIECE
    (text, pitch, or that the song ends), TEXT (within a piece: text or pitch), LENGTH, OPEN (as
    PIECE, and a frame may come too), or END (`end` behind a tail: nothing else can come). Songs end
    with `end`, or where the layout is late with their tail: so codes too have the places PIECE and
    OPEN, namely slot 0 within an open piece and the first of a tail. frame_T: index of the frame an
    audio id belongs to, -1 elsewhere. piece_T: index of the piece, -1 in the header.
    """

    ids_T: Tensor
    place_T: Tensor
    frame_T: Tensor
    piece_T: Tensor

    def __len__(self) -> int:
        return len(self.ids_T)


def piece_ids(
    piece: Piece, encode: Callable[[str], list[int]], vocabulary: AudioVocabulary
) -> list[int]:
    """Token ids of one piece: its text, its pitch, its length."""
    text = encode(piece.text) if piece.text else []
    length = vocabulary.length(None if piece.open else piece.frames)
    return [*text, vocabulary.pitch(piece.midi, piece.pitched), length]


def write(
    passage: Passage,
    codes_FS: Tensor,
    encode: Callable[[str], list[int]],
    vocabulary: AudioVocabulary,
) -> Written:
    """A passage and its codes (F frames, S slots) as ids with the place of each, as the grammar
    would have it.

    Raises FitError when the pieces do not promise as many frames as there are codes.
    """
    v, total = vocabulary, len(codes_FS)
    audio = v.spell(codes_FS).tolist()
    frame_N, slot_N = (column_N.tolist() for column_N in v.order.order(total))
    starts = v.order.starts(total)
    ids = [*encode(passage.header), v.sing]
    place, at_frame, at_piece = ([-1] * len(ids) for _ in range(3))
    # the place of what comes between pieces; behind `sing` nothing but text or pitch can
    boundary, first = (TEXT, 0)
    for index, (said, stop) in enumerate(zip(passage.pieces, _stops(passage, total), strict=True)):
        begin, end, piece = starts[first], starts[stop], piece_ids(said, encode, v)
        ids += piece + audio[begin:end]
        place += [boundary, *[TEXT] * (len(piece) - 2), LENGTH, *slot_N[begin:end]]
        at_frame += [-1] * len(piece) + frame_N[begin:end]
        at_piece += [index] * (len(piece) + end - begin)
        boundary = OPEN if said.open or said.frames is None else PIECE
        for frame in range(first + 1, stop if boundary == OPEN else 0):  # its first frame must come
            place[starts[frame] - end] = OPEN
        first = stop
    tail = starts[total]
    ids += [*audio[tail:], v.end]
    place += [boundary, *slot_N[tail + 1 :], END] if audio[tail:] else [boundary]
    at_frame += [*frame_N[tail:], -1]
    at_piece += [len(passage.pieces) - 1] * (len(ids) - len(at_piece))
    return Written(*(torch.tensor(column) for column in (ids, place, at_frame, at_piece)))


def _stops(passage: Passage, total: int) -> list[int]:
    """The frame behind each piece's last. Raises FitError unless they are `total`, at least one
    each."""
    stop, found = 0, []
    for index, piece in enumerate(passage.pieces):
        last = index == len(passage.pieces) - 1
        count = total - stop if piece.frames is None and last else piece.frames or 0
        stop += count
        if count < 1 or stop > total:
            raise FitError(
                f"passage {passage.id}: pieces ask for more than its {total} frames; check its "
                "times"
            )
        found.append(stop)
    if stop != total or not found:
        raise FitError(
            f"passage {passage.id}: its pieces end at frame {stop} of {total}; check its times"
        )
    return found
