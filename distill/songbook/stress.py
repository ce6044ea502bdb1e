"""Which syllables are stressed.

The dictionary knows no stress, so a word's is that of its plain form: the first syllable, but for
those listed here. A one-syllable content word is stressed, a function word is not.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from distill import lyrics
from distill.songbook import lines
from distill.songbook.voice import VOWELS

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
    vacation foundation temptation relation canal ago hello goodnight goodbye beneath
    accordion delicious contrary missouri discouraging november adoring forgotten""".split()
)
_ON_THIRD = frozenset(
    """
    violin underwater overhead entertain engineer volunteer mandolin tambourine magazine lemonade
    underneath understand shenandoah afternoon""".split()
)


def pattern(word: str, plain: str | None, content: bool) -> tuple[bool, ...]:
    """Which syllables of a word with this plain form are stressed."""
    count = len(lyrics.syllables(word))
    if count == 1:
        return (content,)
    plain = plain or word.lower()
    stressed = 2 if plain in _ON_THIRD else 1 if plain in _ON_SECOND else 0
    return tuple(index == min(stressed, count - 1) for index in range(count))


@functools.cache
def of_word(word: str) -> tuple[bool, ...]:
    """Which syllables of a word of `lines` are stressed."""
    return pattern(word, lines.plain(word), not lines.is_function_word(word))


def of_line(line: str) -> list[bool]:
    """Which syllables of a line are stressed."""
    return [stressed for word in line.split() for stressed in of_word(word)]


def of_phones(word: str, phones: Sequence[str]) -> list[bool | None]:
    """Of each ARPABET phone of a word: None for a consonant, else whether it is stressed."""
    by_syllable = iter(of_word(word))
    return [next(by_syllable, False) if phone in VOWELS else None for phone in phones]
