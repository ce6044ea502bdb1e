"""Which lyrics are nearly the same words, found without comparing every song with every other.

    lyrics -> tokens -> shingles (runs of a few tokens) -> MinHash signature -> bands
           -> candidates -> exact Jaccard index

The chance that two sets have the same least hash is their Jaccard index (Broder, "On the
resemblance and containment of documents", 1997), so sets that are alike share bands of a signature.
The signature only nominates: the index is the exact one of the shingles.
"""

from __future__ import annotations

import hashlib
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
    """Lines to tokens (lower case, no accents or apostrophes) and shingles across lines. What is
    sung again counts once, so "chorus x2" equals the chorus written out."""
    tokens = tuple(token for line in lines for word in words(line) for token in _tokens(word))
    unspaced = sum(bool(_UNSPACED.match(token)) for token in tokens)
    size = LETTERS if 2 * unspaced > len(tokens) else WORDS
    runs = {" ".join(tokens[n : n + size]) for n in range(len(tokens) - size + 1)}
    digests = [hashlib.blake2b(run.encode(), digest_size=8).digest() for run in runs]
    hashed = sorted(int.from_bytes(digest, "little") for digest in digests)
    return Wording(tokens, np.array(hashed, np.uint64))


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
    """The Jaccard index of pairs a < b that reach `least`; the copies of one text as a chain."""
    pairs = sorted(_nominated(wordings))
    indices = {(a, b): jaccard(wordings[a], wordings[b]) for a, b in pairs}
    return {pair: index for pair, index in indices.items() if index >= least}


def _nominated(wordings: Sequence[Wording]) -> set[tuple[int, int]]:
    """Pairs of songs (by number) that may be alike: equal short lyrics, a band in common."""
    short: dict[tuple[str, ...], list[int]] = {}
    long: list[int] = []
    for n, lyrics in enumerate(wordings):
        few = len(lyrics.shingles) < LEAST_SHINGLES
        (short.setdefault(lyrics.tokens, []) if few else long).append(n)
    pairs = {pair for songs in short.values() for pair in _chained(songs)}
    if not long:
        return pairs
    signature_NP = np.stack([_signature(wordings[n].shingles) for n in long])
    for band in range(BANDS):
        alike: dict[bytes, list[int]] = {}
        for n, rows in zip(long, signature_NP[:, band * ROWS : (band + 1) * ROWS], strict=True):
            alike.setdefault(rows.tobytes(), []).append(n)
        for songs in alike.values():
            pairs.update(_chained(songs))
    return pairs


def _chained(songs: list[int]) -> Iterable[tuple[int, int]]:
    """Each song with the next few."""
    return ((a, b) for n, a in enumerate(songs) for b in songs[n + 1 : n + 1 + REACH])


def _signature(shingles: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The least of each of BANDS x ROWS multiply-shift hashes (Dietzfelbinger et al., 1997)."""
    factor, added = _FACTORS
    hashed_PN = np.multiply.outer(factor, shingles) + added[:, None]
    return (hashed_PN.min(1) >> np.uint64(32)).astype(np.uint32)


def _factors() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    generator = np.random.Generator(np.random.PCG64(1997))
    factor, added = generator.integers(0, 2**64, (2, BANDS * ROWS), np.uint64)
    return factor | np.uint64(1), added


_FACTORS = _factors()
