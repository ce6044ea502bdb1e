"""Attention for packed songs: each song attends to itself alone, and nothing else is computed.

A packed row with a mask pays for every pair of tokens in the row, masked or not (on a CPU that was
55 % of a training step). Cut at the songs' borders, each part is plain causal attention, which
needs no mask and skips its upper half: the idea of variable-length attention (Dao, arXiv
2307.08691), for torch's own kernels and so for every device.

The songs' lengths travel with the forward itself, where its mask would stand: transformers hands a
mask of four axes on to every layer as it is. So nothing is remembered between calls: forwards in
several threads, or layers that run again in the backward pass, see the lengths of their own songs.
With any other mask, or with none, a model that `use` was called on is the stock model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from distill.runtime import torchaudio_standin

torchaudio_standin.install()
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

NAME = "distill_songs_apart"
STOCK = "sdpa"  # what it stands in for
# not cuDNN's: it prepares itself for every length anew (an H100 took 2 s a step for a while)
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
EVERY = 1 << 30  # tokens: longer than any song
CAUSAL_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
# in a config's names, "window" and "chunk" are numbers of tokens; beside these words, of layers
NO_WINDOWS = ("layers", "pattern", "feed_forward")


def window_of(config: PreTrainedConfig) -> int:
    """Tokens up to which every attention layer of this config sees all that came before."""
    sizes = [EVERY]
    for name, value in vars(config).items():
        looks_back = "window" in name or "chunk" in name or name == "local_attention"
        other = any(word in name for word in NO_WINDOWS)
        if looks_back and not other and isinstance(value, int) and value > 1:
            sizes.append(value)
    return min(sizes)


def only_attends(config: PreTrainedConfig) -> bool:
    """Whether a config names no layer that reads songs in another way, as convolutions do."""
    return set(getattr(config, "layer_types", None) or ()) <= CAUSAL_LAYERS


def plain_causal(config: PreTrainedConfig) -> bool:
    """Whether layers attend, up to their window, to all that came before, and in no other way."""
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    return config._attn_implementation in (STOCK, NAME) and only_attends(config) and not capped


def use(config: PreTrainedConfig, apart: bool = True) -> None:
    """Lets a model of this config read `lengths_mask`; or, not `apart`, makes it the stock one."""
    if config._attn_implementation in (STOCK, NAME):
        config._attn_implementation = NAME if apart else STOCK


def song_starts(positions_BT: Tensor) -> Tensor:
    """Where songs begin (B, T): at the head of a row, and where positions do not go on by one."""
    return torch.diff(positions_BT, dim=-1, prepend=positions_BT[:, :1]) != 1


def song_lengths(positions_BT: Tensor) -> list[int]:
    """Of the songs of packed rows, row after row; no song goes on in the next row."""
    starts = song_starts(positions_BT).flatten().nonzero().flatten().tolist()
    return [b - a for a, b in zip(starts, [*starts[1:], positions_BT.numel()], strict=True)]


def rows_of_songs(lengths: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """(starts_S, lengths_S) of songs of like length: the longest of a group at most twice each."""
    lengths_N = torch.tensor(lengths)
    starts_N = lengths_N.cumsum(0) - lengths_N
    order_N = lengths_N.argsort(descending=True, stable=True)
    while len(order_N):
        like_N = lengths_N[order_N] * 2 > lengths_N[order_N[0]]
        yield starts_N[order_N[like_N]], lengths_N[order_N[like_N]]
        order_N = order_N[~like_N]


def lengths_mask(lengths: list[int]) -> Tensor:
    """(1, 1, 1, songs), whole numbers in main memory: what stands in for a mask of four axes."""
    return torch.tensor(lengths)[None, None, None]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: object,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query (B, heads, T, d) -> (B, T, heads, d)."""
    if attention_mask is None or attention_mask.dtype != torch.int64:
        options: Any = {"dropout": dropout, "scaling": scaling, **more}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    lengths = attention_mask.flatten().tolist()
    groups = getattr(module, "num_key_value_groups", 1)
    if groups > 1:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    batch, heads, tokens = query.shape[:3]

    def songs(x: Tensor) -> tuple[Tensor, ...]:
        flat = x.transpose(0, 1).reshape(1, heads, batch * tokens, x.shape[-1])
        return flat.split(lengths, dim=2)

    with sdpa_kernel(KERNELS) if query.is_cuda else nullcontext():
        parts = [
            scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=True)
            for q, k, v in zip(songs(query), songs(key), songs(value), strict=True)
        ]
    heads_BTd = torch.cat(parts, dim=2).reshape(heads, batch, tokens, value.shape[-1])
    return heads_BTd.permute(1, 2, 0, 3).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
