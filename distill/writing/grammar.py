"""What may come next in a song that is being written (see prompts.py for how one is written).

`Grammar.legal(state)` says which ids may come: inside a frame one slot, after a pitch a length, at
a boundary the next frame, the next piece or the end. The singer asks it before every id, so that it
cannot emit one that its codec cannot decode. Where a loss chooses among ids, it chooses among
these: `make test` holds the two against each other id by id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from distill.errors import VocabularyError
from distill.writing.vocabulary import AudioVocabulary, Span


class State(NamedTuple):
    """What comes next: `kind`, and at "slot" and "tail" the slots `owed` before anything else.
    left: frames the piece owes behind this (None: open). frames: begun, at most the layout's depth.
    """

    kind: Literal["start", "boundary", "slot", "text", "length", "tail", "end", "ended"]
    owed: tuple[int, ...] = ()
    left: int | None = 0
    frames: int = 0


@dataclass(frozen=True)
class Grammar:
    """What may follow what, in the vocabulary's layout; every piece sounds for a frame at least."""

    vocabulary: AudioVocabulary

    def start(self) -> State:
        """Behind `sing`: a piece must come."""
        return State("start")

    def legal(self, state: State) -> tuple[Span, ...]:
        """The spans of ids that may come next, never empty before the end."""
        v = self.vocabulary
        end, text = Span(v.end, v.end + 1), (v.text_span, v.pitch_span)
        if state.kind in ("slot", "tail"):
            return (v.span(state.owed[0]),)
        if state.kind == "length":
            return (v.length_span,)
        if state.kind in ("text", "start"):
            return text
        if state.kind == "boundary":
            late = v.order.first_late
            stop = (end if late is None else v.span(late), *text)
            return (*stop, v.span(0)) if state.left is None else stop
        return (end,) if state.kind == "end" else ()

    def step(self, state: State, id: int) -> State:
        """The state after `id`. Raises VocabularyError for an id that is not legal here."""
        v, order = self.vocabulary, self.vocabulary.order
        if not any(id in span for span in self.legal(state)):
            raise VocabularyError(f"id {id} cannot come at {state}; legal are {self.legal(state)}")
        if id == v.end:
            return State("ended")
        if id in v.text_span:
            return State("text", frames=state.frames)
        if id in v.pitch_span:
            return State("length", frames=state.frames)
        if id in v.length_span:
            frames = v.frames(id)
            return self._frame(None if frames is None else frames - 1, state.frames)
        if state.kind == "boundary":
            if id in v.span(0):
                state = self._frame(None, state.frames)
            else:
                state = state._replace(kind="tail", owed=order.tail(state.frames))
        if state.owed[1:]:
            return state._replace(owed=state.owed[1:])
        if state.kind == "tail":
            return State("end")
        frames = min(state.frames + 1, order.depth)
        if state.left:
            return self._frame(state.left - 1, frames)
        return State("boundary", left=state.left, frames=frames)

    def _frame(self, left: int | None, frames: int) -> State:
        """A frame must come, with what is late."""
        return State("slot", self.vocabulary.order.step(frames), left, frames)
