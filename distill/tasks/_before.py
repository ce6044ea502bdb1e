"""Figures of a singer before it learns: bounded, where it will train, and taken once a run.

They and the ones at the end are of the same held-out passages. The run folder keeps them
(before.json), with a hash of what they depend on, so that a resumed run does not take them again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.config.recipe import Recipe
from distill.folders import sha256_bytes, write_atomic
from distill.training.trainer import TrainSettings


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
