"""Every number that a sung song can become: the one file that adds or subtracts an offset.

An LLM has rows 0 ... base_rows-1. We append one contiguous block per meaning, so that an id alone
says what it is:

    | text (the base LLM's own rows) | control | pitch | length | slot 0 | slot 1 | ... | padding |

A **slot** is one codebook of one track; its code c has the id `span(slot).start + c`. Because the
slot is in the id, a lost token is noticed and never shifts what follows (Orpheus and YuE count
positions). Pitch symbols: unknown, rest, then MIDI keys. Length symbols: open, then 1 ... `longest`
codec frames. Rows are padded to a multiple of 64; padding is never sampled.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.errors import CodecError, VocabularyError
from distill.writing import layouts

PAD_TO = 64
LONGEST_FRAMES, LONGEST_SECONDS = 64, 2.56  # of a length symbol: both at the least
CONTROL = ("sing", "end")


@dataclass(frozen=True)
class Span:
    """Ids start ... stop-1."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __contains__(self, id: object) -> bool:
        return isinstance(id, int) and self.start <= id < self.stop


def longest_of(format: CodecFormat) -> int:
    """Frames that a new vocabulary's longest length symbol says, of a codec at this frame rate."""
    return max(LONGEST_FRAMES, math.ceil(LONGEST_SECONDS * format.frame_rate))


@dataclass(frozen=True)
class AudioVocabulary:
    """(slot, code) and score symbols <-> ids from `base_rows` up; `layout` changes no id."""

    base_rows: int
    format: CodecFormat
    lowest_midi: int = 21
    highest_midi: int = 108
    longest: int = LONGEST_FRAMES
    layout: str = "flat"

    @cached_property
    def order(self) -> layouts.Layout:
        """The layout, for this codec's slots."""
        return layouts.of(self.layout, self.format.levels)

    # --- blocks, in order -------------------------------------------------------------------------
    @property
    def text_span(self) -> Span:
        return Span(0, self.base_rows)

    @property
    def sing(self) -> int:
        """Ends the header: from here on the song is written."""
        return self.base_rows

    @property
    def end(self) -> int:
        """Ends the song."""
        return self.base_rows + 1

    @property
    def pitch_span(self) -> Span:
        start = self.base_rows + len(CONTROL)
        return Span(start, start + 2 + self.highest_midi - self.lowest_midi + 1)

    @property
    def length_span(self) -> Span:
        start = self.pitch_span.stop
        return Span(start, start + 1 + self.longest)

    def span(self, slot: int) -> Span:
        """The ids of one slot."""
        start = self.length_span.stop + sum(self.format.slot_sizes[:slot])
        return Span(start, start + self.format.slot_sizes[slot])

    @property
    def audio_span(self) -> Span:
        return Span(self.length_span.stop, self.length_span.stop + sum(self.format.slot_sizes))

    @property
    def used_rows(self) -> int:
        """Rows with a meaning; the ids from here to `rows` are padding."""
        return self.audio_span.stop

    @property
    def rows(self) -> int:
        """All rows of the grafted model, padding included."""
        return -(-self.used_rows // PAD_TO) * PAD_TO

    @property
    def size(self) -> int:
        """New rows, padding included."""
        return self.rows - self.base_rows

    def name(self, id: int) -> str:
        """The token's name in a published tokenizer; not `<|...|>`, which llama.cpp would hide."""
        return f"<custom_token_{id - self.base_rows}>"

    # --- codes ------------------------------------------------------------------------------------
    def spell(self, codes_FS: Tensor) -> Tensor:
        """codes_FS -> ids_N in the layout's order, N = F * S. CodecError on a code out of range."""
        self.check(codes_FS)
        return (codes_FS.long() + self._slot_starts_S())[self.order.order(len(codes_FS))]

    def read(self, ids_N: Tensor) -> Tensor:
        """ids_N -> codes_FS. VocabularyError names the first id of another slot than is due."""
        slots, count = self.format.slots, ids_N.numel()
        if count % slots:
            fault = f"{count} audio ids are not whole frames of {slots} slots"
            raise VocabularyError(f"{fault}; drop the last ones")
        frame_N, slot_N = self.order.order(count // slots)
        codes_N = ids_N.long().flatten() - self._slot_starts_S()[slot_N]
        wrong_N = (codes_N < 0) | (codes_N >= torch.tensor(self.format.slot_sizes)[slot_N])
        if bool(wrong_N.any()):
            first = int(wrong_N.nonzero()[0])
            slot, where = int(slot_N[first]), f"frame {int(frame_N[first])}"
            wrong = f"id {int(ids_N.flatten()[first])} is not a code of slot {slot}"
            raise VocabularyError(f"{where}: {wrong} (ids {self.span(slot)})")
        codes_FS = torch.empty(count // slots, slots, dtype=torch.int64)
        codes_FS[frame_N, slot_N] = codes_N
        return codes_FS

    def check(self, codes_FS: Tensor) -> None:
        """Refuse codes of another codec: wrong number of slots, or out of a slot's range."""
        slots = self.format.slots
        if codes_FS.ndim != 2 or codes_FS.shape[1] != slots:
            shape, has = tuple(codes_FS.shape), f"this vocabulary has {slots} slots"
            raise CodecError(f"codes of shape {shape}: {has}; use its codec")
        for slot, size in enumerate(self.format.slot_sizes):
            low, high = map(int, codes_FS[:, slot].aminmax()) if len(codes_FS) else (0, 0)
            if low < 0 or high >= size:
                wrong = f"codes {low} to {high} do not fit 0 to {size - 1}"
                raise CodecError(f"slot {slot}: {wrong}; another codec made them")

    def _slot_starts_S(self) -> Tensor:
        return torch.tensor([self.span(slot).start for slot in range(self.format.slots)])

    # --- score symbols ----------------------------------------------------------------------------
    def pitch(self, midi: float | None, known: bool = True) -> int:
        """Symbol of the nearest key, a rest (None) or unknown. VocabularyError out of range."""
        if not known:
            return self.pitch_span.start
        if midi is None:
            return self.pitch_span.start + 1
        key = round(midi)
        low, high = self.lowest_midi, self.highest_midi
        if not low <= key <= high:
            raise VocabularyError(
                f"MIDI pitch {midi:g} is outside {low} to {high}; transpose the song"
            )
        return self.pitch_span.start + 2 + key - low

    def midi(self, id: int) -> int | None:
        """MIDI key of a pitch symbol; None for unknown and rest."""
        if id not in self.pitch_span:
            raise VocabularyError(f"id {id} is no pitch symbol (ids {self.pitch_span})")
        offset = id - self.pitch_span.start - 2
        return None if offset < 0 else self.lowest_midi + offset

    def length(self, frames: int | None) -> int:
        """Length symbol: None is open (as long as it takes)."""
        if frames is not None and not 1 <= frames <= self.longest:
            least_most = f"pieces have 1 to {self.longest} frames"
            raise VocabularyError(f"a piece of {frames} frames; {least_most}, split it")
        return self.length_span.start + (frames or 0)

    def frames(self, id: int) -> int | None:
        """Frames of a length symbol; None when open."""
        if id not in self.length_span:
            raise VocabularyError(f"id {id} is no length symbol (ids {self.length_span})")
        return (id - self.length_span.start) or None

    # --- JSON -------------------------------------------------------------------------------------
    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> AudioVocabulary:
        row = json.loads(text)
        format = row.pop("format")
        lists = {name: tuple(value) for name, value in format.items() if isinstance(value, list)}
        return cls(format=CodecFormat(**{**format, **lists}), **row)
