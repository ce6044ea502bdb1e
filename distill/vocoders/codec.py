"""The codec's own decoder as the vocoder: nothing to train, nothing to choose."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distill.codecs import Codec


@dataclass(frozen=True)
class Settings:
    """Has no options."""

    def load(self, codec: Codec) -> CodecVocoder:
        """The decoder of `codec`."""
        return CodecVocoder(codec)


class CodecVocoder:
    """codes_FS -> wave_CW through the codec itself; raises its CodecErrors."""

    def __init__(self, codec: Codec):
        self.codec = codec
        self.sample_rate = codec.format.sample_rate

    def decode(self, codes_FS: Tensor) -> Tensor:
        return self.codec.decode(codes_FS)
