"""Which lyrics are nearly the same words, found without comparing every song with every other.

    lyrics -> tokens -> shingles (runs of a few tokens) -> MinHash signature -> bands -> candidates -> exact Jaccard

The chance that two sets have the same least hash is their Jaccard index (Broder, "On the
resemblance and containment of documents", 1997), so sets that are alike share whole bands of a
signature. The signature only nominates: what is told is the exact index of the shingles, and no
pair is found that is not there.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill.lyrics import words

BANDS, ROWS = 80, 3  # a pair of Jaccard 0.4 shares a band with 99.5 %, one of 0.1 with 8 %
# songs of one band that each is paired with: copies hang together, and the work stays linear
REACH = 8
# tokens of a shingle, of words and of letters that are written without spaces
WORDS, LETTERS = 3, 4
LEAST_SHINGLES = 8  # below it the index says little: one word more or less moves it by half
LEAST_TOKENS = 4  # different ones, below which equal lyrics say nothing ("la la la")

# Thai, Lao, Burmese, Khmer, kana, Han
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff])"
)


class Wording(NamedTuple):
    """Lyrics as compared: their tokens in order, and the hashes of their shingles, sorted."""

    tokens: tuple[str, ...]
    shingles: NDArray[np.uint64]


def wording(lines: Iterable[str]) -> Wording:
    """Lines to tokens (lower case, without accents and apostrophes) and shingles across lines.

    What is sung again counts once, so "chorus x2" equals the chorus written out.
    """
    tokens = tuple(token for line in lines for word in words(line) for token in _tokens(word))
    unspaced = sum(bool(_UNSPACED.match(token)) for token in tokens)
    size = LETTERS if 2 * unspaced > len(tokens) else WORDS
    runs = {" ".join(tokens[at : at + size]) for at in range(len(tokens) - size + 1)}
    hashed = [
        int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "little")
        for run in runs
    ]
    return Wording(tokens, np.array(sorted(hashed), np.uint64))


def _tokens(word: str) -> list[str]:
    plain = re.sub("[\u0300-\u036f']", "", unicodedata.normalize("NFKD", word))
    return _UNSPACED.sub(r" \1 ", unicodedata.normalize("NFC", plain)).split()


def jaccard(a: Wording, b: Wording) -> float:
    """Shared shingles over all shingles; for short lyrics 1 if the tokens are equal, else 0."""
    if min(len(a.shingles), len(b.shingles)) < LEAST_SHINGLES:
        return float(a.tokens == b.tokens and len(set(a.tokens)) >= LEAST_TOKENS)
    both = len(np.intersect1d(a.shingles, b.shingles, assume_unique=True))
    return both / (len(a.shingles) + len(b.shingles) - both)


def alike(wordings: Sequence[Wording], least: float) -> dict[tuple[int, int], float]:
    """The Jaccard index of pairs a < b that reach `least`; the many copies of one text as a chain."""
    found = {}
    for a, b in sorted(_nominated(wordings)):
        index = jaccard(wordings[a], wordings[b])
        if index >= least:
            found[a, b] = index
    return found


def _nominated(wordings: Sequence[Wording]) -> set[tuple[int, int]]:
    short: dict[tuple[str, ...], list[int]] = {}
    for place, one in enumerate(wordings):
        if len(one.shingles) < LEAST_SHINGLES:
            short.setdefault(one.tokens, []).append(place)
    pairs = {pair for places in short.values() for pair in _chained(places)}
    long = [place for place, one in enumerate(wordings) if len(one.shingles) >= LEAST_SHINGLES]
    if not long:
        return pairs
    signature_SP = np.stack([_signature(wordings[place].shingles) for place in long])
    for band in range(BANDS):
        alike: dict[bytes, list[int]] = {}
        for place, row in zip(long, signature_SP[:, band * ROWS : (band + 1) * ROWS], strict=True):
            alike.setdefault(row.tobytes(), []).append(place)
        for places in alike.values():
            pairs.update(_chained(places))
    return pairs


def _chained(places: list[int]) -> Iterable[tuple[int, int]]:
    """Each place with the next few."""
    return (
        (a, b) for n, a in enumerate(places) for b in itertools.islice(places, n + 1, n + 1 + REACH)
    )


def _signature(shingles: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The least of each of BANDS x ROWS hashes: multiply and shift, modulo 2^64 (Dietzfelbinger and
    others, 1997)."""
    factor, added = _FACTORS
    hashed_PN = np.multiply.outer(factor, shingles) + added[:, None]
    return (hashed_PN.min(1) >> np.uint64(32)).astype(np.uint32)


def _factors() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    draw = np.random.Generator(np.random.PCG64(1997))
    factor, added = draw.integers(0, 2**64, (2, BANDS * ROWS), np.uint64)
    return factor | np.uint64(1), added


_FACTORS = _factors()
