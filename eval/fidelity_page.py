"""A codec's fidelity as tables in Markdown, and the same with players as one HTML file (see
page.py, whose dress it wears)."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import page as singers_page

from distill.measures import Performance

Table = tuple[str, list[str], list[list[str]]]  # title, head, rows
LIKENESS = {
    "mel": "mel distance to 8 kHz, nats",
    "mel, whole": "mel distance, codec's whole band, nats",
    "pesq": "PESQ wide band",
    "stoi": "STOI",
    "pitch": "pitch kept, %",
}


def markdown(report: dict[str, Any]) -> str:
    """Everything that was measured, as one Markdown text."""
    told = [f"# {title(report)}", summary(report)]
    for name, head, rows in tables(report):
        lines = [head, ["---"] * len(head), *rows]
        told.append(f"**{name}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(told) + "\n"


def page(report: dict[str, Any], performances: dict[str, list[Performance]], examples: int) -> str:
    """The page: the tables, and `examples` lines before and after, spread over the voices."""
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    said = report if report["rows"] else _nothing_said(performances)
    lines = [
        singers_page.example(said, performances, place) for place in chosen(said, report, examples)
    ]
    parts = {
        "title": html.escape(title(report)),
        "summary": html.escape(summary(report)),
        "table": "".join(_html(table) for table in tables(report)),
        "explanations": "",
        "losses": "",
        "examples": "\n".join(lines),
    }
    for name, text in parts.items():
        template = template.replace(f"<!-- {name} -->", text)
    return template


def chosen(said: dict[str, Any], report: dict[str, Any], count: int) -> list[int]:
    """Lines for the page: of every voice as many, from its worst after the codec to its best."""
    lines = list(said["rows"].values())[-1]["per_line"]
    voices = list(dict.fromkeys(report["voice_of_line"]))
    found = []
    for number, voice in enumerate(voices):
        places = [place for place, name in enumerate(report["voice_of_line"]) if name == voice]
        own = {"rows": {"": {"per_line": [lines[place] for place in places]}}}
        share = count * (number + 1) // len(voices) - count * number // len(voices)
        found += [places[place] for place in singers_page.chosen(own, share)]
    return found


def _nothing_said(performances: dict[str, list[Performance]]) -> dict[str, Any]:
    """Where no notes and words are known, nothing can be drawn over the sound."""
    return {
        "rows": {
            row: {"per_line": [{"figures": {}}] * len(takes)} for row, takes in performances.items()
        }
    }


# --- tables ---------------------------------------------------------------------------------------


def title(report: dict[str, Any]) -> str:
    """What was measured on what."""
    codec = report["codec"]
    return f"Codec {codec.get('path', codec['kind'])}: {', '.join(report['songs'])} ({report['track']})"


def summary(report: dict[str, Any]) -> str:
    """One paragraph: how much was heard, and how it is to be read."""
    told = f"{report['lines']} lines, {report['seconds']:.0f} s, {report['words']['asked']} words asked. "
    told += "Intervals: 95 %, bootstrap over lines. "
    if report["rows"]:
        told += "Words: forced choice among eight, English lines only. "
    return (
        told
        + "PESQ and STOI were made for speech. Every figure compares with the same uncoded sound."
    )


def tables(report: dict[str, Any]) -> list[Table]:
    """All tables that there is something to put into."""
    made = [
        _kept(report),
        _by_slots(report),
        _by_voice(report),
        _codebooks(report),
        _speed(report),
        _published(report),
    ]
    return [_without_empty_columns(table) for table in made if table[2]]


def _without_empty_columns(table: Table) -> Table:
    name, head, rows = table
    filled = [place for place in range(len(head)) if any(row[place] for row in rows)]
    return (
        name,
        [head[place] for place in filled],
        [[row[place] for place in filled] for row in rows],
    )


def _kept(report: dict[str, Any]) -> Table:
    head = ["voice", "slots", "lines", "notes in tune before, %", "after, %", "after / before, %"]
    head += [
        "still in tune of those before, %",
        "words",
        "missed before, %",
        "after, %",
        "loss, points",
    ]
    rows = []
    for voice, by_row in report["voices"].items():
        for slots in report["judged"]:
            of = by_row[f"{slots} slots"]
            words = of["word_error_before"]
            cells = [voice, str(slots), str(of["lines"])]
            cells += [
                _cell(of[name])
                for name in ("in_tune_before", "in_tune_after", "in_tune_quotient", "still_in_tune")
            ]
            cells += [str(words["count"]) if words else ""]
            cells += [_cell(of[f"word_error_{name}"]) for name in ("before", "after", "difference")]
            rows.append(cells)
    return "Tune and words, before and after", head, rows


def _likeness(of: dict[str, Any]) -> list[str]:
    return [_cell(of.get(name), 100 if name == "pitch" else 1) for name in LIKENESS]


def _by_slots(report: dict[str, Any]) -> Table:
    head = ["slots", "tokens / s", "kbit / s", *LIKENESS.values()]
    rows = []
    for slots, of in next(iter(report["likeness"].values())).items():
        tokens, kilobits = report["rates"][slots]
        rows.append([str(slots), f"{tokens:g}", f"{kilobits:.2f}", *_likeness(of)])
    return "Likeness by number of slots", head, rows


def _by_voice(report: dict[str, Any]) -> Table:
    rows = [
        [voice, str(slots), *_likeness(by_slots[slots])]
        for voice, by_slots in report["likeness"].items()
        for slots in report["judged"]
    ]
    return "Likeness by voice", ["voice", "slots", *LIKENESS.values()], rows


def _codebooks(report: dict[str, Any]) -> Table:
    rows = [
        [
            str(of["slot"]),
            str(of["codes"]),
            f"{100 * of['share']:.1f}",
            f"{of['perplexity']:.0f}",
            f"{of['frames']:,}",
        ]
        for of in report["codebooks"]
    ]
    return "Codebook use", ["slot", "codes", "used, %", "perplexity", "frames counted"], rows


def _speed(report: dict[str, Any]) -> Table:
    names = [f"{work}_{clock}" for work in ("encode", "decode") for clock in ("wall", "processor")]
    head = ["slots", *(f"{name.replace('_', ', ')} time" for name in names)]
    rows = [[str(of["slots"]), *(f"{of[name]:.1f}" for name in names)] for of in report["speed"]]
    seconds = report["speed"][0]["seconds"]
    return (
        f"Times real time, one thread, {seconds:.0f} s of sound, median of three runs",
        head,
        rows,
    )


def _published(report: dict[str, Any]) -> Table:
    rows = [
        [name, f"{tokens:.0f}", f"{kilobits:.2f}", paper]
        for name, tokens, kilobits, paper in report["published"]
    ]
    own = [
        [f"this codec, {slots} slots", f"{tokens:.0f}", f"{kilobits:.2f}", ""]
        for slots, (tokens, kilobits) in report["rates"].items()
    ]
    head = ["codec", "tokens / s", "kbit / s", "paper"]
    return (
        "Bit rates: frames a second x log2 of the codes (of published codecs only these; none was "
        "run here)",
        head,
        own + rows,
    )


def _cell(figure: dict[str, Any] | None, unit: float = 0) -> str:
    """A figure with its interval; per cent where no unit is given."""
    if not figure:
        return ""
    digits, factor = (3, 1) if unit == 1 else (1, 100)
    value, low, high = (f"{factor * figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _html(table: Table) -> str:
    name, head, rows = table
    top = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>{"".join(f"<td>{_split(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return f"<h2>{html.escape(name)}</h2><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _split(cell: str) -> str:
    """The interval goes below the value."""
    value, bracket, interval = cell.partition(" (")
    return html.escape(value) + (
        f"<small>{html.escape(interval.rstrip(')'))}</small>" if bracket else ""
    )
