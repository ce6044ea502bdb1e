"""In which order the codes of a song are written: a property of the layout, not of any codec.

A layout says how many frames late each slot is written. Step t holds slot s of frame t - delay[s],
slot 0 first:

    flat      0 0 0    a0 b0 c0 | a1 b1 c1 | a2 b2 c2
    delayed   0 1 2    a0 | a1 b0 | a2 b1 c0 | b2 c1 | c2        (MusicGen's, arXiv 2306.05284)

Entries before the first and behind the last frame are not written, so a song has as many tokens in
every layout, and no id is filler. A piece of text stands before the step of its first frame's slot
0; the slots still owed when no frame is left are the **tail**: it begins with the first late slot,
where a frame or a piece could have come, and only `end` may follow.

A flat stream of tokens takes as many steps either way. (MusicGen saves steps because it predicts a
whole step at once.) What a delay changes is the context: a fine code is written knowing the next
coarse ones, a coarse code without the finest ones of the moment before.

Each subclass of Layout here is a layout, by its name in lower case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, product

import torch
from torch import Tensor

from distill.errors import SettingsError


class Layout(ABC):
    """Delays of the slots in frames, from their levels (0: a codec's coarsest codebook).
    They begin at 0, never fall, nor rise by more than 1: all tails begin with the same slot."""

    def __init__(self, levels: Sequence[int]):
        self.delays = tuple(self.late(level) for level in levels)
        self.depth = self.delays[-1]

    @abstractmethod
    def late(self, level: int) -> int:
        """Frames by which a slot of this level is late."""

    @cached_property
    def first_late(self) -> int | None:
        """The slot that every tail begins with; None where there is no tail."""
        return self.delays.index(1) if self.depth else None

    def step(self, begun: int) -> tuple[int, ...]:
        """The slots of the step of a frame, `begun` frames (at most `depth`) after frame 0."""
        return tuple(slot for slot, delay in enumerate(self.delays) if delay <= begun)

    def tail(self, frames: int) -> tuple[int, ...]:
        """The slots still owed behind the last of `frames` frames (at most `depth`)."""
        pairs = product(range(self.depth), enumerate(self.delays))
        return tuple(slot for more, (slot, delay) in pairs if more < delay <= frames + more)

    def order(self, frames: int) -> tuple[Tensor, Tensor]:
        """(frame_N, slot_N) of all codes as they are written, N = frames * slots."""
        slots = len(self.delays)
        steps_FS = torch.arange(frames)[:, None] + torch.tensor(self.delays)
        written_N = (steps_FS * slots + torch.arange(slots)).flatten().argsort()
        return written_N // slots, written_N % slots

    def starts(self, frames: int) -> list[int]:
        """Where in that order each frame's step begins, and behind the last one the tail."""
        early = [len(self.step(frame)) for frame in range(min(frames, self.depth))]
        return list(accumulate([*early, *[len(self.delays)] * (frames - len(early))], initial=0))


class Flat(Layout):
    """Frame by frame."""

    def late(self, level: int) -> int:
        return 0


class Delayed(Layout):
    """Each level one frame later than the one above it."""

    def late(self, level: int) -> int:
        return level


def names() -> list[str]:
    """The layouts there are."""
    return sorted(_kinds())


def of(name: str, levels: Sequence[int]) -> Layout:
    """The layout of this name for slots of these levels. Raises SettingsError as `check` does."""
    check(name)
    return _kinds()[name](levels)


def check(name: str) -> None:
    """Raise SettingsError unless there is a layout of this name."""
    if name not in _kinds():
        raise SettingsError(f"layout is {name!r}; give one of {', '.join(names())}")


def _kinds() -> dict[str, type[Layout]]:
    return {kind.__name__.lower(): kind for kind in Layout.__subclasses__()}
