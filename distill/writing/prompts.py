"""How a song is written for an LLM.

    header, `sing`, then for each piece of text:  text* pitch length frame^length ..., `end`

(a `layout` may write a frame's finer codes some frames later; the last of them before `end`).

Each piece of text stands *directly before* the frames it is sung to: the same small model sings at
its codec's ceiling this way and at chance when the lyrics are only a prefix. A piece is a note's
syllable when the song knows its notes, else a word, a line, or nothing: the finest grain the song's
times allow. A note begins with its vowel, so the consonants that lead into the *next* vowel sound
inside the present note; its piece looks ahead: `s t r I m, d` is "strIm", then a syllable with d.

grammar.py has what may come next; `Written.kind_T` names for every id what it was chosen among.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from distill import lyrics
from distill.config.ranges import Checked, at_least, share
from distill.errors import FitError, SongError
from distill.songs import Line, Song, Word
from distill.writing import layouts, line_parts
from distill.writing.line_parts import JOIN, SAME_SECONDS
from distill.writing.vocabulary import AudioVocabulary

Grain = Literal["finest", "note", "word", "line", "none"]
Encode = Callable[[str], list[int]]  # a text to the ids of an LLM's tokenizer
Fits = Callable[["Passage"], bool]  # whether a passage is short enough
Make = Callable[[object, Sequence[Line]], "Passage"]  # of where it begins in its song, and lines


@dataclass(frozen=True)
class WritingSettings(Checked):
    """How songs are cut and spelled.

    grain: the finest piece of text. max_lines: lines in one passage. spelling: phones (one letter
    each, see `lyrics`) or a word's plain letters. least_confidence: times that a machine is less
    sure of are not used. layout: the order of a frame's codes (see `layouts`).
    """

    grain: Grain = "finest"
    max_lines: int = at_least(1, default=2)
    spelling: Literal["phones", "letters"] = "phones"
    least_confidence: float = share(default=0.5)
    layout: str = "flat"

    def __post_init__(self) -> None:
        super().__post_init__()
        layouts.check(self.layout)

    def trusts(self, timed: Line | Word) -> bool:
        """Whether the times of a line or word are to be used."""
        return timed.confidence is None or timed.confidence >= self.least_confidence


@dataclass(frozen=True)
class Piece:
    """Text begun here, its MIDI pitch (None: rest) and its frames (None: not decided yet).

    `pitched` False: the pitch is unknown. `open`: the singer decides where the piece ends.
    `goes_on`: a part of the note before it; nothing that is written or named depends on it.
    """

    text: str
    midi: float | None
    frames: int | None
    pitched: bool = True
    open: bool = False
    goes_on: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class Passage:
    """Consecutive lines of a song as they are written: frames `start` to `stop` of its codes."""

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
    """The text before the song: style, voice and all lyrics, spelled as the pieces will be."""
    words = "\n".join(JOIN.join(_line_texts(line, settings, language)) for line in lines)
    return f"style: {style}; voice: {voice}\n{words}\n"


def passages(
    song: Song,
    frame_rate: float,
    longest: int,
    settings: WritingSettings,
    fits: Fits = lambda passage: True,
) -> list[Passage]:
    """Cut a song into passages of 1 to `max_lines` lines; the cut depends on the song's id alone.

    Lines without trusted times are left out, and passages end there; a song of such lines alone is
    one passage. What does not fit is cut again: into fewer lines, then a line between words, then
    between syllables; what cannot be cut smaller comes as it is. SongError for a song without
    lines.
    """
    lines = song.lines
    trusted = [None not in (line.start, line.end) and settings.trusts(line) for line in lines]
    if not any(trusted):
        return [_untimed(song, settings)]
    make = partial(_passage, song, frame_rate, longest, settings)
    generator = random.Random(song.id)
    result: list[Passage] = []
    first = 0
    while first < len(lines):
        stop = min(len(lines), first + generator.randint(1, settings.max_lines))
        stop = next((n for n in range(first, stop) if not trusted[n]), stop)
        if stop > first:
            passage = make(first, lines[first:stop])
            while stop - first > 1 and not fits(passage):
                stop -= 1
                passage = make(first, lines[first:stop])
            whole = stop - first > 1 or fits(passage)
            result += [passage] if whole else _parts(first, lines[first], make, settings, fits)
        first = max(stop, first + 1)
    return result


def _parts(
    number: int, line: Line, make: Make, settings: WritingSettings, fits: Fits
) -> Iterator[Passage]:
    """The passages of a line that is too long, each as long as fits. What cannot be cut so that it
    fits comes as it is."""
    by_note = settings.grain in ("finest", "note") and bool(line.notes)
    rest = line if by_note else replace(line, notes=())
    for part in itertools.count():
        make_part = partial(make, f"{number}.{part}")
        passage = make_part([rest])
        at = None if fits(passage) else _border(rest, make_part, settings, fits)
        if at is None:
            yield passage
            return
        start, rest = line_parts.cut(rest, at)
        yield make_part([start])


def _border(
    line: Line, make: Callable[[Sequence[Line]], Passage], settings: WritingSettings, fits: Fits
) -> float | None:
    """Where to cut a line that is too long: the last border before which it fits, of words if
    there is one, else of syllables; else the first there is; None without borders."""
    coarse = settings.grain in ("line", "none")
    known = not coarse and all(map(settings.trusts, line.words))
    words = line_parts.word_borders(line) if known else []
    # a word's letters stand on its first note: within it nothing can be told
    syllables = line_parts.syllable_borders(line) if settings.spelling == "phones" else []
    for borders in (words, syllables):
        count = bisect.bisect_left(
            borders, True, key=lambda at: not fits(make([line_parts.cut(line, at)[0]]))
        )
        if count:
            return borders[count - 1]
    return min([*words, *syllables], default=None)


def _untimed(song: Song, settings: WritingSettings) -> Passage:
    """A song without times: its lyrics are a prefix, one open piece has all frames (stop = -1)."""
    if not song.lines:
        raise SongError(f"song {song.id}: it has no lines; give it lyrics")
    text = header(song.style, song.voice, song.lines, settings, song.language)
    piece = Piece("", None, None, pitched=False, open=True)
    return Passage(f"{song.id}:all", text, (piece,), 0, -1, song.lines)


def _passage(
    song: Song,
    frame_rate: float,
    longest: int,
    settings: WritingSettings,
    name: object,
    lines: Sequence[Line],
) -> Passage:
    """Consecutive lines of a song, all of them timed; `name`: where they begin."""
    pieces_of = (_timed_pieces(line, frame_rate, settings, song.language) for line in lines)
    timed = list(itertools.chain.from_iterable(pieces_of))
    start, end = (round((s or 0.0) * frame_rate) for s in (lines[0].start, lines[-1].end))
    pieces = _fill(timed, start, max(end, timed[-1].stop if timed else 0), longest)
    frames = sum(piece.frames or 0 for piece in pieces)
    text = header(song.style, song.voice, lines, settings, song.language)
    return Passage(f"{song.id}:{name}", text, pieces, start, start + frames, tuple(lines))


class Timed(NamedTuple):
    """A piece without its frames, sung from frame `start` to `stop`-1 if nothing is in its way."""

    start: int
    stop: int
    piece: Piece


def _timed_pieces(
    line: Line, frame_rate: float, settings: WritingSettings, language: str
) -> Iterator[Timed]:
    """The pieces of a line, as fine as its times and the settings allow."""

    def frame(seconds: float | None) -> int:
        return round((seconds or 0.0) * frame_rate)

    grain, words = settings.grain, line.words
    if grain in ("finest", "note") and line.notes:
        for note, text in zip(line.notes, note_texts(line, settings), strict=True):
            yield Timed(frame(note.start), frame(note.end), Piece(text, note.midi, None))
    elif grain in ("finest", "note", "word") and words and all(map(settings.trusts, words)):
        texts = texts_of_words([word.text for word in words], settings, language)
        for word, syllables in zip(words, texts, strict=True):
            piece = Piece(JOIN.join(syllables), None, None, pitched=False)
            yield Timed(frame(word.start), frame(word.end), piece)
    else:
        text = "" if grain == "none" else JOIN.join(_line_texts(line, settings, language))
        yield Timed(frame(line.start), frame(line.end), Piece(text, None, None, pitched=False))


def _fill(timed: Sequence[Timed], start: int, stop: int, longest: int) -> tuple[Piece, ...]:
    """Pieces of at least a frame, rests in the gaps, split where `longest` frames do not reach."""
    pieces: list[Piece] = []
    now = start
    for index, (first, last, piece) in enumerate(timed):
        first = max(first, now)
        following = timed[index + 1].start if index + 1 < len(timed) else stop
        last = max(first + 1, min(last, following, stop))
        if first > now:
            pieces.append(Piece("", None, first - now))
        pieces.append(replace(piece, frames=last - first))
        now = last
    if stop > now:
        pieces.append(Piece("", None, stop - now))
    return tuple(look_ahead([part for piece in pieces for part in _split(piece, longest)]))


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
    result = []
    for piece, later in zip(pieces, [*pieces[1:], None], strict=True):
        onset = onset_of(later.text) if piece.pitched and later and later.pitched else ""
        result.append(replace(piece, text=f"{piece.text}{JOIN}{onset}".strip()) if onset else piece)
    return result


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
    starts = [-math.inf, *(note.start for note in line.notes)]
    return [_letters(line, before, now) for before, now in itertools.pairwise(starts)]


def _letters(line: Line, before: float, now: float) -> str:
    """All letters of the word that a note beginning `now` is in, unless one `before` was in it."""
    word = next(
        (w for w in line.words if w.start - SAME_SECONDS <= now < w.end - SAME_SECONDS), None
    )
    return " ".join(word.text.lower()) if word and before < word.start - SAME_SECONDS else ""


def texts_of_words(
    words: Sequence[str], settings: WritingSettings, language: str = "en"
) -> list[list[str]]:
    """The pieces of each word of a line without notes: its syllables, or all its letters."""
    if settings.spelling == "letters":
        return [[" ".join(word.lower())] for word in words]
    return [list(map(lyrics.sing_text, word)) for word in lyrics.read(words, language)]


def _line_texts(line: Line, settings: WritingSettings, language: str) -> list[str]:
    if settings.spelling == "phones" and line.notes:
        return [note.text for note in line.notes if note.text]
    texts = texts_of_words(lyrics.words(line.text), settings, language)
    return [text for word in texts for text in word]


def grain_of(passages: Sequence[Passage], settings: WritingSettings) -> Grain:
    """How finely passages were in fact written; their singer writes lyrics without a score so."""
    pieces = [piece for passage in passages for piece in passage.pieces]
    if any(piece.midi is not None for piece in pieces):
        return "note"
    if not any(piece.text for piece in pieces):
        return "none"
    words = any(line.words for passage in passages for line in passage.lines)
    return "word" if words and settings.grain != "line" else "line"


# --- writing --------------------------------------------------------------------------------------
HEADER, PIECE, LENGTH, OPEN, TEXT, END = -1, -2, -3, -4, -5, -6


@dataclass(frozen=True)
class Written:
    """A passage as token ids, each with its kind, its frame and its piece (-1: none).

    kind_T: what each id is predicted as: its slot (>= 0), HEADER (no loss), PIECE (text, pitch, or
    that the song ends), TEXT (within a piece: text or pitch), LENGTH, OPEN (as PIECE, or a frame),
    or END (`end` behind a tail). Where a late layout ends songs with their tail, codes too have the
    places PIECE (the first of a tail) and OPEN (slot 0 within an open piece).
    """

    ids_T: Tensor
    kind_T: Tensor
    frame_T: Tensor
    piece_T: Tensor

    def __len__(self) -> int:
        return len(self.ids_T)


def piece_ids(piece: Piece, encode: Encode, vocabulary: AudioVocabulary) -> list[int]:
    """Token ids of one piece: its text, its pitch, its length."""
    text = encode(piece.text) if piece.text else []
    length = vocabulary.length(None if piece.open else piece.frames)
    return [*text, vocabulary.pitch(piece.midi, piece.pitched), length]


def tokens_of(
    passage: Passage,
    frames: int,
    encode: Encode,
    vocabulary: AudioVocabulary,
    opening: Sequence[int] = (),
) -> int:
    """How many ids `write` makes of a passage with so many frames."""
    texts = [piece.text for piece in passage.pieces if piece.text]
    text = sum(len(encode(words)) for words in (passage.header, *texts))
    symbols = len(opening) + 2 * len(passage.pieces) + 2  # pitch and length; `sing` and `end`
    return text + symbols + frames * vocabulary.format.slots


def write(
    passage: Passage,
    codes_FS: Tensor,
    encode: Encode,
    vocabulary: AudioVocabulary,
    opening: Sequence[int] = (),
) -> Written:
    """A passage and its codes as ids, behind the ids that this base is opened with. FitError unless
    its pieces have as many frames."""
    v, total = vocabulary, len(codes_FS)
    audio = v.spell(codes_FS).tolist()
    frame_N, slot_N = (column_N.tolist() for column_N in v.order.order(total))
    starts = v.order.starts(total)
    ids = [*opening, *encode(passage.header), v.sing]
    places, frames, pieces = ([HEADER] * len(ids), [-1] * len(ids), [-1] * len(ids))
    # the place of what comes between pieces; behind `sing` nothing but text or pitch can
    boundary, first = TEXT, 0
    for index, (piece, stop) in enumerate(zip(passage.pieces, _stops(passage, total), strict=True)):
        begin, end, symbols = starts[first], starts[stop], piece_ids(piece, encode, v)
        ids += symbols + audio[begin:end]
        places += [boundary, *[TEXT] * (len(symbols) - 2), LENGTH, *slot_N[begin:end]]
        frames += [-1] * len(symbols) + frame_N[begin:end]
        pieces += [index] * (len(symbols) + end - begin)
        boundary = OPEN if piece.open or piece.frames is None else PIECE
        for frame in range(first + 1, stop if boundary == OPEN else 0):  # its first frame must come
            places[starts[frame] - end] = OPEN
        first = stop
    tail = starts[total]
    ids += [*audio[tail:], v.end]
    places += [boundary, *slot_N[tail + 1 :], END] if audio[tail:] else [boundary]
    frames += [*frame_N[tail:], -1]
    pieces += [len(passage.pieces) - 1] * (len(ids) - len(pieces))
    return Written(*map(torch.tensor, (ids, places, frames, pieces)))


def _stops(passage: Passage, total: int) -> list[int]:
    """The frame behind each piece's last. FitError unless they are `total`, at least one each."""
    stop, stops = 0, []
    for index, piece in enumerate(passage.pieces):
        last = index == len(passage.pieces) - 1
        count = total - stop if piece.frames is None and last else piece.frames or 0
        stop += count
        if count < 1 or stop > total:
            fault = f"pieces ask for more than its {total} frames"
            raise FitError(f"passage {passage.id}: {fault}; check its times")
        stops.append(stop)
    if stop != total or not stops:
        fault = f"its pieces end at frame {stop} of {total}"
        raise FitError(f"passage {passage.id}: {fault}; check its times")
    return stops
