"""What a listener would ask of a take: are the notes in tune, can the words be made out?

A `Sheet` is what ought to be heard in one line, a `Performance` a sheet with the sound that
somebody made of it. Each file in this folder is one measure, found by its file name, and offers

    FIGURES: {name: explanation}                        the shares it reports
    measure(performance, others) -> (figures, details)  one line: {name: (hits, count)}, and JSON to look up
    summarise(details of all lines) -> dict             what a report should say beside the shares

`others` are the sheets of the row's other lines: a measure takes its *controls* from them, since a
measure that is content with the wrong words or the wrong tune measures nothing. `judge` asks every
measure about every line, in processes of its own (pocketsphinx and WORLD are serial, and neither
needs torch: nothing here imports it), and puts bootstrap intervals over lines
(`distill.measures._bootstrap`) around the shares.

Needs `pip install "distill[judge]"`.
"""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import AudioError, DistillError
from distill.measures import _bootstrap

VERSION = 1

Figures = dict[str, tuple[int, int]]  # name -> (hits, count)


@dataclass(frozen=True)
class Sheet:
    """What one line should sound like. `notes` are (start_s, end_s, midi); rests are left out."""

    text: str
    words: tuple[str, ...]
    notes: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, eq=False)
class Performance(Sheet):
    """One line as somebody sang it: mono float32, full scale +-1; its first sample is time 0 of the
    notes.

    Raises AudioError where the waveform is not mono, not finite, or has no sample rate. Silence and
    even emptiness are allowed: a singer may fail so, and then everything in the line counts as
    missed.
    """

    wave_W: NDArray[np.float32]
    sample_rate: int

    def __post_init__(self) -> None:
        wave_W = np.asarray(self.wave_W, dtype=np.float32)
        if wave_W.ndim != 1 or self.sample_rate <= 0:
            raise AudioError(
                f"line {self.text!r}: shape {wave_W.shape} at {self.sample_rate} Hz; give mono at "
                "its rate"
            )
        if not np.isfinite(wave_W).all():
            raise AudioError(
                f"line {self.text!r}: the waveform holds NaN or infinity; sing it again"
            )
        object.__setattr__(self, "wave_W", wave_W)

    @property
    def sheet(self) -> Sheet:
        """What was to be sung, without the sound."""
        return Sheet(self.text, self.words, self.notes)

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.wave_W) / self.sample_rate


def kinds() -> list[str]:
    """The measures on disk."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")
    )


@functools.cache
def load(kind: str) -> ModuleType:
    """The measure of that name."""
    return importlib.import_module(f"{__name__}.{kind}")


def judge(
    performances: Mapping[str, Sequence[Performance]],
    reference: str | None = "codec",
    processes: int | None = None,
) -> dict[str, Any]:
    """Every measure of every row; rows are named ("uncoded", "codec", "singer"), each a list of
    lines.

    Returns plain JSON values:
      version, seconds_of_judging, explanations {figure: text},
      rows {row: {lines, seconds_of_audio, figures {figure: {value, low, high, hits, count}},
                  <measure>: its summary,
                  per_line [{line, figures {figure: [hits, count]}, <measure>: its details}]}},
      paired {row: {against, figures {figure: {difference {value, low, high}, quotient {...}}}}}
    `paired` holds every row but the `reference`, and nothing where there is no such row; the rows
    must then hold the same lines in the same order, ValueError otherwise. A figure of which nothing
    could be counted (no controls in a row of one line) is null. `processes`: one a core if None; 1
    judges within this process. Raises DistillError where pocketsphinx or pyworld is missing.
    """
    began = time.perf_counter()
    processes = processes or len(
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    heard = _hear({row: list(lines) for row, lines in performances.items()}, processes)
    rows = {row: _report(lines, heard[row]) for row, lines in performances.items()}
    paired = {}
    if reference is not None and reference in rows:
        for row in rows.keys() - {reference}:
            if [line.text for line in performances[row]] != [
                line.text for line in performances[reference]
            ]:
                raise ValueError(
                    f"judge: rows {row} and {reference} hold other lines; pass reference=None or "
                    "the same"
                )
        paired = {
            row: _pair(heard[row], heard[reference], reference) for row in rows if row != reference
        }
    explanations = {name: text for kind in kinds() for name, text in load(kind).FIGURES.items()}
    return {
        "version": VERSION,
        "seconds_of_judging": round(time.perf_counter() - began, 2),
        "explanations": explanations,
        "rows": rows,
        "paired": paired,
    }


# --- one line, one row ----------------------------------------------------------------------------

LineReport = dict[str, tuple[Figures, dict[str, Any]]]  # measure -> (figures, details)


def judge_line(performance: Performance, others: Sequence[Sheet]) -> LineReport:
    """What every measure says of one line."""
    return {kind: load(kind).measure(performance, others) for kind in kinds()}


def _report(lines: Sequence[Performance], heard: list[LineReport]) -> dict[str, Any]:
    """One row of the result."""
    row: dict[str, Any] = {
        "lines": len(lines),
        "seconds_of_audio": round(sum(line.seconds for line in lines), 3),
    }
    row["figures"] = {}
    for kind in kinds():
        for name in load(kind).FIGURES:
            hits_L, counts_L = _counts(heard, name)
            counted = {"hits": int(hits_L.sum()), "count": int(counts_L.sum())}
            row["figures"][name] = (
                asdict(_bootstrap.share(hits_L, counts_L)) | counted if counts_L.sum() else None
            )
        row[kind] = load(kind).summarise([line[kind][1] for line in heard])
    row["per_line"] = [
        {
            "line": line.text,
            "figures": {
                name: list(pair) for kind in kinds() for name, pair in said[kind][0].items()
            },
        }
        | {kind: said[kind][1] for kind in kinds()}
        for line, said in zip(lines, heard, strict=True)
    ]
    return row


def _pair(
    heard: list[LineReport], reference: list[LineReport], name_of_reference: str
) -> dict[str, Any]:
    """One row against the reference, line by line."""
    figures: dict[str, Any] = {}
    for kind in kinds():
        for name in load(kind).FIGURES:
            four = (*_counts(heard, name), *_counts(reference, name))
            figures[name] = (
                {
                    "difference": asdict(_bootstrap.difference(*four)),
                    "quotient": asdict(part) if (part := _bootstrap.quotient(*four)) else None,
                }
                if four[1].sum() and four[3].sum()
                else None
            )
    return {"against": name_of_reference, "figures": figures}


def _counts(
    heard: list[LineReport], figure: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(hits, counts) of one figure, one number a line."""
    pairs = [figures[figure] for line in heard for figures, _ in line.values() if figure in figures]
    counts_L2 = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return counts_L2[:, 0], counts_L2[:, 1]


# --- several processes ----------------------------------------------------------------------------

# row, index of the line in it, the line, the row's other lines
Job = tuple[str, int, Performance, list[Sheet]]


def _hear(rows: dict[str, list[Performance]], processes: int) -> dict[str, list[LineReport]]:
    """Judge all lines, longest first and dealt like cards, so that the processes end together."""
    jobs: list[Job] = []
    for row, lines in rows.items():
        sheets = [line.sheet for line in lines]
        jobs += [(row, i, line, sheets[:i] + sheets[i + 1 :]) for i, line in enumerate(lines)]
    jobs.sort(key=lambda job: (-job[2].seconds, job[1], job[0]))
    hands = [hand for k in range(max(1, processes)) if (hand := jobs[k :: max(1, processes)])]
    done = _work(jobs) if len(hands) < 2 else _deal(hands)
    return {row: [done[row, i] for i in range(len(lines))] for row, lines in rows.items()}


def _work(jobs: list[Job]) -> dict[tuple[str, int], LineReport]:
    return {(row, i): judge_line(line, others) for row, i, line, others in jobs}


def _deal(hands: list[list[Job]]) -> dict[tuple[str, int], LineReport]:
    """One child each. Plain children rather than `multiprocessing`: forking is unsafe beside
    torch's threads, and spawning would run the caller's script again (a notebook, a pipe and an
    unguarded script have none to run)."""
    path = os.pathsep.join(
        [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", "from distill.measures import _child; _child()"]
    children = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        for _ in hands
    ]
    for child, hand in zip(children, hands, strict=True):
        assert child.stdin is not None
        child.stdin.write(pickle.dumps(hand))
        child.stdin.close()
        child.stdin = None  # else `communicate` flushes a closed pipe
    done: dict[tuple[str, int], LineReport] = {}
    for child in children:
        out, complaint = child.communicate()
        if child.returncode != 0:
            last = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
            raise DistillError(
                f"judge: a judging process ended with status {child.returncode} ({last[0]}); "
                "run judge(..., processes=1) to see where"
            )
        answer = pickle.loads(out)
        if isinstance(answer, DistillError):
            raise answer
        done |= answer
    return done


def _child() -> None:
    """What a judging process runs: jobs from standard input, answers to standard output."""
    jobs = pickle.loads(sys.stdin.buffer.read())
    out = sys.stdout.buffer
    answer: Callable[..., Any] | Any
    try:
        answer = _work(jobs)
    except DistillError as error:
        answer = error
    out.write(pickle.dumps(answer))
