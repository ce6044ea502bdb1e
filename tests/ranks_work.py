"""Tiny students trained by several processes; tests/test_devices.py launches it.

ranks_work.py FOLDER '[{"name": ..., "accumulate": 2, "stop": 0, "family": ..., "fsdp": ...}]'
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

import tiny_singer
from safetensors.torch import save_file

from distill.errors import DistillError, ElsewhereError, SongError
from distill.lm import logits
from distill.lm.student import Student
from distill.runtime import ranks
from distill.tasks import sing
from distill.tasks._singing_task import SingingTask
from distill.training import sharding
from distill.training.trainer import TrainSettings, train
from distill.writing.batches import PackingSettings
from distill.writing.losses import CrossEntropy
from distill.writing.prompts import Coded, WritingSettings

STEPS = 4


def work(folder: Path, accumulate: int, stop: int, family: str, wrong: str) -> None:
    """Trains in a folder: up to step `stop`, or to the end, with all that is trained left there."""
    songs = 5 if wrong == "songs" and ranks.number() == 1 else 4
    coded = tiny_singer.coded(songs, WritingSettings(max_lines=1))
    student = tiny_singer.student(family, lively=0.05, lora=True)
    settings = sing.Settings(
        songs=None,  # type: ignore[arg-type]
        codec=None,  # type: ignore[arg-type]
        losses=(CrossEntropy(),),
        packing=PackingSettings(512, 1),
    )
    how = TrainSettings(
        steps=STEPS, learning_rate=0.01, warmup_steps=0, accumulate=accumulate,
        checkpoint_every_steps=2, precision="fp32",
    )  # fmt: skip
    task = SingingTask(student, coded, settings, 0)
    for step in train(task, how, folder / "run", seed=3):
        if wrong == "error" and step.index == 2 and ranks.number() == 1:
            raise SongError("song 7: is odd; leave it out")
        if wrong == "killed" and step.index == 3 and ranks.number() == 1:
            os.kill(os.getpid(), 9)
        if step.index == stop:
            return
        with sharding.gathered(student.model):  # measured between two steps, by one alone
            if ranks.is_first():
                measure(student, coded)
    ranks.from_first(lambda: measure(student, coded))
    if ranks.is_first():
        student.save_adapter(folder / "adapter", "float32")
        state = {name: value.contiguous() for name, value in student.state().items()}
        save_file(state, folder / "state.safetensors")


def measure(student: Student, coded: list[Coded]) -> None:
    nats = logits.held_out(student, coded)["nats_per_token"]
    assert all(math.isfinite(number) for number in nats)


def main() -> int:
    try:
        with ranks.together():
            for order in json.loads(sys.argv[2]):
                os.environ["ACCELERATE_USE_FSDP"] = "true" if order.get("fsdp") else "false"
                os.environ["FSDP_VERSION"] = "2"
                family, wrong = order.get("family", "llama"), order.get("wrong", "")
                folder = Path(sys.argv[1]) / order["name"]
                work(folder, order["accumulate"], order.get("stop", 0), family, wrong)
    except ElsewhereError:
        return 2
    except DistillError as error:
        print(f"distill: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
