"""The codec that ships with the library, and any other that recipes/codec.yaml makes.

Trained on synthesised song only, so it needs no download and nobody's recordings; not a codec for
all music (embedded/codec/card.md says what it keeps of what). On disk: `config.json` (format
version, sizes) and `weights.safetensors` in half precision.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.codecs import Placed, _blocks, _weights, check_codes, check_wave
from distill.codecs._network import STATES, CodecNetwork, NetworkSettings
from distill.codecs._source import cycles
from distill.errors import CodecError
from distill.folders import atomic_folder, locate
from distill.writing.sampling import Sampling

VERSION = 1


@dataclass(frozen=True)
class Settings:
    """`path`: package folder, folder on disk or hub id. `slots`: how many of the trained slots."""

    path: str = "embedded/codec"
    slots: int | None = 2  # None: all
    licence: str = ""  # of the weights; empty: this package's for its own, else config.json's

    @property
    def format(self) -> CodecFormat:
        """Read from config.json alone; CodecError: missing, another version, or fewer slots."""
        folder = locate(self.path)
        with _weights.as_configured(folder / "config.json"):
            network = _config(folder)
            return _format(network, self._slots(network))

    @property
    def terms(self) -> str:
        """The licence of the weights: `licence`, or config.json's of the songs, with commas."""
        if self.licence or self.path.startswith("embedded/"):
            return self.licence or "apache-2.0"
        licences = _weights.read_config(locate(self.path) / "config.json").get("licences")
        return ", ".join(map(str, licences if isinstance(licences, list) else ())) or "unknown"

    @property
    def sampling(self) -> Sampling:
        """Measured on the embedded singer: greedy on the coarse slot, half as warm on the fine."""
        return Sampling((0.0, 0.5), ties=True)

    def load(self) -> EmbeddedCodec:
        """The codec with its weights. CodecError names what is damaged."""
        folder = locate(self.path)
        with _weights.as_configured(folder / "config.json"):
            network = CodecNetwork(_config(folder))
        state = _weights.fill_from_halves(network.weights(), folder)
        network.quantiser.started.fill_(True)
        sizes = _weights.read_config(folder / "config.json")["network"]
        fingerprint = _weights.identity(state, sizes)
        return EmbeddedCodec(network.eval(), self._slots(network.settings), fingerprint)

    def _slots(self, network: NetworkSettings) -> int:
        return _weights.chosen(self.slots, network.slots, self.path)


class EmbeddedCodec(Placed):
    """distill.codecs.Codec over a CodecNetwork."""

    def __init__(self, network: CodecNetwork, slots: int, fingerprint: str):
        self.network, self.fingerprint = network, fingerprint
        self.format = _format(network.settings, slots)
        self.hop = network.settings.hop
        self.block_frames = round(_blocks.BLOCK_SECONDS * self.format.frame_rate)
        self.together: int | None = None  # blocks encoded at once; None: as the device wants

    @cached_property
    def encoder_context(self) -> int:
        """Frames on each side that a frame's codes can depend on."""

        def latent(wave_BCW: Tensor) -> Tensor:
            return self.network.latent(wave_BCW[:, 0]).transpose(1, 2)

        return _blocks.receptive_frames(latent, 1, self.hop, device=self.device)

    @property
    def context_frames(self) -> int | None:
        """What a stream must overlap; None with a source, whose phase depends on all before it."""
        return self.decoder_context if self.network.source is None else None

    @cached_property
    def decoder_context(self) -> int:
        """Frames on each side that a decoded sample depends on; a source's phase is handed on."""
        width, source = self.network.settings.latent_width, self.network.source

        def sound(latent_BDF: Tensor) -> Tensor:
            hidden_BTD = self.network.hidden(latent_BDF.transpose(1, 2))
            hertz_BT = None if source is None else hidden_BTD.new_full(hidden_BTD.shape[:2], 100.0)
            return self.network.voice(hidden_BTD, hertz_BT)

        frames = _blocks.receptive_frames(sound, width, 1, self.hop, device=self.device)
        return frames if source is None else frames + math.ceil(source.reach / STATES)

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

    def _codes(self, wave_BCW: Tensor) -> Tensor:
        latent_BFD = self.network.latent(wave_BCW[:, 0].to(self.device, torch.float32))
        latent_ND = latent_BFD.flatten(0, 1)
        codes_NS, _ = self.network.quantiser.quantise(latent_ND, self.format.slots)
        return codes_NS.unflatten(0, latent_BFD.shape[:2]).cpu()

    @torch.inference_mode()
    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        check_codes(codes_FS, self.format)
        state_hop, rate = self.hop // STATES, self.format.sample_rate
        sound, passed_B = _blocks.Whole(len(codes_FS) * self.hop, 1), None
        for block in _blocks.blocks(len(codes_FS), self.block_frames, self.decoder_context):
            block_FS = codes_FS[block.first : block.last].to(self.device, torch.int64)
            hidden_BTD = self.network.hidden(self.network.quantiser.look_up(block_FS)[None])
            hertz_BT = self.network.hertz(hidden_BTD)
            begin, end = block.start - block.first, block.stop - block.first
            wave_CW = self.network.voice(hidden_BTD, hertz_BT, STATES * begin, passed_B)
            sound.lay(wave_CW[:, begin * self.hop : end * self.hop].cpu(), block.start * self.hop)
            if hertz_BT is not None:
                passed_BW = cycles(hertz_BT, state_hop, rate, STATES * begin, passed_B)
                passed_B = passed_BW[:, end * self.hop]
        return sound.tensor[:, :samples]

    def codebooks(self) -> list[Tensor]:
        books_SCD = self.network.quantiser.codebooks_SCD[: self.format.slots]
        return [book_CD.clone().cpu() for book_CD in books_SCD]


def save_codec(network: CodecNetwork, folder: Path, licences: Iterable[str] = ()) -> None:
    """Write the folder or nothing (CodecError: a weight too large); `licences`: of the songs."""
    weights = _weights.halves(network.weights().items(), folder)
    config = {"version": VERSION, "kind": "embedded", "network": asdict(network.settings)}
    if known := sorted(set(licences)):
        config["licences"] = known
    with atomic_folder(folder) as inside:
        (inside / "weights.safetensors").write_bytes(weights)
        (inside / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _format(network: NetworkSettings, slots: int) -> CodecFormat:
    return _weights.spoken(network.sample_rate, network.hop, (network.codes,) * slots)


def _config(folder: Path) -> NetworkSettings:
    path = folder / "config.json"
    config = _weights.read_config(path, ("version", "network"), "a codec")
    if config["version"] != VERSION:
        fault = f"format version {config['version']}, this library reads {VERSION}"
        raise CodecError(f"{path}: {fault}; train the codec again or upgrade")
    sizes = config["network"]
    return NetworkSettings(**{**sizes, "encoder_widths": tuple(sizes["encoder_widths"])})
