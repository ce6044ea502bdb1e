"""SIGKILL at any moment, the same call again: the end is bit-identical to a run that nobody killed.

Three random moments here; in `make test-all` twenty, five kills in one run, and every disk
operation of a save. Children are forked from a server that has torch loaded, so a kill falls into
training, not imports.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import toy_task

from distill import folders

HERE = Path(__file__).resolve().parent
LAST = f"step-{toy_task.SETTINGS.steps:08d}"


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServerContext]:
    context = multiprocessing.get_context("forkserver")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), before])
    context.set_forkserver_preload(["toy_task", "torch.utils.tensorboard", "torch._dynamo"])
    yield context
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def whole(
    server: ForkServerContext, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], float]:
    """The end of a run that nobody killed, and the seconds it took once torch was loaded."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("warm", "run"):
        started = time.perf_counter()
        assert _trained(server, folder / name) == 0
    return _end(folder / "run"), time.perf_counter() - started


def _trained(
    server: ForkServerContext, folder: Path, kill_after: float | None = None, die_at: int = 0
) -> int | None:
    """Exit code of the toy task in a process of its own, killed after some seconds if wanted."""
    process = server.Process(target=toy_task.run, args=(str(folder), die_at))
    process.start()
    process.join(kill_after)
    if process.is_alive() and kill_after is not None:
        process.kill()
    process.join(600)
    return process.exitcode


def _end(folder: Path) -> dict[str, str]:
    """What must be equal: final weights, final optimiser state, and the losses of every step."""
    last = folder / "checkpoints" / LAST
    names = ("weights.safetensors", "optimizer.safetensors")
    rows = [
        line.partition(b'"loss"')[2].partition(b'"tokens_per_second"')[0] for line in _rows(folder)
    ]
    return {name: folders.sha256_file(last / name) for name in names} | {"rows": repr(rows)}


def _rows(folder: Path) -> list[bytes]:
    return (folder / "steps.jsonl").read_bytes().splitlines()


def _kill_at_random(
    server: ForkServerContext,
    whole: tuple[dict[str, str], float],
    folder: Path,
    times: int,
    kills: int = 1,
) -> None:
    """Each trial: a run killed at random moments while it lives, then resumed and compared."""
    expected, seconds = whole
    seed = int.from_bytes(os.urandom(4), "big")
    chance, trial, landed = random.Random(seed), 0, 0
    while trial < times:
        run = folder / str(trial)
        fell = sum(
            _trained(server, run, kill_after=chance.uniform(0.02, seconds)) == -9
            for _ in range(kills)
        )
        assert _trained(server, run) == 0, f"trial {trial} of seed {seed} did not resume"
        assert _end(run) == expected, f"trial {trial} of seed {seed} ended elsewhere"
        assert not list((run / "checkpoints").glob(".partial*")), (
            "a half-written checkpoint was left"
        )
        shutil.rmtree(run)
        if fell:
            trial, landed = trial + 1, landed + fell
        else:  # it was quicker than the run that set the clock: no kill, so no trial
            seconds *= 0.7
    print(f"{landed} kills in {trial} runs; {trial} of {trial} resumed and ended bit-identical")


def test_three_random_kills_end_bit_identical(
    server: ForkServerContext, whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    _kill_at_random(server, whole, tmp_path, times=3)


@pytest.mark.slow
def test_twenty_random_kills_end_bit_identical(
    server: ForkServerContext, whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    _kill_at_random(server, whole, tmp_path, times=20)


@pytest.mark.slow
def test_five_kills_in_one_run(
    server: ForkServerContext, whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    _kill_at_random(server, whole, tmp_path, times=2, kills=5)


@pytest.mark.slow
def test_a_kill_before_every_disk_operation(
    server: ForkServerContext, whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """From the first file written through three saves and the first removal of a checkpoint."""
    for operation in range(1, 60):
        run = tmp_path / str(operation)
        assert _trained(server, run, die_at=operation) == -9
        assert _trained(server, run) == 0, f"killed before operation {operation}: did not resume"
        assert _end(run) == whole[0], f"killed before operation {operation}: ended elsewhere"
        shutil.rmtree(run)
