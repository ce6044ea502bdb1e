"""The songbook's English words by part of speech (`embedded/songbook/words.txt` explains them),
and which sounds are held out."""

from __future__ import annotations

import hashlib
import re

from distill.folders import package_path


def _read() -> dict[str, tuple[str, ...]]:
    text = package_path("songbook/words.txt").read_text(encoding="utf-8")
    paragraphs = re.sub("(?m)^#.*$", "", text).split("\n\n")
    rows = (" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())
    parts = (row.partition(": ") for row in rows)
    return {part: tuple(entries.split("; ")) for part, _, entries in parts}


WORDS = _read()
IRREGULAR_PLURALS = {
    "child": "children", "man": "men", "woman": "women", "foot": "feet", "tooth": "teeth",
    "goose": "geese", "mouse": "mice", "leaf": "leaves", "wolf": "wolves", "knife": "knives",
    "loaf": "loaves", "thief": "thieves", "wife": "wives", "gentleman": "gentlemen",
    "sheep": "sheep", "deer": "deer", "shelf": "shelves", "ox": "oxen", "dwarf": "dwarves",
    "hoof": "hooves", "fish": "fish", "salmon": "salmon",
}  # fmt: skip
DOUBLED = frozenset(("begin", "forget", "rebel", "regret"))


def hashed_out(sound: str, of_256: int) -> bool:
    """Whether a sound is one of those, `of_256` in 256, that no training song holds."""
    return hashlib.sha256(f"held out:{sound}".encode()).digest()[0] < of_256
