"""What happened to each song: one page of all songs, and one for each that was kept.

    out/report.html          counts by step, times by stage, a row a song with every remark
    out/pages/<song>.html    the song on its time axis (see `song_page`)

A page that shows the same result already is left as it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from distill.curation import fingerprint
from distill.curation.one_song import file_name
from distill.curation.report.song_page import page
from distill.curation.report.templates import HERE, clock, count, templates
from distill.curation.rows import Report, Row, by_stage, counts, joint
from distill.folders import sha256_bytes, sha256_file, write_atomic
from distill.runtime.workers import Died, Local
from distill.songs import Song

# facts with a column among the songs
COLUMNS = {"key": "key", "tempo_bpm": "tempo", "vocal_range_midi": "range"}
VERDICTS = ("mended", "noted", "set aside")
HEAD_BYTES = 300  # of a page, in which it says what it was made from
LEAST_SECONDS = 0.05  # of work, below which nobody asks how fast it was
LAST = 99  # behind all steps


def write(report: Report, workers: int = 1) -> Path:
    """Write report.html, whose path this gives, and the pages of the songs that were kept."""
    folder = report.folder / "pages"
    folder.mkdir(exist_ok=True)
    kept = [row for row in report.rows if row.kept is not None]
    for old in {path.name for path in folder.glob("*.html")} - {_page_name(row) for row in kept}:
        if b'name="made-from"' in _head(folder / old):
            (folder / old).unlink()
    write_page = partial(_write_page, folder=folder)
    if workers > 1:
        for number, answer in Local(workers).each(write_page, kept, "curation's pages"):
            if isinstance(answer, Died):
                write_page(kept[number])
    else:
        list(map(write_page, kept))
    path = report.folder / "report.html"
    write_atomic(path, index(report).encode(errors="replace"))
    return path


def _page_name(row: Row) -> str:
    return f"{file_name(row.name)}.html"


def _write_page(row: Row, folder: Path) -> None:
    """The page of a song, unless it is there and shows the same."""
    path, digest = folder / _page_name(row), _digest(row)
    if not path.is_file() or digest.encode() not in _head(path):
        write_atomic(path, page(row, digest).encode(errors="replace"))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _digest(row: Row) -> str:
    """The fingerprint of all that a song's page is made from."""
    assert row.item is not None
    song = row.item.song
    return sha256_bytes(repr((_code(), row.key, song.facts, song.group, row.remarks)).encode())


@cache
def _code() -> str:
    files = fingerprint.code([HERE / "song_page.py"])
    return "".join(map(sha256_file, [*files, HERE / "song_page.html", HERE / "page.css"]))


# --- all songs ------------------------------------------------------------------------------------
def index(report: Report) -> str:
    """The page of all songs."""
    return templates.get_template("index_page.html").render(
        summary=_summary(report),
        totals=_totals(report),
        verdicts=VERDICTS,
        counts=_counts(report),
        stages=list(_stages(report)),
        columns=COLUMNS,
        rows=report.rows,
        page_name=_page_name,
        sureness=_sureness,
    )


def _summary(report: Report) -> str:
    length = sum(row.seconds for row in report.rows)
    left = sum(row.seconds for row in report.rows if row.verdict != "set aside")
    steps = ", ".join(step.replace("_", " ") for step in report.steps) or "none"
    summary = (
        f"{count(len(report.rows), 'song')}, {clock(length)} of sound, of which {clock(left)} were "
        f"kept. Steps: {steps}. This call took {clock(report.seconds)}; songs done by an earlier "
        "one were not done again."
    )
    rights = joint(report)
    if rights is None:
        return summary
    if rights["conflicts"]:
        return f"{summary} No licence holds all that was kept: {rights['conflicts'][0]}."
    return f"{summary} All that was kept may go together under {rights['licence']}."


def _totals(report: Report) -> list[tuple[str, str, int]]:
    """Verdict to show (none for all), its name, and how many songs have it."""
    of_verdicts = [(verdict, verdict, n) for verdict, n in counts(report)["songs"].items()]
    return [("", "all", len(report.rows)), *of_verdicts]


def _counts(report: Report) -> list[tuple[str, dict[str, int]]]:
    """Songs by verdict for each step that had something to say, in the order they are run."""
    order = {name: n for n, name in enumerate(["source", "decoding", *report.steps, "writing"])}
    of_steps = [(step, numbers) for step, numbers in counts(report).items() if step != "songs"]
    return sorted(of_steps, key=lambda row: order.get(row[0], LAST))


def _stages(report: Report) -> Iterator[tuple[str, list[str]]]:
    """Seconds of work, and how fast one worker goes through a stage."""
    for stage, spent in by_stage(report).items():
        reached = "writing" if stage in report.spent else stage
        through = [row for row in report.rows if reached in row.spent]
        speeds = [60 * len(through), sum(row.seconds for row in through)]
        known = spent >= LEAST_SECONDS
        figures = [f"{number / spent:,.0f}" if known else "" for number in speeds]
        yield stage, [f"{len(through):,}", f"{spent:,.1f}", *figures]


def _sureness(song: Song) -> str:
    """Where the lines' times come from: given, or how sure the guess is (median)."""
    timed = [line for line in song.lines if line.start is not None]
    guessed = [line.confidence for line in timed if line.confidence is not None]
    if not timed:
        return "none"
    given = "given" * (len(guessed) < len(timed))
    return ", ".join(filter(None, [given, f"{statistics.median(guessed):.2f}" if guessed else ""]))
