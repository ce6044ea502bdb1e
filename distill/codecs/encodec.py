"""EnCodec's codes (Défossez 2022, arXiv 2210.13438) decoded by Vocos (2023, arXiv 2306.00814).

EnCodec at 24 kHz gives 75 frames a second of 2, 4, 8 or 16 codebooks (1.5, 3, 6, 12 kb/s). Vocos
turns the same codes back with one inverse Fourier transform, conditioned on the bit rate.

    path      the published layout of a Vocos: config.yaml and pytorch_model.bin,
              e.g. charactr/vocos-encodec-24khz
    encoder   transformers' layout: config.json and model.safetensors, e.g. facebook/encodec_24khz;
              or the checkpoint of the package `encodec`, encodec_24khz-d7cc33bc.th, checked by the
              hash in its name

The package `vocos` builds whatever classes config.yaml names; here only the known ones are built.

EnCodec's encoder is causal, with an LSTM that hears all the past. It is run in blocks on a fixed
grid, the LSTM's state handed on, so the codes are those of the whole song. The 48 kHz EnCodec is
not here: its seconds have a loudness beside the codes, and no Vocos for it is published.

The code is transformers' (Apache-2.0). EnCodec's weights are under CC-BY-NC-4.0, whichever way they
come, and so is, by its metadata, the package `encodec` 0.1.1, which `vocos` wants installed:
nothing of it is used here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.audio.codec_format import CodecFormat
from distill.codecs import Placed, _blocks, _weights, check_codes, check_wave
from distill.config.plain_yaml import data
from distill.errors import CodecError
from distill.folders import locate, sha256_file
from distill.runtime.torchaudio_standin import install
from distill.writing.sampling import Sampling

install()

from transformers import EncodecConfig, EncodecModel
from vocos.heads import ISTFTHead
from vocos.models import VocosBackbone

from distill.codecs._pretrained import read_pretrained_config

LICENCES = {"facebook/encodec_24khz": "cc-by-nc-4.0", "charactr/vocos-encodec-24khz": "mit"}
WEIGHTS = "pytorch_model.bin"  # of the Vocos
PUBLISHED = "encodec_24khz"
SAMPLE_RATE, HOP, CODES, KBPS_A_SLOT = 24000, 320, 1024, 0.75
FIXED = {  # what transformers calls them; `hop` is the product of its upsampling ratios
    "sampling_rate": SAMPLE_RATE, "hop": HOP, "codebook_size": CODES, "audio_channels": 1,
    "use_causal_conv": True, "normalize": False, "norm_type": "weight_norm",
}  # fmt: skip
USED = ("encoder.", "quantizer.")  # of EnCodec; Vocos decodes
NAMES = {  # the package's and older transformers' -> transformers'
    "encoder.model.": "encoder.layers.",
    ".conv.conv.": ".conv.",
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
    "quantizer.vq.": "quantizer.",
    "._codebook.": ".codebook.",
}
CLASSES = {  # a part of config.yaml -> its one class
    "feature_extractor": "vocos.feature_extractors.EncodecFeatures",
    "backbone": "vocos.models.VocosBackbone",
    "head": "vocos.heads.ISTFTHead",
}


@dataclass(frozen=True)
class Settings:
    """`path`, `encoder`: see above. `bandwidth`: kb/s, one that the Vocos was trained for."""

    path: str = "charactr/vocos-encodec-24khz"
    encoder: str = "facebook/encodec_24khz"
    bandwidth: float = 6.0
    licence: str = ""  # of both weights; empty: known of Meta's and Charactr's, else unknown

    @property
    def format(self) -> CodecFormat:
        """Read from config.yaml alone; CodecError: missing, other classes, or no such bandwidth."""
        _, bandwidths = _config(locate(self.path, WEIGHTS) / "config.yaml")
        self._rate(bandwidths)
        slots = round(self.bandwidth / KBPS_A_SLOT)
        return CodecFormat(SAMPLE_RATE, SAMPLE_RATE / HOP, (CODES,) * slots)

    @property
    def terms(self) -> str:
        """The licence of the weights: `licence`, or what is known of `encoder` and of `path`."""
        places = self.encoder, self.path
        parts = [_weights.terms(self.licence, path, LICENCES) for path in places]
        return ", ".join(dict.fromkeys(parts))

    @property
    def sampling(self) -> Sampling:
        """MusicGen's, which sings in EnCodec's codes (arXiv 2306.05284)."""
        return Sampling((1.0,), top_k=250, ties=True)

    def load(self) -> EncodecVocos:
        """The codec with its weights. CodecError names what is damaged or wants to run code."""
        folder, format = locate(self.path, WEIGHTS), self.format
        config, bandwidths = _config(folder / "config.yaml")
        path = folder / WEIGHTS
        state = _weights.checked(_weights.read_checkpoint(path), path)
        with _weights.as_configured(folder / "config.yaml"):
            backbone, head = VocosBackbone(**config["backbone"]), ISTFTHead(**config["head"])
        vocos = nn.ModuleDict({"backbone": backbone, "head": head})
        _weights.fill(vocos, state, path)
        books = state.get("feature_extractor.codebook_weights")
        if books is None or books.ndim != 2 or len(books) < CODES * format.slots:
            raise CodecError(f"{path}: has no codebooks for {format.slots} slots; is it EnCodec's?")
        encoder, sizes = _encoder(locate(self.encoder))
        encodec = {f"encodec.{name}": value for name, value in encoder.state_dict().items()}
        fingerprint = _weights.identity({**state, **encodec}, [config, sizes])
        _weights.settled(encoder)  # the identity is that of the weights as published
        rate = self._rate(bandwidths)
        return EncodecVocos(encoder, vocos.eval(), books, rate, format, fingerprint)

    def _rate(self, bandwidths: list[float]) -> int:
        """The number of the bandwidth among those trained: Vocos's `bandwidth_id`."""
        if self.bandwidth not in bandwidths:
            known = ", ".join(f"{rate:g}" for rate in bandwidths)
            fault = f"bandwidth is {self.bandwidth:g} kb/s; this one has {known}"
            raise CodecError(f"{self.path}: {fault}")
        return bandwidths.index(self.bandwidth)


class EncodecVocos(Placed):
    """distill.codecs.Codec over EnCodec's encoder and quantiser, and Vocos' backbone and head."""

    def __init__(
        self,
        encodec: nn.ModuleDict,
        vocos: nn.ModuleDict,
        books_CD: Tensor,
        rate: int,
        format: CodecFormat,
        fingerprint: str,
    ):
        self.vocos, self.rate = vocos, rate
        self.format, self.fingerprint, self.hop = format, fingerprint, HOP
        self.books_SCD = books_CD[: format.slots * CODES].reshape(format.slots, CODES, -1).float()
        self.quantiser: Any = encodec["quantizer"]
        layers = list(encodec["encoder"].get_submodule("layers").children())
        memory = next(number for number, layer in enumerate(layers) if hasattr(layer, "lstm"))
        self.before = nn.Sequential(*layers[:memory])
        lstm = layers[memory].get_submodule("lstm")
        assert isinstance(lstm, nn.LSTM)
        self.lstm = lstm
        self.after = nn.Sequential(*layers[memory + 1 :])

    @cached_property
    def block_frames(self) -> int:
        values = _blocks.widest(self.before, 1, HOP, device=self.device)
        return _blocks.block_frames(self.format.frame_rate, values, max(self.contexts))

    @cached_property
    def contexts(self) -> tuple[int, int, int]:
        """How many frames the convolutions before and behind the LSTM hear, and Vocos."""
        width, device = self.lstm.input_size, self.device
        return (
            _blocks.receptive_frames(self.before, 1, HOP, device=device),
            _blocks.receptive_frames(self.after, width, device=device),
            _blocks.receptive_frames(self._sound, self.books_SCD.shape[2], 1, HOP, device=device),
        )

    @torch.inference_mode()
    def encode(self, wave_CW: Tensor) -> Tensor:
        check_wave(wave_CW, self.format)
        frames, state = -(-wave_CW.shape[1] // HOP), None

        def before(first: int, last: int) -> Tensor:
            frames_CW = _blocks.whole_frames(wave_CW, first, last, HOP)
            return self.before(frames_CW.to(self.device, torch.float32)[None])[0]

        def carry(hidden_DF: Tensor) -> Tensor:  # EncodecLSTM.forward with its state kept
            nonlocal state
            output_FBD, state = self.lstm(hidden_DF.T[:, None], state)
            return output_FBD[:, 0].T + hidden_DF

        def after(heard_DF: Tensor) -> Tensor:
            latent_BDF, kbps = self.after(heard_DF[None]), self.format.slots * KBPS_A_SLOT
            return self.quantiser.encode(latent_BDF, kbps)[:, 0]

        blocks = self.block_frames, self.contexts[:2]
        codes_SF = _blocks.in_blocks_causal(before, carry, after, frames, *blocks, inner=1, outer=1)
        return codes_SF.T.contiguous().cpu()

    @torch.inference_mode()
    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        check_codes(codes_FS, self.format)
        grid = HOP, self.block_frames, self.contexts[2]
        return _blocks.in_blocks_decode(self._wave, codes_FS, *grid)[:, :samples]

    def codebooks(self) -> list[Tensor]:
        return [book_CD.clone().cpu() for book_CD in self.books_SCD]

    def _wave(self, codes_FS: Tensor) -> Tensor:
        slots_S = torch.arange(self.format.slots, device=self.device)
        embedded_FSD = self.books_SCD[slots_S, codes_FS.to(self.device, torch.int64)]
        return self._sound(embedded_FSD.sum(1).T[None]).cpu()

    def _sound(self, features_BDF: Tensor) -> Tensor:
        bandwidth_id = torch.tensor([self.rate], device=self.device)
        return self.vocos["head"](self.vocos["backbone"](features_BDF, bandwidth_id=bandwidth_id))


def _config(path: Path) -> tuple[dict[str, dict[str, Any]], list[float]]:
    """(arguments of every part, bandwidths in kb/s) of a published config.yaml."""
    with _weights.as_configured(path):
        config = data(path.read_text("utf-8"), str(path))
        parts = {}
        for name, known in CLASSES.items():
            if (given := config[name]["class_path"]) != known:
                raise CodecError(f"{path}: {name} is {given}; this kind has {known} alone")
            parts[name] = dict(config[name].get("init_args") or {})
        extractor, head = parts["feature_extractor"], parts["head"]
        if extractor.get("encodec_model", PUBLISHED) != PUBLISHED or head["hop_length"] != HOP:
            raise CodecError(f"{path}: is not for {PUBLISHED}; other EnCodecs are not spoken here")
        return parts, [float(rate) for rate in extractor.get("bandwidths", [1.5, 3.0, 6.0, 12.0])]


def _encoder(path: Path) -> tuple[nn.ModuleDict, dict[str, object]]:
    """(EnCodec's encoder and quantiser, the configuration) of a folder or checkpoint."""
    if path.is_dir():
        config = read_pretrained_config(EncodecConfig, path / "config.json", "encodec")
        weights = path / "model.safetensors"
        state = _weights.read_tensors(weights)
    else:
        config = EncodecConfig()  # what the package's checkpoint is
        weights, promised = path, re.fullmatch(r".*-([0-9a-f]{8,64})", path.stem)
        if promised and not sha256_file(path).startswith(promised[1]):
            raise CodecError(f"{path}: is not what the hash in its name says; fetch it again")
        state = _weights.checked(_weights.read_checkpoint(path), path)
    with _weights.as_configured(path):
        values = config.to_dict()
        for name, wanted in FIXED.items():
            value = math.prod(config.upsampling_ratios) if name == "hop" else values[name]
            if value != wanted:
                raise CodecError(f"{path}: {name} is {value}, in {PUBLISHED} {wanted}; use that")
        model = EncodecModel(config)
    encoder = nn.ModuleDict({"encoder": model.encoder, "quantizer": model.quantizer})
    used = {_named(name): value for name, value in state.items() if name.startswith(USED)}
    _weights.fill(encoder, used, weights)
    sizes = {name: values[name] for name in EncodecConfig.__annotations__ if name in values}
    return encoder.eval(), sizes


def _named(name: str) -> str:
    """A weight's name as transformers has it."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name
