"""What each codec takes from its publisher, and refuses by name (the laws of all: laws/)."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny_codecs
import torch
import yaml
from tiny_codecs import noise, small_dac

from distill.codecs import dac, encodec, mimi, snac, xcodec
from distill.errors import CodecError


@pytest.mark.parametrize("kind", ["dac", "embedded", "encodec", "mimi", "snac", "xcodec"])
@pytest.mark.filterwarnings("error")
def test_a_codec_is_opened_and_used_without_a_warning(tmp_path: Path, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages themselves, while they write
        made = tiny_codecs.MAKERS[kind][0](tmp_path)
    codec = made.settings.load()
    codec.decode(codec.encode(noise(0.05, codec.format.sample_rate)))


# --- DAC ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [[2, 4, 5, 8], [3, 5], [7], [2, 3, 3]])
def test_dac_keeps_every_length_at_every_stride(tmp_path: Path, rates: list[int]) -> None:
    torch.manual_seed(0)
    dac.export(small_dac(rates), tmp_path)
    codec = dac.Settings(str(tmp_path)).load()
    for samples in (1, codec.hop - 1, codec.hop, codec.hop + 1, 7 * codec.hop + 3):
        codes_FS = codec.encode(noise(1, samples))
        assert len(codes_FS) == -(-samples // codec.hop)
        assert codec.decode(codes_FS, samples).shape == (1, samples)


def test_dac_reads_its_folder_and_its_checkpoint_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = small_dac([2, 4])
    dac.export(model, tmp_path / "folder")
    model.save(tmp_path / "weights.pth", package=False)
    of_folder = dac.Settings(str(tmp_path / "folder")).load()
    other = dac.Settings(str(tmp_path / "weights.pth")).load()
    assert of_folder.format == other.format and of_folder.fingerprint == other.fingerprint
    whole_FS = of_folder.encode(noise(1, 800))
    for slots in (1, 2, 3):  # at any number of codebooks, the first ones
        fewer = dac.Settings(str(tmp_path / "weights.pth"), slots).load()
        assert torch.equal(fewer.encode(noise(1, 800)), whole_FS[:, :slots])
    with pytest.raises(CodecError, match="1 to 3"):
        dac.Settings(str(tmp_path / "folder"), slots=4).load()


@pytest.mark.filterwarnings("ignore:TypedStorage")  # of PyTorch, about its own packages
def test_dac_does_not_run_a_packaged_model(tmp_path: Path) -> None:
    with torch.package.PackageExporter(tmp_path / "package.pth") as package:
        package.save_source_string("mischief", "raise SystemExit('ran')")
        package.save_pickle("DAC", "DAC.pth", {"a": torch.zeros(2)})
    with pytest.raises(CodecError, match=r"code of its own .*mischief"):
        dac.Settings(str(tmp_path / "package.pth")).load()


def test_dac_fetches_a_published_model_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = dac.Settings("44khz", slots=9).format
    assert (published.sample_rate, published.slot_sizes) == (44100, (1024,) * 9)
    assert published.frame_rate == pytest.approx(86.13, abs=0.01)
    assert dac.Settings("16khz").format.frame_rate == 50
    assert dac.Settings("24khz").format.slots == 32
    model = small_dac([2, 4])
    model.save(tmp_path / "weights.pth", package=False)
    asked: list[dict[str, str]] = []

    def download(**how: str) -> Path:
        asked.append(how)
        return tmp_path / "weights.pth"

    monkeypatch.setattr(dac.dac.utils, "download", download)
    with pytest.raises(CodecError, match="is not the model 44khz-16kbps"):
        dac.Settings("44khz-16kbps").load()
    assert asked == [{"model_type": "44khz", "model_bitrate": "16kbps"}]
    small = {"sample_rate": 16000, "encoder_rates": [2, 4], "n_codebooks": 3, "codebook_size": 32}
    monkeypatch.setitem(dac.PUBLISHED, "16khz", small)
    assert dac.Settings("16khz").load().format == dac.Settings(str(tmp_path / "weights.pth")).format

    def fail(**_: str) -> Path:
        raise ConnectionError("no network")

    monkeypatch.setattr(dac.dac.utils, "download", fail)
    with pytest.raises(CodecError, match="no network"):
        dac.Settings("16khz").load()


def test_dac_refuses_what_is_no_dac(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "weights.pth")
    with pytest.raises(CodecError, match="metadata"):
        dac.Settings(str(tmp_path / "weights.pth")).load()
    dac.export(small_dac([2, 4]), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, complaint in (
        ({"encoder_rates": [2, 8]}, "its configuration says"),
        ({"n_codebooks": 5}, "is missing"),
        ({"encoder_rates": "fast"}, "not this codec's configuration"),
        ({"speed": 3}, "speed"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CodecError, match=complaint):
            dac.Settings(str(tmp_path)).load()


# --- EnCodec and Vocos ----------------------------------------------------------------------------


def test_encodec_at_its_published_size_is_the_packages(tmp_path: Path) -> None:
    """As its package's checkpoint and as transformers publishes it: the same codec."""
    from encodec import EncodecModel

    torch.manual_seed(0)
    model = EncodecModel.encodec_model_24khz(pretrained=False)
    vocos = tiny_codecs.write_encodec(tmp_path, model, 128)
    tiny_codecs.write_transformers_encodec(tmp_path, model)
    torch.save(model.state_dict(), tmp_path / "encodec.th")
    promised = hashlib.sha256((tmp_path / "encodec.th").read_bytes()).hexdigest()[:8]
    (tmp_path / "encodec.th").rename(tmp_path / f"encodec_24khz-{promised}.th")
    wave_CW = noise(0.4, 24000)
    codec = encodec.Settings(str(tmp_path), str(tmp_path), 12.0).load()
    other = encodec.Settings(
        str(tmp_path), str(tmp_path / f"encodec_24khz-{promised}.th"), 12.0
    ).load()
    encode, decode = tiny_codecs.theirs_of_encodec(model, vocos, 12.0)
    with torch.inference_mode():
        theirs_FS = encode(wave_CW)
        assert torch.equal(codec.encode(wave_CW), theirs_FS) and theirs_FS.shape == (30, 16)
        assert torch.equal(other.encode(wave_CW), theirs_FS)
        assert other.fingerprint == codec.fingerprint
        torch.testing.assert_close(codec.decode(theirs_FS), decode(theirs_FS))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tiny_codecs.encodec(tmp_path)
    return tmp_path


def test_encodec_speaks_every_bandwidth_of_its_vocos(small: Path) -> None:
    wave_CW, sounds = noise(0.2, 24000), []
    whole_FS = encodec.Settings(str(small), str(small), 12.0).load().encode(wave_CW)
    for bandwidth, slots in ((1.5, 2), (3.0, 4), (6.0, 8), (12.0, 16)):
        codec = encodec.Settings(str(small), str(small), bandwidth).load()
        assert codec.format.slot_sizes == (1024,) * slots and codec.format.frame_rate == 75
        assert torch.equal(codec.encode(wave_CW), whole_FS[:, :slots])
        sounds.append(codec.decode(whole_FS[:, :slots]))
        # what is left is the bandwidth's own norm
        codec.books_SCD = torch.zeros_like(codec.books_SCD)
        sounds[-1] = codec.decode(whole_FS[:, :slots])
    assert all(not torch.allclose(sounds[0], other) for other in sounds[1:])
    with pytest.raises(CodecError, match=r"24 kb/s; this one has 1.5, 3, 6, 12"):
        _ = encodec.Settings(str(small), bandwidth=24.0).format


def test_encodec_never_builds_a_class_that_a_download_names(small: Path) -> None:
    config = yaml.safe_load((small / "config.yaml").read_text())
    (small / "mischief.py").write_text("raise SystemExit('ran')")
    sys.path.insert(0, str(small))
    try:
        for part in ("feature_extractor", "backbone", "head"):
            other = {**config, part: {"class_path": "mischief.Class", "init_args": {}}}
            (small / "config.yaml").write_text(yaml.safe_dump(other))
            with pytest.raises(CodecError, match=rf"{part} is mischief.Class"):
                encodec.Settings(str(small), str(small)).load()
    finally:
        sys.path.remove(str(small))
    assert "mischief" not in sys.modules
    for text, complaint in (
        ("a: !!python/object:os.system []", "tag"),
        ("", "empty"),
        ("head: 3", "KeyError"),
    ):
        (small / "config.yaml").write_text(text)
        with pytest.raises(CodecError, match=complaint):
            encodec.Settings(str(small)).load()


def test_encodec_checks_the_hash_in_a_checkpoints_name(small: Path) -> None:
    torch.save(
        {"encoder.model.0.conv.conv.bias": torch.zeros(2)}, small / "encodec_24khz-00000000.th"
    )
    with pytest.raises(CodecError, match="hash in its name"):
        encodec.Settings(str(small), str(small / "encodec_24khz-00000000.th")).load()
    for name in ("mine.th", "my-own.th"):  # what promises nothing
        shutil.copy(small / "encodec_24khz-00000000.th", small / name)
        with pytest.raises(CodecError, match=rf"{name}: encoder.layers.0.conv.* is "):
            encodec.Settings(str(small), str(small / name)).load()


def test_encodec_reads_the_names_of_older_transformers(small: Path) -> None:
    codec = encodec.Settings(str(small), str(small)).load()
    weights = safetensors.torch.load_file(small / "model.safetensors")
    for number, old in enumerate(("weight_g", "weight_v")):
        new = f"parametrizations.weight.original{number}"
        weights = {name.replace(new, old): value for name, value in weights.items()}
    safetensors.torch.save_file(weights, small / "model.safetensors", metadata={"format": "pt"})
    assert any(name.endswith("conv.weight_g") for name in weights)
    assert encodec.Settings(str(small), str(small)).load().fingerprint == codec.fingerprint


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sampling_rate": 48000}, "sampling_rate is 48000, in encodec_24khz 24000"),
        ({"normalize": True}, "normalize is True"),
        ({"use_causal_conv": False}, "use_causal_conv is False"),
        ({"norm_type": "time_group_norm"}, "norm_type is time_group_norm"),
        ({"upsampling_ratios": [8, 5, 4, 4]}, "hop is 640, in encodec_24khz 320"),
        ({"model_type": "mimi"}, "is a mimi, not a encodec"),
    ],
)
def test_encodec_refuses_another_encodec(
    small: Path, change: dict[str, Any], complaint: str
) -> None:
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CodecError, match=complaint):
        encodec.Settings(str(small), str(small)).load()


# --- transformers' layout -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [mimi, xcodec], ids=["mimi", "xcodec"])
def test_a_pretrained_folder_runs_no_code_and_lacks_nothing(tmp_path: Path, kind: Any) -> None:
    name = kind.__name__.rpartition(".")[2]
    made = tiny_codecs.MAKERS[name][0](tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, complaint in (
        ({"auto_map": {"AutoModel": "mischief.Model"}}, "code to run"),
        ({"deep": {"auto_map": {}}}, "code to run"),
        ({"model_type": "bert"}, "is a bert"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CodecError, match=complaint):
            made.settings.load()
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    lost = sorted(weights)[0]
    del weights[lost]
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CodecError, match="is missing"):
        made.settings.load()
    with pytest.raises(CodecError, match="1 to 4"):
        _ = kind.Settings(str(tmp_path), slots=5).format


def test_mimi_has_the_sizes_published() -> None:
    from transformers import MimiConfig

    published = MimiConfig()
    assert published.sampling_rate / 1920 == 12.5 == published.frame_rate
    assert (published.num_quantizers, published.codebook_size) == (32, 2048)


# --- SNAC -----------------------------------------------------------------------------------------


def test_snac_lays_its_levels_out_in_a_frame(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = tiny_codecs.snac_noisy(tmp_path)
    codec = made.settings.load()
    assert codec.format.slots == 7 and codec.format.frame_rate == 24000 / 24
    levels = codec.model.encode(noise(0.01, 24000)[None])
    codes_FS = codec.encode(noise(0.01, 24000))
    assert torch.equal(codes_FS[:, 0], levels[0][0])
    assert torch.equal(codes_FS[:, 1:3].reshape(-1), levels[1][0])
    assert torch.equal(codes_FS[:, 3:].reshape(-1), levels[2][0])


def test_snac_draws_other_noise_in_every_layer_and_frame(tmp_path: Path) -> None:
    codec = tiny_codecs.snac_noisy(tmp_path).settings.load()
    layers = [part for part in codec.model.modules() if isinstance(part, snac._SteadyNoise)]
    codec.numbers[:] = [7, 8]
    drawn_NT = torch.cat([layer.noise(8000).reshape(2, 4000) for layer in layers])
    assert len(layers) >= 2 and torch.equal(layers[0].noise(8000), layers[0].noise(8000))
    assert float((drawn_NT.corrcoef() - torch.eye(2 * len(layers))).abs().max()) < 0.1


def test_snac_says_which_package_it_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny_codecs.snac_noisy(tmp_path)
    monkeypatch.setitem(sys.modules, "snac", None)
    assert made.settings.format.slots == 7
    with pytest.raises(CodecError, match="pip install snac"):
        snac.Settings(str(tmp_path)).load()
