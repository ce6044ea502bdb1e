"""Descript's DAC (Kumar 2023, arXiv 2306.06546) through the package `descript-audio-codec`.

Weights, by `path`:

    44khz, 44khz-16kbps, 24khz, 16khz   published models, by the package's own download (MIT)
    weights.pth                         a checkpoint of the package: state_dict and metadata
    a folder or hub id                  config.json (arguments of dac.DAC), weights.safetensors

The package's `.load` first tries to run code found inside the file (torch.package); here a
checkpoint is read as tensors and numbers, and one that brings code is refused.

The package works on a whole song at once or in unpadded chunks of a second; here it is blocks with
as much context as its convolutions hear, which give the same codes and flat memory. With an odd
stride (the 16 and 24 kHz models have a 5) its decoder ends some samples early; those are silence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.codecs import Placed, _blocks, _weights, check_codes, check_wave
from distill.errors import CodecError
from distill.folders import locate, write_atomic
from distill.runtime.torchaudio_standin import install
from distill.writing.sampling import Sampling

install()

import dac
import dac.utils

NEEDED = ("encoder_rates", "n_codebooks", "codebook_size", "sample_rate")
ARGUMENTS = (
    *("encoder_dim", "encoder_rates", "latent_dim", "decoder_dim", "decoder_rates"),
    *("n_codebooks", "codebook_size", "codebook_dim", "sample_rate"),
)
Arguments = dict[str, Any]  # of dac.DAC
# the package's conf/final/*.yml: what its downloads are, known before they are fetched
PUBLISHED: dict[str, Arguments] = {
    name: dict(sample_rate=rate, encoder_rates=rates, n_codebooks=slots, codebook_size=1024)
    for name, rate, rates, slots in (
        ("44khz", 44100, [2, 4, 8, 8], 9),
        ("44khz-16kbps", 44100, [2, 4, 8, 8], 18),
        ("24khz", 24000, [2, 4, 5, 8], 32),
        ("16khz", 16000, [2, 4, 5, 8], 12),
    )
}


@dataclass(frozen=True)
class Settings:
    """`path`: see above. `slots`: how many codebooks, the first of them (None: all)."""

    path: str
    slots: int | None = None
    licence: str = ""  # of the weights; empty: known of Descript's models, else unknown

    @property
    def format(self) -> CodecFormat:
        """Read from what stands beside the weights; CodecError when that is missing or no DAC's."""
        return _format(PUBLISHED.get(self.path) or _read(locate(self.path), shallow=True)[0], self)

    @property
    def terms(self) -> str:
        return _weights.terms(self.licence, self.path, dict.fromkeys(PUBLISHED, "mit"))

    @property
    def sampling(self) -> Sampling:
        """As MusicGen samples residual codes (arXiv 2306.05284): all slots alike, not greedily."""
        return Sampling((1.0,), top_k=250, ties=True)

    def load(self) -> DacCodec:
        """The codec with its weights. CodecError names what is damaged, runs code, or is no DAC."""
        format = self.format
        path = _download(self.path) if self.path in PUBLISHED else locate(self.path)
        config, state = _read(path)
        if _format(config, self) != format:
            raise CodecError(f"{path}: is not the model {self.path}; remove it and fetch it again")
        with _weights.as_configured(path):
            model = dac.DAC(**config)
        weights = _weights.checked(state, path)
        _weights.fill(model, weights, path)
        return DacCodec(model.eval(), format, _weights.identity(weights, config))


class DacCodec(Placed):
    """distill.codecs.Codec over a dac.DAC."""

    def __init__(self, model: dac.DAC, format: CodecFormat, fingerprint: str):
        self.model, self.format, self.fingerprint = model, format, fingerprint
        self.hop = int(model.hop_length)
        self.together: int | None = None  # blocks encoded at once; None: as the device wants

    @cached_property
    def block_frames(self) -> int:
        model, device = self.model, self.device
        encoder = _blocks.widest(model.encoder, 1, self.hop, device=device)
        decoder = _blocks.widest(model.decoder, model.latent_dim, device=device)
        context = max(self.encoder_context, self.decoder_context)
        return _blocks.block_frames(self.format.frame_rate, max(encoder, decoder), context)

    @cached_property
    def encoder_context(self) -> int:
        return _blocks.receptive_frames(self.model.encoder, 1, self.hop, device=self.device)

    @cached_property
    def decoder_context(self) -> int:  # and one frame for what an odd stride loses at a block's end
        decoder, sizes = self.model.decoder, (self.model.latent_dim, 1, self.hop)
        return 1 + _blocks.receptive_frames(decoder, *sizes, device=self.device)

    @torch.inference_mode()
    def encode(self, wave_CW: Tensor) -> Tensor:
        return self.encode_many([wave_CW])[0]

    @torch.inference_mode()
    def encode_many(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """codes_FS of every wave_CW, whatever their lengths."""
        for wave_CW in waves:
            check_wave(wave_CW, self.format)
        block_seconds = self.block_frames / self.format.frame_rate
        together = self.together or _blocks.side_by_side(self.device, block_seconds)
        grid = self.hop, self.block_frames, self.encoder_context
        return _blocks.in_blocks_encode_many(self._codes, waves, *grid, together)

    @torch.inference_mode()
    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        check_codes(codes_FS, self.format)
        grid = self.hop, self.block_frames, self.decoder_context
        return _blocks.in_blocks_decode(self._wave, codes_FS, *grid)[:, :samples]

    @torch.inference_mode()
    def codebooks(self) -> list[Tensor]:
        """Every code as the vector it adds to the latent: factorised codebooks projected back."""
        slots = self.model.quantizer.quantizers[: self.format.slots]
        return [slot.out_proj(slot.codebook.weight.T[None])[0].T.clone().cpu() for slot in slots]

    def _codes(self, wave_BCW: Tensor) -> Tensor:
        wave_BCW = wave_BCW.to(self.device, torch.float32)
        return self.model.encode(wave_BCW, self.format.slots)[1].transpose(1, 2).cpu()

    def _wave(self, codes_FS: Tensor) -> Tensor:
        codes_BSF = codes_FS.T[None].to(self.device, torch.int64)
        return self.model.decode(self.model.quantizer.from_codes(codes_BSF)[0])[0].cpu()


def export(model: dac.DAC, folder: str | Path) -> None:
    """Write a dac.DAC as a folder that this kind reads, without a pickle in it."""
    config = {name: getattr(model, name) for name in ARGUMENTS}
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    weights = safetensors.torch.save(state, metadata={"format": "pt"})
    write_atomic(Path(folder) / "weights.safetensors", weights)
    write_atomic(Path(folder) / "config.json", (json.dumps(config, indent=1) + "\n").encode())


def _download(name: str) -> Path:
    """A published model, fetched by the package into its own cache. CodecError without network."""
    model, _, bitrate = name.partition("-")
    try:
        return Path(dac.utils.download(model_type=model, model_bitrate=bitrate or "8kbps"))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        raise CodecError(f"{name}: not fetched ({error}); check network, or give a path") from error


def _read(path: Path, shallow: bool = False) -> tuple[Arguments, object]:
    """(arguments of dac.DAC, weights) of a checkpoint or folder; `shallow`: the arguments alone."""
    if path.is_dir():
        config = _weights.read_config(path / "config.json", NEEDED)
        return config, {} if shallow else _weights.read_tensors(path / "weights.safetensors")
    checkpoint = _weights.read_checkpoint(path, shallow)
    try:
        given, state = checkpoint["metadata"]["kwargs"], checkpoint["state_dict"]
        return {name: given[name] for name in ARGUMENTS if name in given or name in NEEDED}, state
    except (KeyError, TypeError) as error:
        fault = f"no checkpoint of descript-audio-codec ({error} is missing)"
        raise CodecError(f"{path}: {fault}; give its weights.pth") from error


def _format(config: Arguments, settings: Settings) -> CodecFormat:
    with _weights.as_configured(Path(settings.path)):
        slots = _weights.chosen(settings.slots, config["n_codebooks"], settings.path)
        hop = math.prod(config["encoder_rates"])
        return _weights.spoken(config["sample_rate"], hop, (config["codebook_size"],) * slots)
