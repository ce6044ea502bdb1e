"""What `distill check --estimate` says beside what the run then took: recipe by recipe.

    python bench/estimates.py quickstart quickstart-alone [--set train.seconds=60] [--songs FOLDER]

Estimate and run have a process each, so that each peak is its own. Parameters, tokens and disk are
to agree exactly, memory within 15 %, hours within 25 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CODE = """
import json, sys
from distill.config import recipe
from distill.tasks import _estimate
changes = dict(change.split("=", 1) for change in sys.argv[3:])
asked = recipe.with_songs(recipe.load(sys.argv[1], changes), sys.argv[2] or None)
print(json.dumps(dict(_estimate.as_json(_estimate.estimate(asked)))))
"""
ROW = "| {:<18} | {:<12} | {:>14} | {:>14} | {:>8} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--songs", default="")
    options = parser.parse_args()
    print(ROW.format("recipe", "figure", "estimate", "happened", "off by"))
    print(ROW.format(*["---"] * 5))
    for name in options.recipes:
        _compare(name, options.songs, options.set)


def _compare(name: str, songs: str, changes: list[str]) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", CODE, name, songs, *changes],
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    estimated = json.loads(printed.splitlines()[-1])
    with tempfile.TemporaryDirectory() as folder:
        seconds, memory = _run(name, songs, changes, folder)
        happened = _happened(Path(folder), seconds, memory)
    parts = {part: size for part, size in estimated["disk"].items() if part != "signals"}
    rows = {
        "disk MiB": (sum(parts.values()) / 2**20, happened["disk"] / 2**20),
        "memory GiB": (estimated["memory"] / 2**30, happened["memory"] / 2**30),
        "hours": (estimated["hours"], happened["seconds"] / 3600),
        "step s": (estimated["step_seconds"], happened["step_seconds"]),
    }
    for figure, (estimate, fact) in rows.items():
        off = f"{100 * (estimate / fact - 1):+.0f} %" if fact else ""
        print(ROW.format(name, figure, f"{estimate:,.3f}", f"{fact:,.3f}", off), flush=True)


def _run(name: str, songs: str, changes: list[str], folder: str) -> tuple[float, int]:
    """(seconds, bytes at the peak) of a whole run in a process of its own."""
    command = [sys.executable, "-m", "distill", "run", name, "--out", folder]
    command += ["--songs", songs] if songs else []
    command += [word for change in changes for word in ("--set", change)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def _happened(folder: Path, seconds: float, memory: int) -> dict[str, float]:
    rows = [json.loads(row) for row in (folder / "steps.jsonl").read_text().splitlines()]
    steps = [row["tokens"] / row["tokens_per_second"] for row in rows[1:]] or [0.0]
    kept = ("checkpoints", "singer", "merged", "best")
    files = [path for part in kept for path in (folder / part).rglob("*") if path.is_file()]
    disk = sum(path.stat().st_size for path in files)
    return {
        "seconds": seconds,
        "memory": memory,
        "disk": disk,
        "step_seconds": sum(steps) / len(steps),
    }


if __name__ == "__main__":
    main()
