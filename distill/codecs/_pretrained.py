"""Codecs in the layout that transformers publishes: config.json and model.safetensors.

The codec's own file names the class, never the download. The weights are read and checked first
(_weights.py), and a model that would start with a random weight, because the file lacks it, is
refused.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from distill.codecs._weights import as_configured, read_config, read_tensors, settled
from distill.errors import CodecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Config = TypeVar("Config", bound="PretrainedConfig")
Model = TypeVar("Model", bound="PreTrainedModel")


def read_pretrained_config(cls: type[Config], path: Path, model_type: str) -> Config:
    """The configuration of a config.json. CodecError when it is another model's or names code."""
    given = read_config(path, ("model_type",))
    if given["model_type"] != model_type:
        raise CodecError(f"{path}: is a {given['model_type']}, not a {model_type}; take that kind")
    with as_configured(path):
        return cls.from_dict(given)


def open_pretrained(
    cls: type[Model], config: PretrainedConfig, folder: Path
) -> tuple[Model, dict[str, Tensor]]:
    """(model in float32, the weights of its file). CodecError names what is damaged or missing."""
    path = folder / "model.safetensors"
    state = read_tensors(path)
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its table of missing weights: one line says it below
    try:
        with as_configured(folder / "config.json"):
            loaded: Any = cls.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    finally:
        logger.setLevel(level)
    model, report = loaded
    if missing := sorted(map(str, report["missing_keys"])):
        raise CodecError(f"{path}: {missing[0]} is missing; it does not belong to config.json")
    return settled(model), state
