"""Figures of a singer before it learns: bounded, where it will train, and taken once a run.

They and the ones at the end are of the same held-out passages. The run folder keeps them
(before.json), with a hash of what they depend on, so that a resumed run does not take them again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.config.recipe import Recipe
from distill.folders import sha256_bytes, write_atomic
from distill.training.trainer import TrainSettings
from distill.writing.prompts import Coded

MEASURED = 32_768  # audio tokens: 11 minutes of the embedded codec, a minute of a 0.6 B model


def sample(coded: Sequence[Coded], tokens: int = MEASURED) -> list[Coded]:
    """All passages, or as many as hold so many audio tokens, drawn from everywhere; in order."""
    count, chosen, held = len(coded), dict[int, Coded](), 0
    stride = next(s for s in range(max(1, round(0.618 * count)), 2 * count + 2) if _prime(s, count))
    for number in range(count):
        at = number * stride % count
        chosen[at] = coded[at]
        held += chosen[at].codes_FS.numel()
        if held >= tokens:
            break
    return [chosen[at] for at in sorted(chosen)]


def _prime(stride: int, count: int) -> bool:
    """Whether steps of `stride` come to every one of `count`."""
    return math.gcd(stride, count) == 1


def once(recipe: Recipe, folder: Path, measure: Callable[[], Any]) -> Any:
    """What `measure` gives, or gave when this run was begun."""
    path = folder / "before.json"
    untrained = replace(recipe.settings, train=TrainSettings(steps=1))  # a budget changes nothing
    of = sha256_bytes(replace(recipe, settings=untrained).yaml().encode())
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["of"] == of:
            return kept["figures"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or not ours to read: they are taken again
    figures = measure()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps({"of": of, "figures": figures}, indent=1) + "\n").encode())
    return figures
