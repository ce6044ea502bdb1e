"""Descript's DAC (Kumar 2023, arXiv 2306.06546) through the package `descript-audio-codec`.

The package's own `.load` runs code found inside the weights file (torch.package). So this kind takes a folder
with `config.json` (the arguments of `dac.DAC`) and `weights.safetensors` (its state dict): `export` writes
one from a model that you already trust.

Strides must be even: with odd ones the package loses samples at the edges; what little is missing is filled
up with silence, so a wave keeps its length.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from distill.codecs import check_codes, check_wave
from distill.errors import CodecError
from distill.folders import locate, write_atomic
from distill.torchaudio_standin import install
from distill.vocabulary import CodecFormat

install()

import dac

NEEDED = ("encoder_rates", "n_codebooks", "codebook_size", "sample_rate")


@dataclass(frozen=True)
class Settings:
    """`path`: folder or hub id with config.json and weights.safetensors. `slots`: how many codebooks (None:
    all).
    """

    path: str
    slots: int | None = None
    licence: str = "mit"  # of the weights; Descript's published models are under MIT

    @property
    def format(self) -> CodecFormat:
        """Read from config.json alone; CodecError when it is missing or does not describe a DAC."""
        config = _config(locate(self.path))
        slots = config["n_codebooks"] if self.slots is None else self.slots
        if not 1 <= slots <= config["n_codebooks"]:
            raise CodecError(
                f"{self.path}: slots is {slots}, this codec has 1 to {config['n_codebooks']}; choose one"
            )
        hop = int(torch.tensor(config["encoder_rates"]).prod())
        return CodecFormat(
            config["sample_rate"], config["sample_rate"] / hop, (config["codebook_size"],) * slots
        )

    def load(self) -> DacCodec:
        """The codec with its weights. Raises CodecError naming what is damaged."""
        folder, format = locate(self.path), self.format
        place = folder / "weights.safetensors"
        try:
            model = dac.DAC(**_config(folder))
            data = place.read_bytes()
            state = safetensors.torch.load(data)
            model.load_state_dict(state)
        except (safetensors.SafetensorError, OSError, RuntimeError, TypeError, ValueError) as problem:
            reason = str(problem).strip().splitlines()[0]
            raise CodecError(
                f"{place}: missing, damaged or not of this config.json ({reason}); copy it again"
            ) from problem
        for name, value in state.items():
            if not bool(torch.isfinite(value).all()):
                raise CodecError(f"{place}: {name} holds NaN or infinity; copy the folder again")
        fingerprint = hashlib.sha256(data + (folder / "config.json").read_bytes()).hexdigest()
        return DacCodec(model.eval(), format, fingerprint)


class DacCodec:
    """distill.codecs.Codec over a dac.DAC."""

    def __init__(self, model: Any, format: CodecFormat, fingerprint: str):
        self.model, self.format, self.fingerprint = model, format, fingerprint
        self.hop = int(model.hop_length)

    @torch.inference_mode()
    def encode(self, wave_CW: Tensor) -> Tensor:
        check_wave(wave_CW, self.format)
        frames = -(-wave_CW.shape[1] // self.hop)
        wave_BCW = torch.nn.functional.pad(wave_CW.float(), (0, frames * self.hop - wave_CW.shape[1]))[None]
        codes_FS = self.model.encode(wave_BCW, len(self.format.slot_sizes))[1][0].T
        if len(codes_FS) < frames:
            raise CodecError(
                f"encode: gave {len(codes_FS)} of {frames} frames (odd strides lose samples); use a wave "
                "of at least a second or a model with even strides"
            )
        return codes_FS[:frames].contiguous()

    @torch.inference_mode()
    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        check_codes(codes_FS, self.format)
        latent_BDF = self.model.quantizer.from_codes(codes_FS.long().T[None])[0]
        wave_CW, whole = self.model.decode(latent_BDF)[0], len(codes_FS) * self.hop
        wave_CW = torch.nn.functional.pad(wave_CW[:, :whole], (0, max(0, whole - wave_CW.shape[1])))
        return wave_CW[:, :samples]

    @torch.inference_mode()
    def codebooks(self) -> list[Tensor]:
        """Every code as the vector it adds to the latent: the factorised codebooks projected back."""
        slots = self.model.quantizer.quantizers[: len(self.format.slot_sizes)]
        return [slot.out_proj(slot.codebook.weight.T[None])[0].T.clone() for slot in slots]


def export(model: Any, folder: str | Path) -> None:
    """Write a dac.DAC as the folder that this kind reads."""
    config = {
        "encoder_dim": model.encoder_dim,
        "encoder_rates": list(model.encoder_rates),
        "latent_dim": model.latent_dim,
        "decoder_dim": model.decoder_dim,
        "decoder_rates": list(model.decoder_rates),
        "n_codebooks": model.n_codebooks,
        "codebook_size": model.codebook_size,
        "codebook_dim": model.codebook_dim,
        "sample_rate": model.sample_rate,
    }
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomic(
        Path(folder) / "weights.safetensors", safetensors.torch.save(state, metadata={"format": "pt"})
    )
    write_atomic(Path(folder) / "config.json", (json.dumps(config, indent=1) + "\n").encode())


def _config(folder: Path) -> dict[str, Any]:
    place = folder / "config.json"
    try:
        config = json.loads(place.read_text("utf-8"))
        missing = [name for name in NEEDED if name not in config]
    except (OSError, ValueError, TypeError) as problem:
        raise CodecError(f"{place}: missing or not JSON ({problem}); export the model again") from problem
    if missing:
        raise CodecError(
            f"{place}: {missing[0]} is missing; export the model again with distill.codecs.dac.export"
        )
    return config
