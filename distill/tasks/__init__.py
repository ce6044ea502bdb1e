"""Tasks: what can be trained. One file a task, named by the recipe's `task`.

Every file has a frozen dataclass `Settings`, the recipe's tree of keys for this task, with

    run(recipe, folder) -> str      the whole chain in a folder; a few lines on what came of it

Most build a `Task` and hand it to `_run.run`: train, save, evaluate, report. To the trainer a task
is only batches, losses and state (distill.training.trainer.Task).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from distill.songs import Song
from distill.training import trainer


def parameter_groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """AdamW's groups: matrices decay, vectors (norms, biases) do not."""
    given = list(parameters)
    matrices = [parameter for parameter in given if parameter.ndim > 1]
    vectors = [parameter for parameter in given if parameter.ndim <= 1]
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


class Task(trainer.Task, Protocol):
    """What a run asks of a task beside what the trainer does. A task inherits this class, and with
    it silence and no held-out songs."""

    @property
    def sample_rate(self) -> int:
        """Hz, of its sounds."""
        return 0

    def sounds(self) -> dict[str, Tensor]:
        """wave_CW by name, to listen to while it learns."""
        return {}

    def held_out_songs(self) -> Sequence[Song]:
        """The songs that `evaluate` is asked about; none for a task without songs."""
        return ()

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes what was learnt, whole or not at all."""
        ...

    @abstractmethod
    def evaluate(self, songs: Sequence[Song]) -> Mapping[str, Any]:
        """Figures on what is held out, as JSON values."""
        ...
