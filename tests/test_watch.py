"""A watched run: what is evaluated, what is kept, when it ends; killed and resumed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny_singer
import torch
from torch import Tensor

from distill import folders
from distill.errors import SettingsError
from distill.lm import logits
from distill.lm.student import Student
from distill.sources import embedded
from distill.tasks import _sample, _watch
from distill.tasks._singing_settings import SingingSettings, WatchSettings
from distill.tasks._singing_task import SingingTask
from distill.tasks._watch import Watch, last_step
from distill.training.trainer import Step, TrainSettings, train
from distill.writing.batches import PackingSettings

TRAIN = TrainSettings(
    steps=6,
    learning_rate=0.1,
    warmup_steps=0,
    schedule="constant",
    checkpoint_every_steps=2,
    precision="fp32",
)
EVERY = WatchSettings(evaluate_every=1, tokens=700)
Evaluated = list[tuple[int, dict[str, float]]]


def settings_of(watch: WatchSettings, steps: TrainSettings = TRAIN) -> SingingSettings:
    packing = PackingSettings(row_tokens=800, rows=2)
    songs, codec = embedded.Settings(), None
    return SingingSettings(songs, codec, train=steps, packing=packing, watch=watch)  # type: ignore[arg-type]


def run(
    folder: Path,
    watch: WatchSettings | None = EVERY,
    stop_after: int | None = None,
    steps: TrainSettings = TRAIN,
) -> tuple[Student, list[Step], Evaluated]:
    """A tiny singer trained, watched and, after some steps, killed."""
    student = tiny_singer.student(lora=True)
    settings = settings_of(watch or EVERY, steps)
    task = SingingTask(student, tiny_singer.coded(4), settings, 0)
    evaluated: Evaluated = []
    trained = train(task, steps, folder, seed=3)
    if watch is None:
        return student, list(trained), evaluated
    watching = Watch(student, tiny_singer.coded(3, seed=50), watch, steps, folder)
    taken = []
    for step in watching.over(trained, lambda step, values: evaluated.append((step, dict(values)))):
        taken.append(step)
        if stop_after == step.index:
            trained.close()
            return student, taken, evaluated
    watching.finish(lambda step, values: evaluated.append((step, dict(values))))
    return student, taken, evaluated


def rows(folder: Path, name: str = "evaluations.jsonl") -> list[dict[str, Any]]:
    timed = ("seconds", "tokens_per_second")
    read = [json.loads(row) for row in (folder / name).read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in timed} for row in read]


def state(student: Student) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in student.state().items()}


def same(first: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return first.keys() == other.keys() and all(torch.equal(first[n], other[n]) for n in first)


def figure(row: dict[str, Any]) -> float:
    return sum(row["nats_per_token"]) / len(row["nats_per_token"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Student]:
    """A run that nothing disturbed; its learning rate is so high that its best is not its last."""
    folder = tmp_path_factory.mktemp("whole")
    student, steps, evaluated = run(folder)
    assert [step.index for step in steps] == [step for step, _ in evaluated] == [1, 2, 3, 4, 5, 6]
    return folder, student


def test_the_best_weights_become_the_singer_and_not_the_last(whole: tuple[Path, Student]) -> None:
    folder, student = whole
    figures = [figure(row) for row in rows(folder)]
    best = 1 + figures.index(min(figures))
    assert best < 6 and figures[-1] > min(figures) + 0.005
    assert [path.name for path in (folder / "best").iterdir()] == [f"step-{best:08d}"]
    held_out = _sample.sample(tiny_singer.coded(3, seed=50), EVERY.tokens)
    again = logits.held_out(student, held_out)["nats_per_token"]
    assert sum(again) / len(again) == pytest.approx(min(figures), rel=1e-6)


def test_what_is_computed_between_steps_changes_no_step(
    whole: tuple[Path, Student], tmp_path: Path
) -> None:
    run(tmp_path, None)
    assert rows(tmp_path, "steps.jsonl") == rows(whole[0], "steps.jsonl")
    names = "checkpoints/step-00000006/weights.safetensors"
    assert (tmp_path / names).read_bytes() == (whole[0] / names).read_bytes()


@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_a_killed_run_ends_with_the_same_best(
    whole: tuple[Path, Student], tmp_path: Path, killed_after: int
) -> None:
    run(tmp_path, stop_after=killed_after)
    before = rows(tmp_path) if (tmp_path / "evaluations.jsonl").exists() else []
    with (tmp_path / "evaluations.jsonl").open("a") as file:
        file.write('{"step": 9, "progr')  # a kill in the midst of a row
    student, _, evaluated = run(tmp_path)
    assert rows(tmp_path) == rows(whole[0])
    assert same(state(student), state(whole[1]))
    resumed_from = killed_after // 2 * 2
    assert [step for step, _ in evaluated] == list(range(resumed_from + 1, 7)), "evaluated twice"
    assert len(before) == killed_after - 1


def test_a_finished_run_evaluates_nothing_and_has_its_best(
    whole: tuple[Path, Student], tmp_path: Path
) -> None:
    first, _, _ = run(tmp_path)
    student, steps, evaluated = run(tmp_path)
    assert steps == [] and evaluated == []
    assert same(state(student), state(first)) and same(state(student), state(whole[1]))


def test_patience_ends_training_and_the_same_call_trains_no_more(tmp_path: Path) -> None:
    patient = dataclasses.replace(EVERY, patience=2)
    long = dataclasses.replace(TRAIN, steps=40)
    student, steps, evaluated = run(tmp_path, patient, steps=long)
    figures = [figure(row) for row in rows(tmp_path)]
    assert len(steps) == len(evaluated) == len(figures) < 40
    assert figures.index(min(figures)) == len(figures) - 3
    again, steps, evaluated = run(tmp_path, patient, steps=long)
    assert steps == [] and evaluated == []
    assert same(state(again), state(student))


def test_a_kill_while_the_best_change_places_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(folders, "discard", kill)
        run(tmp_path, steps=dataclasses.replace(TRAIN, learning_rate=1e-3))
    names = [path.name for path in (tmp_path / "best").iterdir()]
    assert len(names) == 2, "the second was better, and the first was to go"
    student = tiny_singer.student(lora=True)
    watch = Watch(student, tiny_singer.coded(3, seed=50), EVERY, TRAIN, tmp_path)
    best = watch.best()
    assert best is not None and best[1].name == max(names) == "step-00000002"
    weights = best[1] / "weights.safetensors"  # and a damaged one is never taken
    weights.write_bytes(weights.read_bytes()[:-8])
    before = watch.best()
    assert before is not None and before[1].name == "step-00000001"


def scripted(count: int, tokens: int) -> Iterator[Step]:
    for n in range(1, count + 1):
        yield Step(n, float(n), 1.0, {}, 0.1, tokens, 1.0, 1.0)


@pytest.mark.parametrize(("tokens", "evaluations"), [(50, 1), (10_000, 21)])
def test_evaluations_take_a_twentieth_of_the_time_and_short_runs_one_at_the_end(
    tmp_path: Path, tokens: int, evaluations: int
) -> None:
    steps = dataclasses.replace(TRAIN, steps=100)
    (tmp_path / "steps.jsonl").write_text('{"step": 100, "tokens": 1}\n')
    watch = WatchSettings(tokens=600)
    student, evaluated = tiny_singer.student(lora=True), []
    watching = Watch(student, tiny_singer.coded(3), watch, steps, tmp_path)
    for _ in watching.over(scripted(100, tokens), lambda step, _: evaluated.append(step)):
        pass
    watching.finish(lambda step, _: evaluated.append(step))
    assert evaluated[-1] == 100 and len(evaluated) <= evaluations
    cost = len(evaluated[:-1]) * watching.tokens * _watch.FORWARD
    assert cost <= _watch.COST * 100 * tokens
    assert len(evaluated) > 10 or tokens == 50


def test_the_last_step_of_no_run_is_none() -> None:
    assert last_step(Path("no/where")) == 0


def test_a_line_is_sung_now_and_then_and_its_pause_is_bought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(_watch.time, "perf_counter", lambda: now[0])

    class Singer:
        sung: ClassVar[list[int]] = []

        def __call__(self, step: int) -> dict[str, Any]:
            now[0] += 5.0
            self.sung.append(step)
            return {"line": "row", "in_tune": 0.5}

        def draw(self, step: int, values: Any) -> None:
            assert ("held_out/in_tune" in values) == (step in self.sung)
            assert math.isfinite(values["held_out/slot0"])

    (tmp_path / "steps.jsonl").write_text('{"step": 40, "tokens": 1}\n')
    student, singer = tiny_singer.student(lora=True), Singer()
    steps = dataclasses.replace(TRAIN, steps=41)
    watching = Watch(student, tiny_singer.coded(3), EVERY, steps, tmp_path, singer)
    for _ in watching.over(scripted(40, 100), lambda *_: None):
        now[0] += 10.0
    assert singer.sung == [1, 11, 21, 31], "5 s of singing buy a pause of 100 s"
    assert [row["sung"] is not None for row in rows(tmp_path)].count(True) == 4


def test_a_term_without_a_gradient_is_refused_by_name(tmp_path: Path) -> None:
    from distill.errors import TrainingError

    class Cut(SingingTask):
        def loss(self, batch: Any) -> dict[str, tuple[Tensor, float]]:
            sums = super().loss(batch)
            total, count = sums["lengths"]
            return sums | {"lengths": (total.detach(), count)}

    def task(lengths: float) -> SingingTask:
        student = tiny_singer.student(lora=True)
        settings = settings_of(EVERY)
        terms = dataclasses.replace(settings.terms, lengths=lengths)
        settings = dataclasses.replace(settings, terms=terms)
        return Cut(student, tiny_singer.coded(4), settings, 0)

    with pytest.raises(TrainingError, match=r"the term lengths .* carries no gradient") as refused:
        next(train(task(0.1), TRAIN, tmp_path / "one", seed=3))
    assert "\n" not in str(refused.value)
    assert next(train(task(0.0), TRAIN, tmp_path / "two", seed=3)).index == 1


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"patience": 0}, {"evaluate_every": 0}, {"tokens": 0}):
        with pytest.raises(SettingsError):
            WatchSettings(**wrong)
