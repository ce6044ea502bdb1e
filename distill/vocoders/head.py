"""A Vocos head trained for one codec: its codes -> sound, at its own sample rate (_network.py).

Trained by task `vocoder`. On disk a folder with `config.json` (format version, sizes, the codec's
kind, fingerprint and format, the licences of what it learnt from) and `weights.safetensors` in half
precision. It was trained with 1 ... S slots, so it also speaks for its codec cut to the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.codecs import Codec, check_codes
from distill.codecs._weights import as_configured, fill_from_halves, halves, identity
from distill.codecs._weights import read_config as json_config
from distill.errors import CodecError
from distill.folders import Json, atomic_folder, locate
from distill.vocoders import in_pieces
from distill.vocoders._network import HeadNetwork, HeadSettings

VERSION = 1


@dataclass(frozen=True)
class CodecCard:
    """The codec that a head was made for."""

    kind: str
    fingerprint: str
    format: CodecFormat


@dataclass(frozen=True)
class Settings:
    """`path`: package folder, folder on disk or hub id that task vocoder saved."""

    path: str

    def load(self, codec: Codec) -> HeadVocoder:
        """The head, for this codec or its first slots. CodecError for another, or naming damage."""
        return load_head(locate(self.path), codec)


class HeadVocoder:
    """distill.vocoders.Vocoder over a HeadNetwork."""

    def __init__(self, network: HeadNetwork, format: CodecFormat, fingerprint: str):
        assert network.settings.sample_rate is not None
        self.network, self.format, self.fingerprint = network.eval(), format, fingerprint
        self.sample_rate, self.hop = network.settings.sample_rate, network.hop
        self.context_frames = network.context_frames

    def decode(self, codes_FS: Tensor) -> Tensor:
        """wave_CW within +-1, block by block, so that only the sound grows with the song."""
        check_codes(codes_FS, self.format)
        wave_CW = torch.empty(self.format.channels, len(codes_FS) * self.hop)
        done = 0
        for piece_CW in in_pieces(self._sound, [codes_FS], self.hop, self.context_frames):
            wave_CW[:, done : done + piece_CW.shape[1]] = piece_CW
            done += piece_CW.shape[1]
        return wave_CW

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """First sound after the first chunk that is longer than `context_frames`."""
        return in_pieces(self._sound, self._checked(chunks), self.hop, self.context_frames)

    def _checked(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        for codes_FS in chunks:
            if len(codes_FS):
                check_codes(codes_FS, self.format)
                yield codes_FS

    @torch.inference_mode()
    def _sound(self, codes_FS: Tensor) -> Tensor:
        device = next(self.network.parameters()).device
        return self.network(codes_FS.to(device, torch.int64)[None])[0].float().cpu()


def save_head(
    network: HeadNetwork, folder: Path, codec: CodecCard, licences: Mapping[str, str]
) -> None:
    """Write the folder, whole (CodecError: a weight too large). `licences`: of codec and songs."""
    weights = halves(network.named_parameters(), folder)
    config = {
        "version": VERSION,
        "kind": "head",
        "network": asdict(network.settings),
        "latent_width": network.latent_width,
        "silence": network.silence_S,
        "codec": asdict(codec),
        "licences": dict(licences),
    }
    with atomic_folder(folder) as inside:
        (inside / "weights.safetensors").write_bytes(weights)
        (inside / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load_head(folder: Path, codec: Codec) -> HeadVocoder:
    """The head in a folder, if it was made for `codec`. CodecError names what is wrong."""
    config = read_config(folder)
    made_for, format = config["codec"], codec.format
    if made_for.fingerprint != codec.fingerprint:
        fault = f"made for codec {made_for.kind} {made_for.fingerprint[:12]}"
        given = f"these are codes of {codec.fingerprint[:12]}"
        raise CodecError(f"{folder}: {fault}, {given}; give its codec, or train a head for this")
    if made_for.format.slot_sizes[: format.slots] != format.slot_sizes:
        fault = f"knows {made_for.format.slots} slots of {made_for.format.slot_sizes} codes"
        given = f"the codec has {format.slots} of {format.slot_sizes}"
        raise CodecError(f"{folder}: {fault}, {given}; train a head with as many slots")
    path = folder / "config.json"
    with as_configured(path):
        sizes = config["network"], made_for.format, config["latent_width"], config["silence"]
        network = HeadNetwork(*sizes)
    state = fill_from_halves(dict(network.named_parameters()), folder)
    described = json_config(path)
    described.pop("licences")  # they do not decide how it sounds
    return HeadVocoder(network, format, identity(state, described))


class Config(TypedDict):
    """What config.json says of a head."""

    network: HeadSettings
    latent_width: int
    silence: tuple[int, ...] | None
    codec: CodecCard
    licences: dict[str, str]


def read_config(folder: Path) -> Config:
    """config.json of a head's folder. CodecError when it is not a head's."""
    path, whose = folder / "config.json", "a vocoder head"
    config = json_config(path, ("kind", "version"), whose)
    if (config["kind"], config["version"]) != ("head", VERSION):
        given = f"{config['kind']} version {config['version']}"
        wanted = f"head version {VERSION}; train it again or upgrade"
        raise CodecError(f"{path}: is {given}, this library reads {wanted}")
    with as_configured(path, whose):
        codec = dict(config["codec"])
        format = _format(codec.pop("format"))
        return {
            "network": HeadSettings(**config["network"]),
            "latent_width": int(config["latent_width"]),
            "silence": _silence(config["silence"], format.slot_sizes),
            "codec": CodecCard(**codec, format=format),
            "licences": {str(part): str(terms) for part, terms in config["licences"].items()},
        }


def _format(words: Json) -> CodecFormat:
    """JSON's lists as tuples, and the numbers of the type that they must have."""
    values = words | {name: tuple(value) for name, value in words.items() if type(value) is list}
    values["slot_sizes"] = tuple(int(size) for size in values["slot_sizes"])
    rates = {"sample_rate": int(values["sample_rate"]), "frame_rate": float(values["frame_rate"])}
    return CodecFormat(**(values | rates))


def _silence(words: list[int] | None, slot_sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """A code of each slot, or None. ValueError for what is neither."""
    if words is None:
        return None
    codes_S = tuple(map(int, words))
    if not all(0 <= code < size for code, size in zip(codes_S, slot_sizes, strict=True)):
        raise ValueError(f"silence is {codes_S}")
    return codes_S
