"""LoRA folded into the weights, for as long as a singer sings.

A LoRA layer answers with three products and an addition where the merged one has a single product:
for one token at a time that is half of the time. `folded` puts plain layers with W + alpha / rank
* B A in the places of the LoRA layers and takes them out again. The student's own tensors are never
written to, so what it was before it is afterwards, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from distill.lm.student import Student
from distill.runtime import torchaudio_standin

torchaudio_standin.install()
from peft.tuners.lora import LoraLayer
from transformers.pytorch_utils import Conv1D


@contextmanager
def folded(student: Student) -> Iterator[None]:
    """For the time of a forward or many: the student's LoRA in its weights, each in its own dtype,
    as a merge has it.

    Costs a copy of those weights. Nothing may train meanwhile. Quantised layers stay as they are: a
    fold would need them in full.
    """
    places = [
        (parent, name, child)
        for parent in student.model.modules()
        for name, child in parent.named_children()
        if isinstance(child, LoraLayer) and _can_fold(child)
    ]
    try:
        for parent, name, child in places:
            setattr(parent, name, _plain(child))
        yield
    finally:
        for parent, name, child in places:
            setattr(parent, name, child)


def _can_fold(layer: LoraLayer) -> bool:
    base: Any = layer.get_base_layer()
    return type(base) in (nn.Linear, Conv1D) and base.weight.is_floating_point()


@torch.no_grad()
def _plain(layer: Any) -> nn.Module:
    """The base's layer with another weight; everything else is shared."""
    base = layer.get_base_layer()
    weight = base.weight.to(torch.promote_types(base.weight.dtype, torch.float32))
    for name in layer.active_adapters:
        weight = weight + layer.get_delta_weight(name).to(weight.dtype)
    plain = copy.copy(base)
    plain._parameters = dict(base._parameters)
    plain._parameters["weight"] = nn.Parameter(weight.to(base.weight.dtype), requires_grad=False)
    return plain
