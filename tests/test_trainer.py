"""The trainer: accumulation is one batch, resuming is the same call, errors are not skipped."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import math
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from toy_task import Toy

from distill import folders
from distill.errors import CheckpointError, DistillError, SettingsError, TrainingError
from distill.training import checkpoints, trainer
from distill.training.progress import show
from distill.training.trainer import Step, TrainSettings, train

SETTINGS = TrainSettings(
    steps=12,
    learning_rate=0.01,
    warmup_steps=3,
    accumulate=2,
    checkpoint_every_steps=3,
    precision="fp32",
)


def _run(
    folder: Path, toy: Toy | None = None, settings: TrainSettings = SETTINGS
) -> tuple[Toy, list[Step]]:
    toy = toy or Toy()
    return toy, list(train(toy, settings, folder, seed=3))


def _same(task: Toy, other: Toy) -> bool:
    return all(torch.equal(value, other.state()[name]) for name, value in task.state().items())


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def _timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in rows
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Toy, list[Step]]:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    toy, steps = _run(folder)
    return folder, toy, steps


@pytest.fixture
def ended(whole: tuple[Path, Toy, list[Step]], tmp_path: Path) -> Path:
    """A copy of that run's folder, to damage."""
    shutil.copytree(whole[0], tmp_path / "run")
    return tmp_path / "run"


# What it computes


def test_accumulation_equals_one_large_batch_in_float64(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=5, accumulate=4, clip=0.5, weight_decay=0.1)
    toy, steps = _run(tmp_path, Toy(dropout=0.0, dtype=torch.float64), settings)
    other = Toy(dropout=0.0, dtype=torch.float64)
    groups = [{"weight_decay": 0.1, **group} for group in other.parameters()]
    optimizer = torch.optim.AdamW(groups, betas=settings.betas)
    stream = other.batches(torch.Generator().manual_seed(3), 0)
    for number, step in enumerate(steps):
        batch = (0, torch.cat([rows_BD for _, rows_BD in islice(stream, 4)]))
        terms = other.loss(batch)
        loss = (
            terms["square"][0] / terms["square"][1]
            + 0.3 * terms["absolute"][0] / terms["absolute"][1]
        )
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(other.network.parameters()), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(number, 0.0) * group.get("lr_scale", 1.0)
        optimizer.step()
        assert step.loss == pytest.approx(loss.item(), rel=1e-12)
        assert step.gradient_norm == pytest.approx(norm.item(), rel=1e-12)
        assert step.tokens == len(batch[1])
    for name, value in toy.state().items():
        torch.testing.assert_close(value, other.state()[name], rtol=1e-12, atol=1e-14)
    assert not _same(toy, Toy(dropout=0.0, dtype=torch.float64)), "nothing was trained"


def test_counts_that_disagree_are_refused(tmp_path: Path) -> None:
    class Wrong(Toy):
        def counts(self, batch: Any) -> dict[str, float]:
            return {name: count + (batch[0] == 3) for name, count in super().counts(batch).items()}

        def loss(self, batch: Any) -> dict[str, tuple[torch.Tensor, float]]:
            return {
                name: (total, count - (batch[0] == 3))
                for name, (total, count) in super().loss(batch).items()
            }

    with pytest.raises(
        TrainingError, match=r"step 2: loss\(\) sums square over .* counts\(\) says"
    ):
        _run(tmp_path, Wrong())


def test_a_term_of_nothing_and_a_term_without_weight(tmp_path: Path) -> None:
    class Empty(Toy):
        def counts(self, batch: Any) -> dict[str, float]:
            return super().counts(batch) | {"absolute": 0.0}

        def loss(self, batch: Any) -> dict[str, tuple[torch.Tensor, float]]:
            terms = super().loss(batch)
            nothing = terms["absolute"][0] * 0
            return terms | {"absolute": (nothing, 0.0), "seen": (nothing + math.inf, 1.0)}

    _, steps = _run(tmp_path, Empty())
    assert all(
        step.terms["absolute"] == 0.0 and step.loss == step.terms["square"] for step in steps
    )
    assert all(row["terms"]["seen"] is None for row in _rows(tmp_path))


def test_the_learning_rate_follows_the_used_budget() -> None:
    by_steps = TrainSettings(steps=100, learning_rate=1.0, warmup_steps=10)
    assert by_steps.learning_rate_at(0, 0.0) == pytest.approx(0.1)
    assert by_steps.learning_rate_at(50, 0.0) == pytest.approx(0.5)
    assert by_steps.learning_rate_at(99, 0.0) < 1e-3
    by_seconds = TrainSettings(seconds=60, learning_rate=1.0, warmup_steps=0)
    assert by_seconds.learning_rate_at(7, 30.0) == pytest.approx(0.5)
    assert by_seconds.learning_rate_at(7, 61.0) == pytest.approx(0.0)
    both = TrainSettings(steps=100, seconds=60, learning_rate=1.0, warmup_steps=0)
    assert (
        both.learning_rate_at(50, 0.0)
        == pytest.approx(both.learning_rate_at(0, 30.0))
        == pytest.approx(0.5)
    )
    constant = dataclasses.replace(by_steps, schedule="constant")
    assert constant.learning_rate_at(99, 0.0) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"steps": 0},
        {"seconds": -1.0},
        {"steps": 1, "accumulate": 0},
        {"steps": 1, "keep": 0},
        {"steps": 1, "clip": 0.0},
        {"steps": 1, "warmup_steps": -1},
        {"steps": 1, "learning_rate": 0.0},
        {"steps": 1, "betas": (0.9, 1.0)},
        {"steps": 1, "checkpoint_every_steps": 0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        TrainSettings(**wrong)


def test_bf16_keeps_weights_and_moments_in_fp32(tmp_path: Path) -> None:
    toy, steps = _run(tmp_path, None, dataclasses.replace(SETTINGS, precision="bf16"))
    assert {value.dtype for value in toy.state().values()} == {torch.float32}
    moments = (tmp_path / "checkpoints" / "step-00000012" / "optimizer.safetensors").read_bytes()
    assert b"BF16" not in moments
    assert math.isfinite(steps[-1].loss)


# Resuming


def test_stopping_and_resuming_ends_bit_identical(
    whole: tuple[Path, Toy, list[Step]], tmp_path: Path
) -> None:
    for stop in (4, 8):  # between two checkpoints: the steps after the last one are done again
        for step in train(Toy(), SETTINGS, tmp_path, seed=3):
            # what callers do changes nothing
            torch.randn(step.index), numpy.random.rand(3), random.random()
            if step.index == stop:
                break
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')  # a row that a kill cut short
    toy, steps = _run(tmp_path)
    assert [step.index for step in steps] == [7, 8, 9, 10, 11, 12]
    assert _same(toy, whole[1])
    assert _timeless(_rows(tmp_path)) == _timeless(_rows(whole[0]))
    assert [row["step"] for row in _rows(tmp_path)] == list(range(1, 13))
    last = "checkpoints/step-00000012/optimizer.safetensors"
    assert folders.sha256_file(tmp_path / last) == folders.sha256_file(whole[0] / last)


def test_a_finished_run_gives_nothing_and_its_weights(
    whole: tuple[Path, Toy, list[Step]], ended: Path
) -> None:
    fresh = Toy()
    assert not _same(fresh, whole[1])
    before = (ended / "steps.jsonl").read_bytes()
    _, steps = _run(ended, fresh)
    assert steps == []
    assert _same(fresh, whole[1])
    assert (ended / "steps.jsonl").read_bytes() == before


def test_a_larger_budget_goes_on_where_the_run_ended(
    ended: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    constant = dataclasses.replace(SETTINGS, schedule="constant")
    longer = dataclasses.replace(constant, steps=20, keep=5, checkpoint_every_steps=None)
    at_once, _ = _run(tmp_path / "at once", None, longer)
    _run(tmp_path / "in two", None, constant)
    with caplog.at_level(logging.WARNING, "distill"):
        in_two, steps = _run(tmp_path / "in two", None, longer)
        assert "steps from 12 to 20 raised" in caplog.text and "rate of 0.01" in caplog.text
        assert "cosine" not in caplog.text
        assert [step.index for step in steps] == list(range(13, 21))
        assert _same(in_two, at_once)
        # a cosine that had come down to nothing rises again, which is said
        _, steps = _run(ended, None, dataclasses.replace(SETTINGS, steps=24))
    assert [step.index for step in steps] == list(range(13, 25))
    assert steps[0].learning_rate == pytest.approx(0.005)
    assert "rate of 0.005, as the cosine follows the new budget" in caplog.text
    assert json.loads((ended / "run.json").read_text())["settings"]["steps"] == 24
    assert _run(ended, None, dataclasses.replace(SETTINGS, steps=24))[1] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 6}, "train.steps was 12 and is now 6, and a budget can only be raised"),
        ({"seconds": 60.0}, "train.seconds was None and is now 60.0, and a budget can only"),
        ({"steps": 24, "clip": 0.5}, "train.clip was 1.0 and is now 0.5"),
    ],
)
def test_a_smaller_budget_or_another_run_is_refused(
    ended: Path, change: dict[str, Any], words: str
) -> None:
    before = (ended / "run.json").read_bytes()
    with pytest.raises(TrainingError, match=words):
        _run(ended, None, dataclasses.replace(SETTINGS, **change))
    assert (ended / "run.json").read_bytes() == before


def test_a_recipe_may_differ_in_its_budget_alone(ended: Path, tmp_path: Path) -> None:
    def text(steps: int, keep: int, task: str = "sing") -> str:
        return f"task: {task}\nseed: 3\ntrain: {{steps: {steps}, clip: 1.0, keep: {keep}}}\n"

    def go_on(steps: int, recipe: str) -> list[Step]:
        settings = dataclasses.replace(SETTINGS, steps=steps)
        return list(train(Toy(), settings, tmp_path / "run 2", seed=3, recipe=recipe))

    assert len(go_on(3, text(3, 2))) == 3
    assert len(go_on(5, text(5, 9))) == 2
    with pytest.raises(TrainingError, match="recipe said 'task: sing' and now says 'task: text'"):
        go_on(7, text(7, 9, "text"))


def test_the_newest_are_kept_and_the_rest_is_recorded(whole: tuple[Path, Toy, list[Step]]) -> None:
    folder, _, steps = whole
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        "step-00000009",
        "step-00000012",
    ]
    assert [row["loss"] for row in _rows(folder)] == [step.loss for step in steps]
    names = {
        "step",
        "seconds",
        "loss",
        "terms",
        "learning_rate",
        "tokens",
        "tokens_per_second",
        "gradient_norm",
    }
    assert all(
        set(row) == names and set(row["terms"]) == {"square", "absolute", "seen"}
        for row in _rows(folder)
    )
    events = list((folder / "tensorboard").iterdir())
    assert len(events) == 1
    assert b"terms/square" in events[0].read_bytes()


@pytest.mark.parametrize("fault", ["truncated", "one bit", "deleted"])
@pytest.mark.parametrize(
    "file", ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_serves(
    whole: tuple[Path, Toy, list[Step]],
    ended: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    fault: str,
) -> None:
    _damage(ended / "checkpoints" / "step-00000012" / file, fault)
    with caplog.at_level(logging.WARNING, "distill"):
        toy, steps = _run(ended)
    assert "step-00000012: damaged" in caplog.text
    # a wrong manifest blames the file it lists
    assert file in caplog.text or file == "manifest.json"
    assert [step.index for step in steps] == [10, 11, 12]
    assert _same(toy, whole[1])
    assert folders.whole(ended / "checkpoints" / "step-00000012")


def _damage(path: Path, fault: str) -> None:
    content = bytearray(path.read_bytes())
    if fault == "deleted":
        path.unlink()
    elif fault == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def test_only_damaged_checkpoints_are_an_error_not_a_fresh_start(ended: Path) -> None:
    for folder in (ended / "checkpoints").iterdir():
        _damage(folder / "weights.safetensors", "one bit")
    with pytest.raises(CheckpointError, match="no whole one is left"):
        _run(ended)


@pytest.mark.parametrize("missing", ["optimizer.safetensors", "weights.safetensors", "state.json"])
def test_a_missing_piece_is_an_error_even_when_the_manifest_agrees(
    ended: Path, missing: str
) -> None:
    last = ended / "checkpoints" / "step-00000012"
    (last / missing).unlink()
    listed = json.loads((last / "manifest.json").read_text())
    del listed[missing]
    (last / "manifest.json").write_text(json.dumps(listed))
    assert folders.whole(last)
    with pytest.raises(CheckpointError, match="step-00000012: a piece is missing") as error:
        _run(ended)
    assert "\n" not in str(error.value)


def test_another_thread_count_is_said(ended: Path, caplog: pytest.LogCaptureFixture) -> None:
    last = ended / "checkpoints" / "step-00000012"
    state = json.loads((last / "state.json").read_text())
    (last / "state.json").write_text(json.dumps(state | {"threads": 77}))
    listed = json.loads((last / "manifest.json").read_text())
    listed["state.json"] = folders.sha256_file(last / "state.json")
    (last / "manifest.json").write_text(json.dumps(listed))
    with caplog.at_level(logging.WARNING, "distill"):
        _run(ended)
    assert "threads was 77 and is now 1; going on, but not bit for bit" in caplog.text


# What is refused


def test_another_run_in_the_same_folder_is_refused_by_name(ended: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"another run \(train.learning_rate was 0.01 and is now 0.02\)"
    ):
        _run(ended, None, dataclasses.replace(SETTINGS, learning_rate=0.02))
    with pytest.raises(TrainingError, match="seed was 3 and is now 4"):
        list(train(Toy(), SETTINGS, ended, seed=4))
    with pytest.raises(TrainingError, match="its recipe said '' and now says 'task: sing'"):
        list(train(Toy(), SETTINGS, ended, seed=3, recipe="task: sing\n"))
    (ended / "run.json").unlink()
    with pytest.raises(TrainingError, match=r"holds checkpoints but no run\.json"):
        _run(ended)


def test_a_second_living_process_is_refused_and_a_dead_one_is_not(tmp_path: Path) -> None:
    hold = (
        "import fcntl, os, sys, time; f = open(sys.argv[1] + '/lock', 'a+');"
        "fcntl.flock(f, fcntl.LOCK_EX); f.write(str(os.getpid())); f.flush();"
        "print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", hold, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(TrainingError, match=f"process {process.pid} is training here"):
            _run(tmp_path)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    steps = train(Toy(), SETTINGS, tmp_path, seed=3)
    next(steps)
    with pytest.raises(TrainingError, match=f"process {os.getpid()} is training here"):
        _run(tmp_path)
    steps.close()
    assert len(_run(tmp_path)[1]) == 12


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path, value: float) -> None:
    class Breaks(Toy):
        def scale(self, number: int) -> float:
            return value if number == 9 else 1.0

    toy, seen = Breaks(), []
    with pytest.raises(
        TrainingError, match=r"step 5: the loss is .* \(square .*absolute .*nothing was updated"
    ) as error:
        for step in train(toy, SETTINGS, tmp_path, seed=3):
            seen.append((step.index, {name: value.clone() for name, value in toy.state().items()}))
    assert "\n" not in str(error.value)
    assert [index for index, _ in seen] == [1, 2, 3, 4]
    assert all(torch.equal(tensor, toy.state()[name]) for name, tensor in seen[-1][1].items())
    assert (
        folders.newest_whole(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-00000003"
    )


def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    class Breaks(Toy):
        def loss(self, batch: Any) -> dict[str, tuple[torch.Tensor, float]]:
            terms = super().loss(batch)
            total, count = terms["square"]
            total.register_hook(lambda gradient: gradient * math.inf)
            return terms | {"square": (total, count)}

    toy = Breaks()
    before = {name: value.clone() for name, value in toy.state().items()}
    with pytest.raises(TrainingError, match="step 1: the gradient norm is"):
        list(train(toy, SETTINGS, tmp_path, seed=3))
    assert all(torch.equal(before[name], value) for name, value in toy.state().items())


def test_batches_that_end_and_tasks_without_parameters_are_refused(tmp_path: Path) -> None:
    class Ends(Toy):
        def batches(
            self, generator: torch.Generator, start: int, stride: int = 1
        ) -> Iterator[tuple[int, torch.Tensor]]:
            return islice(super().batches(generator, start, stride), 3)

    class Nothing(Toy):
        def parameters(self) -> list[dict[str, Any]]:
            return []

    with pytest.raises(TrainingError, match="step 2: the batches ended"):
        _run(tmp_path / "ends", Ends())
    with pytest.raises(TrainingError, match="no parameters"):
        _run(tmp_path / "nothing", Nothing())
    with pytest.raises(TrainingError, match="no parameter got a gradient"):
        _run(tmp_path / "unweighted", Toy(weighted={}))


# The disk


@pytest.mark.parametrize("where", ["fsync", "weights", "rows"])
def test_a_full_disk_stops_and_the_same_call_goes_on(
    whole: tuple[Path, Toy, list[Step]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*_: Any, **__: Any) -> None:
        raise full if where != "weights" else checkpoints.SafetensorError(f"I/O error: {full}")

    with pytest.raises(
        CheckpointError, match=r"No space left on device.*earlier checkpoints are intact"
    ) as error:
        for step in train(Toy(), SETTINGS, tmp_path, seed=3):
            if step.index == 4:
                if where == "fsync":
                    monkeypatch.setattr(os, "fsync", refuse)
                elif where == "weights":
                    monkeypatch.setattr(checkpoints, "save_file", refuse)
                else:
                    monkeypatch.setattr(json, "dumps", refuse)
    assert isinstance(error.value, DistillError)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    toy, steps = _run(tmp_path)
    assert steps[0].index == 4
    assert _same(toy, whole[1])


def test_a_real_limit_of_the_system_is_reported(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    toy = Toy()
    optimizer = torch.optim.AdamW(toy.network.parameters())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    where = checkpoints.Place(3, 6, 1.0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(CheckpointError, match=r"could not be written .*(too large|EFBIG)"):
            checkpoints.save(tmp_path, where, {}, toy.state(), optimizer, keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


# Time


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += seconds


def test_a_time_budget_counts_training_alone_and_survives_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(trainer, "time", clock)
    settings = dataclasses.replace(
        SETTINGS,
        steps=None,
        seconds=20.0,
        accumulate=1,
        warmup_steps=0,
        checkpoint_every_steps=None,
        checkpoint_every_seconds=3.0,
    )
    seen: list[Step] = []
    for step in train(Toy(lambda _: clock.tick(1.0)), settings, tmp_path, seed=3):
        seen.append(step)
        clock.tick(1000.0)  # the caller evaluates
        if step.index == 10:
            break
    assert [step.seconds for step in seen] == [float(n) for n in range(1, 11)]
    assert [step.tokens_per_second for step in seen] == [float(step.tokens) for step in seen]
    rest = list(train(Toy(lambda _: clock.tick(1.0)), settings, tmp_path, seed=3))
    assert [step.index for step in rest] == list(range(10, 21))  # from the checkpoint at 9 s
    assert rest[-1].seconds == 20.0
    rates = [step.learning_rate for step in [*seen[:9], *rest]]
    expected = [0.01 * 0.5 * (1 + math.cos(math.pi * n / 20)) for n in range(20)]
    assert rates == pytest.approx(expected)
    assert list(train(Toy(), settings, tmp_path, seed=3)) == []


def test_progress_on_no_terminal_is_a_plain_line_now_and_then(
    whole: tuple[Path, Toy, list[Step]], capsys: pytest.CaptureFixture[str]
) -> None:
    passed = list(show(iter(whole[2]), SETTINGS, "toy"))
    assert passed == whole[2]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("toy: step 1/12 (8%), loss ")
    assert lines[1].startswith("toy: step 12/12 (100%), loss ")
    assert "tokens/s" in lines[1]
    assert lines[1].endswith("0 min 0 s left")


def test_progress_on_a_terminal_is_a_bar(
    whole: tuple[Path, Toy, list[Step]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    assert list(show(iter(whole[2]), SETTINGS, "toy")) == whole[2]
    out = capsys.readouterr().out
    assert "toy" in out
    assert "100%" in out
    assert "left" in out


TWO_PROCESSES = """
import dataclasses, pathlib, sys
import toy_task, torch
from distill.training.trainer import train
folder, accumulate = pathlib.Path(sys.argv[1]), int(sys.argv[2])
settings = dataclasses.replace(toy_task.SETTINGS, steps=6, accumulate=accumulate)
toy = toy_task.Toy(dropout=0.0)
for _ in range(2):  # the second time it resumes, in each process, where it stopped
    for step in train(toy, settings, folder / "run", seed=3):
        if step.index == 3 and not (folder / "run" / "checkpoints" / "step-00000006").exists():
            break
print([round(value, 5) for tensor in toy.state().values() for value in tensor.flatten().tolist()])
"""


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_accumulation(tmp_path: Path) -> None:
    script = tmp_path / "train_toy.py"
    script.write_text(TWO_PROCESSES)
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    base = os.environ | {"PYTHONPATH": here, "ACCELERATE_USE_CPU": "1"}

    def start(folder: str, accumulate: int, **environment: str) -> subprocess.Popen[bytes]:
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [sys.executable, str(script), str(tmp_path / folder), str(accumulate)]
        return subprocess.Popen(
            command, env=base | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meet = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo",
    }
    running = [start("two", 2, RANK=rank, LOCAL_RANK=rank, **meet) for rank in "01"]
    running += [start("one", 4)]
    ends = [process.communicate(timeout=600) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], ends
    last = [json.loads(out.splitlines()[-1]) for out, _ in ends]
    assert last[0] == last[1]
    assert last[0] == pytest.approx(last[2], abs=2e-5)
