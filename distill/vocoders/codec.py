"""The codec's own decoder as the vocoder: nothing to train, nothing to choose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.codecs import Codec
from distill.vocoders import in_pieces, samples_a_frame


@dataclass(frozen=True)
class Settings:
    """Has no options."""

    def load(self, codec: Codec) -> CodecVocoder:
        """The decoder of `codec`."""
        return CodecVocoder(codec)


class CodecVocoder:
    """codes_FS -> wave_CW through the codec, its level as it comes; raises its CodecErrors."""

    def __init__(self, codec: Codec):
        self.codec, self.fingerprint = codec, codec.fingerprint
        self.sample_rate = codec.format.sample_rate
        self.hop = samples_a_frame(codec.format, self.sample_rate)

    def decode(self, codes_FS: Tensor) -> Tensor:
        return self.codec.decode(codes_FS)

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """A codec without `context_frames` sounds when its last chunk has come."""
        context_frames: int | None = getattr(self.codec, "context_frames", None)
        if context_frames is None:
            chunks = [torch.cat(held)] if (held := list(chunks)) else []
            context_frames = sum(map(len, chunks))
        yield from in_pieces(self.codec.decode, chunks, self.hop, context_frames)
