"""Work for tests of engines, in a file that worker processes can import."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.errors import SongError


@dataclass(frozen=True)
class Odd:
    """Squares a number; does with one of them what `does` says. `folder`: who did what."""

    folder: str
    number: int = -1
    does: str = ""

    def __call__(self, number: int) -> int:
        log = Path(self.folder) / f"{number}.{os.getpid()}"
        log.touch()
        print("what a library prints must not stand between answers")
        if number != self.number:
            return number * number
        tried = len(list(Path(self.folder).glob(f"{number}.*")))
        match self.does:
            case "die":
                os.kill(os.getpid(), 9)
            case "die once" if tried == 1:
                os.kill(os.getpid(), 9)
            case "refuse":
                raise SongError(f"song {number}: is odd; leave it out")
            case "fault":
                raise RuntimeError("not\nours")
            case "sleep":
                time.sleep(600)
        return number * number


def product(seed: int) -> bytes:
    """What one thread makes of two random matrices."""
    a_NN, b_NN = np.random.default_rng(seed).normal(size=(2, 64, 64)).astype(np.float32)
    return (a_NN @ b_NN).tobytes()
