"""The songbook's words by part of speech, read from the package (`embedded/songbook/words.txt` says
what is what)."""

from __future__ import annotations

import re

from distill.folders import package_path


def _read() -> dict[str, tuple[str, ...]]:
    text = package_path("songbook/words.txt").read_text(encoding="utf-8")
    paragraphs = re.sub("(?m)^#.*$", "", text).split("\n\n")
    parts = (
        " ".join(paragraph.split()).partition(": ") for paragraph in paragraphs if paragraph.strip()
    )
    return {part: tuple(entries.split("; ")) for part, _, entries in parts}


WORDS = _read()
IRREGULAR_PLURALS = {
    "child": "children", "man": "men", "woman": "women", "foot": "feet", "tooth": "teeth", "goose": "geese",
    "mouse": "mice", "leaf": "leaves", "wolf": "wolves", "knife": "knives", "loaf": "loaves",
    "thief": "thieves",
    "wife": "wives", "gentleman": "gentlemen", "sheep": "sheep", "deer": "deer", "shelf": "shelves",
    "ox": "oxen", "dwarf": "dwarves", "hoof": "hooves", "fish": "fish", "salmon": "salmon",
}  # fmt: skip
DOUBLED = frozenset(("begin", "forget", "rebel", "regret"))
