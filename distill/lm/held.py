"""How a base's weights are held in memory: quantised or not, and whether this machine can.

An adapter fits the weights that it was trained on. Trained on a base in 4 bits, it has learnt to
make good what the rounding did, so it is opened on the same, where that can be done.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch

from distill.errors import SettingsError, first_line
from distill.lm.base import Quantisation
from distill.runtime.devices import best_device

Dtype = Literal["float32", "bfloat16", "float16"]


def check_held(dtype: str | None, quantise: str | None) -> None:
    """SettingsError for what no weights can be held in, or not on this machine."""
    for name, value, known in (
        ("dtype", dtype, get_args(Dtype)),
        ("quantise", quantise, get_args(Quantisation)),
    ):
        if value is not None and value not in known:
            raise SettingsError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
    if quantise is not None and (why := cannot_quantise(quantise)):
        raise SettingsError(f"quantise {quantise}: cannot be done here ({why}); give none")


def quantised_as(model: Any) -> Quantisation:
    """How `open_base` was asked to quantise this model."""
    config = getattr(model.config, "quantization_config", None)
    if getattr(config, "load_in_4bit", False):
        return "nf4"
    return "int8" if getattr(config, "load_in_8bit", False) else "none"


def cannot_quantise(quantise: str) -> str | None:
    """Why this machine cannot hold weights so; None where it can. It is tried, on a few numbers."""
    if quantise == "none":
        return None
    try:
        from bitsandbytes import functional
    except Exception as error:  # whatever a library that is half there may raise
        reason = first_line(error)[:120]
        return f"bitsandbytes cannot be imported: {reason}; pip install bitsandbytes"
    weights_OI = torch.zeros(64, 64, device=best_device())
    try:
        if quantise == "nf4":
            functional.quantize_4bit(weights_OI, quant_type="nf4")
        else:
            functional.int8_vectorwise_quant(weights_OI.half())
    except Exception as error:  # each of its backends fails in its own way
        reason = first_line(error)[:120]
        return f"bitsandbytes cannot on {weights_OI.device.type}: {reason}"
    return None
