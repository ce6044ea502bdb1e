"""X-Codec (Ye 2024, arXiv 2408.17175), YuE's: 16 kHz, 50 frames a second, 8 slots of 1,024 codes.

It codes the sound, as a DAC hears it, together with what a HuBERT makes of it. The published layout
is transformers' (`hf-audio/xcodec-hubert-general-balanced` and its like): config.json,
model.safetensors.

HuBERT attends to all that it is given, and normalises over it, so a whole song would need memory
with the square of its length. Here every song is encoded in segments of 30 s on a fixed grid, each
with 2 s more on either side: up to 30 s the codes are the package's own, and beyond they depend on
the song alone. The decoder is convolutions only; its blocks give what the whole gives.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.codecs import Placed, check_codes, check_wave
from distill.codecs._blocks import in_blocks_decode, in_blocks_encode, receptive_frames
from distill.codecs._weights import as_configured, chosen, identity, read_config, spoken, terms
from distill.folders import locate
from distill.runtime.torchaudio_standin import install
from distill.writing.sampling import Sampling

install()

from transformers import XcodecConfig, XcodecModel

from distill.codecs._pretrained import open_pretrained, read_pretrained_config

SEGMENT_SECONDS, CONTEXT_SECONDS = 30.0, 2.0


@dataclass(frozen=True)
class Settings:
    """`path`: folder or hub id. `slots`: how many codebooks, the first of them (None: all)."""

    path: str = "hf-audio/xcodec-hubert-general-balanced"
    slots: int | None = None
    licence: str = ""  # of the weights: look at their card; empty: unknown

    @property
    def format(self) -> CodecFormat:
        """Read from config.json alone; CodecError when it is missing or not that of an X-Codec."""
        folder = locate(self.path)
        config = _config(folder)
        with as_configured(folder / "config.json"):
            slots = chosen(self.slots, config.num_quantizers, self.path)
            return spoken(config.sample_rate, config.hop_length, (config.codebook_size,) * slots)

    @property
    def terms(self) -> str:
        return terms(self.licence, self.path, {})  # what is published has not all one licence

    @property
    def sampling(self) -> Sampling:
        """YuE's, which sings in X-Codec's codes (arXiv 2503.08638)."""
        return Sampling((1.0,), top_p=0.93, ties=True)

    def load(self) -> Xcodec:
        """The codec with its weights. CodecError names what is damaged."""
        folder, format = locate(self.path), self.format
        config = _config(folder)
        model, state = open_pretrained(XcodecModel, config, folder)
        grid = {"segment": SEGMENT_SECONDS, "context": CONTEXT_SECONDS}
        fingerprint = identity(state, {**read_config(folder / "config.json"), **grid})
        return Xcodec(model, format, fingerprint)


class Xcodec(Placed):
    """distill.codecs.Codec over a transformers.XcodecModel."""

    def __init__(self, model: Any, format: CodecFormat, fingerprint: str):
        self.model, self.format, self.fingerprint = model, format, fingerprint
        self.hop = int(model.config.hop_length)
        self.block_frames = math.ceil(SEGMENT_SECONDS * format.frame_rate)
        self.encoder_context = math.ceil(CONTEXT_SECONDS * format.frame_rate)

    def __getstate__(self) -> dict[str, object]:
        """For an encoding process: without the hooks of transformers, put on at the first call."""
        model = copy.deepcopy(self.model)
        for part in model.modules():
            part._forward_hooks.clear()
            vars(part).pop("_output_capturing_hooks_installed", None)
        return {**vars(self), "model": model}

    @cached_property
    def decoder_context(self) -> int:
        width = self.model.config.acoustic_model_config.hidden_size
        return receptive_frames(self.model.acoustic_decoder, width, 1, self.hop, device=self.device)

    @torch.inference_mode()
    def encode(self, wave_CW: Tensor) -> Tensor:
        check_wave(wave_CW, self.format)
        grid = self.hop, self.block_frames, self.encoder_context
        return in_blocks_encode(self._codes, wave_CW, *grid)

    @torch.inference_mode()
    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        check_codes(codes_FS, self.format)
        grid = self.hop, self.block_frames, self.decoder_context
        return in_blocks_decode(self._wave, codes_FS, *grid)[:, :samples]

    def codebooks(self) -> list[Tensor]:
        layers = self.model.quantizer.quantizers[: self.format.slots]
        return [layer.codebook.embed.float().clone().cpu() for layer in layers]

    def _codes(self, wave_CW: Tensor) -> Tensor:
        """All codebooks, the last ones dropped: each codes the residual of those before it."""
        wave_BCW = wave_CW.to(self.device, torch.float32)[None]
        return self.model.encode(wave_BCW, return_dict=False)[0].T[:, : self.format.slots].cpu()

    def _wave(self, codes_FS: Tensor) -> Tensor:
        codes_BSF = codes_FS.T[None].to(self.device, torch.int64)
        return self.model.decode(codes_BSF, return_dict=False)[0].cpu()


def _config(folder: Path) -> XcodecConfig:
    return read_pretrained_config(XcodecConfig, folder / "config.json", "xcodec")
