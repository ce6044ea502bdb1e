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
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distill.runtime import torchaudio_standin

torchaudio_standin.install()
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Family:
    """Names of config values: the head's product is multiplied by the one, divided by the other."""

    multiply_by: str = ""
    divide_by: str = ""


PLAIN = Family()
SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
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
    config = text_config(config)
    family = FAMILIES.get(config.model_type, PLAIN)
    multiplier = getattr(config, family.multiply_by) if family.multiply_by else None
    divisor = getattr(config, family.divide_by) if family.divide_by else None
    caps = (getattr(config, name, None) for name in SOFT_CAPS)
    cap = next((value for value in caps if value is not None), None)

    def finish(logits: Tensor) -> Tensor:
        if multiplier is not None:
            logits = logits * multiplier
        if divisor is not None:
            logits = logits / divisor
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits

    return finish


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Of the language model: of a multimodal LLM it is nested, else it is the config itself."""
    return config.get_text_config(decoder=True)


def is_nested(config: PreTrainedConfig) -> bool:
    """Whether an LLM is multimodal: its language model is a part of it."""
    return text_config(config) is not config


def text_model(model: Any) -> Any:
    """The layers whose last hidden state the head reads; of a multimodal LLM its language model."""
    body = model.base_model
    if not is_nested(model.config) and body is not model:
        return body
    table = model.get_input_embeddings()
    return next(module for module in model.modules() if table in module.children())


def is_sparse(config: PreTrainedConfig) -> bool:
    """Whether tokens are sent to experts, of which rounding may choose another."""
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return any((getattr(config, name, 0) or 0) > 1 for name in names)


def opener(config: PreTrainedConfig) -> Any:
    """transformers' class that opens a folder of this config as one that writes text."""
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText  # Mistral 3 and others: never without their eyes
    return AutoModelForCausalLM


def cache_word(kind: type[nn.Module]) -> str:
    """What a transformers class calls its key-value cache; it depends on the version."""
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"
