"""The words for how a song sounds: given ones made uniform, missing ones composed from its facts.

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
from itertools import product
from typing import TypeGuard

from distill.config.ranges import Checked, share
from distill.curation.steps import Item
from distill.songs import Fact, Song

STEP = "style"
LONGEST_STYLE = 400  # characters; it stands before every passage that the model learns
LONGEST_TAG = 5  # words; what is longer is prose
LONGEST_BAND, LONGEST_SHOWN = 40, 60  # characters
_SPELLINGS = {
    "hip-hop": "hip hop, hiphop", "r&b": "rnb, r n b, r and b, r & b", "lo-fi": "lofi, lo fi",
    "synth-pop": "synthpop, synth pop", "k-pop": "kpop, k pop", "j-pop": "jpop, j pop",
    "a cappella": "acapella, a capella, acappella",
    "drum and bass": "dnb, drum n bass, drum & bass, drum'n'bass",
    "rock and roll": "rock n roll, rock & roll, rock'n'roll",
    "singer-songwriter": "singer songwriter", "slow": "slow tempo",
    "medium": "medium tempo, mid tempo, mid-tempo, midtempo, moderate tempo",
    "fast": "fast tempo, up tempo, up-tempo, uptempo", "major": "major key", "minor": "minor key",
}  # fmt: skip
SPELLED = {spelled: tag for tag, tags in _SPELLINGS.items() for spelled in tags.split(", ")}
_GENRES = "pop folk rock jazz classical electronic country dance soul blues gospel latin world"
SPELLED |= {f"{genre} music": genre for genre in _GENRES.split()}
_SINGERS = "vocal,vocals,vocalist,vocalists,singer,singers,lead vocals,voices".split(",")
SPELLED |= {f"{sex} {word}": f"{sex} voice" for sex, word in product(("female", "male"), _SINGERS)}
# Beats a minute and MIDI pitch from which on the next word holds: the songbook sings slow songs at
# 68 to 83 beats a minute, medium ones at 88 to 115, fast ones at 125 to 167.
TEMPI = ((0.0, "slow"), (86.0, "medium"), (120.0, "fast"))
RANGES = ((0.0, "low range"), (55.0, "middle range"), (64.0, "high range"))


@dataclass(frozen=True)
class Settings(Checked):
    """compose: make missing styles from facts. sure: confidence below which a fact is unused."""

    compose: bool = True
    sure: float = share(default=0.5)

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
            text = "no style is given, and nothing is known surely enough to compose one"
            return item.remark(STEP, "noted", text)
        style = ", ".join(word for word, _ in words)
        confidence = min(sure for _, sure in words)
        item = replace(item, song=replace(item.song, style=style))
        item = item.know(Fact("style", style, STEP, round(confidence, 3)))
        text = f"composed from what was heard: {style!r} (a guess, {confidence:.2f})"
        return item.remark(STEP, "mended", text)

    def heard(self, song: Song) -> Iterator[tuple[str, float]]:
        """What the song's facts say in words, each with its confidence (a given fact: 1)."""
        for name, word_of in WORDS.items():
            fact = song.fact(name)
            sure = 1.0 if fact is None or fact.confidence is None else fact.confidence
            if fact is not None and sure >= self.sure and (word := word_of(fact.value)):
                yield word, sure


def normalised(style: str) -> str:
    """A style in one line, at most LONGEST_STYLE characters: tags uniform, once; prose as is."""
    letters = unicodedata.normalize("NFC", style)
    text = " ".join("".join(c for c in letters if c.isprintable() or c.isspace()).split())
    tags = [tag.strip(" \t.'\"[](){}#*-–") for tag in re.split(r"[,;|/、，；]|\s#|\n", text)]
    if any(len(tag.split()) > LONGEST_TAG for tag in tags) or re.search(r"[.!?]\s+\w", text):
        text = text.replace(";", ",")  # the header of a prompt is cut at semicolons
    else:
        text = ", ".join(dict.fromkeys(_tag(tag) for tag in tags if tag))
    if len(text) > LONGEST_STYLE:
        text = re.sub(r"[\s,]*[^\s,]*$", "", text[:LONGEST_STYLE]) or text[:LONGEST_STYLE]
    return text


def _tag(tag: str) -> str:
    plain = " ".join(tag.lower().replace("_", " ").split())
    return SPELLED.get(plain, plain)


def _mode(value: object) -> str:
    words = value.lower().split() if isinstance(value, str) else []
    return next((mode for mode in ("major", "minor") if mode in words), "")


def _tempo(value: object) -> str:
    return _word(value, TEMPI)


def _range(value: object) -> str:
    """[low, high] in MIDI -> "low range"."""
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
        return ""
    return _word((value[0] + value[1]) / 2, RANGES)


def _band(value: object) -> str:
    name = value.strip().lower() if isinstance(value, str) else ""
    return "" if name in ("none", "unknown") else name[:LONGEST_BAND]


# A fact's name -> the word for its value, "" where the value is of no use.
WORDS = {"key": _mode, "tempo_bpm": _tempo, "vocal_range_midi": _range, "accompaniment": _band}


def _word(value: object, bounds: tuple[tuple[float, str], ...]) -> str:
    if not (_is_number(value) and value > 0):  # NaN is not
        return ""
    return [word for bound, word in bounds if value >= bound][-1]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."
