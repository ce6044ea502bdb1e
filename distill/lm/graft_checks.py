"""What a graft promises, measured on eight ids before it is handed out, and not assumed of a
family.

Text logits are bit-identical to the base's; `logits` are the stock forward's logits; and songs
packed into one row are kept apart, by whichever way this family has. So an LLM family that nobody
has tried either works or says so at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from distill.errors import GraftError
from distill.lm.attention import plain_causal


def text_logits(model: Any, rows: int) -> Tensor:
    """Logits of the stock forward for eight ids spread over the first `rows`."""
    ids_BT = torch.arange(8).mul(max(1, rows // 8)).clamp(max=rows - 1)[None]
    with _at_rest(model), torch.no_grad():
        return model(
            input_ids=ids_BT.to(model.get_input_embeddings().weight.device), use_cache=False
        ).logits


def check_graft(student: Any, before_BTV: Tensor) -> None:
    """Checks a fresh student against `text_logits` from before; settles its `packing`. Raises
    GraftError."""
    vocabulary, model = student.vocabulary, student.model
    spread = (
        torch.arange(8).mul(max(1, vocabulary.base_rows // 8)).clamp(max=vocabulary.base_rows - 1)
    )
    both = torch.cat([spread[:4], vocabulary.base_rows + torch.arange(4) * (vocabulary.size // 4)])
    with _at_rest(model), torch.no_grad():
        text_BT, mixed_BT = spread[None].to(student.device), both[None].to(student.device)
        after_BTV = model(input_ids=text_BT, use_cache=False).logits
        if not torch.equal(after_BTV[..., : vocabulary.base_rows], before_BTV):
            raise GraftError(
                f"{student.base}: text logits changed under the graft; graft another base"
            )
        stock_TV = model(input_ids=mixed_BT, use_cache=False).logits[0].float()
        ours_TV = student.logits(student.hidden(mixed_BT)[0], 0, vocabulary.rows).float()
        if not _alike(ours_TV, stock_TV, student.dtype):
            family = model.config.model_type
            raise GraftError(
                f"{student.base}: {family} changes its logits after the head; add its row to "
                "families.py"
            )
        student.packing = _how_songs_stay_apart(student, mixed_BT)


def _how_songs_stay_apart(student: Any, ids_BT: Tensor) -> str:
    """Say "songs" where each song can be attended to alone; "positions" where transformers sees
    that positions start again; "mask" where it must be told; else "none".
    """
    positions_BT = torch.arange(8, device=ids_BT.device)[None] % 4
    alone_BTD = student.hidden(ids_BT[:, 4:])
    # what the neighbour's song can do
    leak = float((student.hidden(ids_BT)[:, 4:] - alone_BTD).abs().max())
    ways = (
        ("songs", "positions", "mask")
        if plain_causal(student.model.config)
        else ("positions", "mask")
    )
    for packing in ways:
        student.packing = packing
        try:
            packed_BTD = student.hidden(ids_BT, positions_BT)[:, 4:]
        # a family without position_ids, or without 4-D masks
        except (TypeError, ValueError, RuntimeError):
            continue
        if float((packed_BTD - alone_BTD).abs().max()) <= 0.1 * leak:
            return packing
    return "none"


def _alike(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Equal up to rounding: a family's scale makes a far larger difference."""
    slack = 1e-4 if dtype == torch.float32 else 5e-2
    return float((one - other).abs().max()) <= slack * max(1e-6, float(other.abs().max()))


@contextmanager
def _at_rest(model: Any) -> Iterator[None]:
    """Without dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
