"""One passage, id by id: what is asked of the model, and how its answer is sampled.

A `script` is a generator: it yields a Request for each id (forced, or to be sampled from spans of
legal ids) and is sent the id that was chosen. The grammar says which ids are legal; text is always
forced, pitch and length are forced when given and sampled when not, and codes are sampled from
their own slot. So no undecodable id can come out, and the head is computed for legal ids only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from distill.writing.grammar import Grammar
from distill.writing.prompts import Piece
from distill.writing.sampling import Sampling
from distill.writing.vocabulary import AudioVocabulary, Span


@dataclass(frozen=True)
class Request:
    """The next id of a passage: `forced`, or sampled from `spans` at a temperature.

    `codes`: at a boundary where a piece may go on or stop, how many ids at the end of `spans` go
    on. `instead`: the id drawn before only said "stop" and is not written; this one, sampled anew,
    stands in its place.
    """

    spans: tuple[Span, ...]
    temperature: float = 0.0
    forced: int | None = None
    codes: int = 0
    instead: bool = False


@dataclass
class Sung:
    """What came of one passage: its audio ids as they were written, and its pieces."""

    ids: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)


Script = Generator[Request, int, None]


def script(
    pieces: Sequence[Piece],
    encode: Callable[[str], list[int]],
    vocabulary: AudioVocabulary,
    sampling: Sampling,
    sung: Sung,
    room: int,
) -> Script:
    """Asks for one passage id by id (send the chosen id back) and fills `sung`; undecided pitches
    and lengths are sampled.

    No more than `room` frames are sung: lengths are drawn within it, and a piece of open length
    ends there at the latest. A note whose drawn length is the longest there is may go on in another
    piece without text, as notes of songs are cut (`prompts`), where `sampling.ties`.
    """
    song = _Song(vocabulary, sampling, sung, room)
    texts = [encode(piece.text) if piece.text else [] for piece in pieces]
    pitches = [_pitch(piece, vocabulary, sampling) for piece in pieces]
    first = [ids[0] if ids else pitch.forced for ids, pitch in zip(texts, pitches, strict=True)]
    for index, piece in enumerate(pieces):
        later = sum(p.frames or 1 for p in pieces[index + 1 :])
        for id in texts[index]:
            yield from song.id(Request((), forced=id))
        midi = vocabulary.midi((yield from song.id(pitches[index])))
        yield from song.frames(replace(piece, midi=midi), later)
        following = [*first, vocabulary.end][index + 1]
        while following is not None and song.may_tie(piece, following, later):
            if not (yield from song.tie(following)):
                break
            yield from song.frames(replace(piece, text="", midi=midi, goes_on=True), later)
    yield from song.end()


@dataclass
class _Song:
    """A passage that is being written: the grammar's state, and the frames that are left.

    stopped: the id drawn last only said "stop". begun: the first id of what follows is written.
    """

    vocabulary: AudioVocabulary
    sampling: Sampling
    sung: Sung
    room: int
    stopped: bool = False
    begun: bool = False

    def __post_init__(self) -> None:
        self.grammar = Grammar(self.vocabulary)
        self.state = self.grammar.start()

    def id(self, request: Request) -> Generator[Request, int, int]:
        """The id that answers a request."""
        if self.begun and request.forced is not None:
            self.begun = False
            return request.forced
        id = yield replace(request, instead=True) if self.stopped else request
        self.stopped, self.state = False, self.grammar.step(self.state, id)
        return id

    def frames(self, piece: Piece, later: int) -> Script:
        """A piece's length and what sounds in it; `later`: the frames to keep for what follows."""
        v, sampling, frames = self.vocabulary, self.sampling, 0
        left = max(1, self.room - later)
        yield from self.id(_length(piece, v, sampling, left))
        while self.state.kind == "slot" or (self.state.left is None and frames < left):
            open = self.state.kind == "boundary"
            slot = 0 if open else self.state.owed[0]
            temperature = sampling.level(v.format.levels[slot])
            codes = len(v.span(0)) if open else 0
            id = yield Request(self.grammar.legal(self.state), temperature, codes=codes)
            if open and id not in v.span(0):
                self.stopped = True
                break
            self.state = self.grammar.step(self.state, id)
            self.sung.ids.append(id)
            frames += slot == 0
        self.room -= frames
        self.sung.pieces.append(replace(piece, frames=frames))

    def may_tie(self, piece: Piece, following: int, later: int) -> bool:
        """Whether the note that was sung last may go on: its length was drawn, and is the longest;
        another piece fits; and what follows it begins with another id."""
        last, v = self.sung.pieces[-1], self.vocabulary
        drawn = piece.pitched and not piece.open and piece.frames is None
        fits = self.room - self._tie_frames - later > 0
        tells_apart = following != v.pitch(last.midi)
        return self.sampling.ties and drawn and last.frames == v.longest and tells_apart and fits

    @property
    def _tie_frames(self) -> int:
        """Frames whose ids take as much of the context as a tie's pitch and length."""
        return -(-2 // self.vocabulary.format.slots)

    def tie(self, following: int) -> Generator[Request, int, bool]:
        """Whether the note goes on: drawn between its pitch, which would come again, and the id
        that follows (of a tail, any code). Whichever it is, is written."""
        v = self.vocabulary
        again, late = v.pitch(self.sung.pieces[-1].midi), v.order.first_late
        request = Request((_only(again), _only(following)), self.sampling.score_temperature)
        if following == v.end and late is not None:
            span, level = v.span(late), v.format.levels[late]
            request = Request((_only(again), span), self.sampling.level(level), codes=len(span))
        id = yield request
        self.state = self.grammar.step(self.state, id)
        if id == again:
            self.room -= self._tie_frames
        elif id in v.audio_span:
            self.sung.ids.append(id)
        elif id != v.end:
            self.begun = True
        return id == again

    def end(self) -> Script:
        """What is late of the last frames, and the end."""
        v, late = self.vocabulary, self.vocabulary.order.first_late
        while late is not None and self.state.kind not in ("end", "ended"):
            slot = self.state.owed[0] if self.state.kind == "tail" else late
            temperature = self.sampling.level(v.format.levels[slot])
            self.sung.ids.append((yield from self.id(Request((v.span(slot),), temperature))))
        if self.state.kind != "ended":
            yield Request((), forced=v.end, instead=self.stopped)


def _only(id: int) -> Span:
    return Span(id, id + 1)


def _pitch(piece: Piece, v: AudioVocabulary, sampling: Sampling) -> Request:
    """A given pitch, rest or "unknown" is forced; a syllable without one gets a sung one."""
    silent = piece.text[:1] in ("", ",")
    if piece.pitched and piece.midi is None and piece.frames is None and not silent:
        sung_pitches = Span(v.pitch_span.start + 2, v.pitch_span.stop)
        return Request((sung_pitches,), sampling.score_temperature)
    return Request((), forced=v.pitch(piece.midi, piece.pitched))


def _length(piece: Piece, v: AudioVocabulary, sampling: Sampling, left: int) -> Request:
    """A given length is forced; others are drawn, up to `left` frames, or left open for words and
    lines."""
    if piece.open or piece.frames is not None:
        return Request((), forced=v.length(None if piece.open else piece.frames))
    start, stop = v.length_span.start, v.length_span.stop
    lengths = Span(start + piece.pitched, min(stop, start + 1 + left))
    return Request((lengths,), sampling.score_temperature)


def sample(
    logits_C: Tensor, request: Request, sampling: Sampling, generator: torch.Generator
) -> int:
    """Index of the sampled id among the request's spans, laid end to end; 0 stands for any stop.

    Whether a piece goes on is drawn first, at the model's own odds: a temperature over all ids at
    once would favour the one stop over the many codes.
    """
    if request.codes:
        stop_C, sound_C = logits_C[: -request.codes].float(), logits_C[-request.codes :].float()
        on = (sound_C.logsumexp(-1) - stop_C.logsumexp(-1)).sigmoid()
        if on < (0.5 if request.temperature <= 0 else torch.rand((), generator=generator)):
            return 0
        return len(stop_C) + sample(sound_C, replace(request, codes=0), sampling, generator)
    if request.temperature <= 0:
        return int(logits_C.argmax())
    scaled_C = logits_C.float() / request.temperature
    if sampling.top_k is not None and sampling.top_k < len(scaled_C):
        least = scaled_C.topk(sampling.top_k).values[-1]
        scaled_C = scaled_C.masked_fill(scaled_C < least, -torch.inf)
    probabilities_C = scaled_C.softmax(-1)
    if sampling.top_p is not None:
        ordered, order = probabilities_C.sort(descending=True)
        keep = ordered.cumsum(-1) - ordered < sampling.top_p
        probabilities_C = torch.zeros_like(probabilities_C).scatter(0, order[keep], ordered[keep])
    below_C = probabilities_C.cumsum(-1)
    # rand < 1, so what has no probability is never drawn
    drawn = torch.rand((), generator=generator) * below_C[-1]
    return int(torch.searchsorted(below_C, drawn, right=True))


def send(script: Script, id: int, resample: Callable[[Request], int]) -> tuple[int, Request | None]:
    """(the id to write, the request after it, None at the end): `id`, or what is sampled in place
    of a drawn stop."""
    request = proceed(script, id)
    if request is not None and request.instead:
        id = resample(request)
        return id, proceed(script, id)
    return id, request


def proceed(script: Script, id: int) -> Request | None:
    """The request after this id; None at the end."""
    try:
        return script.send(id)
    except StopIteration:
        return None
