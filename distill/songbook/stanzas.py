"""Stanzas with metre and rhyme: as many syllables in each line as the metre says, stresses near its
beats, and lines that rhyme where the scheme says so. Words and templates are those of `verses`.

The dictionary knows no stress, so a word's is that of its plain form: the first syllable, but for
those listed here. A one-syllable noun, verb or adjective is stressed, a function word is not.
"""

from __future__ import annotations

import functools
import itertools
import random
from dataclasses import dataclass

from distill import lyrics
from distill.songbook import verses
from distill.songbook.words import WORDS

_ON_SECOND = frozenset(
    """
    canoe guitar idea museum parade surprise adventure umbrella piano balloon delight july giraffe
    alone polite unique enormous electric fantastic terrific tremendous united precise arrive return
    begin believe remain remember forget appear surrender rebel rejoice recover agree decide arise
    awake adore admire become defend obey protect forgive discover explore imagine invent describe
    remind deliver collect select repair replace remove invite forever together apart again away
    above below around inside outside tonight today tomorrow across beyond behind along beside
    toward before until machine hotel regret express upon without within desire report advice amaze
    romantic mysterious especially pretend alarm asleep alive aloud ashore ahead belong banana
    potato tomato tobacco koala gorilla vanilla bouquet ballet dessert cadet racoon cocoon lagoon
    typhoon champagne eleven december september october november saloon afraid aware attend concern
    compare complete sincere supreme secure serene extreme entire eternal horizon companion
    commander magician musician physician policeman reward regard relief refuse reveal repeat relax
    reply respect pursue perform enjoy escape exchange expect connect confess consider contain
    content control create destroy endure cathedral familiar fidelity geranium sensation creation
    vacation foundation temptation relation""".split()
)
_ON_THIRD = frozenset(
    "violin underwater overhead entertain engineer volunteer mandolin tambourine magazine".split()
)


Entries = dict[str, tuple[str, ...]]  # part of speech -> words


@dataclass(frozen=True)
class Metre:
    """Syllables of each line, the rhyme scheme, and whether lines begin with a strong beat."""

    syllables: tuple[int, ...]
    scheme: str
    trochaic: bool


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
# what a line costs against its metre: a stress off the beat, less so of a short word; an empty beat
_STRESS_OFF, _SHORT_OFF, _BEAT_EMPTY = 2.0, 0.6, 0.3


def stanza(rng: random.Random, metre: Metre, held_out: bool, used: set[str]) -> list[str]:
    """Lines of one section, none of them in `used`, which they join."""
    while True:
        lines: list[str] = []
        for count, letter in zip(metre.syllables, metre.scheme, strict=True):
            first = metre.scheme.index(letter)
            rhyme = lines[first].split()[-1] if first < len(lines) else ""
            line = _line(rng, held_out, count, metre.trochaic, rhyme, used | set(lines))
            if line is None:
                break
            lines.append(line)
        else:
            used |= set(lines)
            return lines


def _line(
    rng: random.Random, held_out: bool, count: int, trochaic: bool, rhyme: str, used: set[str]
) -> str | None:
    """The best of a few lines of `count` syllables that rhyme with a word; None without any."""
    rhyming = _rhyming(held_out).get(_rhyme(rhyme), {}) if rhyme else {}
    templates = _by_end(tuple(sorted(rhyming))) if rhyme else verses.TEMPLATES
    lines: list[tuple[float, str]] = []
    for _ in range(_TRIALS if templates else 0):
        words = _fill(rng.choice(templates), rng, held_out, rhyming, rhyme)
        if words is None or sum(len(_stresses(word)) for word in words) != count:
            continue
        text = " ".join(words)
        if text in used or len(set(words)) <= len(words) // 2:
            continue
        lines.append((_against_metre(words, trochaic), text))
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
            by_part = by_rhyme.setdefault(_rhyme(entry.split()[-1]), {})
            by_part[token] = (*by_part.get(token, ()), entry)
    return by_rhyme


@functools.cache
def _by_end(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(template for template in verses.TEMPLATES if template.split()[-1] in parts)


@functools.cache
def _rhyme(word: str) -> tuple[str, str]:
    """Vowel and coda of the last syllable."""
    last = lyrics.syllables(word)[-1]
    return last.nucleus, last.coda


@functools.cache
def _stresses(word: str) -> tuple[bool, ...]:
    """Which syllables of a word are stressed."""
    count = len(lyrics.syllables(word))
    plain = verses.plain(word)
    if count == 1:
        return (plain is not None and not verses.is_function_word(word),)
    plain = plain or word.lower()
    stressed = 2 if plain in _ON_THIRD else 1 if plain in _ON_SECOND else 0
    return tuple(index == min(stressed, count - 1) for index in range(count))


def stresses(line: str) -> list[bool]:
    """Which syllables of a line are stressed."""
    return [stressed for word in line.split() for stressed in _stresses(word)]


def _against_metre(words: list[str], trochaic: bool) -> float:
    cost, beats = 0.0, itertools.cycle((trochaic, not trochaic))
    for word in words:
        pattern = _stresses(word)
        for stressed, on_beat in zip(pattern, beats, strict=False):
            if stressed and not on_beat:
                cost += _STRESS_OFF if len(pattern) > 1 else _SHORT_OFF
            elif on_beat and not stressed:
                cost += _BEAT_EMPTY
    return cost
