"""What happened to each song, to look at and listen to: one page of all songs, and one page a song
that was kept.

    out/report.html          counts by step, times by stage, a row a song with every remark
    out/pages/<song>.html    the song on its time axis (see `curation_song`)

A page that shows the same result already is left as it is.
"""

from __future__ import annotations

import html
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import quote

from distill.curation.report.song_page import (
    HERE,
    WEAK,
    cell,
    clock,
    colour,
    fill,
    many,
    page,
    table,
    value,
)
from distill.curation.runner import Report, Row, by_stage, counts, file_name, joint
from distill.folders import sha256_bytes, sha256_file, write_atomic
from distill.songs import Song

# facts with a column among the songs
COLUMNS = {"key": "key", "tempo_bpm": "tempo", "vocal_range_midi": "range"}
MADE_FROM = (  # below the package
    "curation/report/song_page.py curation/report/page.css curation/report/song_page.html "
    "audio/spectrogram.py "
    "curation/steps/_pitch.py curation/steps/_salience.py"
).split()


def write(report: Report, workers: int = 1) -> Path:
    """Write report.html and the pages of the songs that were kept; gives the path of report.html."""
    folder = report.folder / "pages"
    folder.mkdir(exist_ok=True)
    kept = [row for row in report.rows if row.item is not None and row.verdict != "set aside"]
    for old in {path.name for path in folder.glob("*.html")} - {_page_name(row) for row in kept}:
        if b'name="made-from"' in _head(folder / old):
            (folder / old).unlink()
    one = partial(_write_page, folder=folder)
    if workers > 1:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            list(pool.map(one, kept, chunksize=4))
    else:
        list(map(one, kept))
    path = report.folder / "report.html"
    write_atomic(path, index(report).encode(errors="replace"))
    return path


def _page_name(row: Row) -> str:
    return f"{file_name(row.name)}.html"


def _write_page(row: Row, folder: Path) -> None:
    """The page of a song, unless it is there and shows the same."""
    path, digest = folder / _page_name(row), _digest(row)
    if path.is_file() and digest.encode() in _head(path):
        return
    write_atomic(path, page(row, digest).encode(errors="replace"))


def _head(path: Path) -> bytes:
    """The beginning of a page, where it says what it was made from."""
    with path.open("rb") as file:
        return file.read(300)


def _digest(row: Row) -> str:
    """The fingerprint of all that a song's page is made from."""
    assert row.item is not None
    return sha256_bytes(
        repr((_code(), row.key, row.item.song.facts, row.item.song.group, row.remarks)).encode()
    )


@cache
def _code() -> str:
    return "".join(sha256_file(HERE.parents[1] / file) for file in MADE_FROM)


# --- all songs ------------------------------------------------------------------------------------
def index(report: Report) -> str:
    """The page of all songs."""
    length = sum(row.seconds for row in report.rows)
    left = sum(row.seconds for row in report.rows if row.verdict != "set aside")
    summary = f"{many(len(report.rows), 'song')}, {clock(length)} of sound, of which {clock(left)} were kept. "
    summary += f"Steps: {', '.join(step.replace('_', ' ') for step in report.steps) or 'none'}. "
    summary += (
        f"This call took {clock(report.seconds)}; songs done by an earlier one were not done again."
    )
    if rights := joint(report):
        summary += (
            f" No licence holds all that was kept: {rights['conflicts'][0]}."
            if rights["conflicts"]
            else f" All that was kept may go together under {rights['licence']}."
        )
    return fill(
        "index_page.html",
        summary=html.escape(summary),
        totals=_totals(report),
        counts=_counts(report),
        stages=_stages(report),
        songs=_songs(report),
    )


def _totals(report: Report) -> str:
    found = counts(report)["songs"]
    told = [
        ("", "all", len(report.rows), ""),
        *((name, name, n, colour(name)) for name, n in found.items()),
    ]
    return "".join(
        f'<button data-verdict="{verdict}" aria-pressed="false"><b class="{kind}">{number:,}</b>{name}</button>'
        for verdict, name, number, kind in told
    )


def _counts(report: Report) -> str:
    found = counts(report)
    order = ["source", "decoding", *report.steps, "writing"]
    steps = sorted(
        (name for name in found if name != "songs"),
        key=lambda n: order.index(n) if n in order else 99,
    )
    verdicts = ("mended", "noted", "set aside")
    rows = [
        [
            cell(name.replace("_", " ")),
            *(cell(found[name][v] or "", f"number {colour(v)}") for v in verdicts),
        ]
        for name in steps
    ]
    return table(["step", *(("number", v) for v in verdicts)], rows)


def _stages(report: Report) -> str:
    """Seconds of work, and how fast one worker goes through a stage."""
    rows = []
    for stage, spent in by_stage(report).items():
        reached = "writing" if stage in report.spent else stage
        through = [row for row in report.rows if reached in row.spent]
        sound = sum(row.seconds for row in through)
        speed = (
            [f"{60 * len(through) / spent:,.0f}", f"{sound / spent:,.0f}"]
            if spent >= 0.05
            else ["", ""]
        )
        figures = [f"{len(through):,}", f"{spent:,.1f}", *speed]
        rows.append(
            [cell(stage.replace("_", " ")), *(cell(figure, "number") for figure in figures)]
        )
    head = ["songs", "seconds of work", "songs / min", "s of sound / s"]
    return table(["stage", *(("number", name) for name in head)], rows)


def _songs(report: Report) -> str:
    head: list[str | tuple[str, str]] = [
        "song",
        "verdict",
        ("number", "length"),
        "language",
        "licence",
    ]
    head += [*COLUMNS.values(), ("number", "lines' times"), "remarks"]
    body = "".join(_song_row(row) for row in report.rows)
    return table(head, body, id="songs")


def _song_row(row: Row) -> str:
    song = row.item.song if row.item is not None else None
    name = html.escape(row.name)
    if song is not None and row.verdict != "set aside":
        name = f'<a href="pages/{quote(_page_name(row))}">{name}</a>'
    cells = [
        f"<td>{name}</td>",
        cell(row.verdict, colour(row.verdict)),
        cell(clock(row.seconds) if row.seconds else "", "number"),
    ]
    if song is None:
        cells += ["<td></td>"] * (3 + len(COLUMNS))
    else:
        cells += [cell(song.language), cell(song.licence)]
        cells += [_fact(song, name) for name in COLUMNS]
        cells.append(cell(_sureness(song), "number"))
    told = "".join(
        f'<p><span class="{colour(remark.verdict)}">{html.escape(remark.step.replace("_", " "))}:</span> {html.escape(remark.text)}</p>'
        for remark in row.remarks
    )
    return f'<tr data-verdict="{row.verdict}">{"".join(cells)}<td>{told}</td></tr>\n'


def _fact(song: Song, name: str) -> str:
    """A cell with what is known; a weak guess is grey and has a question mark."""
    fact = song.fact(name)
    if fact is None:
        return "<td></td>"
    weak = fact.confidence is not None and fact.confidence < WEAK
    return cell(value(fact) + "?" * weak, "noted" if weak else "")


def _sureness(song: Song) -> str:
    """Where the lines' times come from: given, or how sure the guess is (median)."""
    timed = [line for line in song.lines if line.start is not None]
    guessed = [line.confidence for line in timed if line.confidence is not None]
    if not timed:
        return "none"
    given = "given" * (len(guessed) < len(timed))
    return ", ".join(filter(None, [given, f"{statistics.median(guessed):.2f}" if guessed else ""]))


__all__ = ["index", "write"]
