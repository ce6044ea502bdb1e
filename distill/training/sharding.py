"""FSDP2: a model whose parameters lie in pieces, one on every process.

Asked for as accelerate's users do, `accelerate launch --use_fsdp --fsdp_version 2`. Every layer is
a group of its own, gathered while it works. What is not in a layer (both grafted tables, the last
norm) is one more group, gathered for the whole loss, since a slot's rows are read past any forward.
Gradients are added up, not averaged: the trainer has already divided by the counts of all.

On disk nothing is in pieces: checkpoints hold whole tensors, so any number of processes resumes.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from distill.errors import SettingsError
from distill.runtime import ranks

WHOLE = "_distill_whole"  # a sharded model's attribute: what it is a part of
TOGETHER = {  # of the settings of training, what goes with FSDP
    "precision": ("auto", "bf16", "fp32"),
    "optimizer": ("adamw",),
    "compile": (False,),
}


def is_wanted() -> bool:
    """Whether this process was launched to shard. SettingsError for what FSDP is not here."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true" or ranks.processes() == 1:
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise SettingsError("accelerate launch --use_fsdp is FSDP 1; add --fsdp_version 2")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
        fault = "--fsdp_offload_params keeps parameters in main memory, which is not built"
        raise SettingsError(f"FSDP: {fault}; leave it out")
    return True


def refuse(train: object, quantise: str = "none") -> None:
    """SettingsError for what cannot be trained in pieces: quantised weights, fp16 (its scaler must
    see all gradients), torch.compile (it compiles the gathering away), another optimiser."""
    settings = {f"train.{name}": getattr(train, name, known[0]) for name, known in TOGETHER.items()}
    allowed = {f"train.{name}": known for name, known in TOGETHER.items()}
    for name, value in (settings | {"base.quantise": quantise}).items():
        if value not in allowed.get(name, ("none",)):
            what = f"{name}: {str(value).lower()}"
            raise SettingsError(f"FSDP: {what} does not go with it; launch without --use_fsdp")


class Whole(nn.Module):
    """A model and the loss that reads it: while `forward` runs, its tables are whole."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Any) -> Any:
        return self.loss(batch)


def shard(model: nn.Module, loss: Callable[[Any], Any], device: torch.device) -> Whole:
    """The model in pieces, in place, and its loss as a module to be called."""
    if any(not parameter.is_floating_point() for parameter in model.parameters()):
        refuse(None, "int8")
    mesh = init_device_mesh(device.type, (ranks.processes(),))
    for layer in layers(model):
        fully_shard(layer, mesh=mesh)
    whole = Whole(model, loss)
    fully_shard(whole, mesh=mesh, reshard_after_forward=False)
    model.__dict__[WHOLE] = weakref.ref(whole)
    for part in _parts(whole):
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)
    return whole


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers of a transformer: the items of its longest list of modules."""
    lists = [[*module] for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def _parts(module: nn.Module) -> Iterator[FSDPModule]:
    yield from (part for part in module.modules() if isinstance(part, FSDPModule))


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """For the block every parameter is whole on every process, which must all come here: what is
    measured between two steps reads them, by each alone. Nothing where the model is not sharded."""
    whole = _whole_of(model)
    gather(model)
    try:
        yield
    finally:
        for part in _parts(whole) if whole is not None else ():
            part.set_reshard_after_forward(part is not whole)
            part.reshard()
            # a forward of one process alone must not order the backward pass of all: torch
            # prefetches by this list, and clears it only behind a backward pass
            part._get_fsdp_state()._comm_ctx.post_forward_order.clear()


def gather(model: nn.Module) -> None:
    """Every parameter whole on every process, from now on."""
    whole = _whole_of(model)
    for part in _parts(whole) if whole is not None else ():
        part.set_reshard_after_forward(False)
        part.unshard()


def _whole_of(model: nn.Module) -> nn.Module | None:
    reference = model.__dict__.get(WHOLE)
    return reference() if reference is not None else None


def full(tensor: Tensor) -> Tensor:
    """A tensor whole, whether or not it lies in pieces; every process must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, the same on every process, in pieces as `other` is, if it is."""
    if not isinstance(other, DTensor):
        return tensor
    mesh, where = other.device_mesh, other.placements
    return distribute_tensor(tensor.to(other.device), mesh, where, src_data_rank=None)
