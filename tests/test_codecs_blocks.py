"""Blocks are what the whole would have been, and what a network hears is measured, not assumed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distill.codecs._blocks import (
    BLOCK_SECONDS,
    KEPT_BYTES,
    block_frames,
    blocks,
    in_blocks_decode,
    in_blocks_encode,
    in_blocks_encode_many,
    receptive_frames,
    side_by_side,
    widest,
)
from distill.errors import CodecError

HOP = 6


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 4, 7, padding=3),
        nn.Conv1d(4, 4, 4, stride=2, padding=1),
        nn.Conv1d(4, 4, 3, padding=9, dilation=9),
        nn.Conv1d(4, 3, 6, stride=3, padding=2),
    )


def decoder() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv1d(3, 4, 3, padding=1),
        # an odd stride: one sample too few at the end
        nn.ConvTranspose1d(4, 4, 6, stride=3, padding=2),
        nn.ConvTranspose1d(4, 2, 4, stride=2, padding=1),
    )


def encode(wave_CW: Tensor) -> Tensor:
    return encoder()(wave_CW[None])[0].T


def decode(codes_FS: Tensor) -> Tensor:
    return decoder()(codes_FS.T[None])[0]


def test_the_grid_covers_every_frame_once_and_clips_at_the_ends() -> None:
    for frames in (1, 4, 5, 6, 23):
        grid = list(blocks(frames, 5, 2))
        assert [f for block in grid for f in range(block.start, block.stop)] == list(range(frames))
        assert grid[0].first == 0 and grid[-1].last == frames
        assert all(block.first == max(0, block.start - 2) for block in grid)
        assert all(block.start % 5 == 0 for block in grid)


def test_what_a_frame_hears_is_found() -> None:
    # kernel 7 at 1, 4 at 1, 3 dilated by 9 at 2, 6 at 2: 3 + 1 + 18 + 4 samples before a frame
    assert receptive_frames(encoder(), 1, HOP) == 5
    # beyond the first, smallest look
    assert receptive_frames(nn.Conv1d(2, 2, 21, padding=10), 2) == 10
    assert receptive_frames(nn.Conv1d(1, 1, 1), 1) == 0
    with torch.no_grad():
        silent = nn.Conv1d(1, 1, 5, padding=2)
        silent.weight.zero_()
    assert receptive_frames(silent, 1) == 2  # by its shape, not by its weights


def test_blocks_are_as_long_as_freed_memory_is_kept() -> None:
    assert widest(encoder(), 1, HOP) == 4 * HOP  # its first layer's four channels
    assert 2 * (HOP - 1) < widest(decoder(), 3) <= 4 * 3  # four channels at a third of a frame
    for rate, values, context in (
        (50.0, 96 * 320, 11),
        (86.13, 96 * 512, 11),
        (25.0, 1000, 3),
        (75.0, 4e6, 9),
    ):
        frames = block_frames(rate, values, context)
        assert 4 * context <= frames <= BLOCK_SECONDS * rate
        if frames > 4 * context:
            assert 4 * values * (frames + 2 * context) <= KEPT_BYTES
            longer = frames + 1
            assert longer > BLOCK_SECONDS * rate or 4 * values * (longer + 2 * context) > KEPT_BYTES


def test_what_hears_everything_is_refused() -> None:
    with pytest.raises(CodecError, match="more than 64 frames"):
        receptive_frames(lambda x: x.cumsum(-1), 1, most=64)
    with pytest.raises(CodecError, match="does not depend"):
        receptive_frames(torch.ones_like, 1)


@torch.inference_mode()
def test_blocks_are_the_whole() -> None:
    context = receptive_frames(encoder(), 1, HOP)
    back = receptive_frames(decoder(), 3, 1, HOP) + 1
    for samples in (1, HOP - 1, HOP, HOP + 1, 40 * HOP, 100 * HOP + 1):
        wave_CW = torch.randn(1, samples)
        whole_FD = in_blocks_encode(encode, wave_CW, HOP, 1000, 0)
        assert len(whole_FD) == -(-samples // HOP)
        whole_CW = in_blocks_decode(decode, whole_FD, HOP, 1000, 0)
        assert whole_CW.shape == (2, len(whole_FD) * HOP)
        for size in (1, 7, 32):
            pieces_FD = in_blocks_encode(encode, wave_CW, HOP, size, context)
            torch.testing.assert_close(pieces_FD, whole_FD, atol=1e-5, rtol=0)
            pieces_CW = in_blocks_decode(decode, whole_FD, HOP, size, back)
            torch.testing.assert_close(pieces_CW, whole_CW, atol=1e-5, rtol=0)
    too_little_FD = in_blocks_encode(encode, wave_CW, HOP, 7, context - 1)
    assert float((too_little_FD - whole_FD).abs().max()) > 1e-4


@torch.inference_mode()
def test_many_songs_side_by_side_are_each_by_itself() -> None:
    context, net = receptive_frames(encoder(), 1, HOP), encoder()
    waves = [torch.randn(1, samples) for samples in (1, 40 * HOP, 100 * HOP + 1, 40 * HOP - 2, 9)]
    alone = [in_blocks_encode(encode, wave_CW, HOP, 7, context) for wave_CW in waves]
    for together in (1, 2, 3, 50):
        seen: list[int] = []

        def many(wave_BCW: Tensor, seen: list[int] = seen) -> Tensor:
            seen.append(len(wave_BCW))
            return net(wave_BCW).transpose(1, 2)

        made = in_blocks_encode_many(many, waves, HOP, 7, context, together)
        for one_FD, other_FD in zip(made, alone, strict=True):
            torch.testing.assert_close(one_FD, other_FD, atol=1e-5, rtol=0)
        grids = [len(list(blocks(-(-wave_CW.shape[1] // HOP), 7, context))) for wave_CW in waves]
        assert sum(seen) == sum(grids) and max(seen) <= together
    assert max(seen) > max(grids) - 4  # the insides of all songs at once
    assert side_by_side("cpu", 2.0) == 1 < side_by_side("cuda", 2.0)


def test_a_network_with_another_hop_is_refused() -> None:
    with pytest.raises(CodecError, match="belong together"):
        in_blocks_encode(encode, torch.randn(1, 90), 9, 5, 1)
    with pytest.raises(CodecError, match="belong together"):
        in_blocks_decode(decode, torch.randn(10, 3), 9, 5, 1)
