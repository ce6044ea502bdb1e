"""The figures before training: of a bounded sample, taken once a run, on the device that trains."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import tiny_singer
import torch

from distill.config.recipe import parse
from distill.errors import SettingsError
from distill.tasks import _before, _sample, _singing_run
from distill.training.trainer import TrainSettings

RECIPE = """
task: sing
seed: 3
songs: {kind: embedded}
codec: {kind: embedded}
losses: [{kind: cross_entropy}]
train: {steps: 6}
"""


def coded(passages: int, frames: int = 10) -> list[Any]:
    """Numbered, of two slots."""
    return [
        SimpleNamespace(number=n, codes_FS=torch.zeros(frames, 2, dtype=torch.long))
        for n in range(passages)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 60, 100])
def test_a_small_set_is_measured_whole_and_in_order(count):
    chosen = cast("list[Any]", _sample.sample(cast(Any, coded(count)), tokens=10**6))
    assert [item.number for item in chosen] == list(range(count))


@pytest.mark.parametrize("count", [100, 1000, 1024])
def test_a_large_set_is_measured_in_part_from_everywhere(count):
    chosen = cast("list[Any]", _sample.sample(cast(Any, coded(count)), tokens=400))
    numbers = [item.number for item in chosen]
    assert len(numbers) == 20 and numbers == sorted(set(numbers))
    gaps = [b - a for a, b in zip([0, *numbers], [*numbers, count], strict=True)]
    assert max(gaps) <= 3 * count / 20


def test_they_are_taken_once_a_run_and_again_for_another(tmp_path):
    recipe, calls = parse(RECIPE, "toy"), []

    def measure() -> dict[str, float]:
        calls.append(1)
        return {"seconds": float(len(calls))}

    assert _before.once(recipe, tmp_path / "run", measure) == {"seconds": 1.0}
    assert _before.once(recipe, tmp_path / "run", measure) == {"seconds": 1.0}
    longer = replace(recipe, settings=replace(recipe.settings, train=TrainSettings(steps=60)))
    assert _before.once(longer, tmp_path / "run", measure) == {"seconds": 1.0}
    assert _before.once(replace(recipe, seed=4), tmp_path / "run", measure) == {"seconds": 2.0}
    (tmp_path / "run" / "before.json").write_text('{"of')
    assert _before.once(recipe, tmp_path / "run", measure) == {"seconds": 3.0}
    assert len(calls) == 3


def test_they_are_taken_where_the_student_trains(monkeypatch):
    asked: list[Any] = []
    student = tiny_singer.student(lora=True)
    monkeypatch.setattr(_singing_run, "best_device", lambda: torch.device("meta"))
    monkeypatch.setattr(student, "to", asked.append)
    monkeypatch.setattr(_singing_run.logits, "held_out", lambda *given: {"passages": given[1]})
    stage = SimpleNamespace(student=student, held_out=tiny_singer.coded(1), teacher=None)
    figures = _singing_run.Stage.measured(cast(Any, stage))
    assert asked == [torch.device("meta")]
    assert figures is not None and len(figures["passages"]) == len(stage.held_out)


def test_a_wrong_way_to_train_is_refused_before_any_song_is_opened(monkeypatch, tmp_path):
    recipe = parse(RECIPE.replace("steps: 6", "steps: 6, precision: fp16"), "toy")
    monkeypatch.setattr(_singing_run, "open_stage", lambda recipe: pytest.fail("songs were opened"))
    monkeypatch.setattr(_singing_run, "best_device", lambda: torch.device("cpu"))
    with pytest.raises(SettingsError, match=r"train\.precision: fp16 is for CUDA"):
        _singing_run.run(recipe, tmp_path)
