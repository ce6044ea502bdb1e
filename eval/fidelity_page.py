"""A codec's fidelity as tables in Markdown, and the same with players as one HTML file (see
page.py, whose dress it wears)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import page as singers_page
from page import Figure, Report, Rows

LIKENESS = {
    "mel": "mel distance to 8 kHz, nats",
    "mel, whole": "mel distance, codec's whole band, nats",
    "pesq": "PESQ wide band",
    "stoi": "STOI",
    "pitch": "pitch kept, %",
}
KEPT = {  # shares of a voice's lines, by the head of their column
    "in_tune_before": "notes in tune before, %",
    "in_tune_after": "after, %",
    "in_tune_quotient": "after / before, %",
    "still_in_tune": "still in tune of those before, %",
}
# what is heard of the words, and what of it stands in a table
WORDS = {"dictation_error": "dictation:", "word_error": "of eight:"}
PARTS = {"before": "wrong before, %", "after": "after, %", "difference": "loss, points"}


class Table(NamedTuple):
    """A title, the heads of the columns, and rows of cells."""

    title: str
    head: list[str]
    rows: list[list[str]]


def markdown(report: Report) -> str:
    """Everything that was measured, as one Markdown text."""
    parts = [f"# {title(report)}", summary(report)]
    for name, head, rows in tables(report):
        lines = [head, ["---"] * len(head), *rows]
        parts.append(f"**{name}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def page(report: Report, performances: Rows, examples: int) -> str:
    """The page: the tables, and `examples` lines before and after, spread over the voices."""
    sung = report if report["rows"] else _nothing_known(performances)
    return singers_page.templates.get_template("fidelity_page.html").render(
        title=title(report),
        summary=summary(report),
        tables=[
            (name, head, [(voice, [_split(cell) for cell in cells]) for voice, *cells in rows])
            for name, head, rows in tables(report)
        ],
        examples=[
            singers_page.example(sung, performances, index)
            for index in chosen(sung, report, examples)
        ],
    )


def _split(cell: str) -> tuple[str, str]:
    """A figure and its interval, which goes below it."""
    value, _, interval = cell.partition(" (")
    return value, interval.rstrip(")")


def chosen(sung: Report, report: Report, count: int) -> list[int]:
    """Lines for the page: of every voice as many, from its worst after the codec to its best."""
    lines = list(sung["rows"].values())[-1]["per_line"]
    voices = list(dict.fromkeys(report["voice_of_line"]))
    chosen = []
    for number, voice in enumerate(voices):
        indices = [index for index, name in enumerate(report["voice_of_line"]) if name == voice]
        of_voice = {"rows": {"": {"per_line": [lines[index] for index in indices]}}}
        share = count * (number + 1) // len(voices) - count * number // len(voices)
        chosen += [indices[index] for index in singers_page.chosen(of_voice, share)]
    return chosen


def _nothing_known(performances: Rows) -> Report:
    """Where no notes and words are known, nothing can be drawn over the sound."""
    line: dict[str, object] = {"figures": {}}
    return {"rows": {row: {"per_line": [line] * len(t)} for row, t in performances.items()}}


# --- tables ---------------------------------------------------------------------------------------


def title(report: Report) -> str:
    """What was measured on what."""
    codec, songs = report["codec"], ", ".join(report["songs"])
    return f"Codec {codec.get('path', codec['kind'])}: {songs} ({report['track']})"


def summary(report: Report) -> str:
    """One paragraph: how much was heard, and how it is to be read."""
    words = ""
    if report["rows"]:
        ear = next(iter(report["rows"].values())).get("dictation", {}).get("recogniser")
        dictation = f"free dictation to Whisper {ear}, and " if ear else ""
        words = f"Words: {dictation}forced choice among eight, the latter of English lines only. "
    return (
        f"{report['lines']} lines, {report['seconds']:.0f} s, {report['words']['asked']} words "
        f"asked. Intervals: 95 %, bootstrap over lines. {words}PESQ and STOI were made for speech. "
        "Every figure compares with the same uncoded sound."
    )


def tables(report: Report) -> list[Table]:
    """All tables that there is something to put into."""
    makers = (_kept, _by_slots, _by_voice, _codebooks, _speed, _published)
    return [_without_empty_columns(table) for make in makers if (table := make(report)).rows]


def _without_empty_columns(table: Table) -> Table:
    filled = [column for column in range(len(table.head)) if any(row[column] for row in table.rows)]
    head, *rows = ([row[column] for column in filled] for row in (table.head, *table.rows))
    return Table(table.title, head, rows)


def _kept(report: Report) -> Table:
    head = ["voice", "slots", "lines", *KEPT.values()]
    head += ["words", *(f"{words} {part}" for words in WORDS.values() for part in PARTS.values())]
    rows = []
    for voice, by_row in report["voices"].items():
        for slots in report["judged"]:
            shares = by_row[f"{slots} slots"]
            words = shares["dictation_error_before"] or shares["word_error_before"]
            cells = [voice, str(slots), str(shares["lines"])]
            cells += [_cell(shares[name]) for name in KEPT]
            cells += [str(words["count"]) if words else ""]
            cells += [_cell(shares[f"{name}_{part}"]) for name in WORDS for part in PARTS]
            rows.append(cells)
    return Table("Tune and words, before and after", head, rows)


def _likeness(figures: Mapping[str, Figure]) -> list[str]:
    return [_cell(figures.get(name), per_cent=name == "pitch") for name in LIKENESS]


def _by_slots(report: Report) -> Table:
    head = ["slots", "tokens / s", "kbit / s", *LIKENESS.values()]
    rows = []
    for slots, figures in next(iter(report["likeness"].values())).items():
        tokens, kilobits = report["rates"][slots]
        rows.append([str(slots), f"{tokens:g}", f"{kilobits:.2f}", *_likeness(figures)])
    return Table("Likeness by number of slots", head, rows)


def _by_voice(report: Report) -> Table:
    rows = [
        [voice, str(slots), *_likeness(by_slots[slots])]
        for voice, by_slots in report["likeness"].items()
        for slots in report["judged"]
    ]
    return Table("Likeness by voice", ["voice", "slots", *LIKENESS.values()], rows)


def _codebooks(report: Report) -> Table:
    rows = []
    for use in report["codebooks"]:
        share, perplexity = f"{100 * use['share']:.1f}", f"{use['perplexity']:.0f}"
        rows.append([str(use["slot"]), str(use["codes"]), share, perplexity, f"{use['frames']:,}"])
    head = ["slot", "codes", "used, %", "perplexity", "frames counted"]
    return Table("Codebook use", head, rows)


def _speed(report: Report) -> Table:
    names = [f"{work}_{clock}" for work in ("encode", "decode") for clock in ("wall", "processor")]
    head = ["slots", *(f"{name.replace('_', ', ')} time" for name in names)]
    rows = [[str(run["slots"]), *(f"{run[name]:.1f}" for name in names)] for run in report["speed"]]
    seconds = f"{report['speed'][0]['seconds']:.0f} s of sound"
    return Table(f"Times real time, one thread, {seconds}, median of three runs", head, rows)


def _published(report: Report) -> Table:
    codecs = [
        *((f"this codec, {slots} slots", *rate, "") for slots, rate in report["rates"].items()),
        *report["published"],
    ]
    rows = [
        [name, f"{tokens:.0f}", f"{kilobits:.2f}", paper]
        for name, tokens, kilobits, paper in codecs
    ]
    name = "Bit rates: frames a second x log2 of the codes (of published codecs only these; none "
    return Table(f"{name}was run here)", ["codec", "tokens / s", "kbit / s", "paper"], rows)


def _cell(figure: Figure, per_cent: bool = True) -> str:
    """A figure with its interval."""
    if not figure:
        return ""
    digits, factor = (1, 100) if per_cent else (3, 1)
    value, low, high = (f"{factor * figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
