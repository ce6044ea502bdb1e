"""Fewer layers: a base of which only some are kept.

The first N layers of a good LLM are a smaller LLM that has read as much; trained on, it costs less
at every token. The cut is a stock model again: fewer layers in its one list, every number of a
layer counted anew, every list of the config that speaks of each layer cut likewise.

Families give their layers parts by the layer's number in many ways (a window in every sixth,
experts from the fourth on). Whatever the way: a model that is built from the cut config must be
what the cut model is, module by module, or the cut is refused.
"""

from __future__ import annotations

import copy
import re
from types import NoneType
from typing import Any

import torch
from torch import nn

from distill.errors import GraftError, SettingsError

_OF_LAYERS = re.compile("layer|block|idxs")  # in the name of a config's list
Layers = int | tuple[int, ...] | None  # the first N, or these by their numbers from 0; None: all


def check_layers(layers: Layers) -> None:
    """SettingsError unless `layers` can be meant: a number from 1 up, or rising numbers from 0."""
    if layers is None or (isinstance(layers, int) and layers >= 1):
        return
    numbers = layers if isinstance(layers, tuple) else ()
    if numbers and numbers[0] >= 0 and list(numbers) == sorted({*numbers}):
        return
    wanted = "it must be how many to keep (1 or more), or rising numbers from 0, each once"
    shown = list(layers) if isinstance(layers, tuple) else layers
    raise SettingsError(f"layers is {shown}; {wanted}")


def kept_layers(model: nn.Module | None) -> tuple[int, ...] | None:
    """The numbers, in the whole base, of the layers that `keep_layers` left; None: all of them."""
    return getattr(model, "kept_layers", None)


def keep_layers(model: Any, layers: Layers, where: str) -> None:
    """Keeps these layers of a causal LM, in place. GraftError, naming `where`, for numbers out of
    range and for families that cannot be cut."""
    if layers is None:
        return
    stack = _stack(model, where)
    count = len(stack)
    kept = tuple(range(layers)) if isinstance(layers, int) else layers
    if max(kept) >= count:
        given = layers if isinstance(layers, int) else list(layers)
        ways = f"give 1 to {count}, or numbers from 0 to {count - 1}"
        raise GraftError(f"{where}: base.layers is {given}, it has {count} layers; {ways}")
    if len(kept) == count:
        return
    _cut_config(model.config.get_text_config(), kept)
    left = [stack[number] for number in kept]
    del stack[:]
    stack.extend(left)
    module: Any  # whatever this family keeps its layer's number in
    for number, layer in enumerate(stack):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    if odd := _unlike_its_config(model):
        ways = "keep the first layers only, or all"
        raise GraftError(f"{where}: its layers depend on their number ({odd}); {ways}")
    model.kept_layers = kept


def _stack(model: Any, where: str) -> nn.ModuleList:
    """The one list of a causal LM's layers."""
    count = model.config.get_text_config().num_hidden_layers
    lists = [
        module
        for module in model.get_decoder().modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if len(lists) != 1:
        fault = f"has {len(lists)} lists of {count} layers where base.layers cuts one"
        raise GraftError(f"{where}: {fault}; keep all layers of this base")
    return lists[0]


def _cut_config(config: Any, kept: tuple[int, ...]) -> None:
    """Fewer layers in a config: lists with a word for each layer, and lists of layers' numbers."""
    count = config.num_hidden_layers
    for name, values in config.to_dict().items():
        if not isinstance(values, list) or not _OF_LAYERS.search(name):
            continue
        if len(values) == count:
            setattr(config, name, [values[number] for number in kept])
        elif all(type(value) is int for value in values):
            setattr(config, name, [kept.index(value) for value in values if value in kept])
    config.num_hidden_layers = len(kept)


def _unlike_its_config(model: Any) -> str:
    """Where a model's body differs from one that its config would build; empty: nowhere."""
    with torch.device("meta"):
        twin = type(model)(copy.deepcopy(model.config))
    ours = dict(model.get_decoder().named_modules())
    theirs = dict(twin.get_decoder().named_modules())
    if odd := sorted(ours.keys() ^ theirs.keys()):
        return odd[0]
    for name, module in theirs.items():
        # quantised layers are linear layers too, of a class of their own
        if not isinstance(ours[name], nn.Linear if isinstance(module, nn.Linear) else type(module)):
            return name
        for key, value in vars(module).items():
            plain = isinstance(value, int | float | str | tuple | NoneType) and key != "training"
            if plain and key[0] != "_" and getattr(ours[name], key, None) != value:
                return f"{name}.{key}".strip(".")
    return ""
