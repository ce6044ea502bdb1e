"""A report as one HTML file that needs nothing else: figures, players, and what was heard, over
spectrograms.

Sound is Ogg Opus, pictures are 64-colour PNG, both inside the page as base64; a dozen lines of
three rows take 1-2 MB. A spectrogram has a logarithmic frequency axis, so that a semitone is as
high everywhere and the score can be drawn into it: green where the note was in tune, red where it
was not. A click into it plays from there.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from distill.audio.spectrogram import HOP_SECONDS, height, opus, spectrogram_png
from distill.measures import Performance
from distill.measures.pitch import in_tune

Report = Mapping[str, Any]  # as `measures.judge` gives it
Rows = Mapping[str, Sequence[Performance]]
Figure = Mapping[str, float] | None  # value, low, high, and where it is a share hits and count

WORDS = {"dictation_error": "dictation", "word_error": "words"}  # the judges of words

templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def page(report: Report, performances: Rows, examples: int = 12) -> str:
    """The whole page. `performances` are those the report was made from; `examples` lines of them
    are shown."""
    return templates.get_template("page.html").render(
        title=f"{', '.join(report['singers']) or 'takes'} on {report['suite']}",
        summary=_summary(report),
        explanations=report["explanations"],
        judges=list(WORDS.values()),
        rows=list(_rows(report)),
        nats=list(_nats(report)),
        examples=[example(report, performances, index) for index in chosen(report, examples)],
    )


def chosen(report: Report, count: int) -> list[int]:
    """Lines for the page, from the worst of the last row to its best in even steps: no row is shown
    by its best alone."""
    lines = list(report["rows"].values())[-1]["per_line"]

    def faults(index: int) -> float:
        figures = lines[index]["figures"]
        wrong, words = figures.get("dictation_error") or figures.get("word_error", (0, 0))
        good, notes = figures.get("in_tune", (0, 0))
        return wrong / max(1, words) + (notes - good) / max(1, notes)

    ranked = sorted(range(len(lines)), key=lambda index: (-faults(index), index))
    count = min(count, len(ranked))
    return [ranked[i * (len(ranked) - 1) // max(1, count - 1)] for i in range(count)]


# --- figures --------------------------------------------------------------------------------------


def _summary(report: Report) -> str:
    row = next(iter(report["rows"].values()))
    words = row.get("words", {})
    asked, distinct = report["words"]["asked"], report["words"]["distinct"]
    summary = (
        f"{report['lines']} lines, {asked} words ({distinct} distinct), "
        f"{row['seconds_of_audio']:.0f} s of song. Intervals: 95 %, bootstrap over lines."
    )
    if words.get("chance") is not None:
        summary += f" Guessing words would be wrong in {100 * words['chance']:.1f} %."
    if missing := words.get("not_in_dictionary"):
        summary += " Not in the recogniser's dictionary, so not scored: "
        summary += f"{', '.join(missing)}."
    return summary


def _rows(report: Report) -> Iterator[tuple[str, list[Figure], list[Figure], Figure, float | None]]:
    """A row's name, its figures, words above the codec (by each judge of `WORDS`) and tune against
    the codec's, its speed."""
    for name, result in report["rows"].items():
        against = report["paired"].get(name, {}).get("figures", {})
        words = [(against.get(judge) or {}).get("difference") for judge in WORDS]
        tune = (against.get("in_tune") or {}).get("quotient")
        figures = [result["figures"].get(figure) for figure in report["explanations"]]
        speed = report["singers"].get(name, {}).get("real_time_factor")
        yield name, figures, words, tune, speed


def _nats(report: Report) -> Iterator[tuple[str, str]]:
    """Held-out nats and KL of every singer; lists go by slot."""
    for row, singer in report["singers"].items():
        for title, name in (("held-out nats", "nats"), ("KL to the teacher", "kl")):
            figures = singer.get(name)
            if figures is not None:
                named = figures if isinstance(figures, dict) else {"by slot": figures}
                words = (f"{name.replace('_', ' ')} {_number(x)}" for name, x in named.items())
                yield f"{row}: {title}", "; ".join(words)


def _number(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_number, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


# --- lines ----------------------------------------------------------------------------------------


def example(report: Report, performances: Rows, index: int) -> dict[str, object]:
    """One line, as every row sang it, for the template."""
    takes = [
        _take(row, lines[index], report["rows"][row]["per_line"][index])
        for row, lines in performances.items()
    ]
    return {"text": next(iter(performances.values()))[index].text, "takes": takes}


def _take(row: str, take: Performance, details: Mapping[str, Any]) -> dict[str, object]:
    heard = details.get("words", {}).get("heard", [])
    return {
        "row": row,
        "sound": base64.b64encode(opus(take.wave_W, take.sample_rate)).decode(),
        "picture": base64.b64encode(spectrogram_png(take.wave_W, take.sample_rate)).decode(),
        "notes": list(_notes(take, details.get("pitch", {}).get("cents", []))),
        "words": list(zip(take.words, heard, strict=False)),
        "written": details.get("dictation", {}).get("written"),
    }


def _notes(take: Performance, cents: Sequence[float | None]) -> Iterator[dict[str, object]]:
    """The notes asked for, drawn where their fundamental should lie (per cent of the picture)."""
    seconds = max(take.seconds, HOP_SECONDS)
    for (start, end, midi), off in zip(take.notes, cents, strict=False):
        yield {
            "start": 100 * start / seconds,
            "end": 100 * end / seconds,
            "top": 100 * (1 - height(440 * 2 ** ((midi - 69) / 12))),
            "midi": f"{midi:g}",
            "in_tune": in_tune(off),
            "sung": "not sung" if off is None else f"{off:+.0f} cents",
        }
