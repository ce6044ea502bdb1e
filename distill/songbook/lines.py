"""Lines of lyrics that mean something: a small grammar by hand, and old verse, word by word.

`embedded/songbook/lines.txt` holds both. A line of the grammar names classes of words that fit the
same place ("the BIRD.s are SING.ing WHERE"), so what comes out can be said by somebody: lines that
nobody would say are understood by nobody (half of what a recogniser missed of the second edition's
songs was lost there).

A fixed fifth of the content words, chosen by a hash of how the plain word sounds, is held out: no
training song holds one in any of its forms, so measures on the held-out songs can tell singing from
remembering. Words that sound alike are held out together.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from distill import lyrics
from distill.folders import package_path
from distill.lyrics import g2p
from distill.songbook.words import form, held_sounds

POOL = 100_000  # lines of the grammar, of which songs take theirs
_SEED = "third edition"
_SLOT = re.compile(r"([A-Z]+)(?:\.([a-z]+))?")


class Book(NamedTuple):
    """The file: classes and their entries, lines with class names in them, verse, and the words
    that carry no stress."""

    classes: dict[str, tuple[str, ...]]
    frames: tuple[str, ...]
    verse: tuple[str, ...]
    function_words: frozenset[str]


@functools.cache
def book() -> Book:
    """The file, read."""
    text = package_path("songbook/lines.txt").read_text(encoding="utf-8")
    parts = re.split(r"(?m)^\[([a-z ]+)\]\n", re.sub("(?m)^#.*\n", "", text))
    by_name = {
        name: [row for row in part.splitlines() if row.strip()]
        for name, part in zip(parts[1::2], parts[2::2], strict=True)
    }
    rows = re.sub(r"\n\s+", " ", "\n".join([*by_name["words"], *by_name["phrases"]])).splitlines()
    named = (row.partition(": ") for row in rows)
    classes = {
        name: tuple(entry.strip() for entry in entries.split(";")) for name, _, entries in named
    }
    functional = frozenset(" ".join(by_name["function words"]).lower().split())
    return Book(classes, tuple(by_name["lines"]), tuple(by_name["verse"]), functional)


# --- words ----------------------------------------------------------------------------------------


@functools.cache
def _lemmas() -> dict[str, str]:
    """Every word that a line can hold, in any form, -> its plain word."""
    entries = [entry for kind in book().classes.values() for entry in kind]
    plain = {word for entry in entries for word in _SLOT.sub(" ", entry).split()}
    literal = {w for row in (*book().frames, *book().verse) for w in _SLOT.sub(" ", row).split()}
    plain |= {word.lower() for word in literal}
    lemmas = {}
    for word in sorted(plain, key=len, reverse=True):  # the shortest form is the plain one
        lemmas[word] = word
    for word in sorted(plain, key=len):
        for ending in ("s", "ing"):
            lemmas.setdefault(form(word, ending), word)
            if form(word, ending) in plain and form(word, ending) != word:
                lemmas[form(word, ending)] = lemmas[word]
    return lemmas


@functools.cache
def _held_sounds() -> frozenset[str]:
    return held_sounds(_lemmas(), book().function_words)


def plain(word: str) -> str | None:
    """The plain word of a form that a line can hold."""
    return _lemmas().get(word.lower())


def is_function_word(word: str) -> bool:
    """Whether a word stands unstressed, and in songs of both splits."""
    return word.lower() in book().function_words


def is_held_out(word: str) -> bool:
    """Whether no training song of the songbook contains this word, or one that sounds like it."""
    word = word.lower()
    if is_function_word(word) or word not in _lemmas():
        return False
    return g2p.lexicon().get(word, "") in _held_sounds()


# --- lines ----------------------------------------------------------------------------------------


def drawn(rng: random.Random) -> str:
    """A line of the grammar."""
    text = rng.choice(book().frames)
    while (slot := _SLOT.search(text, _after_pronouns(text))) is not None:
        entry = rng.choice(book().classes[slot[1]])
        text = text[: slot.start()] + form(entry, slot[2] or "") + text[slot.end() :]
    words = text.split()
    for index, (word, later) in enumerate(itertools.pairwise(words)):
        if word == "a" and later[0] in "aeiou":
            words[index] = "an"
    return " ".join(words)


def _after_pronouns(text: str) -> int:
    """Where the first class stands: "I" and "A" are words."""
    for slot in _SLOT.finditer(text):
        if slot[1] in book().classes:
            return slot.start()
    return len(text)


@functools.cache
def pool(held_out: bool) -> dict[tuple[int, tuple[str, str]], tuple[str, ...]]:
    """Lines by (syllables, rhyme): those with a held-out word, or all that hold none."""
    lines: dict[tuple[int, tuple[str, str]], list[str]] = {}
    for text in dict.fromkeys(_all_lines()):
        if any(map(is_held_out, text.split())) == held_out:
            count = sum(len(_syllables(word)) for word in text.split())
            lines.setdefault((count, rhyme(text.split()[-1])), []).append(text)
    return {key: tuple(texts) for key, texts in lines.items()}


@functools.cache
def verse() -> frozenset[str]:
    """The lines that are old verse."""
    return frozenset(text for text in book().verse if _known(text))


def _all_lines() -> Iterator[str]:
    yield from (text for text in book().verse if _known(text))
    rng = random.Random(_SEED)
    for _ in range(POOL):
        text = drawn(rng)
        words = text.split()
        if _known(text) and len(set(words)) > len(words) // 2:
            yield text


def _known(text: str) -> bool:
    return all(word.lower() in g2p.lexicon() for word in text.split())


@functools.cache
def rhyme(word: str) -> tuple[str, str]:
    """Vowel and coda of the last syllable."""
    last = _syllables(word)[-1]
    return last.nucleus, last.coda


@functools.cache
def _syllables(word: str) -> list[lyrics.Syllable]:
    return lyrics.syllables(word)
