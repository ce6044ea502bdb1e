"""A term of the loss that needs whole rows of logits, in memory that does not grow with positions.

At 152,000 rows one position's logits are 0.6 MB, and a graph keeps them several times over until
the backward pass. So a sum over many positions is taken chunk by chunk, and no chunk's graph
outlives it, in one of two ways:

    early    loss and gradient of a chunk at once, in the forward pass (Liger, arXiv 2410.10989):
             no product is done twice. What is kept is a row of the hidden states' gradient a
             position, and the gradient of the head's new rows.
    again    nothing is kept, and the backward pass computes each chunk again: where the head's old
             rows train (their gradient is as large as the table, and would be kept once a term),
             and in float16 (whose small gradients only the scale of the backward pass saves).

One chunk alone is left to autograd as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from distill.lm.graft import GraftedHead
from distill.lm.student import Student
from distill.writing.batches import Targets

NatsOf = Callable[[Tensor, Tensor, Tensor], Tensor]  # (hidden_ND, target_N, at_N) -> nats_N
Chunks: TypeAlias = list[tuple[Tensor, Tensor]]  # (target_N, at_N)
CHUNK_LOGITS = 2**24  # held at once, a few times over: 64 MiB in float32


def summed(nats_N: NatsOf, hidden_ND: Tensor, targets: Targets, student: Student) -> Tensor:
    """Nats of all targets added up; as many at once as CHUNK_LOGITS allows.

    `nats_N` gives each position's nats from its own hidden state and the student's head.
    """
    step = max(1, CHUNK_LOGITS // student.vocabulary.rows)
    chunks = list(zip(targets.target_N.split(step), targets.at_N.split(step), strict=True))
    if not len(targets.at_N):
        return hidden_ND.new_zeros(())
    if len(chunks) == 1 or not torch.is_grad_enabled():
        parts = [nats_N(hidden_ND[at_N], target_N, at_N) for target_N, at_N in chunks]
        return torch.cat(parts).sum()
    head = [parameter for parameter in student.head.parameters() if parameter.requires_grad]
    if _again(student.head, hidden_ND):
        once_more = partial(checkpoint, nats_N, use_reentrant=False, preserve_rng_state=False)
        parts = [once_more(hidden_ND[at_N], target_N, at_N) for target_N, at_N in chunks]
        return torch.cat(parts).sum()
    return _Early.apply(nats_N, chunks, hidden_ND, *head)


def _again(head: nn.Module, hidden_ND: Tensor) -> bool:
    """Whether chunks are computed again rather than early."""
    device = hidden_ND.device.type
    cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if torch.float16 in (cast, hidden_ND.dtype):
        return True
    table = head.old if isinstance(head, GraftedHead) else head
    return any(parameter.requires_grad for parameter in table.parameters())


class _Early(torch.autograd.Function):
    """The sum, and in the same pass its gradient."""

    @staticmethod
    def forward(
        ctx: Any, nats_N: NatsOf, chunks: Chunks, hidden_ND: Tensor, *head: Tensor
    ) -> Tensor:
        totals, rows = list[Tensor](), list[Tensor]()
        gradients = [torch.zeros_like(parameter) for parameter in head]
        for part, row_ND, of_head in _gradients(nats_N, chunks, hidden_ND, head):
            totals.append(part)
            rows.append(row_ND)
            for gradient, more in zip(gradients, of_head, strict=True):
                gradient += more
        at_N = torch.cat([at_N for _, at_N in chunks])
        ctx.positions = len(hidden_ND)
        ctx.save_for_backward(at_N, torch.cat(rows), *gradients)
        return torch.stack(totals).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        at_N, row_ND, *gradients = ctx.saved_tensors
        hidden_ND = row_ND.new_zeros(ctx.positions, row_ND.shape[1])
        hidden_ND.index_add_(0, at_N, row_ND * upstream.to(row_ND.dtype))
        return None, None, hidden_ND, *(gradient * upstream for gradient in gradients)


def _gradients(
    nats_N: NatsOf, chunks: Chunks, hidden_ND: Tensor, head: tuple[Tensor, ...]
) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
    """Of each chunk its sum, and the gradients of its rows of hidden_ND and of the head."""
    for target_N, at_N in chunks:
        with torch.enable_grad():
            row_ND = hidden_ND[at_N].detach().requires_grad_()
            total = nats_N(row_ND, target_N, at_N).sum()
        inputs = [row_ND, *head]
        of_row_ND, *of_head = torch.autograd.grad(total, inputs, materialize_grads=True)
        yield total.detach(), of_row_ND, of_head
