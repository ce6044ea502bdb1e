"""Attention for packed songs: each song attends to itself alone, and nothing else is computed.

A packed row with a mask pays for every pair of tokens in the row, masked or not (on a CPU that was
55 % of a training step). Cut at the songs' borders, each part is plain causal attention, which
needs no mask and skips its upper half: the idea of variable-length attention (Dao, arXiv
2307.08691), for torch's own kernels and so for every device.

It is used where a family's attention is plain causal: no sliding window, no soft-capping. `apart`
switches it on for one forward; saving and singing see the model as it always was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from distill.runtime import torchaudio_standin

torchaudio_standin.install()
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

NAME = "distill_songs_apart"
# not cuDNN's: it prepares itself for every length anew (an H100 took 2 s a step for a while)
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_lengths: list[int] = []  # of the songs of the forward that is under way, row after row


def plain_causal(config: PreTrainedConfig) -> bool:
    """Whether every layer of this family attends to all that came before, and in no other way."""
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    window = getattr(config, "sliding_window", None)
    windowed = window and getattr(config, "use_sliding_window", True)
    full = config._attn_implementation == "sdpa" and layers == {"full_attention"}
    return full and not capped and not windowed


def song_starts(positions_BT: Tensor) -> Tensor:
    """Where songs begin (B, T): at the head of a row, and where positions do not go on by one."""
    return torch.diff(positions_BT, dim=-1, prepend=positions_BT[:, :1]) != 1


@contextmanager
def apart(config: PreTrainedConfig, positions_BT: Tensor) -> Iterator[None]:
    """For one forward: a song sees nothing of the songs before it."""
    starts = song_starts(positions_BT).flatten().nonzero().flatten().tolist()
    before, lengths = config._attn_implementation, _lengths[:]
    _lengths[:] = [b - a for a, b in zip(starts, [*starts[1:], positions_BT.numel()], strict=True)]
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _lengths[:] = lengths


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query (B, heads, T, d) -> (B, T, heads, d)."""
    groups = getattr(module, "num_key_value_groups", 1)
    if groups > 1:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    batch, heads, tokens = query.shape[:3]

    def songs(x: Tensor) -> tuple[Tensor, ...]:
        flat = x.transpose(0, 1).reshape(1, heads, batch * tokens, x.shape[-1])
        return flat.split(_lengths, dim=2)

    with sdpa_kernel(KERNELS) if query.is_cuda else nullcontext():
        parts = [
            scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=True)
            for q, k, v in zip(songs(query), songs(key), songs(value), strict=True)
        ]
    heads_BTd = torch.cat(parts, dim=2).reshape(heads, batch, tokens, value.shape[-1])
    return heads_BTd.permute(1, 2, 0, 3).contiguous(), None


def _no_mask(*_: object, **__: object) -> None:
    return None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _no_mask)
