"""Where else a run's numbers go: Weights & Biases, trackio and whatever accelerate speaks to.

steps.jsonl and TensorBoard are always written (run_folder.py). A tracker is an onlooker: one that
is not installed or lacks its key is refused before anything is trained; one that fails later is
named once and left out, and training goes on.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, get_available_trackers

from distill import folders
from distill.errors import SettingsError

log = logging.getLogger("distill")
Tracker = Literal[
    "tensorboard", "wandb", "trackio", "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab"
]
OFFLINE = {"offline", "disabled", "dryrun"}  # of WANDB_MODE: no key is needed
EVERY_SECONDS = 1.0  # between two steps that are sent


def check(names: Sequence[str]) -> None:
    """SettingsError for a tracker that is not installed or has no key, before anything is done."""
    for name in _others(names):
        installed = importlib.util.find_spec(name) is not None
        if not installed or name not in list(map(str, get_available_trackers())):
            ways = f"pip install {name}, or leave it out"
            raise SettingsError(f"train.trackers: {name} is not installed; {ways}")
        if name == "wandb" and os.environ.get("WANDB_MODE", "online") not in OFFLINE:
            _log_in_to_wandb()


def _log_in_to_wandb() -> None:
    """As `wandb.init` will, which asks for a key on a terminal and fails without one elsewhere."""
    import wandb

    try:
        has_key = wandb.login()
    except Exception as error:  # its own tree, which is not ours to know
        raise _refusal("wandb", error) from error
    if not has_key:
        raise _refusal("wandb", "it has no key")


def _refusal(name: str, why: object) -> SettingsError:
    ways = {"wandb": "run `wandb login`, set WANDB_API_KEY or WANDB_MODE=offline, or leave it out"}
    reason = " ".join(str(why).split())[:200]
    advice = ways.get(name, "mend that, or leave it out")
    return SettingsError(f"train.trackers: {name} cannot be used ({reason}); {advice}")


@dataclass
class Trackers:
    """The open trackers of one run. `open_trackers` makes one."""

    trackers: list[GeneralTracker] = field(default_factory=list)
    _sent_at: float = -math.inf
    _waiting: tuple[int, dict[str, float]] | None = None

    def step(self, row: Mapping[str, Any]) -> None:
        """A row of steps.jsonl, sent at most once a second, and the last of all in any case."""
        if not self.trackers:
            return
        names = ("loss", "learning_rate", "gradient_norm", "tokens_per_second")
        values = {name: float(row[name]) for name in names}
        terms = row["terms"].items()
        values |= {f"terms/{name}": float(term) for name, term in terms if term is not None}
        self._waiting = (int(row["step"]), values)
        if time.monotonic() - self._sent_at >= EVERY_SECONDS:
            self._flush()

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Figures that were measured after a step."""
        self._flush()
        self._send(step, values)

    def close(self) -> None:
        """Sends what waits and lets the trackers finish."""
        self._flush()
        for tracker in list(self.trackers):
            try:
                tracker.finish()
            except Exception as error:
                self._leave_out(tracker, error)
        self.trackers.clear()

    def _flush(self) -> None:
        if self._waiting is not None:
            self._sent_at = time.monotonic()
            step, values = self._waiting
            self._waiting = None
            self._send(step, values)

    def _send(self, step: int, values: Mapping[str, float]) -> None:
        for tracker in list(self.trackers):
            try:
                tracker.log(dict(values), step=step)
            except Exception as error:  # whatever it is: a run is worth more than its onlookers
                self._leave_out(tracker, error)

    def _leave_out(self, tracker: GeneralTracker, error: Exception) -> None:
        self.trackers.remove(tracker)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        words = "tracker %s failed (%s) and is left out; training goes on, steps.jsonl has it all"
        log.warning(words, tracker.name, reason)


def open_trackers(
    names: Sequence[str], title: str, folder: Path, config: Mapping[str, object]
) -> Trackers:
    """Opens what `names` asks for beside TensorBoard; a resumed run goes on in its own.

    `title`: the recipe's name; `config`: what is said about the run. SettingsError where one
    cannot begin.
    """
    others = _others(names)
    check(others)
    own_id = folders.sha256_bytes(f"{title} {folder.resolve()}".encode())[:16]
    options = {
        "wandb": {"id": own_id, "resume": "allow", "name": title, "dir": str(folder)},
        "trackio": {"name": f"{title}-{own_id[:6]}", "resume": "allow"},
    }
    opened = Trackers()
    for name in others:
        folder.mkdir(parents=True, exist_ok=True)
        accelerator = Accelerator(log_with=[name], project_dir=str(folder))
        try:
            accelerator.init_trackers("distill", dict(config), options)
        except Exception as error:
            opened.close()
            raise _refusal(name, error) from error
        if not accelerator.trackers:  # it drops what it does not find, without a word
            opened.close()
            raise _refusal(name, "accelerate does not know it")
        opened.trackers += accelerator.trackers
    return opened


def _others(names: Sequence[str]) -> list[str]:
    """All but TensorBoard, each once."""
    return [name for name in dict.fromkeys(names) if name != "tensorboard"]
