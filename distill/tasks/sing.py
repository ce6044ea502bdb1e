"""Teach a grafted LLM to sing. The run is in `_singing_run`, the loss in `_singing_task`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distill.config.recipe import Recipe
from distill.tasks._singing_settings import (
    BaseSettings,
    JudgeSettings,
    SingingSettings,
    TermSettings,
)


@dataclass(frozen=True)
class Settings(SingingSettings):
    """The recipe of a singer."""

    def run(self, recipe: Recipe, folder: Path) -> str:
        """The whole chain, from songs to a singer, a merged model and a take, in a folder."""
        from distill.tasks import _singing_run  # all that a run needs, and a check does not

        return _singing_run.run(recipe, folder)


__all__ = ["BaseSettings", "JudgeSettings", "Settings", "TermSettings"]
