"""What differs between LLM families after the head's matrix product, one row each.

Most causal LMs give `logits = head(hidden)`. Some scale that product by a number from their config,
some press it softly into a range (`cap * tanh(logits / cap)`, Gemma 2, arXiv 2408.00118). A student
that computes only one slot's logits calls the head itself, so it has to do the same. A new family
usually needs nothing: one that is not listed has no scale, and soft-capping is found by its
config's name for all. `student.graft` compares its logits with the stock model's before it hands a
student out, so a missing row is noticed at once and not during training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Family:
    """Names of config values: the head's product is multiplied by the one, divided by the other."""

    multiply_by: str = ""
    divide_by: str = ""


PLAIN = Family()
FAMILIES = {  # by config.model_type, as in transformers 5.23
    "cohere": Family(multiply_by="logit_scale"),
    "cohere2": Family(multiply_by="logit_scale"),
    "falcon_h1": Family(multiply_by="lm_head_multiplier"),
    "granite": Family(divide_by="logits_scaling"),
    "granitemoe": Family(divide_by="logits_scaling"),
    "granitemoehybrid": Family(divide_by="logits_scaling"),
    "granitemoeshared": Family(divide_by="logits_scaling"),
    "hyperclovax": Family(multiply_by="logits_scaling"),
    "minicpm3": Family(divide_by="logits_scaling"),
}


def after_head(config: PreTrainedConfig) -> Callable[[Tensor], Tensor]:
    """The model's own scaling, then soft-capping, of logits of any shape; the dtype stays."""
    family = FAMILIES.get(config.model_type, PLAIN)
    multiplier = getattr(config, family.multiply_by) if family.multiply_by else None
    divisor = getattr(config, family.divide_by) if family.divide_by else None
    cap = getattr(config, "final_logit_softcapping", None)

    def finish(logits: Tensor) -> Tensor:
        if multiplier is not None:
            logits = logits * multiplier
        if divisor is not None:
            logits = logits / divisor
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits

    return finish


def cache_word(kind: type[nn.Module]) -> str:
    """What a transformers class calls its key-value cache; it depends on the version."""
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"
