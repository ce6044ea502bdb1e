"""Figures as a person would write them, and the templates that they are written into."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from distill.songs import Fact

HERE = Path(__file__).resolve().parent
WEAK = 0.5  # a confidence below it is drawn in red
LISTED = 12  # values of a list that a table shows
KEYS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


def clock(seconds: float, brief: bool = False) -> str:
    """63.25 as 1:03.2, 5400 as 1.5 h; brief on the axis: 1:03."""
    if seconds >= 3600 and not brief:
        return f"{seconds / 3600:,.1f} h"
    minutes, rest = divmod(round(seconds, 1), 60)
    if brief and rest == int(rest):
        return f"{int(minutes)}:{int(rest):02d}"
    return f"{int(minutes)}:{rest:04.1f}"


def count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def colour(verdict: str) -> str:
    """The class that page.css has for a verdict."""
    return "aside" if verdict == "set aside" else verdict


def sure(confidence: float | None) -> float:
    return 1.0 if confidence is None else min(1.0, max(0.0, confidence))


def sure_class(confidence: float | None) -> str:
    return "given" if confidence is None else "guess" if confidence >= WEAK else "guess weak"


def sure_words(confidence: float | None) -> str:
    return "given" if confidence is None else f"guessed, confidence {confidence:.2f}"


def value(fact: Fact) -> str:
    """A fact's value as a person would write it."""
    if fact.name.endswith("_midi") and isinstance(fact.value, (list, tuple)):
        return " to ".join(f"{KEYS[round(m) % 12]}{round(m) // 12 - 1}" for m in fact.value)
    return _plain(fact.value)


def _plain(json: object) -> str:
    if isinstance(json, float):
        return f"{json:.4g}"
    if isinstance(json, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in json.items())
    if isinstance(json, (list, tuple)):
        return " ".join(map(_plain, json[:LISTED])) + " ..." * (len(json) > LISTED)
    return "unknown" if json is None else str(json)


templates = Environment(
    loader=FileSystemLoader(HERE),
    autoescape=True,  # nothing that a song brings along is taken for a tag
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
templates.globals["WEAK"] = WEAK
for filter_ in (clock, colour, sure, sure_class, sure_words, value):
    templates.filters[filter_.__name__] = filter_
