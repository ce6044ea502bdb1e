"""The smallest task with all that can go wrong in resuming: dropout, unequal random batches, two
terms.

`run` trains it in a folder; tests/test_kill.py runs it in processes of its own and kills them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.training.trainer import TrainSettings, numbered, train

SETTINGS = TrainSettings(
    steps=45,
    learning_rate=0.01,
    warmup_steps=5,
    accumulate=2,
    checkpoint_every_steps=3,
    precision="fp32",
)


@dataclass
class Toy:
    """Learns the sum of eight numbers; `before_loss` gets the number of each micro-batch."""

    before_loss: Callable[[int], None] = lambda number: None
    dropout: float = 0.1
    weighted: dict[str, float] = field(default_factory=lambda: {"square": 1.0, "absolute": 0.3})
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(8, 16),
            torch.nn.Tanh(),
            torch.nn.Dropout(self.dropout),
            torch.nn.Linear(16, 1),
        ).to(self.dtype)

    def batches(
        self, generator: torch.Generator, start: int, stride: int = 1
    ) -> Iterator[tuple[int, Tensor]]:
        number = start
        while True:
            chance = numbered(generator, number)
            rows = int(torch.randint(2, 9, (), generator=chance))
            yield number, torch.randn(rows, 8, generator=chance).to(self.dtype)
            number += stride

    def counts(self, batch: tuple[int, Tensor]) -> dict[str, float]:
        return {"square": float(len(batch[1])), "absolute": float((batch[1][:, 0] > 0).sum())}

    def loss(self, batch: tuple[int, Tensor]) -> dict[str, tuple[Tensor, float]]:
        number, rows_BD = batch
        self.before_loss(number)
        self.network.train()
        miss_B = (self.network(rows_BD)[:, 0] - rows_BD.sum(1)) * self.scale(number)
        counts = self.counts(batch)
        return {
            "square": ((miss_B**2).sum(), counts["square"]),
            "absolute": (miss_B.abs()[rows_BD[:, 0] > 0].sum(), counts["absolute"]),
            "seen": (miss_B.new_ones(()) * len(rows_BD), 1.0),
        }

    def scale(self, number: int) -> float:
        return 1.0

    def loss_weights(self) -> dict[str, float]:
        return self.weighted

    def parameters(self) -> list[dict[str, Any]]:
        first, second = self.network[0], self.network[3]
        return [
            {"params": list(first.parameters()), "lr_scale": 0.5},
            {"params": list(second.parameters()), "weight_decay": 0.0},
        ]

    def state(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.network.load_state_dict(state)

    def size(self, batch: tuple[int, Tensor]) -> int:
        return len(batch[1])

    def to(self, device: torch.device) -> None:
        self.network.to(device)


def run(folder: str, die_at: int = 0) -> None:
    """Trains to the end in `folder`, or kills this process at its disk operation `die_at`."""
    torch.set_num_threads(1)
    if die_at:
        _die_at(die_at)
    for _ in train(Toy(), SETTINGS, Path(folder), seed=3):
        pass


def _die_at(operation: int) -> None:
    """SIGKILL, from within, just before the n-th flush, rename or removal of files."""
    left = [operation]

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def watching(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), 9)
            return call(*arguments, **named)

        return watching

    for name in ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir"):
        setattr(os, name, watched(getattr(os, name)))


if __name__ == "__main__":
    run(sys.argv[1])
