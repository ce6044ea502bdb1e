"""A report as one HTML file that needs nothing else: figures, players, and what was heard, over
spectrograms.

Sound is Ogg Opus, pictures are 64-colour PNG, both inside the page as base64; a dozen lines of
three rows take 1-2 MB. A spectrogram has a logarithmic frequency axis, so that a semitone is as
high everywhere and the score can be drawn into it: green where the note was in tune, red where it
was not. A click into it plays from there.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.audio.spectrogram import HOP_SECONDS, height, opus, spectrogram_png
from distill.measures import Performance
from distill.measures.pitch import in_tune


def page(
    report: dict[str, Any], performances: dict[str, list[Performance]], examples: int = 12
) -> str:
    """The whole page. `performances` are those the report was made from; `examples` lines of them
    are shown."""
    shown = chosen(report, examples)
    lines = "\n".join(example(report, performances, place) for place in shown)
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    parts = {
        "title": f"{', '.join(report['singers']) or 'takes'} on {report['suite']}",
        "summary": _summary(report),
        "table": _table(report),
        "explanations": _explanations(report),
        "losses": _losses(report),
        "examples": lines,
    }
    for name, text in parts.items():
        template = template.replace(f"<!-- {name} -->", text)
    return template


def chosen(report: dict[str, Any], count: int) -> list[int]:
    """Lines for the page, from the worst of the last row to its best in even steps: no row is shown
    by its best alone."""
    lines = list(report["rows"].values())[-1]["per_line"]

    def faults(place: int) -> float:
        figures = lines[place]["figures"]
        wrong, words = figures.get("word_error", (0, 0))
        good, notes = figures.get("in_tune", (0, 0))
        return wrong / max(1, words) + (notes - good) / max(1, notes)

    ranked = sorted(range(len(lines)), key=lambda place: (-faults(place), place))
    count = min(count, len(ranked))
    return [ranked[i * (len(ranked) - 1) // max(1, count - 1)] for i in range(count)]


# --- figures --------------------------------------------------------------------------------------


def _summary(report: dict[str, Any]) -> str:
    row = next(iter(report["rows"].values()))
    chance = row.get("words", {}).get("chance")
    asked, distinct = report["words"]["asked"], report["words"]["distinct"]
    told = f"{report['lines']} lines, {asked} words ({distinct} distinct), "
    told += f"{row['seconds_of_audio']:.0f} s of song. Intervals: 95 %, bootstrap over lines."
    if chance is not None:
        told += f" Guessing words would be wrong in {100 * chance:.1f} %."
    missing = row.get("words", {}).get("not_in_dictionary") or []
    if missing:
        told += f" Not in the recogniser's dictionary, so not scored: {html.escape(', '.join(missing))}."
    return told


def _table(report: dict[str, Any]) -> str:
    names = list(report["explanations"])
    titles = ["row", *(name.replace("_", " ") for name in names)]
    titles += ["words above the codec", "in tune / codec's", "× real time"]
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in titles)
    rows = []
    for row, result in report["rows"].items():
        against = report["paired"].get(row, {}).get("figures", {})
        speed = report["singers"].get(row, {}).get("real_time_factor")
        cells = [_cell(result["figures"].get(name)) for name in names]
        cells.append(
            _cell((against.get("word_error") or {}).get("difference"), "points", bar=False)
        )
        cells.append(_cell((against.get("in_tune") or {}).get("quotient"), bar=False))
        cells.append(f"<td>{speed:.1f}</td>" if speed else "<td></td>")
        rows.append(f'<tr><th scope="row">{html.escape(row)}</th>{"".join(cells)}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(figure: dict[str, Any] | None, unit: str = "%", bar: bool = True) -> str:
    if not figure:
        return "<td></td>"
    value, low, high = (100 * figure[name] for name in ("value", "low", "high"))
    count = f"{figure['hits']} of {figure['count']}" if "hits" in figure else ""
    told = f"<strong>{value:.1f}</strong> {unit}<small>{low:.1f} to {high:.1f}</small>"
    if bar:
        told += f'<i class="range"><b style="left:{low:.1f}%;right:{100 - high:.1f}%"></b>'
        told += f'<u style="left:{value:.1f}%"></u></i>'
    return f'<td title="{count}">{told}</td>'


def _explanations(report: dict[str, Any]) -> str:
    rows = (
        f"<dt>{html.escape(name.replace('_', ' '))}</dt><dd>{html.escape(text)}</dd>"
        for name, text in report["explanations"].items()
    )
    return f"<dl>{''.join(rows)}</dl>"


def _losses(report: dict[str, Any]) -> str:
    """Held-out nats and KL of every singer; lists go by slot."""
    told = []
    for row, singer in report["singers"].items():
        for title, figures in (
            ("held-out nats", singer.get("nats")),
            ("KL to the teacher", singer.get("kl")),
        ):
            if figures is None:
                continue
            items = figures.items() if isinstance(figures, dict) else [("by slot", figures)]
            text = "; ".join(
                f"{html.escape(name.replace('_', ' '))} {_number(value)}" for name, value in items
            )
            told.append(f"<dt>{html.escape(row)}: {title}</dt><dd>{text}</dd>")
    return f"<h2>Nats</h2><dl>{''.join(told)}</dl>" if told else ""


def _number(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_number, value))
    return f"{value:.3f}" if isinstance(value, float) else html.escape(str(value))


# --- lines ----------------------------------------------------------------------------------------


def example(report: dict[str, Any], performances: dict[str, list[Performance]], place: int) -> str:
    """One line, as every row sang it, side by side."""
    figures = []
    for row, lines in performances.items():
        figures.append(_figure(row, lines[place], report["rows"][row]["per_line"][place]))
    text = html.escape(next(iter(performances.values()))[place].text)
    return f'<section><h3>{text}</h3><div class="rows">{"".join(figures)}</div></section>'


def _figure(row: str, take: Performance, said: dict[str, Any]) -> str:
    sound = (
        f"data:audio/ogg;base64,{base64.b64encode(opus(take.wave_W, take.sample_rate)).decode()}"
    )
    picture = f"data:image/png;base64,{base64.b64encode(spectrogram_png(take.wave_W, take.sample_rate)).decode()}"
    return (
        f"<figure><figcaption>{html.escape(row)}</figcaption>"
        f'<div class="picture"><img src="{picture}" alt="spectrogram">'
        f"{_score(take, said.get('pitch', {}).get('cents', []))}<span></span></div>"
        f'<audio controls preload="none" src="{sound}"></audio>'
        f'<p class="heard">{_heard(take, said.get("words", {}).get("heard", []))}</p></figure>'
    )


def _score(take: Performance, cents: Sequence[float | None]) -> str:
    """The notes asked for, drawn where their fundamental should lie."""
    seconds = max(take.seconds, HOP_SECONDS)
    drawn = []
    for (start, end, midi), off in zip(take.notes, cents, strict=False):
        top = 100 * (1 - height(440 * 2 ** ((midi - 69) / 12)))
        told = "not sung" if off is None else f"{off:+.0f} cents"
        drawn.append(
            f'<line x1="{100 * start / seconds:.2f}%" x2="{100 * end / seconds:.2f}%" y1="{top:.2f}%" '
            f'y2="{top:.2f}%" class="{"good" if in_tune(off) else "bad"}">'
            f"<title>MIDI {midi:g}: {told}</title></line>"
        )
    return f"<svg>{''.join(drawn)}</svg>"


def _heard(take: Performance, heard: Sequence[str | None]) -> str:
    words = []
    for asked, said in zip(take.words, heard, strict=False):
        right = asked == said
        told = (
            html.escape(asked)
            if right
            else f"<del>{html.escape(asked)}</del> <ins>{html.escape(said or '–')}</ins>"
        )
        words.append(f"<span>{told}</span>")
    return " ".join(words)
