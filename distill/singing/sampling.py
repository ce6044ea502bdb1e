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

from distill.config.ranges import Checked, at_least, share
from distill.errors import SettingsError
from distill.lm.grammar import Grammar
from distill.lm.prompts import Piece
from distill.lm.vocabulary import AudioVocabulary, Span


@dataclass(frozen=True)
class Sampling(Checked):
    """How a singer samples unless asked otherwise: a temperature a level, coarse slots first (the
    last repeats; streams that share a frame have equal levels), and one for the score it makes up.
    """

    temperatures: tuple[float, ...] = at_least(0, default=(0.0, 0.5))
    score_temperature: float = at_least(0, default=0.9)
    top_k: int | None = at_least(1, default=None)
    top_p: float | None = share(default=None, zero=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperatures:
            raise SettingsError("temperatures are (); give at least one")

    def level(self, level: int) -> float:
        """The temperature of a level of slots, 0 the coarsest."""
        return self.temperatures[min(level, len(self.temperatures) - 1)]

    def at(self, temperature: float | None) -> Sampling:
        """The same with one temperature for all slots, which the score's does not pass."""
        if temperature is None:
            return self
        if not 0 <= temperature <= 10:
            raise SettingsError(
                f"temperature is {temperature}; give 0 (always the likeliest) to 10"
            )
        of_score = min(temperature, self.score_temperature)
        return replace(self, temperatures=(temperature,), score_temperature=of_score)


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
    ends there at the latest.
    """
    v, grammar = vocabulary, Grammar(vocabulary)
    state, stopped, sung_frames = grammar.start(), False, 0
    for index, piece in enumerate(pieces):
        left = max(1, room - sung_frames - sum(p.frames or 1 for p in pieces[index + 1 :]))
        for id in encode(piece.text) if piece.text else []:
            state = grammar.step(state, (yield Request((), forced=id, instead=stopped)))
            stopped = False
        id = yield replace(_pitch(piece, v, sampling), instead=stopped)
        stopped = False
        state, midi = grammar.step(state, id), v.midi(id)
        id = yield _length(piece, v, sampling, left)
        state, frames = grammar.step(state, id), 0
        while state.kind == "slot" or (state.left is None and frames < left):
            open = state.kind == "boundary"
            slot = 0 if open else state.owed[0]
            temperature = sampling.level(v.format.levels[slot])
            codes = len(v.span(0)) if open else 0
            id = yield Request(grammar.legal(state), temperature, codes=codes)
            if open and id not in v.span(0):
                stopped = True
                break
            state = grammar.step(state, id)
            sung.ids.append(id)
            frames += slot == 0
        sung_frames += frames
        sung.pieces.append(replace(piece, midi=midi, frames=frames))
    late = v.order.first_late
    while late is not None and state.kind != "end":
        slot = state.owed[0] if state.kind == "tail" else late
        id = yield Request((v.span(slot),), sampling.level(v.format.levels[slot]), instead=stopped)
        stopped, state = False, grammar.step(state, id)
        sung.ids.append(id)
    yield Request((), forced=v.end, instead=stopped)


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
