"""Teach a grafted LLM to sing: cross entropy and divergences in code space, on packed passages.

The loss, in nats per token, is a weighted sum of means:

    per slot      each of the recipe's losses over the slot's own codes, slots counting equally
    piece         -log P of the next text token, pitch or end, so that it can go on by itself
    length, open  likewise for lengths, and for boundaries where a frame, a piece or the end comes
    format        -log P(legal) on a sample of positions, over all rows: for plain samplers
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distill.config.recipe import Recipe
from distill.tasks import _singing_run
from distill.tasks._singing_settings import (
    BaseSettings,
    JudgeSettings,
    SingingSettings,
    TermSettings,
)
from distill.tasks._singing_task import SingingTask, student_of


@dataclass(frozen=True)
class Settings(SingingSettings):
    """The recipe of a singer."""

    def run(self, recipe: Recipe, folder: Path) -> str:
        """The whole chain, from songs to a singer, a merged model and a take, in a folder."""
        return _singing_run.run(recipe, folder)


__all__ = ["BaseSettings", "JudgeSettings", "Settings", "SingingTask", "TermSettings", "student_of"]
