"""Kyutai's Mimi (Défossez 2024, arXiv 2410.00037) by transformers: 24 kHz, 12.5 frames a second.

Up to 32 slots of 2,048 codes; the first is the semantic one, the rest code the residual of the
sound itself. The published layout is that of `kyutai/mimi`: config.json and model.safetensors.

Mimi is causal: convolutions, then attention to the last 10 seconds in each of its layers, so that a
frame hears more than a minute. It is run in blocks on a fixed grid, the attention's keys and values
handed on: codes and samples are those of the whole song.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.codecs import Placed, check_codes, check_wave
from distill.codecs._blocks import (
    block_frames,
    in_blocks_causal,
    receptive_frames,
    whole_frames,
    widest,
)
from distill.codecs._weights import as_configured, chosen, identity, read_config, spoken, terms
from distill.errors import CodecError
from distill.folders import locate
from distill.lm.families import cache_word
from distill.runtime.torchaudio_standin import install
from distill.writing.sampling import Sampling

install()

from transformers import DynamicCache, MimiConfig, MimiModel, PreTrainedModel

from distill.codecs._pretrained import open_pretrained, read_pretrained_config


@dataclass(frozen=True)
class Settings:
    """`path`: folder or hub id. `slots`: how many codebooks, the first of them (None: all)."""

    path: str = "kyutai/mimi"
    slots: int | None = 8
    licence: str = ""  # of the weights; empty: known of Kyutai's, else unknown

    @property
    def format(self) -> CodecFormat:
        """Read from config.json alone; CodecError when it is missing or not that of a Mimi."""
        folder = locate(self.path)
        config = _config(folder)
        slots = chosen(self.slots, config.num_quantizers, self.path)
        if slots < (least := config.num_semantic_quantizers):
            raise CodecError(f"{self.path}: slots is {slots}; give {least} or more")
        with as_configured(folder / "config.json"):
            hop = math.prod(config.upsampling_ratios or ()) * config.latent_stride
            codes = (config.codebook_size,) * slots
            return spoken(config.sampling_rate, hop, codes, config.audio_channels)

    @property
    def terms(self) -> str:
        return terms(self.licence, self.path, {"kyutai/mimi": "cc-by-4.0"})

    @property
    def sampling(self) -> Sampling:
        """Moshi's, which speaks in Mimi's codes (arXiv 2410.00037)."""
        return Sampling((0.8,), top_k=250, ties=True)

    def load(self) -> MimiCodec:
        """The codec with its weights. CodecError names what is damaged."""
        folder, format = locate(self.path), self.format
        config = _config(folder)
        model, state = open_pretrained(MimiModel, config, folder)
        return MimiCodec(model, format, identity(state, read_config(folder / "config.json")))


class MimiCodec(Placed):
    """distill.codecs.Codec over a transformers.MimiModel."""

    def __init__(self, model: Any, format: CodecFormat, fingerprint: str):
        self.model, self.format, self.fingerprint = model, format, fingerprint
        self.inner = model.config.latent_stride  # steps of the attention in a frame
        self.hop = round(format.sample_rate / format.frame_rate)

    def to(self, device: torch.device | str) -> MimiCodec:
        for part in self.model.modules():
            # transformers keeps a codebook's means there, where Module.to does not look
            if hasattr(part, "_embed"):
                part._embed = None
        return super().to(device)

    @cached_property
    def block_frames(self) -> int:
        device, width, channels = self.device, self.model.config.hidden_size, self.format.channels
        encoder = widest(self.model.encoder.encoder_seanet, channels, self.hop, device=device)
        decoder = widest(self.model.decoder.decoder_seanet, width, self.inner, device=device)
        context = max(*self.encoder_contexts, *self.decoder_contexts)
        return block_frames(self.format.frame_rate, max(encoder, decoder), context)

    @cached_property
    def encoder_contexts(self) -> tuple[int, int]:
        """How many frames the convolutions before and behind the encoder's attention hear."""
        encoder, device, width = self.model.encoder, self.device, self.model.config.hidden_size
        sizes = self.format.channels, self.hop, self.inner
        before = receptive_frames(encoder.encoder_seanet, *sizes, device=device)
        return before, receptive_frames(encoder.downsample, width, self.inner, device=device)

    @cached_property
    def decoder_contexts(self) -> tuple[int, int]:
        """The same of the decoder's."""
        decoder, device, width = self.model.decoder, self.device, self.model.config.hidden_size
        before = receptive_frames(decoder.upsample, width, 1, self.inner, device=device)
        sizes = width, self.inner, self.hop
        return before, receptive_frames(decoder.decoder_seanet, *sizes, device=device)

    @torch.inference_mode()
    def encode(self, wave_CW: Tensor) -> Tensor:
        check_wave(wave_CW, self.format)
        encoder, attend = self.model.encoder, _Memory(self.model.encoder.encoder_transformer)

        def before(first: int, last: int) -> Tensor:
            frames_CW = whole_frames(wave_CW, first, last, self.hop).to(self.device, torch.float32)
            return encoder.encoder_seanet(frames_CW[None])[0]

        def after(heard_DT: Tensor) -> Tensor:
            latent_BDF = encoder.downsample(heard_DT[None])
            return self.model.quantizer.encode(latent_BDF, self.format.slots)[:, 0]

        grid = -(-wave_CW.shape[1] // self.hop), self.block_frames, self.encoder_contexts
        codes_SF = in_blocks_causal(before, attend, after, *grid, self.inner, outer=1)
        return codes_SF.T.contiguous().cpu()

    @torch.inference_mode()
    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        check_codes(codes_FS, self.format)
        decoder, attend = self.model.decoder, _Memory(self.model.decoder.decoder_transformer)

        def before(first: int, last: int) -> Tensor:
            codes_BSF = codes_FS[first:last].T[None].to(self.device, torch.int64)
            return decoder.upsample(self.model.quantizer.decode(codes_BSF))[0]

        def after(heard_DT: Tensor) -> Tensor:
            return decoder.decoder_seanet(heard_DT[None])[0]

        grid = len(codes_FS), self.block_frames, self.decoder_contexts
        wave_CW = in_blocks_causal(before, attend, after, *grid, self.inner, self.hop)
        return wave_CW[:, :samples].cpu()

    @torch.inference_mode()
    def codebooks(self) -> list[Tensor]:
        """Every code as the vector it adds to the latent."""
        parts, books = self.model.quantizer, []
        for name in ("semantic", "acoustic"):
            part = getattr(parts, f"{name}_residual_vector_quantizer")
            for layer in part.layers:
                book_DC = layer.codebook.embed.T
                if part.output_proj is not None:
                    book_DC = part.output_proj(book_DC[None])[0]
                books.append(book_DC.T)
        return [book_CD.clone().cpu() for book_CD in books[: self.format.slots]]


class _Memory:
    """Attention to the past, block after block: [D, T] -> [D, T]."""

    def __init__(self, transformer: PreTrainedModel):
        self.transformer = transformer
        self.past = DynamicCache(config=transformer.config)

    def __call__(self, hidden_DT: Tensor) -> Tensor:
        past = {cache_word(type(self.transformer)): self.past}
        output = self.transformer(hidden_DT.T[None], **past, use_cache=True)
        return output.last_hidden_state[0].T


def _config(folder: Path) -> MimiConfig:
    path = folder / "config.json"
    config = read_pretrained_config(MimiConfig, path, "mimi")
    with as_configured(path):
        causal = config.use_causal_conv and config.trim_right_ratio == 1.0
        strided = config.latent_stride > 1
        halves = config.encoder_config is not None and config.decoder_config is not None
    if not (causal and strided and halves):
        raise CodecError(f"{path}: half a Mimi, or not causal; give a whole one as published")
    return config
