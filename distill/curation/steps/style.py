"""The words for how a song sounds: given ones made uniform, missing ones composed from what was
heard.

Tags ("Hip Hop / Female Vocals, #sad") become a list in lower case, each tag once, spelled one way:
"hip-hop, female voice, sad". Prose stays prose. A song without a style gets the little that its
facts say (mode, tempo, range, accompaniment), in the words our songbook uses, and is marked as
guessed: Fact("style") with the least confidence of what it was made from. A genre or a mood is
never invented: nothing here could hear one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from distill.curation.steps import Item
from distill.errors import SettingsError
from distill.songs import Fact, Song

STEP = "style"
LONGEST_STYLE = 400  # characters; it stands before every passage that the model learns
LONGEST_TAG = 5  # words; what is longer is prose
SPELLED = {
    "hip hop": "hip-hop", "hiphop": "hip-hop", "rnb": "r&b", "r n b": "r&b", "r and b": "r&b", "r & b": "r&b", "lofi": "lo-fi",
    "lo fi": "lo-fi", "synthpop": "synth-pop", "synth pop": "synth-pop", "kpop": "k-pop", "k pop": "k-pop", "jpop": "j-pop",
    "j pop": "j-pop", "acapella": "a cappella", "a capella": "a cappella", "acappella": "a cappella", "dnb": "drum and bass",
    "drum n bass": "drum and bass", "drum & bass": "drum and bass", "drum'n'bass": "drum and bass", "rock n roll": "rock and roll",
    "rock & roll": "rock and roll", "rock'n'roll": "rock and roll", "singer songwriter": "singer-songwriter",
    "slow tempo": "slow", "medium tempo": "medium", "mid tempo": "medium", "mid-tempo": "medium", "midtempo": "medium",
    "moderate tempo": "medium", "fast tempo": "fast", "up tempo": "fast", "up-tempo": "fast", "uptempo": "fast",
    "major key": "major", "minor key": "minor",
}  # fmt: skip
_GENRES = "pop folk rock jazz classical electronic country dance soul blues gospel latin world"
SPELLED |= {f"{genre} music": genre for genre in _GENRES.split()}
SPELLED |= {
    f"{who} {what}": f"{who} voice"
    for who in ("female", "male")
    for what in (
        "vocal",
        "vocals",
        "vocalist",
        "vocalists",
        "singer",
        "singers",
        "lead vocals",
        "voices",
    )
}
# Beats a minute and MIDI pitch from which on the next word holds: the songbook sings slow songs at
# 68 to 83 beats a minute, medium ones at 88 to 115, fast ones at 125 to 167.
TEMPI = ((0.0, "slow"), (86.0, "medium"), (120.0, "fast"))
RANGES = ((0.0, "low range"), (55.0, "middle range"), (64.0, "high range"))


@dataclass(frozen=True)
class Settings:
    """compose: whether songs without a style get one from their facts. sure: confidence below which
    a fact is not used."""

    compose: bool = True
    sure: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.sure <= 1:
            raise SettingsError(f"sure is {self.sure}; it must be between 0 and 1")

    def curate(self, item: Item) -> Item:
        """The item with its style made uniform, or composed where it has none."""
        song = item.song
        style = normalised(song.style)
        if style != song.style:
            item = replace(item, song=replace(song, style=style))
            item = item.remark(STEP, "mended", f"{_short(song.style)!r} -> {_short(style)!r}")
        if style or not self.compose:
            return item
        words = list(self.heard(item.song))
        if not words:
            return item.remark(
                STEP,
                "noted",
                "no style is given, and nothing is known surely enough to compose one",
            )
        style = ", ".join(word for word, _ in words)
        confidence = min(sure for _, sure in words)
        item = replace(item, song=replace(item.song, style=style))
        item = item.know(Fact("style", style, STEP, round(confidence, 3)))
        return item.remark(
            STEP, "mended", f"composed from what was heard: {style!r} (a guess, {confidence:.2f})"
        )

    def heard(self, song: Song) -> Iterator[tuple[str, float]]:
        """What the song's facts say in words, each with its confidence (a given fact: 1)."""
        for name, word in (
            ("key", _mode),
            ("tempo_bpm", _tempo),
            ("vocal_range_midi", _range),
            ("accompaniment", _band),
        ):
            fact = song.fact(name)
            sure = 1.0 if fact is None or fact.confidence is None else fact.confidence
            if fact is not None and sure >= self.sure and (said := word(fact.value)):
                yield said, sure


def normalised(style: str) -> str:
    """A style in one line: tags uniform, each once; prose as it is; at most LONGEST_STYLE
    characters."""
    text = " ".join(
        "".join(
            c for c in unicodedata.normalize("NFC", style) if c.isprintable() or c.isspace()
        ).split()
    )
    items = [tag.strip(" \t.'\"[](){}#*-–") for tag in re.split(r"[,;|/、，；]|\s#|\n", text)]
    if any(len(tag.split()) > LONGEST_TAG for tag in items) or re.search(r"[.!?]\s+\w", text):
        text = text.replace(";", ",")  # the header of a prompt is cut at semicolons
    else:
        text = ", ".join(dict.fromkeys(_tag(tag) for tag in items if tag))
    if len(text) > LONGEST_STYLE:
        text = re.sub(r"[\s,]*[^\s,]*$", "", text[:LONGEST_STYLE]) or text[:LONGEST_STYLE]
    return text


def _tag(tag: str) -> str:
    plain = " ".join(tag.lower().replace("_", " ").split())
    return SPELLED.get(plain, plain)


def _mode(value: Any) -> str:
    return next(
        (
            word
            for word in ("major", "minor")
            if isinstance(value, str) and word in value.lower().split()
        ),
        "",
    )


def _tempo(value: Any) -> str:
    return _word(value, TEMPI)


def _range(value: Any) -> str:
    """[low, high] in MIDI -> "low range"."""
    if not (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(_is_number(one) for one in value)
    ):
        return ""
    return _word((value[0] + value[1]) / 2, RANGES)


def _band(value: Any) -> str:
    return (
        value.strip().lower()[:40]
        if isinstance(value, str) and value.strip().lower() not in ("", "none", "unknown")
        else ""
    )


def _word(value: Any, bounds: tuple[tuple[float, str], ...]) -> str:
    return (
        [word for bound, word in bounds if value >= bound][-1]
        if _is_number(value) and value > 0
        else ""
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
