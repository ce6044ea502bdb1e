"""A long wave in blocks: the same codes and samples, in memory that does not grow with the song.

Frames are cut on a fixed grid: block k is frames [k * block, (k + 1) * block). A network is given
the block and `context` frames more on each side, and of its output only the block is kept:

    wave     ....[ context |        block        | context ]....
    kept                   |        block        |

The context is clipped at the song's own ends and nowhere else. So where it covers all that a frame
can hear, the blocks together are what the network makes of the whole song, rounding aside, and the
grid begins at the song's first sample however somebody cut, batched or resumed the work.

How far a frame hears is asked of the network itself (`receptive_frames`): a frame of NaN goes in,
and how far from it NaN comes out is the answer. A NaN gets through every sum, zero weights
included, so no table of kernel sizes has to be kept true by hand.

An LSTM, or attention to the past, hears everything before it: no context is enough. Where a network
is causal its state is handed from block to block instead (`in_blocks_causal`), to the same effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.errors import CodecError

BLOCK_SECONDS = 10.0  # at most: long beside any context, short beside a song
# glibc gives what is larger than 32 MiB back to the kernel when it is freed, and gets it again,
# zeroed, at the next layer: DAC's 44.1 kHz encoder takes 1.4 to 1.5 times as long in blocks of 4 s
# as in blocks of 2 s
KEPT_BYTES = 30 * 2**20
SIDE_BY_SIDE_SECONDS = 30.0  # of sound on a GPU at once
UNFIT = "the model's strides and its hop do not belong together"

Network = Callable[[Tensor], Tensor]


class Block(NamedTuple):
    """Frames [start, stop) are wanted; frames [first, last), their context too, are to be seen."""

    first: int
    start: int
    stop: int
    last: int


class Whole:
    """A tensor of `length` along `dim`, laid together of pieces; the first makes room for all."""

    # pieces kept one by one would lie in the heap where the next block's large tensors could

    def __init__(self, length: int, dim: int = 0):
        self.length, self.dim = length, dim
        self._laid: Tensor | None = None

    def lay(self, piece: Tensor, start: int) -> None:
        if self._laid is None:
            before, after = piece.shape[: self.dim], piece.shape[self.dim + 1 :]
            self._laid = piece.new_empty(*before, self.length, *after)
        self._laid.narrow(self.dim, start, piece.shape[self.dim]).copy_(piece)

    @property
    def tensor(self) -> Tensor:
        assert self._laid is not None, "a song without a frame is refused before it comes here"
        return self._laid


def blocks(frames: int, block_frames: int, context_frames: int) -> Iterator[Block]:
    """The grid over a song of `frames` frames, in order."""
    for start in range(0, frames, block_frames):
        stop = min(start + block_frames, frames)
        yield Block(max(0, start - context_frames), start, stop, min(stop + context_frames, frames))


def block_frames(frame_rate: float, values_a_frame: float, context_frames: int) -> int:
    """Frames of a block whose largest float32 tensor, context included, keeps within KEPT_BYTES:
    BLOCK_SECONDS at most, four contexts at least, so that not much is worked twice."""
    kept = int(KEPT_BYTES / 4 / values_a_frame) - 2 * context_frames
    return max(1, 4 * context_frames, min(math.ceil(BLOCK_SECONDS * frame_rate), kept))


def whole_frames(wave_CW: Tensor, first: int, last: int, hop: int) -> Tensor:
    """The samples of frames [first, last), filled up with silence behind the end of the wave."""
    piece_CW = wave_CW[:, first * hop : last * hop]
    return functional.pad(piece_CW, (0, (last - first) * hop - piece_CW.shape[1]))


def in_blocks_encode(
    encode: Network, wave_CW: Tensor, hop: int, block_frames: int, context_frames: int
) -> Tensor:
    """codes_FS of the whole wave; `encode` makes codes_FS (or latents_FD) of a block's wave_CW."""

    def alone(wave_BCW: Tensor) -> Tensor:
        return encode(wave_BCW[0])[None]

    return in_blocks_encode_many(alone, [wave_CW], hop, block_frames, context_frames)[0]


def in_blocks_encode_many(
    encode: Network,
    waves: Sequence[Tensor],
    hop: int,
    block_frames: int,
    context_frames: int,
    together: int = 1,
) -> list[Tensor]:
    """codes_FS of every wave_CW, F = ceil(W / hop), the last frame filled up with silence.

    `encode` makes codes_BFS of wave_BCW; CodecError when it gives another number of frames.
    Up to `together` blocks of equal length go through it side by side, whichever song they are
    from: songs of any lengths keep a GPU busy, and nothing is filled up to another's length.
    """
    codes = [Whole(-(-wave_CW.shape[1] // hop)) for wave_CW in waves]
    waiting: dict[int, list[tuple[int, Block]]] = {}  # by length: which song, which block

    def work(batch: list[tuple[int, Block]]) -> None:
        pieces = [whole_frames(waves[song], block.first, block.last, hop) for song, block in batch]
        for (song, block), codes_FS in zip(batch, encode(torch.stack(pieces)), strict=True):
            if len(codes_FS) != block.last - block.first:
                frames = f"{len(codes_FS)} frames for {block.last - block.first}"
                raise CodecError(f"encode: gave {frames}; {UNFIT}")
            kept_FS = codes_FS[block.start - block.first : block.stop - block.first]
            codes[song].lay(kept_FS, block.start)
        batch.clear()

    for song, song_codes in enumerate(codes):
        for block in blocks(song_codes.length, block_frames, context_frames):
            batch = waiting.setdefault(block.last - block.first, [])
            batch.append((song, block))
            if len(batch) == together:
                work(batch)
    for batch in filter(None, waiting.values()):
        work(batch)
    return [song_codes.tensor for song_codes in codes]


def side_by_side(device: torch.device | str, block_seconds: float) -> int:
    """How many blocks are worth encoding together: on a GPU what SIDE_BY_SIDE_SECONDS hold."""
    on_cpu = torch.device(device).type == "cpu"
    return 1 if on_cpu else max(1, round(SIDE_BY_SIDE_SECONDS / block_seconds))


def in_blocks_decode(
    decode: Network, codes_FS: Tensor, hop: int, block_frames: int, context_frames: int
) -> Tensor:
    """wave_CW of F * hop samples by `decode`; CodecError where that is off by a frame or more.

    What falls short (odd strides lose some samples) is silence at the end of the song; inside it is
    covered by the context, which must then be a frame wider than what a frame hears.
    """
    sound = Whole(len(codes_FS) * hop, 1)
    for block in blocks(len(codes_FS), block_frames, context_frames):
        wave_CW = decode(codes_FS[block.first : block.last])
        missing = (block.last - block.first) * hop - wave_CW.shape[1]
        if abs(missing) >= hop:
            frames = f"{block.last - block.first} frames of {hop}"
            raise CodecError(f"decode: gave {wave_CW.shape[1]} samples for {frames}; {UNFIT}")
        wave_CW = functional.pad(wave_CW, (0, max(0, missing)))
        kept_CW = wave_CW[:, (block.start - block.first) * hop : (block.stop - block.first) * hop]
        sound.lay(kept_CW, block.start * hop)
    return sound.tensor


def in_blocks_causal(
    before: Callable[[int, int], Tensor],
    carry: Network,
    after: Network,
    frames: int,
    block_frames: int,
    contexts: tuple[int, int],
    inner: int,
    outer: int,
) -> Tensor:
    """[E, frames * outer]: before -> carry -> after over all frames, for a causal network.

    before    (first, last) -> [D, (last - first) * inner], of those frames of the input
    carry     [D, n * inner] -> the same length; called once a block, in order; keeps its own state
    after     [D, n * inner] -> [E, n * outer]
    contexts  how many frames back `before` and `after` hear; a block is longer than either, since
              padding by reflection looks as far ahead where a song begins
    """
    output = Whole(frames * outer, 1)
    heard_DT: Tensor | None = None
    for block in blocks(frames, block_frames, contexts[0]):
        new_DT = carry(before(block.first, block.stop)[:, (block.start - block.first) * inner :])
        heard_DT = new_DT if heard_DT is None else torch.cat([heard_DT, new_DT], 1)
        output.lay(after(heard_DT)[:, -(block.stop - block.start) * outer :], block.start * outer)
        heard_DT = heard_DT[:, max(0, heard_DT.shape[1] - contexts[1] * inner) :]
    return output.tensor


@torch.inference_mode()
def receptive_frames(
    run: Network,
    channels: int,
    samples_in: int = 1,
    samples_out: int = 1,
    most: int = 4096,
    device: torch.device | str = "cpu",
) -> int:
    """How many frames away, to either side, an input frame can still be heard in an output frame.

    `run` takes float32 [1, channels, frames * samples_in] and gives a float tensor whose last axis
    is time, `samples_out` a frame: (channels of the wave, hop, 1) for an encoder up to its latents,
    (width of the latents, 1, hop) for a decoder. CodecError beyond `most` frames: an LSTM or
    attention hears all.
    """
    reach = 8
    while reach <= most:
        input_1CT = torch.zeros(1, channels, (2 * reach + 1) * samples_in, device=device)
        input_1CT[..., reach * samples_in : (reach + 1) * samples_in] = float("nan")
        output = run(input_1CT)
        heard_NT = torch.isnan(output).reshape(-1, output.shape[-1])
        heard_N = heard_NT.any(0).nonzero()[:, 0] // samples_out
        if not len(heard_N):
            raise CodecError("receptive_frames: the network's output does not depend on its input")
        farthest = max(reach - int(heard_N[0]), int(heard_N[-1]) - reach)
        if farthest < reach:  # the edges stayed clean: nothing lies beyond them
            return farthest
        reach *= 2
    raise CodecError(f"receptive_frames: hears more than {most} frames; use a codec's segments")


@torch.inference_mode()
def widest(
    module: nn.Module, channels: int, samples_in: int = 1, device: torch.device | str = "cpu"
) -> float:
    """Values a frame in the largest tensor that any layer gives; as `receptive_frames`."""
    frames, largest = 16, 0

    def look(_: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        largest = max(largest, output.numel() if isinstance(output, Tensor) else 0)

    hooks = [part.register_forward_hook(look) for part in module.modules()]
    try:
        module(torch.zeros(1, channels, frames * samples_in, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return largest / frames
