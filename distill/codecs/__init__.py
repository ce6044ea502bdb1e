"""Codecs: sound <-> codes. One file per kind; its name is the recipe's `kind`.

A codec turns a waveform into frames of S slots, each a number below the slot's size, and back.
Every file here has a `Settings` (CodecSettings) that loads a Codec. A codec whose levels have
different rates (snac) writes them into the slots of one frame, in its own file. Frame f covers the
samples [f * hop, (f + 1) * hop), where hop is the sample rate / frame rate; the last frame is
filled up with silence.

A codec may also have `encode_many(waves)`, the same codes for several waves at once (a GPU gains),
and `context_frames`, how far a sample depends on frames around its own (else it cannot stream). It
is pickled to encoding processes. `install()` stands between imports because of torchaudio.

However long the song, memory stays flat: it is worked through in blocks of a grid that begins at
its first sample (_blocks.py), so that codes and samples depend on the song and on nothing else.
Weights and configurations come from elsewhere and are read as data, never run (_weights.py,
_pretrained.py).
"""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor, nn

from distill.audio.codec_format import CodecFormat
from distill.errors import CodecError
from distill.writing.sampling import Sampling


class Codec(Protocol):
    """What every codec promises."""

    format: CodecFormat
    # sha256 over weights and configuration: two codecs with one fingerprint give the same codes
    fingerprint: str

    def encode(self, wave_CW: Tensor) -> Tensor:
        """codes_FS (int64), F = ceil(W / hop), of float32 at the format's rate. Or CodecError."""

    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        """wave_CW: F * hop samples or the first `samples`. CodecError: another codec's codes."""

    def codebooks(self) -> list[Tensor]:
        """Per slot [C, D] float32: what each code means, in one latent space for all slots."""

    @property
    def device(self) -> torch.device:
        """Where it computes. Waves and codes may lie anywhere; results lie in main memory."""

    def to(self, device: torch.device | str) -> Self:
        """Moves its weights."""


class CodecSettings(Protocol):
    """The `Settings` of every codec: a frozen dataclass of the recipe's words."""

    @property
    def format(self) -> CodecFormat:
        """What the codec speaks, known before any weight is loaded."""

    @property
    def terms(self) -> str:
        """Licences of the weights, with commas: the recipe's, else the known, else "unknown"."""

    @property
    def sampling(self) -> Sampling:
        """How its codes are best sampled, where a recipe does not say."""

    def load(self) -> Codec:
        """The codec, on the CPU. CodecError, FolderError: weights missing, damaged, another's."""


class Placed:
    """`device` and `to` of a codec whose weights are modules and tensors among its attributes."""

    @property
    def device(self) -> torch.device:
        network = next(value for value in vars(self).values() if isinstance(value, nn.Module))
        return next(network.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        for name, value in list(vars(self).items()):
            if isinstance(value, nn.Module | Tensor):
                setattr(self, name, value.to(device))
        return self


def check_wave(wave_CW: Tensor, format: CodecFormat) -> None:
    """CodecError unless the wave has the format's channels and at least one sample, all finite."""
    if wave_CW.ndim != 2 or wave_CW.shape[0] != format.channels or wave_CW.shape[1] == 0:
        wanted = f"[{format.channels}, samples], at least one, at {format.sample_rate} Hz"
        raise CodecError(f"encode: a wave of shape {tuple(wave_CW.shape)}; give {wanted}")
    if not wave_CW.is_floating_point():
        raise CodecError(f"encode: a wave of type {wave_CW.dtype}; give float32, full scale +-1")
    # by pieces: of each of them isfinite makes a copy or two
    if not all(bool(torch.isfinite(piece).all()) for piece in wave_CW.split(2**20, dim=1)):
        raise CodecError("encode: the wave holds NaN or infinity; read it by distill.audio.files")


def check_codes(codes_FS: Tensor, format: CodecFormat) -> None:
    """CodecError unless codes_FS is whole numbers, S wide, and inside every slot's size."""
    slots = len(format.slot_sizes)
    if codes_FS.ndim != 2 or codes_FS.shape[1] != slots or codes_FS.shape[0] == 0:
        wanted = f"[frames, {slots}] with at least one frame"
        raise CodecError(f"decode: codes of shape {tuple(codes_FS.shape)}; give {wanted}")
    if codes_FS.is_floating_point() or codes_FS.dtype == torch.bool:
        raise CodecError(f"decode: codes of type {codes_FS.dtype}; give whole numbers (int64)")
    for slot, size in enumerate(format.slot_sizes):
        low, high = int(codes_FS[:, slot].min()), int(codes_FS[:, slot].max())
        if low < 0 or high >= size:
            raise CodecError(f"decode: slot {slot} holds codes {low}..{high}; it has 0..{size - 1}")
