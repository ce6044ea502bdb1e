"""Onlookers of a run: refused before it begins, left out where they fail, never its end."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.utils import LoggerType
from toy_task import SETTINGS, Toy

from distill.config import recipe
from distill.config.recipe import Recipe
from distill.errors import SettingsError
from distill.tasks import _run, text
from distill.training import trackers

FAKE = '''
"""As much of Weights & Biases as accelerate uses, on a list."""
calls, fails_at, has_key = [], None, True


class Config:
    def update(self, values, **options):
        calls.append(("config", dict(values)))


config = Config()


class Run:
    logged = 0

    def log(self, values, step=None, **options):
        Run.logged += 1
        if fails_at is not None and Run.logged >= fails_at:
            raise ConnectionError("the network\\nis gone")
        calls.append(("log", step, dict(values)))

    def finish(self):
        calls.append(("finish",))


def init(**options):
    calls.append(("init", options))
    return Run()


def login():
    if not has_key:
        raise RuntimeError("No API key configured. Use `wandb login` to log in.")
    return True
'''


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tracker that is installed and says what it was told."""
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "wandb.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: [LoggerType.WANDB])
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [LoggerType.WANDB])
    monkeypatch.delenv("WANDB_MODE", raising=False)
    import wandb

    yield wandb
    sys.modules.pop("wandb", None)


def toy_recipe(*names: str) -> Recipe:
    train = dataclasses.replace(SETTINGS, steps=8, trackers=names)
    return Recipe("toy", "text", 3, text.Settings(train=train))


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    for task in (_run.announce, lambda asked: next(_run.train(Toy(), asked, tmp_path / "run"))):
        with pytest.raises(SettingsError, match="trackio is not installed; pip install") as refused:
            task(toy_recipe("trackio"))
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "run" / "steps.jsonl").exists()


def test_a_tracker_without_its_key_is_refused_in_one_line(
    wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb.has_key = False
    with pytest.raises(SettingsError, match=r"wandb cannot be used .*WANDB_API_KEY") as refused:
        _run.announce(toy_recipe("wandb"))
    assert "\n" not in str(refused.value) and wandb.calls == []
    monkeypatch.setenv("WANDB_MODE", "offline")  # where none is needed
    _run.announce(toy_recipe("wandb"))


def test_the_recipe_is_printed_first_and_the_tracker_gets_it_and_the_last_step(
    wandb: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = toy_recipe("tensorboard", "wandb")
    _run.announce(asked)
    printed = capsys.readouterr().out
    assert printed.startswith("task: text") and asked.sha256 in printed.splitlines()[-1]
    assert recipe.parse(printed, "toy").settings == asked.settings
    steps = list(_run.train(Toy(), asked, tmp_path))
    names = [call[0] for call in wandb.calls]
    assert names[:2] == ["init", "config"] and names[-1] == "finish"
    assert wandb.calls[1][1]["recipe_sha256"] == asked.sha256
    step, values = wandb.calls[-2][1:]
    assert step == 8 and values["loss"] == steps[-1].loss and "terms/square" in values
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["recipe_sha256"] == asked.sha256
    list(_run.train(Toy(), asked, tmp_path))  # called again, it is the same run to the tracker
    begun = [call[1] for call in wandb.calls if call[0] == "init"]
    assert len(begun) == 2 and begun[0]["id"] == begun[1]["id"] and begun[0]["resume"] == "allow"


def test_one_that_fails_in_the_middle_is_named_once_and_nothing_is_lost(
    wandb: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "EVERY_SECONDS", 0.0)
    wandb.fails_at = 3
    with caplog.at_level(logging.WARNING, "distill"):
        steps = list(_run.train(Toy(), toy_recipe("wandb"), tmp_path / "run"))
    assert [step.index for step in steps] == list(range(1, 9))
    assert [record.getMessage().count("tracker wandb failed") for record in caplog.records] == [1]
    assert "\n" not in caplog.records[0].getMessage()
    assert [call[1] for call in wandb.calls if call[0] == "log"] == [1, 2]
    plain = list(_run.train(Toy(), toy_recipe(), tmp_path / "plain"))
    assert [step.loss for step in plain] == [step.loss for step in steps]
    rows = (tmp_path / "run" / "steps.jsonl").read_text().splitlines()
    assert len(rows) == 8


def test_an_unknown_tracker_is_an_error_of_the_recipe() -> None:
    words = "task: text\nseed: 0\ntrain: {steps: 1, trackers: [wandbb]}\n"
    with pytest.raises(SettingsError, match=r"train.trackers.0 is .*wandbb.*did you mean wandb"):
        recipe.parse(words, "base")
