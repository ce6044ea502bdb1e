"""What a listener would ask of a take: are the notes in tune, can the words be made out?

A `Sheet` is what ought to be heard in one line, a `Performance` a sheet with the sound that
somebody made of it. Each file in this folder is one measure, found by its file name, and offers

    FIGURES: {name: explanation}                        the shares it reports
    measure(performance, others) -> (figures, details)  of a line: {name: (hits, count)}, and JSON
    summarise(details of all lines) -> dict             what a report says beside the shares
    absent() -> str | None                              why it cannot measure here (may be left out)

`others` are the sheets of the row's other lines: a measure takes its *controls* from them, since a
measure that is content with the wrong words or the wrong tune measures nothing. `judge` asks every
measure about every line, in processes of its own (pocketsphinx and WORLD are serial, and neither
needs torch: nothing here imports it), and puts bootstrap intervals over lines
(`distill.measures._bootstrap`) around the shares.

Needs `pip install "distill[judge]"`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import pkgutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from distill.errors import AudioError, DistillError
from distill.folders import Json
from distill.measures import _bootstrap
from distill.runtime.workers import Died, Local

VERSION = 1

Figures = dict[str, tuple[int, int]]  # name -> (hits, count)
Details = Json  # of one line
LineReport = dict[str, tuple[Figures, Details]]  # by measure
Counts = NDArray[np.float64]  # one number a line


@dataclass(frozen=True)
class Sheet:
    """What one line should sound like. `notes` are (start_s, end_s, midi); rests are left out.
    `language`: a code such as "en"."""

    text: str
    words: tuple[str, ...]
    notes: tuple[tuple[float, float, float], ...]
    language: str = field(default="en", kw_only=True)


@dataclass(frozen=True, eq=False)
class Performance(Sheet):
    """One line as somebody sang it: mono float32, full scale +-1, from time 0 of the notes.

    AudioError unless mono, finite and with a sample rate. A singer may fail by silence, even by
    emptiness: then everything in the line counts as missed.
    """

    wave_W: NDArray[np.float32]
    sample_rate: int

    __eq__, __hash__ = object.__eq__, object.__hash__  # one line sung twice is two performances

    def __post_init__(self) -> None:
        wave_W = np.asarray(self.wave_W, dtype=np.float32)
        if wave_W.ndim != 1 or self.sample_rate <= 0:
            given = f"shape {wave_W.shape} at {self.sample_rate} Hz"
            raise AudioError(f"line {self.text!r}: {given}; give mono at its rate")
        if not np.isfinite(wave_W).all():
            raise AudioError(f"line {self.text!r}: holds NaN or infinity; sing it again")
        object.__setattr__(self, "wave_W", wave_W)

    @property
    def sheet(self) -> Sheet:
        """What was to be sung, without the sound."""
        return Sheet(self.text, self.words, self.notes, language=self.language)

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.wave_W) / self.sample_rate


def lot(*texts: str) -> bytes:
    """A draw that depends on the texts alone: the same on every machine and in every row."""
    return hashlib.sha256("|".join(texts).encode()).digest()


def kinds() -> list[str]:
    """The measures on disk."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def present() -> list[str]:
    """The measures that can be taken here."""
    missing = absent()
    return [kind for kind in kinds() if kind not in missing]


def absent() -> dict[str, str]:
    """Why the others cannot, and what to do."""
    reasons = {kind: getattr(load(kind), "absent", lambda: None)() for kind in kinds()}
    return {kind: why for kind, why in reasons.items() if why}


@functools.cache
def load(kind: str) -> ModuleType:
    """The measure of that name."""
    return importlib.import_module(f"{__name__}.{kind}")


def judge(
    performances: Mapping[str, Sequence[Performance]],
    reference: str | None = "codec",
    processes: int | None = None,
) -> Json:
    """Every measure of every row; rows are named ("uncoded", "codec", "singer"), lists of lines.

    Returns plain JSON values:
      version, seconds_of_judging, explanations {figure: text}, absent {measure: why},
      rows {row: {lines, seconds_of_audio, figures {figure: {value, low, high, hits, count}},
                  <measure>: its summary,
                  per_line [{line, figures {figure: [hits, count]}, <measure>: its details}]}},
      paired {row: {against, figures {figure: {difference {value, low, high}, quotient {...}}}}}
    `paired` holds every row but the `reference`, and nothing where there is no such row; the rows
    must then hold the same lines in the same order, ValueError otherwise. A figure of which nothing
    could be counted (no controls in a row of one line) is null. `processes`: one a core if None; 1
    judges within this process. Raises DistillError where pocketsphinx or pyworld is missing.
    """
    began, here = time.perf_counter(), present()
    measured = _measure_all(performances, processes or _cores())
    rows = {row: _report(lines, measured[row], here) for row, lines in performances.items()}
    paired = {}
    if reference is not None and reference in rows:
        texts = {row: [line.text for line in lines] for row, lines in performances.items()}
        for row in rows.keys() - {reference}:
            if texts[row] != texts[reference]:
                ways = "pass reference=None or the same"
                raise ValueError(f"judge: rows {row} and {reference} hold other lines; {ways}")
        others = (row for row in rows if row != reference)
        paired = {row: _pair(measured[row], measured[reference], reference, here) for row in others}
    explanations = {name: text for kind in here for name, text in load(kind).FIGURES.items()}
    return {
        "version": VERSION,
        "seconds_of_judging": round(time.perf_counter() - began, 2),
        "explanations": explanations,
        "absent": absent(),
        "rows": rows,
        "paired": paired,
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- one line, one row ----------------------------------------------------------------------------


def judge_line(performance: Performance, others: Sequence[Sheet]) -> LineReport:
    """What every measure says of one line."""
    return {kind: load(kind).measure(performance, others) for kind in present()}


def _report(
    lines: Sequence[Performance], measured: list[LineReport], here: Sequence[str]
) -> dict[str, object]:
    """One row of the result."""
    figures: dict[str, dict[str, float] | None] = {}
    summaries: dict[str, object] = {}
    for kind in here:
        for name in load(kind).FIGURES:
            hits_L, counts_L = _counts(measured, name)
            counted = {"hits": int(hits_L.sum()), "count": int(counts_L.sum())}
            figures[name] = None
            if counted["count"]:
                figures[name] = asdict(_bootstrap.share(hits_L, counts_L)) | counted
        summaries[kind] = load(kind).summarise([line[kind][1] for line in measured])
    per_line = []
    for line, report in zip(lines, measured, strict=True):
        pairs = {name: [*pair] for kind in here for name, pair in report[kind][0].items()}
        details = {kind: report[kind][1] for kind in here}
        per_line.append({"line": line.text, "figures": pairs, **details})
    return {
        "lines": len(lines),
        "seconds_of_audio": round(sum(line.seconds for line in lines), 3),
        "figures": figures,
        **summaries,
        "per_line": per_line,
    }


def _pair(
    measured: list[LineReport], reference: list[LineReport], name: str, here: Sequence[str]
) -> dict[str, object]:
    """One row against the reference of this name, line by line."""
    figures: dict[str, object] = {}
    for kind in here:
        for figure in load(kind).FIGURES:
            lines = (*_counts(measured, figure), *_counts(reference, figure))
            if not lines[1].sum() or not lines[3].sum():
                figures[figure] = None
                continue
            difference, quotient = _bootstrap.difference(*lines), _bootstrap.quotient(*lines)
            ratio = asdict(quotient) if quotient else None
            figures[figure] = {"difference": asdict(difference), "quotient": ratio}
    return {"against": name, "figures": figures}


def _counts(measured: list[LineReport], figure: str) -> tuple[Counts, Counts]:
    """(hits, counts) of one figure, one number a line."""
    reports = (figures for line in measured for figures, _ in line.values())
    pairs = [figures[figure] for figures in reports if figure in figures]
    counts_L2 = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return counts_L2[:, 0], counts_L2[:, 1]


# --- several processes ----------------------------------------------------------------------------

# row, index of the line in it, the line, the row's other lines
Job = tuple[str, int, Performance, list[Sheet]]


def _measure_all(
    rows: Mapping[str, Sequence[Performance]], processes: int
) -> dict[str, list[LineReport]]:
    """Every line measured, the longest first, so that the processes end together."""
    jobs: list[Job] = []
    for row, lines in rows.items():
        sheets = [line.sheet for line in lines]
        jobs += [(row, i, line, sheets[:i] + sheets[i + 1 :]) for i, line in enumerate(lines)]
    jobs.sort(key=lambda job: (-job[2].seconds, job[1], job[0]))
    measured: dict[tuple[str, int], LineReport] = {}
    if min(processes, len(jobs)) < 2:
        reports: Iterable[tuple[int, LineReport | Died]] = enumerate(map(_work, jobs))
    else:
        reports = Local(processes).each(_work, jobs, "judge")
    for number, report in reports:
        (row, i, *_), advice = jobs[number], "run judge(..., processes=1) to see where"
        if isinstance(report, Died):
            raise DistillError(f"judge: a process ended with {report.how} ({row}); {advice}")
        measured[row, i] = report
    return {row: [measured[row, i] for i in range(len(lines))] for row, lines in rows.items()}


def _work(job: Job) -> LineReport:
    return judge_line(job[2], job[3])
