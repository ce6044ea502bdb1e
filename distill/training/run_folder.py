"""A run's folder: whose it is, who is writing in it, and what it records.

run.json        settings, seed and recipe: a folder belongs to one run, any other is refused by name
                (a larger budget is the same run, and goes on)
lock            held while a process trains here; it ends with the process, however that ends
steps.jsonl     one row a step; on resuming it is cut back to the step resumed from
tensorboard/    the same for eyes, at most once a second
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import TypedDict

from distill import folders
from distill.config import plain_yaml
from distill.errors import CheckpointError, FolderError, SettingsError, TrainingError
from distill.folders import Json

# what may change between two calls of one run: when it ends, if later, and what does not train
BUDGET = ("steps", "seconds")
FREE = {*BUDGET, "keep", "checkpoint_every_seconds", "checkpoint_every_steps", "trackers"}
SHA256 = "recipe_sha256"  # in run.json, for whoever compares runs
INTACT = "earlier checkpoints are intact: make room and run the same command again"


class Run(TypedDict):
    """What a folder belongs to, as run.json has it."""

    settings: dict[str, object]
    seed: int
    recipe: str


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds folder/lock. Raises TrainingError naming the living process that holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{folder}: cannot be made ({error.strerror}); give another") from error
    with (folder / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            ways = "wait for it, end it, or use another folder"
            raise TrainingError(f"{folder}: process {pid} is training here; {ways}") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def claim(folder: Path, run: Run) -> str:
    """Writes run.json, or refuses the folder of another run, naming the difference. The same run
    with a larger budget goes on: then what was raised, in words."""
    path = folder / "run.json"
    if not path.exists():
        if any((folder / "checkpoints").glob("*")):
            raise TrainingError(f"{folder}: holds checkpoints but no run.json; use another folder")
        _note(path, run)
        return ""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        ways = "restore it, or use another folder"
        raise TrainingError(f"{path}: unreadable ({error}); {ways}") from error
    if isinstance(before, dict):
        before.pop(SHA256, None)  # which follows from the recipe, and older ones lack
    if wrong := difference(before, run):
        ways = "use another folder, or the settings it was begun with"
        raise TrainingError(f"{folder}: belongs to another run ({wrong}); {ways}")
    if before != run:
        _note(path, run)
    return raised(before, run)


def _note(path: Path, run: Run) -> None:
    noted = {**run, SHA256: folders.sha256_bytes(run["recipe"].encode())}
    folders.write_atomic(path, (json.dumps(noted, indent=1) + "\n").encode())


def difference(before: object, now: Run) -> str:
    """The first thing in words that makes `now` another run than `before`; none where it only goes
    on: with a larger budget, or saving at other times."""
    if not isinstance(before, dict) or set(before) != set(now):
        return "its run.json has another form"
    if before["seed"] != now["seed"]:
        return f"seed was {before['seed']} and is now {now['seed']}"
    for name in sorted(before["settings"].keys() | now["settings"].keys()):
        was, is_now = before["settings"].get(name), now["settings"].get(name)
        if name in BUDGET and not _raises(was, is_now):
            return f"train.{name} was {was} and is now {is_now}, and a budget can only be raised"
        if was != is_now and name not in FREE:
            return f"train.{name} was {was} and is now {is_now}"
    if _essence(before["recipe"]) == _essence(now["recipe"]):
        return ""
    lines = zip_longest(before["recipe"].splitlines(), now["recipe"].splitlines(), fillvalue="")
    for was, is_now in lines:
        if was != is_now and was.strip().partition(":")[0] not in FREE:
            return f"its recipe said {was.strip()!r} and now says {is_now.strip()!r}"
    return "its recipe differs"


def raised(before: Run, now: Run) -> str:
    """Which limits `now` has raised, in words."""
    limits = [(n, before["settings"].get(n), now["settings"].get(n)) for n in BUDGET]
    return " and ".join(f"{n} from {was} to {is_now}" for n, was, is_now in limits if was != is_now)


def _raises(was: object, is_now: object) -> bool:
    """Whether a limit (None: there is none) is at least what it was."""
    if was is None or is_now is None:
        return is_now is None
    return isinstance(was, int | float) and isinstance(is_now, int | float) and is_now >= was


def _essence(recipe: str) -> object:
    """What a resolved recipe says, without the free settings of its `train`, and `watch`."""
    try:
        keys = plain_yaml.data(recipe, "recipe")
    except SettingsError:  # a caller of `train` may give any text
        return recipe
    keys = {name: value for name, value in keys.items() if name != "watch"}  # it trains nothing
    train = keys.get("train")
    if isinstance(train, dict):
        keys = {**keys, "train": {name: train[name] for name in train if name not in FREE}}
    return keys


class Record:
    """steps.jsonl and TensorBoard of one run, from the step it starts or resumes at."""

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / "steps.jsonl"
        folders.write_atomic(path, b"".join(_rows_up_to(path, step)) if path.exists() else b"")
        self._rows = path.open("a", encoding="utf-8")
        # a second to import, and only a real run needs it
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._shown = -math.inf

    def write(self, row: Json) -> None:
        """Adds a row: numbers, and "terms" by name. CheckpointError when the disk is full."""
        try:
            self._rows.write(json.dumps(row) + "\n")
            self._rows.flush()
            if time.monotonic() - self._shown >= 1:
                self._shown = time.monotonic()
                self._draw(row)
        except OSError as error:
            fault = f"{self._rows.name}: cannot be written ({error.strerror})"
            raise CheckpointError(f"{fault}; {INTACT}") from error

    def _draw(self, row: Json) -> None:
        for name in ("loss", "learning_rate", "gradient_norm", "tokens_per_second"):
            self._board.add_scalar(name, row[name], row["step"])
        for name, term in row["terms"].items():
            self._board.add_scalar(f"terms/{name}", math.nan if term is None else term, row["step"])

    def close(self) -> None:
        for file in (self._rows, self._board):
            with suppress(OSError):  # a full disk was reported when it was met
                file.close()


def _rows_up_to(path: Path, step: int) -> Iterator[bytes]:
    """The rows that the resumed run will not write again; a half-written last row is dropped."""
    with path.open("rb") as file:
        for line in file:
            try:
                if json.loads(line)["step"] > step:
                    return
            except (ValueError, KeyError, TypeError):
                return
            yield line
