"""What differs between LLM families after the head's matrix product, one row each.

Most causal LMs give `logits = head(hidden)`. Some scale that product by a number from their config,
some press it softly into a range (`cap * tanh(logits / cap)`, Gemma 2, arXiv 2408.00118). A student
that scores only one slot's rows calls the head itself, so it has to do the same. Adding a family is
usually nothing: a family that is not listed has no scale, and soft-capping is found by its config's
name for every family. `student.graft` compares scores with the stock model's own logits before it
hands a student out, so a missing row is noticed at once and not during training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Family:
    """Names of config values: the head's product is multiplied by the one and divided by the other."""

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


def after_head(config: Any) -> Callable[[Tensor], Tensor]:
    """What this LLM does to the head's product: scaling, then soft-capping; each in the order of
    the stock forward.

    `config` is the model's own. The function takes and gives scores of any shape, in the same
    dtype.
    """
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


def cache_word(kind: Any) -> str:
    """What a transformers class calls the keys and values that it is handed on: later ones `cache`,
    those before `past_key_values`."""
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"
