"""Vocoders: codes -> sound. One file per kind; its name is the recipe's `kind`.

Every file has a `Settings` (VocoderSettings) that loads a Vocoder, made for one codec's codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.codecs import Codec
from distill.errors import CodecError

BLOCKS = 16  # a block holds this many times its context: an eighth of the work is done twice


class Vocoder(Protocol):
    """What every vocoder promises. Its codes are those of its codec, [F, S]."""

    sample_rate: int  # Hz of the sound it makes, which may differ from its codec's
    hop: int  # samples that one frame of codes becomes
    fingerprint: str

    def decode(self, codes_FS: Tensor) -> Tensor:
        """wave_CW of F * hop samples, float32. CodecError on codes of another codec."""

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The same in pieces, each as soon as it can be; CodecError, too, when no frame comes."""


class VocoderSettings(Protocol):
    """The `Settings` of every vocoder: a frozen dataclass of the recipe's words."""

    def load(self, codec: Codec) -> Vocoder:
        """The vocoder, for this codec's codes. CodecError when it is damaged or another codec's."""


def samples_a_frame(format: CodecFormat, sample_rate: int) -> int:
    """Samples at `sample_rate` Hz that a codec's frame lasts. CodecError unless a whole number."""
    exact = format.sample_rate / format.frame_rate
    hop = round(exact)
    if abs(exact - hop) > 1e-6 or sample_rate * hop % format.sample_rate:
        frame = f"a frame of {exact:g} samples at {format.sample_rate} Hz"
        fault = f"is no whole number of samples at {sample_rate} Hz"
        raise CodecError(f"{frame} {fault}; choose another sample rate")
    return sample_rate * hop // format.sample_rate


def in_pieces(
    decode: Callable[[Tensor], Tensor], chunks: Iterable[Tensor], hop: int, context_frames: int
) -> Iterator[Tensor]:
    """Sound of codes_FS in chunks; a sample depends on `context_frames` beside its frame.

    Each window that is decoded has its context, clipped at the song's ends only; so the pieces, end
    to end, are what the whole would give, rounding aside. Memory holds one block and its context.
    CodecError when no frame comes.
    """
    held_FS: Tensor | None = None
    first = sent = 0  # frame number of held_FS[0], and of the first frame that has not sounded yet
    for chunk_FS in chunks:
        for piece_FS in chunk_FS.split(BLOCKS * max(context_frames, 1)):
            if not len(piece_FS):
                continue
            held_FS = piece_FS if held_FS is None else torch.cat([held_FS, piece_FS])
            ready = first + len(held_FS) - context_frames
            if ready <= sent:
                continue
            yield decode(held_FS)[:, (sent - first) * hop : (ready - first) * hop]
            sent = ready
            spent = max(0, sent - context_frames - first)
            held_FS, first = held_FS[spent:], first + spent
    if held_FS is None:
        raise CodecError("stream: no frame of codes came; give at least one")
    if first + len(held_FS) > sent:
        yield decode(held_FS)[:, (sent - first) * hop :]
