"""What a graft promises, measured on eight ids before it is handed out.

Text logits are bit-identical to the base's; `Student.logits` are the stock forward's logits; and
songs packed into one row are kept apart, by whichever way this family has. So an LLM family that
nobody has tried either works or says so at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from distill.errors import GraftError
from distill.lm.attention import plain_causal
from distill.lm.vocabulary import AudioVocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# "songs": each is attended to alone; "positions": transformers sees that positions start again;
# "mask": it must be told; "none": this family cannot
Packing = Literal["songs", "positions", "mask", "none"]
IDS = 8
HALF = IDS // 2
MOST_LEAK = 0.1  # of what a neighbouring song does to the hidden states where nothing hides it


class Grafted(Protocol):
    """What is checked of a Student."""

    base: str
    vocabulary: AudioVocabulary
    packing: Packing

    @property
    def model(self) -> Any: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def hidden(self, ids_BT: Tensor, positions_BT: Tensor | None = None) -> Tensor: ...
    def logits(self, hidden_ND: Tensor, start: int, end: int) -> Tensor: ...


def text_logits(model: PreTrainedModel, rows: int) -> Tensor:
    """logits_BTV of the stock forward for eight ids spread over the first `rows`."""
    device = next(model.get_input_embeddings().parameters()).device
    with _at_rest(model), torch.no_grad():
        return model(input_ids=_spread(rows)[None].to(device), use_cache=False).logits


def check_graft(student: Grafted, before_BTV: Tensor) -> None:
    """Settles `packing`. GraftError unless logits are as promised (`before_BTV`: `text_logits`)."""
    vocabulary, model, rows = student.vocabulary, student.model, student.vocabulary.base_rows
    text_rows = before_BTV.shape[-1]  # fewer than base_rows where the tokenizer has more ids
    text_T = _spread(text_rows)
    mixed_T = torch.cat([text_T[:HALF], rows + torch.arange(HALF) * (vocabulary.size // HALF)])
    with _at_rest(model), torch.no_grad():
        text_BT, mixed_BT = text_T[None].to(student.device), mixed_T[None].to(student.device)
        after_BTV = model(input_ids=text_BT, use_cache=False).logits
        if not torch.equal(after_BTV[..., :text_rows], before_BTV):
            raise GraftError(f"{student.base}: the graft changed text logits; graft another base")
        stock_TV = model(input_ids=mixed_BT, use_cache=False).logits[0].float()
        ours_TV = student.logits(student.hidden(mixed_BT)[0], 0, vocabulary.rows).float()
        if not _alike(ours_TV, stock_TV, student.dtype):
            changes = f"{model.config.model_type} changes its logits after the head"
            raise GraftError(f"{student.base}: {changes}; add its row to families.py")
        student.packing = _packing(student, mixed_BT)


def _spread(rows: int) -> Tensor:
    """Eight ids_T spread over the first `rows`."""
    return torch.arange(IDS).mul(max(1, rows // IDS)).clamp(max=rows - 1)


def _packing(student: Grafted, ids_BT: Tensor) -> Packing:
    """The first way by which the second half of `ids_BT`, a song, sees nothing of the first."""
    positions_BT = torch.arange(IDS, device=ids_BT.device)[None] % HALF
    alone_BTD = student.hidden(ids_BT[:, HALF:])
    leak = float((student.hidden(ids_BT)[:, HALF:] - alone_BTD).abs().max())
    ways: tuple[Packing, ...] = ("songs", "positions", "mask")
    for packing in ways if plain_causal(student.model.config) else ways[1:]:
        student.packing = packing
        try:
            packed_BTD = student.hidden(ids_BT, positions_BT)[:, HALF:]
        except (TypeError, ValueError, RuntimeError):
            continue  # a family without position_ids, or without 4-D masks
        if float((packed_BTD - alone_BTD).abs().max()) <= MOST_LEAK * leak:
            return packing
    return "none"


def _alike(ours: Tensor, stock: Tensor, dtype: torch.dtype) -> bool:
    """Equal up to rounding: a family's scale makes a far larger difference."""
    slack = 1e-4 if dtype == torch.float32 else 5e-2
    return float((ours - stock).abs().max()) <= slack * max(1e-6, float(stock.abs().max()))


@contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """Without dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
