"""A small codec of every kind, with random weights, written in the file layout that its models are
published in.

MAKERS    kind -> functions that fill a folder and give what was made
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

Codes = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Made:
    """settings; the package's own wave_CW -> codes_FS and codes_FS -> wave_CW on the same weights
    (None: it is ours alone); a configuration file with a change (path of a key, value) that leaves
    the weights fitting.
    """

    settings: Any
    encode: Codes | None
    decode: Codes | None
    change: tuple[str, tuple[str, ...], Any] | None


def noise(seconds: float, rate: int, seed: int = 0) -> Tensor:
    """wave_CW of coloured noise: something else in every frame."""
    wave_W = torch.randn(int(seconds * rate), generator=torch.Generator().manual_seed(seed))
    return (0.1 * wave_W * (1 + torch.sin(torch.arange(len(wave_W)) / 97)))[None]


def spread(books: list[Tensor], latent_FD: Tensor) -> None:
    """Fill residual codebooks so that the latents of some sound fall on many codes."""
    mean_D, scale_D = latent_FD.mean(0), latent_FD.std(0) + 1e-6
    for number, book_CD in enumerate(books):
        drawn_CD = torch.randn(book_CD.shape) * scale_D / 2**number
        book_CD.data.copy_(drawn_CD + mean_D if number == 0 else drawn_CD)


def embedded_sourced(folder: Path) -> Made:
    """With a harmonic source, whose pitch jumps about."""
    return embedded(folder, source=True)


def embedded(folder: Path, **more: Any) -> Made:
    from distill.codecs import embedded as kind
    from distill.codecs._network import CodecNetwork, NetworkSettings

    sizes = NetworkSettings(
        codes=32,
        latent_width=8,
        encoder_widths=(24, 32),
        decoder_width=32,
        decoder_blocks=2,
        **more,
    )
    network = CodecNetwork(sizes)
    with torch.no_grad():
        spread(
            list(network.quantiser.codebooks_SCD), network.latent(noise(0.64, sizes.sample_rate))[0]
        )
    kind.save_codec(network, folder)
    return Made(kind.Settings(str(folder), slots=2), None, None, None)


def small_dac(rates: list[int]) -> Any:
    from distill.codecs.dac import dac

    return dac.DAC(
        encoder_dim=4,
        encoder_rates=rates,
        latent_dim=16,
        decoder_dim=8 * 2 ** (len(rates) - 1),
        decoder_rates=rates[::-1],
        n_codebooks=3,
        codebook_size=32,
        codebook_dim=4,
        sample_rate=16000,
    ).eval()


def _of_dac(
    model: Any, path: Path, slots: int, change: tuple[str, tuple[str, ...], Any] | None
) -> Made:
    from distill.codecs import dac as kind

    return Made(
        kind.Settings(str(path), slots),
        lambda wave_CW: model.encode(model.preprocess(wave_CW[None], 16000), slots)[1][0].T,
        lambda codes_FS: model.decode(model.quantizer.from_codes(codes_FS.T[None])[0])[0],
        change,
    )


def dac_folder(folder: Path) -> Made:
    from distill.codecs import dac as kind

    model = small_dac([2, 4, 4])
    kind.export(model, folder)
    return _of_dac(model, folder, 3, ("config.json", ("sample_rate",), 22050))


def dac_checkpoint(folder: Path) -> Made:
    """The package's own .pth, and strides that are odd, as those of its 16 and 24 kHz models."""
    model = small_dac([3, 2, 5])
    model.save(folder / "weights.pth", package=False)
    return _of_dac(model, folder / "weights.pth", 2, None)


def small_encodec() -> Any:
    """The package's classes with less width; 24 kHz, hop 320, 32 x 1,024 codes as published."""
    from encodec import EncodecModel
    from encodec.modules import SEANetDecoder, SEANetEncoder
    from encodec.quantization import ResidualVectorQuantizer

    sizes: dict[str, Any] = dict(
        channels=1, dimension=8, n_filters=2, norm="weight_norm", causal=True, lstm=2
    )
    quantiser = ResidualVectorQuantizer(dimension=8, n_q=32, bins=1024)
    rates = [1.5, 3.0, 6.0, 12.0, 24.0]
    return EncodecModel(
        SEANetEncoder(**sizes), SEANetDecoder(**sizes), quantiser, rates, 24000, 1
    ).eval()


def write_transformers_encodec(folder: Path, model: Any, **sizes: int) -> None:
    """The package's encoder and quantiser in the layout of transformers' facebook/encodec_24khz."""
    from transformers import EncodecConfig, EncodecModel

    theirs = model.state_dict()
    other = EncodecModel(EncodecConfig(**sizes))
    with torch.no_grad():
        for name, value in other.state_dict().items():
            value.copy_(theirs[_of_the_package(name)])
    other.save_pretrained(folder)


def _of_the_package(name: str) -> str:
    """As transformers' own conversion script pairs them."""
    part, number, rest = name.removeprefix("quantizer.").split(".", 2)
    if name.startswith("quantizer."):
        return f"quantizer.vq.layers.{number}.{rest.replace('codebook', '_codebook', 1)}"
    number, rest = rest.split(".", 1)
    layer = (
        "convtr.convtr" if part == "decoder" and number in {"3", "6", "9", "12"} else "conv.conv"
    )
    weight = rest.replace("parametrizations.weight.original0", "weight_g")
    weight = weight.replace("parametrizations.weight.original1", "weight_v")
    return f"{part}.model.{number}.{weight}".replace(".conv.", f".{layer}.")


def write_encodec(folder: Path, model: Any, width: int) -> Any:
    """Codebooks for EnCodec, and the published Vocos for it, as on disk; gives the Vocos."""
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone
    from vocos.pretrained import Vocos

    layers = model.quantizer.vq.layers
    with torch.no_grad():
        spread(
            [layer._codebook.embed for layer in layers], model.encoder(noise(0.4, 24000)[None])[0].T
        )
    for layer in layers:
        layer._codebook.inited.fill_(1)
    sizes: dict[str, Any] = {
        "input_channels": width,
        "dim": 16,
        "intermediate_dim": 32,
        "num_layers": 2,
        "adanorm_num_embeddings": 4,
    }
    head: dict[str, Any] = {"dim": 16, "n_fft": 1280, "hop_length": 320, "padding": "same"}
    extractor = {"encodec_model": "encodec_24khz", "bandwidths": [1.5, 3.0, 6.0, 12.0]}
    config = {
        "feature_extractor": {
            "class_path": "vocos.feature_extractors.EncodecFeatures",
            "init_args": extractor,
        },
        "backbone": {"class_path": "vocos.models.VocosBackbone", "init_args": sizes},
        "head": {"class_path": "vocos.heads.ISTFTHead", "init_args": head},
    }
    features = nn.Module()
    books_CD = torch.cat([layer.codebook for layer in layers[:16]])
    features.register_parameter("codebook_weights", nn.Parameter(books_CD, requires_grad=False))
    vocos = Vocos(features, VocosBackbone(**sizes), ISTFTHead(**head)).eval()
    for name, value in vocos.backbone.named_parameters():
        if "norm" in name:  # another scale and shift for each bandwidth
            value.data.add_(0.3 * torch.randn(value.shape))
    torch.save(vocos.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return vocos


def encodec(folder: Path, bandwidth: float = 3.0) -> Made:
    from distill.codecs import encodec as kind

    model = small_encodec()
    vocos = write_encodec(folder, model, 8)
    write_transformers_encodec(folder, model, hidden_size=8, num_filters=2)
    settings = kind.Settings(str(folder), str(folder), bandwidth)
    change = ("config.json", ("pad_mode",), "constant")
    return Made(settings, *theirs_of_encodec(model, vocos, bandwidth), change)


def theirs_of_encodec(model: Any, vocos: Any, bandwidth: float) -> tuple[Codes, Codes]:
    """EncodecModel.encode; Vocos.codes_to_features (whose class wants a download) and decode."""

    def encode(wave_CW: Tensor) -> Tensor:
        model.set_target_bandwidth(bandwidth)
        return model.encode(wave_CW[None])[0][0][0].T

    def decode(codes_FS: Tensor) -> Tensor:
        offset_S = torch.arange(codes_FS.shape[1]) * 1024
        features_FD = vocos.feature_extractor.codebook_weights[codes_FS + offset_S].sum(1)
        rate = torch.tensor([[1.5, 3.0, 6.0, 12.0].index(bandwidth)])
        return vocos.decode(features_FD.T[None], bandwidth_id=rate)

    return encode, decode


def mimi(folder: Path) -> Made:
    from transformers import MimiConfig, MimiModel

    from distill.codecs import mimi as kind

    config = MimiConfig(
        hidden_size=16,
        num_filters=4,
        upsampling_ratios=[4, 3],
        codebook_size=32,
        codebook_dim=8,
        num_quantizers=4,
        vector_quantization_hidden_dimension=8,
        upsample_groups=16,
        num_hidden_layers=2,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=5,
        layer_scale_initial_scale=1.0,
        frame_rate=24000 / 24,
    )
    model = MimiModel(config).eval()
    parts = (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    )
    with torch.no_grad():
        latents_BDF = model.encoder(noise(0.05, 24000)[None]).latents
        for part in parts:
            books = [layer.codebook.embed_sum for layer in part.layers]
            spread(books, part.input_proj(latents_BDF)[0].T)
    model.save_pretrained(folder)
    return Made(
        kind.Settings(str(folder), slots=3),
        lambda wave_CW: model.encode(wave_CW[None], num_quantizers=3).audio_codes[0].T,
        lambda codes_FS: model.decode(codes_FS.T[None]).audio_values[0],
        ("config.json", ("norm_eps",), 1e-3),
    )


def xcodec(folder: Path) -> Made:
    from transformers import XcodecConfig, XcodecModel

    from distill.codecs import xcodec as kind

    hubert = {
        "model_type": "hubert",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": [8] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    }
    acoustic = {
        "model_type": "dac",
        "encoder_hidden_size": 4,
        "downsampling_ratios": [8, 5, 4, 2],
        "decoder_hidden_size": 32,
        "upsampling_ratios": [8, 5, 4, 2],
        "hidden_size": 8,
    }
    config = XcodecConfig(
        target_bandwidths=[0.25, 0.5, 1.0],
        codebook_size=32,
        acoustic_model_config=acoustic,
        semantic_model_config=hubert,
    )
    model = XcodecModel(config).eval()
    for layer in model.quantizer.quantizers:
        layer.codebook.embed.normal_()
    model.save_pretrained(folder)
    return Made(
        kind.Settings(str(folder), slots=4),
        lambda wave_CW: model.encode(wave_CW[None]).audio_codes[0].T,
        lambda codes_FS: model.decode(codes_FS.T[None]).audio_values[0],
        ("config.json", ("initializer_range",), 0.03),
    )


def _of_snac(folder: Path, window: int | None, noisy: bool) -> Made:
    from snac import SNAC

    from distill.codecs import snac as kind

    config: dict[str, Any] = {
        "sampling_rate": 24000,
        "encoder_dim": 8,
        "encoder_rates": [2, 3],
        "decoder_dim": 64,
        "decoder_rates": [3, 2],
        "attn_window_size": window,
        "codebook_size": 32,
        "codebook_dim": 4,
        "vq_strides": [4, 2, 1],
        "noise": noisy,
        "depthwise": True,
    }
    if window:
        config.update(encoder_dim=16)
    model = SNAC(**config).eval()
    with torch.no_grad():  # what the levels see, about nought, so that it falls on many codes
        residual_BDT = model.encoder(noise(0.08, 24000)[None])[..., :160]
        for level in model.quantizer.quantizers:
            pooled_BDT = torch.nn.functional.avg_pool1d(residual_BDT, level.stride)
            level.in_proj.bias.sub_(level.in_proj(pooled_BDT).mean((0, 2)))
            residual_BDT = residual_BDT - level(residual_BDT)[0]
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")

    def encode(wave_CW: Tensor) -> Tensor:
        frames = -(-wave_CW.shape[1] // 24)
        levels = model.encode(wave_CW[None])
        return torch.cat(
            [c[0].reshape(-1, w)[:frames] for c, w in zip(levels, (1, 2, 4), strict=True)], 1
        )

    def decode(codes_FS: Tensor) -> Tensor:
        whole_FS = codes_FS if len(codes_FS) % 2 == 0 else torch.cat([codes_FS, codes_FS[-1:]])
        levels = [codes.reshape(1, -1) for codes in whole_FS.split([1, 2, 4], 1)]
        return model.decode(levels)[0, :, : len(codes_FS) * 24]

    change = ("config.json", ("sampling_rate",), 22050)
    return Made(kind.Settings(str(folder)), encode, None if noisy else decode, change)


def snac_windowed(folder: Path) -> Made:
    """With attention, in windows of two frames, as the 32 and 44.1 kHz models; no noise."""
    return _of_snac(folder, 8, noisy=False)


def snac_noisy(folder: Path) -> Made:
    """As the 24 kHz model: no attention; noise in the decoder, the package's by chance alone."""
    return _of_snac(folder, None, noisy=True)


MAKERS: dict[str, tuple[Callable[[Path], Made], ...]] = {
    "dac": (dac_folder, dac_checkpoint),
    "embedded": (embedded, embedded_sourced),
    "encodec": (encodec,),
    "mimi": (mimi,),
    "snac": (snac_windowed, snac_noisy),
    "tracks": (),  # another codec several times over: tests/test_tracks.py
    "xcodec": (xcodec,),
}


def read_config(path: Path) -> dict[str, Any]:
    text = path.read_text()
    return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)


def write_config(file: Path, path: tuple[str, ...], value: Any) -> None:
    """Give one key of a JSON or YAML configuration another value."""
    holder = config = read_config(file)
    for name in path[:-1]:
        holder = holder[name]
    assert holder[path[-1]] != value
    holder[path[-1]] = value
    file.write_text(yaml.safe_dump(config) if file.suffix == ".yaml" else json.dumps(config))


def keys(config: dict[str, Any]) -> list[tuple[str, ...]]:
    """The path of every key, at whatever depth it stands."""
    inner = [
        (name, *path)
        for name, value in config.items()
        if isinstance(value, dict)
        for path in keys(value)
    ]
    return [(name,) for name in config] + inner
