"""Text in any of the forms that lyrics come in, to what a song needs of it."""

from __future__ import annotations

import re
from typing import Literal

from distill.lyrics import parse
from distill.songs import Line, Section
from distill.sources._formats import Read
from distill.sources._formats.lrc import read_lrc
from distill.sources._formats.ultrastar import is_ultrastar, read_ultrastar

Form = Literal["plain", "lrc", "ultrastar"]


def form_of(text: str) -> Form:
    """What a text looks like."""
    if is_ultrastar(text):
        return "ultrastar"
    return "lrc" if re.search(r"^\ufeff?\s*\[\d{1,3}:\d\d", text, re.MULTILINE) else "plain"


def read_lyrics(text: str, form: Form, seconds: float, where: str, language: str) -> Read:
    """A text's sections. `seconds`: the recording's length; `where` begins every LyricsError."""
    if form == "lrc":
        return read_lrc(text, seconds, where)
    if form == "ultrastar":
        return read_ultrastar(text, seconds, where, language)
    return Read(plain(text, where), {})


def plain(text: str, where: str) -> tuple[Section, ...]:
    """The sections of lyrics as a person types them, without times."""
    return tuple(
        Section(verse.tag, tuple(Line(line) for line in verse.lines))
        for verse in parse(text, where)
    )


def credit(about: dict[str, str]) -> str:
    """Who is to be named, by what lyrics say of themselves: "Boat by Nobody; timed by Somebody"."""
    by = " by ".join(about[key] for key in ("title", "artist") if about.get(key))
    words, timed = (
        f"{work} by {about[key]}" if about.get(key) else ""
        for key, work in (("lyricist", "words"), ("author", "timed"))
    )
    return "; ".join(part for part in (by, words, timed, about.get("rights", "")) if part)
