"""The songbook's English words by part of speech (`embedded/songbook/words.txt` explains them),
and which sounds are held out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from distill.folders import package_path
from distill.lyrics import g2p


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
_WITH_ES = frozenset("go do echo hero potato tomato".split())
HELD_OUT_OF_256 = 51  # of the content words: a fifth
DOUBLED = frozenset(("begin", "forget", "rebel", "regret"))


def form(word: str, ending: str, noun: bool = True) -> str:
    """An entry with "s" (of a noun its plural, else the third person) or "ing" at the end of its
    last word; with "" as it is."""
    if ending == "s":
        if noun and word in IRREGULAR_PLURALS:
            return IRREGULAR_PLURALS[word]
        if re.search("(s|x|z|ch|sh)$", word) or word in _WITH_ES:
            return word + "es"
        return word[:-1] + "ies" if re.search("[^aeiou]y$", word) else word + "s"
    if ending == "ing":
        if word.endswith("ie"):
            return word[:-2] + "ying"
        if re.search("[^eyo]e$", word):
            return word[:-1] + "ing"
        if re.fullmatch("[^aeiou]*[aeiou][^aeiouwxy]", word) or word in DOUBLED:
            return word + word[-1] + "ing"
        return word + "ing"
    return word


def hashed_out(sound: str, of_256: int) -> bool:
    """Whether a sound is one of those, `of_256` in 256, that no training song holds."""
    return hashlib.sha256(f"held out:{sound}".encode()).digest()[0] < of_256


def held_sounds(lemmas: Mapping[str, str], function_words: Iterable[str]) -> frozenset[str]:
    """How the held-out forms (form -> plain word) sound, less any sound that a function word or a
    training word has too."""
    sounds = g2p.lexicon()
    kept = {sounds[word] for word in function_words if word in sounds}
    out: set[str] = set()
    for word, lemma in lemmas.items():
        if word in sounds and lemma in sounds:
            (out if hashed_out(sounds[lemma], HELD_OUT_OF_256) else kept).add(sounds[word])
    return frozenset(out - kept)
