"""Stanzas with metre and rhyme: as many syllables in each line as the metre says, stresses near its
beats, and lines that rhyme where the scheme says so. Words and templates are those of `verses`."""

from __future__ import annotations

import functools
import itertools
import random

from distill.songbook import stress, verses
from distill.songbook.lines import rhyme as rhyme_of
from distill.songbook.rhymes import Metre, against_metre, rhymed
from distill.songbook.words import WORDS

Entries = dict[str, tuple[str, ...]]  # part of speech -> words

METRES = (
    Metre((8, 6, 8, 6), "abab", False), Metre((8, 6, 8, 6), "abcb", False),
    Metre((8, 8, 8, 8), "aabb", False), Metre((6, 6, 8, 6), "abcb", False),
    Metre((7, 7, 7, 7), "aabb", True), Metre((7, 7), "aa", True),
    Metre((8, 7, 8, 7), "abab", True), Metre((6, 5, 6, 5), "abcb", True),
    Metre((6, 6), "aa", False), Metre((8, 8), "aa", False),
    Metre((5, 5, 7, 5), "aaba", True), Metre((9, 8, 9, 8), "abcb", False),
)  # fmt: skip
_TRIALS, _HITS = 160, 6  # a line is the best of the first few that fit
_RARE_SHARE = 0.7  # of the content words, in held-out songs


def stanza(rng: random.Random, metre: Metre, held_out: bool, used: set[str]) -> list[str]:
    """Lines of one section, none of them in `used`, which they join."""
    return rhymed(metre, used, functools.partial(_line, rng, held_out))


def _line(
    rng: random.Random, held_out: bool, count: int, trochaic: bool, rhyme: str, used: set[str]
) -> str | None:
    """The best of a few lines of `count` syllables that rhyme with a word; None without any."""
    rhyming = _rhyming(held_out).get(rhyme_of(rhyme), {}) if rhyme else {}
    templates = _by_end(tuple(sorted(rhyming))) if rhyme else verses.TEMPLATES
    lines: list[tuple[float, str]] = []
    for _ in range(_TRIALS if templates else 0):
        words = _fill(rng.choice(templates), rng, held_out, rhyming, rhyme)
        if words is None or sum(len(_stresses(word)) for word in words) != count:
            continue
        text = " ".join(words)
        if text in used or len(set(words)) <= len(words) // 2:
            continue
        lines.append((against_metre(map(_stresses, words), trochaic), text))
        if len(lines) == _HITS:
            break
    return min(lines)[1] if lines else None


def _fill(
    template: str, rng: random.Random, held_out: bool, rhyming: Entries, rhyme: str
) -> list[str] | None:
    *tokens, last = template.split()
    words = [word for token in tokens for word in _filled(token, rng, held_out)]
    if rhyme:
        entries = [entry for entry in rhyming[last] if entry.split()[-1] != rhyme]
        if not entries:
            return None
        words += rng.choice(entries).split()
    else:
        words += _filled(last, rng, held_out)
    for index, (word, later) in enumerate(itertools.pairwise(words)):
        if word == "a" and later[0] in "aeiou":
            words[index] = "an"
    return words


def _filled(token: str, rng: random.Random, held_out: bool) -> list[str]:
    """A plain word of a template as it is, a part of speech as a word of it (or several)."""
    if token not in WORDS and token not in verses.FORMS:
        return [token]
    rare = held_out and token in verses.CONTENT and rng.random() < _RARE_SHARE
    return rng.choice(verses.choices(token, rare) or verses.choices(token, False)).split()


@functools.cache
def _rhyming(held_out: bool) -> dict[tuple[str, str], Entries]:
    """Rhyme -> part of speech -> what ends so; a plain word of the template is its own part."""
    by_rhyme: dict[tuple[str, str], Entries] = {}
    for token in sorted({template.split()[-1] for template in verses.TEMPLATES}):
        entries: tuple[str, ...] = (token,)
        if token in WORDS or token in verses.FORMS:
            entries = verses.choices(token, False)
            if held_out and token in verses.CONTENT:
                entries += verses.choices(token, True)
        for entry in entries:
            by_part = by_rhyme.setdefault(rhyme_of(entry.split()[-1]), {})
            by_part[token] = (*by_part.get(token, ()), entry)
    return by_rhyme


@functools.cache
def _by_end(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(template for template in verses.TEMPLATES if template.split()[-1] in parts)


@functools.cache
def _stresses(word: str) -> tuple[bool, ...]:
    """Which syllables of a word are stressed."""
    plain = verses.plain(word)
    content = plain is not None and not verses.is_function_word(word)
    return stress.pattern(word, plain, content)


def stresses(line: str) -> list[bool]:
    """Which syllables of a line are stressed."""
    return [stressed for word in line.split() for stressed in _stresses(word)]
