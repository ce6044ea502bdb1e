"""SNAC (Siuzdak 2024, arXiv 2410.14411) by the package `snac`: levels as slots of one frame.

SNAC quantises the residual coarse to fine, each level at its own rate: at 24 kHz 12, 23 and 47
codes a second. A frame here is one code of the coarsest level with all that the finer levels have
in its time, level after level and in order of time within one:

    level 0   [      0      ]
    level 1   [  1  ][  2   ]           slots 0 1 2 3 4 5 6
    level 2   [3 ][4 ][5 ][6 ]

The published layout is that of `hubertsiuzdak/snac_24khz`: config.json and pytorch_model.bin, read
as tensors alone. The package's decoder adds noise, drawn anew each time: here every frame draws
from its own number, so the same codes sound the same. Its larger models attend within windows of
some frames: what is missing of the last window is silence when encoding and the last frame once
more when decoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from distill.audio.codec_format import CodecFormat
from distill.codecs import Placed, _blocks, _weights, check_codes, check_wave
from distill.errors import CodecError
from distill.folders import locate
from distill.writing.sampling import Sampling

if TYPE_CHECKING:
    from snac import SNAC

LICENCES = {f"hubertsiuzdak/snac_{rate}khz": "mit" for rate in (24, 32, 44)}
WEIGHTS = "pytorch_model.bin"
NEEDED = ("sampling_rate", "encoder_rates", "vq_strides", "codebook_size")


@dataclass(frozen=True)
class Settings:
    """`path`: folder or hub id with config.json and pytorch_model.bin."""

    path: str = "hubertsiuzdak/snac_24khz"
    licence: str = ""  # of the weights; empty: known of its author's, else unknown

    @property
    def format(self) -> CodecFormat:
        """Read from config.json alone; CodecError when it is missing or not that of a SNAC."""
        path = locate(self.path, WEIGHTS) / "config.json"
        config = _weights.read_config(path, NEEDED)
        with _weights.as_configured(path):
            strides, coarsest = config["vq_strides"], config["vq_strides"][0]
            if any(coarsest % stride for stride in strides):
                raise ValueError(f"vq_strides {strides} do not divide {coarsest}")
            slots = sum(coarsest // stride for stride in strides)
            hop = math.prod(config["encoder_rates"]) * coarsest
            return _weights.spoken(config["sampling_rate"], hop, (config["codebook_size"],) * slots)

    @property
    def terms(self) -> str:
        return _weights.terms(self.licence, self.path, LICENCES)

    @property
    def sampling(self) -> Sampling:
        """Orpheus's, which speaks in SNAC's codes."""
        return Sampling((0.6,), top_p=0.9, ties=True)

    def load(self) -> SnacCodec:
        """The codec with its weights. CodecError names what is damaged, or is not installed."""
        try:
            from snac import SNAC
        except ImportError as error:
            raise CodecError(f"{self.path}: needs the package snac; pip install snac") from error
        folder, format = locate(self.path, WEIGHTS), self.format
        path = folder / WEIGHTS
        config = _weights.read_config(folder / "config.json", NEEDED)
        state = _weights.checked(_weights.read_checkpoint(path), path)
        with _weights.as_configured(folder / "config.json"):
            model = SNAC(**config)
        _weights.fill(model, state, path)
        return SnacCodec(_weights.settled(model), format, _weights.identity(state, config))


class SnacCodec(Placed):
    """distill.codecs.Codec over snac.SNAC. Unit: the fewest frames of whole attention windows."""

    def __init__(self, model: SNAC, format: CodecFormat, fingerprint: str):
        self.model, self.format, self.fingerprint = model, format, fingerprint
        self.latents = model.vq_strides[0]  # of a frame
        self.hop = int(model.hop_length) * self.latents
        self.unit = math.lcm(self.latents, model.attn_window_size or 1) // self.latents
        self.widths = [self.latents // stride for stride in model.vq_strides]  # slots of each level
        self.numbers: list[int] = []  # of the frames that are being decoded
        layer = 0
        for parent in list(model.decoder.modules()):
            for name, child in list(parent.named_children()):
                if type(child).__name__ == "NoiseBlock":
                    layer += 1
                    setattr(parent, name, _SteadyNoise(child.linear, self.numbers, layer))

    @cached_property
    def block_frames(self) -> int:
        unit = self.latents * self.unit  # the decoder's windows are whole
        encoder = _blocks.widest(self.model.encoder, 1, self.hop * self.unit, device=self.device)
        self.numbers[:] = range(16 * self.unit)
        decoder = _blocks.widest(
            self.model.decoder, self.model.latent_dim, unit, device=self.device
        )
        values = max(encoder, decoder) / self.unit
        return _blocks.block_frames(self.format.frame_rate, values, max(self.contexts))

    @cached_property
    def contexts(self) -> tuple[int, int]:
        """Frames that encoder and decoder hear, in whole units; one unit more for odd strides."""
        latents, hop, device = self.latents * self.unit, self.hop * self.unit, self.device
        encoder = _blocks.receptive_frames(self.model.encoder, 1, hop, latents, device=device)
        decoder = _blocks.receptive_frames(
            self._sound, self.model.latent_dim, latents, hop, device=device
        )
        return (encoder + 1) * self.unit, (decoder + 1) * self.unit

    @torch.inference_mode()
    def encode(self, wave_CW: Tensor) -> Tensor:
        check_wave(wave_CW, self.format)
        grid = self.hop, self._block(), self.contexts[0]
        return _blocks.in_blocks_encode(self._codes, wave_CW, *grid)

    @torch.inference_mode()
    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        check_codes(codes_FS, self.format)
        frames, codes_FS = len(codes_FS), codes_FS.cpu().long()
        filled_FS = torch.cat([codes_FS, codes_FS[-1:].expand(-frames % self.unit, -1)])
        numbered = torch.cat([filled_FS, torch.arange(len(filled_FS))[:, None]], 1)
        grid = self.hop, self._block(), self.contexts[1]
        wave_CW = _blocks.in_blocks_decode(self._wave, numbered, *grid)
        return wave_CW[:, : frames * self.hop][:, :samples]

    @torch.inference_mode()
    def codebooks(self) -> list[Tensor]:
        """Every code as the vector it adds to the latent; a level's slots have the same."""
        books = []
        for level, width in zip(self.model.quantizer.quantizers, self.widths, strict=True):
            book_CD = level.out_proj(level.codebook.weight.T[None])[0].T.cpu()
            books += [book_CD.clone() for _ in range(width)]
        return books

    def _block(self) -> int:
        return math.ceil(self.block_frames / self.unit) * self.unit

    def _codes(self, wave_CW: Tensor) -> Tensor:
        frames = wave_CW.shape[1] // self.hop
        encoded = self.model.encode(wave_CW.to(self.device, torch.float32)[None])
        levels = zip(encoded, self.widths, strict=True)
        codes = [codes_BT[0, : frames * width].reshape(frames, width) for codes_BT, width in levels]
        return torch.cat(codes, 1).cpu()

    def _wave(self, numbered: Tensor) -> Tensor:
        levels = numbered[:, :-1].to(self.device).split(self.widths, 1)
        latent_BDT = self.model.quantizer.from_codes([codes.reshape(1, -1) for codes in levels])
        return self._sound(latent_BDT, numbered[:, -1].tolist())[0].cpu()

    def _sound(self, latent_BDT: Tensor, numbers: list[int] | None = None) -> Tensor:
        self.numbers[:] = range(latent_BDT.shape[2] // self.latents) if numbers is None else numbers
        return self.model.decoder(latent_BDT)


class _SteadyNoise(nn.Module):
    """SNAC's noise, x + noise * linear(x), drawn by layer and frame number, so alike each time."""

    def __init__(self, linear: nn.Module, numbers: list[int], layer: int):
        super().__init__()
        self.linear, self.numbers, self.layer = linear, numbers, layer

    def forward(self, x_BDT: Tensor) -> Tensor:
        return x_BDT + self.noise(x_BDT.shape[2]).to(x_BDT.device) * self.linear(x_BDT)

    def noise(self, values: int) -> Tensor:
        """noise_T, normal: so many values, as many for each frame."""
        seeds = ((self.layer << 24) + number for number in self.numbers)  # of a seed 32 bits count
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        each = values // len(self.numbers)
        return torch.cat([torch.randn(each, generator=generator) for generator in generators])
