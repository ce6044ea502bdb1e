"""Laws of every codec in distill/codecs/, each with small random weights in its published files."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny_codecs
import torch
from tiny_codecs import MAKERS, Made, noise
from torch import Tensor

from distill.config.settings import kinds
from distill.errors import CodecError
from distill.runtime.devices import full_float32

EVERY = [(kind, maker) for kind in kinds("codecs") for maker in MAKERS.get(kind, ())]
# encoders that hear all they are given: segments of a fixed grid are their meaning
WINDOWED = {"xcodec"}
TIMES = 1e-5  # what rounding may do to a sample, against the loudest


def test_every_kind_is_made() -> None:
    assert set(kinds("codecs")) == set(MAKERS), (
        "a new codec: write a small one in its files (tiny_codecs.py)"
    )


@pytest.fixture(scope="module", autouse=True)
def uncompiled() -> Iterator[None]:
    """DAC's scripted activation is compiled anew for every length."""
    with torch.jit.optimized_execution(False):
        yield


@pytest.fixture(scope="module", params=EVERY, ids=[maker.__name__ for _, maker in EVERY])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Made, Any]:
    """(kind, what was made, the codec opened)."""
    kind, maker = request.param
    torch.manual_seed(0)
    it = maker(tmp_path_factory.mktemp(kind))
    return kind, it, it.settings.load()


@pytest.fixture
def codec(made: tuple[str, Made, Any]) -> Iterator[Any]:
    kept = dict(vars(made[2]))
    yield made[2]
    vars(made[2]).clear()
    vars(made[2]).update(kept)


def hop(codec: Any) -> int:
    return round(codec.format.sample_rate / codec.format.frame_rate)


def wave(codec: Any, frames: int = 20, seed: int = 0) -> Tensor:
    return noise(1, hop(codec) * frames, seed)


def files(made: Made) -> tuple[Path, list[Path]]:
    """The folder of what was made, and the files in it that hold weights."""
    path = Path(made.settings.path)
    folder = path if path.is_dir() else path.parent
    return folder, [
        p for p in sorted(folder.iterdir()) if p.suffix in {".safetensors", ".bin", ".pth", ".th"}
    ]


def copy(made: Made, to: Path) -> Made:
    folder, _ = files(made)
    shutil.copytree(folder, to)
    moved = {
        name: value.replace(str(folder), str(to))
        for name, value in vars(made.settings).items()
        if isinstance(value, str)
    }
    return replace(made, settings=replace(made.settings, **moved))


# --- codes and samples ----------------------------------------------------------------------------


def test_codes_differ_from_frame_to_frame(codec: Any) -> None:
    """What all other laws need to say anything."""
    codes_FS = codec.encode(wave(codec))
    slots = range(codec.format.slots)
    assert all(len(codes_FS[:, slot].unique()) >= 3 for slot in slots), codes_FS.T


def test_frames_and_lengths_are_those_promised(codec: Any) -> None:
    size, whole_CW = hop(codec), wave(codec, 9)
    for samples in (
        1,
        2,
        3,
        size - 1,
        size,
        size + 1,
        2 * size - 1,
        5 * size,
        8 * size + size // 3,
    ):
        codes_FS = codec.encode(whole_CW[:, :samples])
        assert codes_FS.shape == (-(-samples // size), codec.format.slots)
        assert codes_FS.dtype == torch.int64
        assert all(
            int(slot_F.min()) >= 0 and int(slot_F.max()) < codes
            for slot_F, codes in zip(codes_FS.T, codec.format.slot_sizes, strict=True)
        )
        made_CW = codec.decode(codes_FS)
        assert made_CW.shape == (codec.format.channels, len(codes_FS) * size)
        assert made_CW.dtype == torch.float32 and bool(torch.isfinite(made_CW).all())
        assert torch.equal(codec.decode(codes_FS, samples), made_CW[:, :samples])
        assert codec.decode(codes_FS, samples).shape[1] == samples


def test_the_last_frame_is_filled_up_with_silence(codec: Any) -> None:
    size, given_CW = hop(codec), wave(codec, 6)[:, : 5 * hop(codec) + 1]
    filled_CW = torch.nn.functional.pad(given_CW, (0, size - 1))
    assert torch.equal(codec.encode(given_CW), codec.encode(filled_CW))


def test_the_same_comes_out_again(codec: Any) -> None:
    given_CW = wave(codec)
    codes_FS = codec.encode(given_CW)
    codec.encode(wave(codec, 5, seed=1))  # nothing of another song is left behind
    codec.decode(codes_FS[:3])
    assert torch.equal(codes_FS, codec.encode(given_CW.clone()))
    inside_CW = torch.cat([torch.ones(1, 7), given_CW, torch.ones(1, 7)], 1)[:, 7:-7]
    assert torch.equal(codes_FS, codec.encode(inside_CW))  # wherever it lies in memory
    assert torch.equal(codec.decode(codes_FS), codec.decode(codes_FS.clone().to(torch.int32)))


def test_an_encoding_process_gets_the_same_codec(codec: Any) -> None:
    sent = pickle.loads(pickle.dumps(codec))
    codes_FS = codec.encode(wave(codec))
    assert torch.equal(sent.encode(wave(codec)), codes_FS)
    assert torch.equal(sent.decode(codes_FS), codec.decode(codes_FS))


def test_blocks_give_what_the_whole_gives(made: tuple[str, Made, Any], codec: Any) -> None:
    if not hasattr(codec, "block_frames"):
        pytest.skip("works on whole songs")
    given_CW = wave(codec, 64)
    codes_FS = codec.encode(given_CW)
    made_CW = codec.decode(codes_FS)
    for frames in (8, 24):
        codec.block_frames = frames
        if made[0] not in WINDOWED:  # one in a thousand codes may be a tie that rounding decides
            assert float((codec.encode(given_CW) == codes_FS).float().mean()) >= 0.999
        apart = float((codec.decode(codes_FS) - made_CW).abs().max())
        assert apart <= TIMES * float(made_CW.abs().max())


def test_many_waves_give_the_codes_of_each(codec: Any) -> None:
    if not hasattr(codec, "encode_many"):
        pytest.skip("encodes one by one")
    codec.block_frames = 8
    waves = [
        wave(codec, 40, seed)[:, : 40 * hop(codec) - cut] for seed, cut in ((0, 0), (1, 7), (2, 0))
    ]
    waves.append(wave(codec, 3, seed=3))
    alone = [codec.encode(wave_CW) for wave_CW in waves]
    for codes_FS, many_FS in zip(alone, codec.encode_many(waves), strict=True):
        assert torch.equal(many_FS, codes_FS)
    codec.together = 5  # as on a GPU: a matrix product of other shape may round a tie the other way
    same = [
        many_FS == codes_FS
        for codes_FS, many_FS in zip(alone, codec.encode_many(waves), strict=True)
    ]
    assert float(torch.cat(same).float().mean()) >= 0.999


def test_what_is_far_away_changes_nothing_before_it(codec: Any) -> None:
    """How a song's end was cut, or what another segment holds, is not heard in frames before."""
    if not hasattr(codec, "block_frames"):
        pytest.skip("works on whole songs")
    codec.block_frames = 8
    if "encoder_context" in vars(codec):
        codec.encoder_context = min(codec.encoder_context, 16)
    first_CW, other_CW = wave(codec, 64), wave(codec, 64, seed=1)
    first_CW[:, 48 * hop(codec) :] = other_CW[:, 48 * hop(codec) :]
    assert torch.equal(codec.encode(first_CW)[:24], codec.encode(wave(codec, 64))[:24])
    assert torch.equal(
        codec.encode(first_CW[:, : 48 * hop(codec)])[:24], codec.encode(first_CW)[:24]
    )


def test_memory_does_not_grow_with_the_song(codec: Any) -> None:
    """The largest thing that any layer is given is the same for 12 and for 24 blocks."""
    if not hasattr(codec, "block_frames"):
        pytest.skip("works on whole songs")
    codec.block_frames = 8
    if "encoder_context" in vars(codec):
        codec.encoder_context = min(codec.encoder_context, 16)
    codec.decode(codec.encode(wave(codec, 9)))  # looks up how far it hears, once

    def largest(frames: int) -> int:
        seen: list[int] = []

        def look(_: Any, inputs: tuple[Any, ...]) -> None:
            seen.extend(value.numel() for value in inputs if isinstance(value, Tensor))

        handle = torch.nn.modules.module.register_module_forward_pre_hook(look)
        try:
            codec.decode(codec.encode(wave(codec, frames)))
        finally:
            handle.remove()
        return max(seen)

    assert largest(96) == largest(192)


def test_the_codes_are_those_of_its_package(made: tuple[str, Made, Any], codec: Any) -> None:
    kind, it, _ = made
    if it.encode is None:
        pytest.skip(f"{kind} has no package of its own")
    for frames in (1, 6, 40):
        with torch.inference_mode():
            theirs_FS = it.encode(wave(codec, frames))
        assert torch.equal(codec.encode(wave(codec, frames)), theirs_FS)
        if it.decode is None:
            continue
        with torch.inference_mode():
            sound_CW = it.decode(theirs_FS)
        ours_CW = codec.decode(theirs_FS)[:, : sound_CW.shape[1]]  # odd strides: theirs ends early
        assert sound_CW.shape[1] > (frames - 1) * hop(codec)
        torch.testing.assert_close(
            ours_CW, sound_CW, atol=TIMES * float(sound_CW.abs().max()), rtol=0
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same(made: tuple[str, Made, Any], codec: Any) -> None:
    given_CW, codes_FS = wave(codec), codec.encode(wave(codec))
    other = made[1].settings.load()
    other.decode(other.encode(given_CW))  # what it looks up once, it looks up before it is moved
    assert other.to("cuda") is other and other.device.type == "cuda"
    with full_float32():
        same_FS, made_CW = other.encode(given_CW.cuda()), other.decode(codes_FS.cuda())
    assert same_FS.device.type == made_CW.device.type == "cpu"
    assert float((same_FS == codes_FS).float().mean()) >= 0.99
    loudest = float(made_CW.abs().max())
    assert float((made_CW - codec.decode(codes_FS)).abs().max()) <= 1e-3 * loudest
    assert all(book_CD.device.type == "cpu" for book_CD in other.codebooks())


def test_it_says_where_it_is(codec: Any) -> None:
    codes_FS = codec.encode(wave(codec))
    assert codec.to("cpu") is codec and codec.device == torch.device("cpu")
    assert torch.equal(codec.encode(wave(codec)), codes_FS)
    assert all(p.is_meta for p in _weights_of(pickle.loads(pickle.dumps(codec)).to("meta")))


def _weights_of(codec: Any) -> Iterator[Tensor]:
    """Every tensor that it holds: one that stayed behind would meet the rest in one operation."""
    for value in vars(codec).values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, torch.nn.Module):
            yield from value.state_dict().values()
            for part in value.modules():
                held = {**vars(part), **part._buffers}
                if hasattr(part, "weight_g"):
                    del held["weight"]  # made of others anew at each call, so it may lie anywhere
                yield from (tensor for tensor in held.values() if isinstance(tensor, Tensor))


def test_codebooks_lie_in_one_space(codec: Any) -> None:
    books = codec.codebooks()
    assert [len(book_CD) for book_CD in books] == list(codec.format.slot_sizes)
    assert len({book_CD.shape[1] for book_CD in books}) == 1
    assert all(book_CD.dtype == torch.float32 and bool(book_CD.std() > 0) for book_CD in books)


# --- refusals -------------------------------------------------------------------------------------


def test_wrong_codes_are_refused_by_name(codec: Any) -> None:
    good_FS, slots = codec.encode(wave(codec, 5)), codec.format.slots
    high_FS, low_FS = good_FS.clone(), good_FS.clone()
    high_FS[3, 1], low_FS[0, 0] = codec.format.slot_sizes[1], -1
    for bad, complaint in (
        (high_FS, "slot 1"),
        (low_FS, "slot 0"),
        (good_FS[:, :-1], rf"\[frames, {slots}\]"),
        (torch.cat([good_FS, good_FS], 1), rf"\[frames, {slots}\]"),
        (good_FS[:0], "at least one frame"),
        (good_FS.float(), "whole numbers"),
    ):
        with pytest.raises(CodecError, match=complaint):
            codec.decode(bad)


def test_wrong_waves_are_refused(codec: Any) -> None:
    good_CW = wave(codec, 4)
    for bad in (
        good_CW[:, :0],
        good_CW.repeat(codec.format.channels + 1, 1),
        good_CW[0],
        good_CW[None],
        torch.where(torch.arange(good_CW.shape[1]) == 5, float("nan"), good_CW),
        torch.where(torch.arange(good_CW.shape[1]) == 5, float("inf"), good_CW),
        (32767 * good_CW).to(torch.int16),
    ):
        with pytest.raises(CodecError, match="encode"):
            codec.encode(bad)


# --- files ----------------------------------------------------------------------------------------


def read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    return torch.load(path, weights_only=True)


def write(path: Path, content: Any) -> None:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path, metadata={"format": "pt"})
    else:
        torch.save(content, path)


def weights(content: dict[str, Any]) -> dict[str, Tensor]:
    return content.get("state_dict", content)


def test_the_format_is_known_before_any_weight(made: tuple[str, Made, Any], tmp_path: Path) -> None:
    _, it, codec = made
    assert it.settings.format == codec.format
    if Path(it.settings.path).is_file():
        return  # its configuration is inside the file
    bare = copy(it, tmp_path / "bare")
    for path in files(bare)[1]:
        path.unlink()
    assert bare.settings.format == codec.format
    with pytest.raises(CodecError, match="missing"):
        bare.settings.load()


class Evil:
    """Unpickled, it writes a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_damaged_weights_are_refused_and_code_is_not_run(
    made: tuple[str, Made, Any], tmp_path: Path
) -> None:
    _, it, _ = made
    for number, name in enumerate(path.name for path in files(it)[1]):
        bad = copy(it, tmp_path / str(number))
        path = files(bad)[0] / name
        whole = path.read_bytes()
        for part in (0.3, 0.9):
            path.write_bytes(whole[: int(len(whole) * part)])
            with pytest.raises(CodecError, match=name):
                bad.settings.load()
        path.write_bytes(whole)
        content = read(path)
        of_floats = [
            value
            for value in weights(content).values()
            if value.is_floating_point() and value.numel()
        ]
        of_floats[-1].view(-1)[-1] = float("nan")
        write(path, content)
        with pytest.raises(CodecError, match="NaN"):
            bad.settings.load()
        torch.save({**read(files(it)[0] / name), "more": Evil(tmp_path / "ran")}, path)
        with pytest.raises(CodecError, match=name):
            bad.settings.load()
        assert not (tmp_path / "ran").exists()


def test_the_fingerprint_tells_every_weight_and_the_configuration(
    made: tuple[str, Made, Any], tmp_path: Path
) -> None:
    _, it, codec = made
    assert copy(it, tmp_path / "same").settings.load().fingerprint == codec.fingerprint
    for number, name in enumerate(path.name for path in files(it)[1]):
        other = copy(it, tmp_path / str(number))
        path = files(other)[0] / name
        content = read(path)
        last = [
            value
            for value in weights(content).values()
            if value.is_floating_point() and value.numel()
        ][-1]
        last.view(-1)[0] += 0.25
        write(path, content)
        assert other.settings.load().fingerprint != codec.fingerprint
    if it.change is not None:
        other = copy(it, tmp_path / "changed")
        file, keys, value = it.change
        tiny_codecs.write_config(files(other)[0] / file, keys, value)
        assert other.settings.load().fingerprint != codec.fingerprint


def test_no_configuration_is_worse_than_refused(
    made: tuple[str, Made, Any], tmp_path: Path
) -> None:
    """Whatever stands at one of its keys, a codec opens or says in a line that it cannot."""
    _, it, _ = made
    other = copy(it, tmp_path / "other")
    for path in (p for p in files(other)[0].iterdir() if p.name in {"config.json", "config.yaml"}):
        whole = path.read_text()
        for keys in tiny_codecs.keys(tiny_codecs.read_config(path)):
            tiny_codecs.write_config(path, keys, "x")
            try:
                other.settings.load()
            except CodecError as problem:
                assert str(path.parent) in str(problem) and "\n" not in str(problem)
            path.write_text(whole)
