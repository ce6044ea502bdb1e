"""Laws of every vocoder: length, level, repeatability, and sound in pieces as in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_vocoder
import torch
from torch import Tensor

from distill.config import settings as strict
from distill.errors import CodecError
from distill.vocoders import Vocoder
from distill.vocoders.codec import Settings as CodecSettings
from distill.vocoders.head import Settings as HeadSettings

KINDS = strict.kinds("vocoders")
EXAMPLES: dict[str, Callable[[Path, Any], Vocoder]] = {
    "codec": lambda folder, codec: CodecSettings().load(codec),
    "head": lambda folder, codec: _head(folder, codec),
}


def _head(folder: Path, codec: Any) -> Vocoder:
    tiny_vocoder.head_in(folder, codec)
    return HeadSettings(str(folder)).load(codec)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_vocoder.codec_in(tmp_path_factory.mktemp("codec"))


@pytest.fixture(scope="module", params=KINDS)
def vocoder(
    request: pytest.FixtureRequest, codec: Any, tmp_path_factory: pytest.TempPathFactory
) -> Vocoder:
    assert request.param in EXAMPLES, f"{request.param}: say here how a small one is made"
    return EXAMPLES[request.param](tmp_path_factory.mktemp("vocoder") / "v", codec)


def codes(frames: int, seed: int = 0) -> Tensor:
    return torch.randint(32, (frames, 3), generator=torch.Generator().manual_seed(seed))


def test_every_frame_becomes_hop_samples(vocoder: Vocoder, codec: Any) -> None:
    assert vocoder.hop * codec.format.frame_rate == vocoder.sample_rate
    for frames in (1, 2, 5, 70):
        wave_CW = vocoder.decode(codes(frames))
        assert wave_CW.shape == (codec.format.channels, frames * vocoder.hop)
        assert wave_CW.dtype == torch.float32 and bool(torch.isfinite(wave_CW).all())


def test_the_same_codes_sound_the_same(vocoder: Vocoder) -> None:
    assert torch.equal(vocoder.decode(codes(40)), vocoder.decode(codes(40)))
    assert not torch.equal(vocoder.decode(codes(40)), vocoder.decode(codes(40, seed=1)))


@pytest.mark.parametrize("sizes", [(1,) * 90, (7, 30, 1, 2, 50), (90,), (45, 45), (89, 1)])
def test_sound_in_pieces_is_the_whole(vocoder: Vocoder, sizes: tuple[int, ...]) -> None:
    codes_FS = codes(90)
    pieces = list(vocoder.stream(iter(codes_FS.split(list(sizes)))))
    assert all(piece.shape[1] % vocoder.hop == 0 and piece.shape[1] for piece in pieces)
    together_CW, whole_CW = torch.cat(pieces, 1), vocoder.decode(codes_FS)
    assert together_CW.shape == whole_CW.shape
    assert float((together_CW - whole_CW).abs().max()) <= 1e-5


def test_the_first_sound_waits_for_its_look_ahead_and_no_longer(vocoder: Vocoder) -> None:
    asked = 0

    def chunks() -> Any:
        nonlocal asked
        for chunk_FS in codes(200).split(1):
            asked += 1
            yield chunk_FS

    first_CW = next(iter(vocoder.stream(chunks())))
    ahead = getattr(vocoder, "context_frames", None) or vocoder.codec.context_frames  # type: ignore[attr-defined]
    assert asked == ahead + 1 and first_CW.shape[1] == vocoder.hop


def test_foreign_codes_are_refused_by_name(vocoder: Vocoder) -> None:
    high_FS = codes(8)
    high_FS[2, 1] = 32
    for bad_FS, complaint in (
        (high_FS, "slot 1"),
        (codes(8)[:, :2], r"\[frames, 3\]"),
        (codes(8).float(), "whole numbers"),
    ):
        with pytest.raises(CodecError, match=complaint):
            vocoder.decode(bad_FS)
        with pytest.raises(CodecError, match=complaint):
            list(vocoder.stream(iter([bad_FS])))
    with pytest.raises(CodecError, match="at least one"):
        list(vocoder.stream(iter(())))
