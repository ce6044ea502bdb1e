"""What became of every song: a Row each, and the Report of all, with its sums and its files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from distill.curation.steps import Item, Remark
from distill.folders import Json, write_atomic
from distill.songs import Song, manifest_row

VERSION = 1  # of report.json


@dataclass(frozen=True)
class Row:
    """What became of one song. seconds: its length; spent: seconds of work by stage; key: what the
    result was made from. Of the traces only those are here that a `curate_all` asks for."""

    name: str
    item: Item | None
    remarks: tuple[Remark, ...]
    seconds: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)
    key: str = ""

    @property
    def verdict(self) -> str:
        """set aside, mended or kept."""
        verdicts = {remark.verdict for remark in self.remarks}
        return next((name for name in ("set aside", "mended") if name in verdicts), "kept")

    @property
    def kept(self) -> Item | None:
        """The item of a song that goes on; None of one that was set aside."""
        return None if self.verdict == "set aside" else self.item


@dataclass(frozen=True)
class Report:
    """All rows in the order of the source. seconds: how long this call took; spent: seconds of work
    by the steps that look at all songs together."""

    folder: Path
    rows: tuple[Row, ...]
    steps: tuple[str, ...]
    seconds: float
    spent: dict[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> list[Song]:
        """The songs that go on, their audio in `folder`."""
        return [item.song for row in self.rows if (item := row.kept) is not None]


def write(report: Report) -> None:
    """The manifest of what is kept, and report.json of all."""
    manifest = "".join(manifest_row(song, report.folder) + "\n" for song in report.kept)
    write_atomic(report.folder / "manifest.jsonl", manifest.encode())
    summary = {
        "version": VERSION,
        "steps": list(report.steps),
        "songs": [_summary(row) for row in report.rows],
        "counts": counts(report),
        "rights": joint(report),
        "seconds_by_stage": by_stage(report),
    }
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    write_atomic(report.folder / "report.json", text.encode(errors="replace"))


def _summary(row: Row) -> dict[str, object]:
    summary: dict[str, object] = {
        "name": row.name,
        "verdict": row.verdict,
        "seconds": round(row.seconds, 3),
        "remarks": [remark._asdict() for remark in row.remarks],
    }
    if row.item is not None:
        song = row.item.song
        summary |= {"licence": song.licence, "split": song.split, "group": song.group}
        summary["facts"] = {
            fact.name: {"value": fact.value, "by": fact.by, "confidence": fact.confidence}
            for fact in song.facts
        }
    return summary


def joint(report: Report) -> Json | None:
    """What the step `rights` found for all songs together; None where it was not asked."""
    traces = (row.item.traces for row in report.rows if row.item is not None)
    return next((trace["rights"] for trace in traces if "rights" in trace), None)


def counts(report: Report) -> dict[str, dict[str, int]]:
    """Songs by verdict, and by step and verdict (a song counts once for each)."""
    songs = {"kept": 0, "mended": 0, "set aside": 0}
    numbers = {"songs": songs}
    for row in report.rows:
        songs[row.verdict] += 1
        for step, verdict in dict.fromkeys((r.step, r.verdict) for r in row.remarks):
            of_step = numbers.setdefault(step, {"mended": 0, "noted": 0, "set aside": 0})
            of_step[verdict] += 1
    return numbers


def by_stage(report: Report) -> dict[str, float]:
    """Seconds of work by stage, summed over songs (workers side by side count double)."""
    total: dict[str, float] = {}
    for row in report.rows:
        for stage, seconds in row.spent.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return {stage: round(seconds, 3) for stage, seconds in (total | report.spent).items()}
