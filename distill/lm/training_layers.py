"""A student's layers in training: computed again in the backward pass, or compiled.

Both change how a step is computed and nothing of what is saved, merged or sung: parameters keep
their names, and a model that is not in training mode runs as it always did.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from distill.errors import SettingsError
from distill.lm import attention
from distill.lm.student import Student
from distill.runtime import torchaudio_standin

torchaudio_standin.install()
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

BACKEND: str | Callable[..., Any] = "inductor"  # of torch.compile


def checkpoint_layers(student: Student) -> None:
    """A step keeps each layer's input alone and computes the layer again in the backward pass (Chen
    et al., arXiv 1604.06174). SettingsError for a family whose layers cannot."""
    model = student.model
    if not model.supports_gradient_checkpointing:
        fault = f"{model.config.model_type} cannot compute its layers again"
        raise SettingsError(f"train.gradient_checkpointing: {fault}; leave it out")
    model.gradient_checkpointing_enable({"use_reentrant": False})


def compile_layers(student: Student) -> None:
    """Each layer becomes kernels made for it, at the first step of each shape; layers of one kind
    share them. Attention to packed songs, whose lengths change every batch, stays as it is.
    SettingsError where there is nothing to compile with, or no layer is known as one."""
    if not _has_compiler(student.device):
        fault = "torch makes its CPU kernels with a C++ compiler and there is no C++ compiler here"
        raise SettingsError(f"train.compile: {fault}; install g++, or leave it out")
    blocks = [m for m in student.model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not blocks:
        fault = f"{student.model.config.model_type} has no layers that transformers names as such"
        raise SettingsError(f"train.compile: {fault}; leave it out")
    attend = AttentionInterface()[attention.NAME]
    if not getattr(attend, "_torchdynamo_disable", False):
        AttentionInterface.register(attention.NAME, torch.compiler.disable(attend))
    for block in blocks:
        _compile_in_training(block)


def _compile_in_training(block: nn.Module) -> None:
    """As `block.compile()`, but for training mode alone: a singer's steps all differ in length."""
    compiled = torch.compile(block._call_impl, backend=BACKEND)

    def call(*given: Any, **named: Any) -> Any:
        return (compiled if block.training else block._call_impl)(*given, **named)

    # where `nn.Module.compile` puts it: neither saved nor copied with the module
    block._compiled_call_impl = call


def _has_compiler(device: torch.device) -> bool:
    """A GPU's kernels are Triton's, which brings its own."""
    return device.type != "cpu" or any(map(shutil.which, ("g++", "clang++", "c++")))
