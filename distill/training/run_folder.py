"""A run's folder: whose it is, who is writing in it, and what it records.

run.json        settings, seed and recipe: a folder belongs to one run, any other is refused by name
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
from typing import Any, TypedDict

from distill import folders
from distill.errors import CheckpointError, FolderError, TrainingError

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


def claim(folder: Path, run: Run) -> None:
    """Writes run.json, or refuses the folder of another run, naming the difference."""
    path = folder / "run.json"
    if not path.exists():
        if any((folder / "checkpoints").glob("*")):
            raise TrainingError(f"{folder}: holds checkpoints but no run.json; use another folder")
        noted = {**run, SHA256: folders.sha256_bytes(run["recipe"].encode())}
        folders.write_atomic(path, (json.dumps(noted, indent=1) + "\n").encode())
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        ways = "restore it, or use another folder"
        raise TrainingError(f"{path}: unreadable ({error}); {ways}") from error
    if isinstance(before, dict):
        before.pop(SHA256, None)  # which follows from the recipe, and older ones lack
    if before != run:
        fault = f"belongs to another run ({difference(before, run)})"
        ways = "use another folder, or the settings it was begun with"
        raise TrainingError(f"{folder}: {fault}; {ways}")


def difference(before: object, now: Run) -> str:
    """The first thing that differs between two runs, in words."""
    if not isinstance(before, dict) or set(before) != set(now):
        return "its run.json has another form"
    if before["seed"] != now["seed"]:
        return f"seed was {before['seed']} and is now {now['seed']}"
    for name in sorted(before["settings"].keys() | now["settings"].keys()):
        was, is_now = before["settings"].get(name), now["settings"].get(name)
        if was != is_now:
            return f"train.{name} was {was} and is now {is_now}"
    lines = zip_longest(before["recipe"].splitlines(), now["recipe"].splitlines(), fillvalue="")
    for was, is_now in lines:
        if was != is_now:
            return f"its recipe said {was.strip()!r} and now says {is_now.strip()!r}"
    return "its recipe differs"


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

    def write(self, row: dict[str, Any]) -> None:
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

    def _draw(self, row: dict[str, Any]) -> None:
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
