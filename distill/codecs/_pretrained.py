"""Codecs in the layout that transformers publishes: config.json and model.safetensors.

The class is named by the codec's own file, never by the download. The weights are read and checked
first (_weights.py), and a model that would start with a random weight, because the file lacks it,
is refused.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.codecs._weights import as_configured, read_config, read_tensors, settled
from distill.errors import CodecError


def read_pretrained_config(cls: Any, place: Path, model_type: str) -> Any:
    """The configuration `cls` of a config.json. CodecError when it is another model's or names
    code."""
    given = read_config(place, ("model_type",))
    if given["model_type"] != model_type:
        raise CodecError(
            f"{place}: is a {given['model_type']}, not a {model_type}; choose the codec's kind by "
            "that"
        )
    with as_configured(place):
        return cls.from_dict(given)


def open_pretrained(cls: Any, config: Any, folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """(model in float32, the weights of its file) of a folder. CodecError names what is damaged or
    missing."""
    place = folder / "model.safetensors"
    state = read_tensors(place)
    quiet = logging.getLogger("transformers.modeling_utils")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # its table of missing weights: one line says it below
    try:
        with as_configured(folder / "config.json"):
            model, told = cls.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    finally:
        quiet.setLevel(level)
    if absent := sorted(map(str, told["missing_keys"])):
        raise CodecError(
            f"{place}: {absent[0]} is missing; weights and config.json do not belong together"
        )
    return settled(model), state
