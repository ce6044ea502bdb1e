"""Stanzas with metre and rhyme: as many syllables in each line as the metre says, stresses near its
beats, and lines that rhyme where the scheme says so. The lines are those of `lines`."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from distill.songbook import lines as book
from distill.songbook import stress


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
    Metre((8, 7, 8, 7), "abab", True), Metre((10, 9, 10, 9), "abcb", False),
    Metre((6, 6), "aa", False), Metre((8, 8), "aa", False), Metre((10, 10), "aa", False),
    Metre((9, 9), "aa", False), Metre((9, 8, 9, 8), "abcb", False),
)  # fmt: skip
_HITS = 6  # a line is the best of so many that fit
_VERSE_SHARE = 0.15  # of the lines, where old verse fits
# what a line costs against its metre: a stress off the beat, less so of a short word; an empty beat
_STRESS_OFF, _SHORT_OFF, _BEAT_EMPTY = 2.0, 0.6, 0.3


# (syllables, trochaic, the word to rhyme with or "", lines not to take) -> a line, if there is one
Draw = Callable[[int, bool, str, set[str]], str | None]


def rhymed(metre: Metre, used: set[str], draw: Draw) -> list[str]:
    """Lines of one section, none of them in `used`, which they join."""
    while True:
        lines: list[str] = []
        for count, letter in zip(metre.syllables, metre.scheme, strict=True):
            first = metre.scheme.index(letter)
            rhyme = lines[first].split()[-1] if first < len(lines) else ""
            line = draw(count, metre.trochaic, rhyme, used | set(lines))
            if line is None:
                break
            lines.append(line)
        else:
            used |= set(lines)
            return lines


def stanza(rng: random.Random, metre: Metre, held_out: bool, used: set[str]) -> list[str]:
    """Lines of one section, none of them in `used`, which they join."""
    return rhymed(metre, used, functools.partial(_line, rng, held_out))


def _line(
    rng: random.Random, held_out: bool, count: int, trochaic: bool, rhyme: str, used: set[str]
) -> str | None:
    """The best of a few lines of `count` syllables that rhyme with a word; None without any."""
    pool = book.pool(held_out)
    if rhyme:
        texts = pool.get((count, book.rhyme(rhyme)), ())
    else:
        texts = tuple(itertools.chain.from_iterable(_by_count(held_out).get(count, ())))
    old = [text for text in texts if text in book.verse()]
    if old and rng.random() < _VERSE_SHARE:
        texts = tuple(old)
    drawn = rng.sample(texts, min(len(texts), 4 * _HITS))
    fit = [text for text in drawn if text not in used and text.split()[-1] != rhyme][:_HITS]

    def cost(text: str) -> tuple[float, str]:
        return against_metre(map(stress.of_word, text.split()), trochaic), text

    return min(fit, key=cost, default=None)


@functools.cache
def _by_count(held_out: bool) -> dict[int, list[tuple[str, ...]]]:
    """Lines by their syllables, of rhymes that more than one word has."""
    by_count: dict[int, list[tuple[str, ...]]] = {}
    for (count, _), texts in book.pool(held_out).items():
        if len({text.split()[-1] for text in texts}) > 1:
            by_count.setdefault(count, []).append(texts)
    return by_count


def against_metre(patterns: Iterable[tuple[bool, ...]], trochaic: bool) -> float:
    """What the stresses of a line's words cost against its beats."""
    cost, beats = 0.0, itertools.cycle((trochaic, not trochaic))
    for pattern in patterns:
        for stressed, on_beat in zip(pattern, beats, strict=False):
            if stressed and not on_beat:
                cost += _STRESS_OFF if len(pattern) > 1 else _SHORT_OFF
            elif on_beat and not stressed:
                cost += _BEAT_EMPTY
    return cost
