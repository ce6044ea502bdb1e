"""What a codec speaks, as a value: known before any of its weights is loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CodecFormat:
    """What a codec speaks: sample rate (Hz), frames per second, codes per slot, channels.

    tracks: names of what is encoded apart, each with an equal share of the channels, in order;
    none: the song as it sounds. streams: how many sounds share a frame, coarse slots first: with
    two, slots 0 and 1 are the coarsest of each.
    """

    sample_rate: int
    frame_rate: float
    slot_sizes: tuple[int, ...]
    channels: int = 1
    tracks: tuple[str, ...] = ()
    streams: int = 1

    @property
    def slots(self) -> int:
        return len(self.slot_sizes)

    @property
    def levels(self) -> tuple[int, ...]:
        """How fine each slot is within its own stream, 0 the coarsest."""
        return tuple(slot // self.streams for slot in range(self.slots))

    @property
    def tokens_per_second(self) -> float:
        """Audio tokens per second of sound."""
        return self.frame_rate * self.slots
