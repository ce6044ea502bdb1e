"""From a pronouncing dictionary to the letter-to-sound model that `distill.lyrics.g2p` reads with.

First the letters of every word are laid beside its phones by expectation maximisation, each letter
taking 0 to 2 of them; then an n-gram with modified Kneser-Ney smoothing learns which such pairs
follow which (Bisani and Ney, 2008).

`python scripts/train_g2p.py` prints the accuracy on a held-out twentieth of the lexicon, trains on
all of it, and writes the embedded model: a minute and a half on one core.
"""

from __future__ import annotations

import argparse
import io
import lzma
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.lyrics.g2p import (
    BASE,
    END,
    FIRST,
    HOME,
    QUIET,
    START,
    LetterModel,
    compile_lexicon,
    lexicon,
    read_model,
)


def align(
    words: Mapping[str, str], rounds: int = 6, every: int = 6
) -> Iterator[list[tuple[str, str]]]:
    """Each word as its likeliest (letter, 0 to 2 phones) pairs; one with more phones is left out.

    Expectation maximisation on one word in `every`: the chance that a letter is read as some phones
    does not need more."""
    counted: dict[tuple[str, str], float] = defaultdict(float)
    sample = list(words.items())[::every]
    for word, sounds in sample:  # the start: one phone a letter is usual, none or two are rare
        for letter in word:
            counted[letter, ""] += 0.3 * len(sounds)
            for start, phone in enumerate(sounds):
                counted[letter, phone] += 1.0
                counted[letter, sounds[start : start + 2]] += 0.02
    chance = _shares(counted)
    for _ in range(rounds):
        counted = defaultdict(float)
        for word, sounds in sample:
            _count(word, sounds, chance, counted)
        chance = _shares(counted)
    for word, sounds in words.items():
        if len(sounds) <= 2 * len(word):
            yield _best(word, sounds, chance)


def _shares(counted: Mapping[tuple[str, str], float]) -> defaultdict[tuple[str, str], float]:
    """P(phones | letter) from counts; unseen pairs keep a trace: every word can be aligned."""
    total: dict[str, float] = defaultdict(float)
    for (letter, _), count in counted.items():
        total[letter] += count
    shares = {pair: count / total[pair[0]] for pair, count in counted.items()}
    return defaultdict(lambda: 1e-9, shares)


def _count(
    word: str,
    sounds: str,
    chance: Mapping[tuple[str, str], float],
    counted: dict[tuple[str, str], float],
) -> None:
    """Adds the expected pair counts of one word (forward-backward)."""
    letters, phones = len(word), len(sounds)
    forward = [[0.0] * (phones + 1) for _ in range(letters + 1)]
    backward = [[0.0] * (phones + 1) for _ in range(letters + 1)]
    forward[0][0] = backward[letters][phones] = 1.0
    steps = [
        (row, start, end, (word[row], sounds[start:end]))
        for row in range(letters)
        for start in range(phones + 1)
        for end in range(start, min(start + 2, phones) + 1)
    ]
    chances = [chance[step[3]] for step in steps]
    for (row, start, end, _), value in zip(steps, chances, strict=True):
        forward[row + 1][end] += forward[row][start] * value
    for (row, start, end, _), value in zip(reversed(steps), reversed(chances), strict=True):
        backward[row][start] += backward[row + 1][end] * value
    total = forward[letters][phones]
    if total > 0:
        for (row, start, end, pair), value in zip(steps, chances, strict=True):
            counted[pair] += forward[row][start] * value * backward[row + 1][end] / total


def _best(word: str, sounds: str, chance: Mapping[tuple[str, str], float]) -> list[tuple[str, str]]:
    """The likeliest pairs of one word (Viterbi)."""
    paths: dict[int, tuple[float, list[tuple[str, str]]]] = {0: (1.0, [])}
    for letter in word:
        longer: dict[int, tuple[float, list[tuple[str, str]]]] = {}
        for start, (before, path) in paths.items():
            for end in range(start, min(start + 2, len(sounds)) + 1):
                pair = letter, sounds[start:end]
                value = before * chance[pair]
                if end not in longer or value > longer[end][0]:
                    longer[end] = value, [*path, pair]
        paths = longer
    return paths[len(sounds)][1]


def train_letters(
    words: Mapping[str, str], order: int = 6, least: int = 2
) -> tuple[bytes, LetterModel]:
    """Learns to read from word -> sound: (the bytes of the file, the model), the same each time.

    n-grams of four symbols and more stay only where they were seen `least` times. About two minutes
    for 125,000 words."""
    aligned = list(align(words))
    seen = Counter(pair for pairs in aligned for pair in pairs)
    kept = sorted(pair for pair, count in seen.items() if count >= 3)
    symbol = {pair: number for number, pair in enumerate(kept, FIRST)}
    rows = [
        [START, *(symbol[pair] for pair in pairs), END]
        for pairs in aligned
        if all(pair in symbol for pair in pairs)
    ]
    flat = np.array([item for row in rows for item in row], np.int64)
    position = np.concatenate([np.arange(len(row)) for row in rows])
    grams = _smoothed(_counts(flat, position, order), least)
    packed = _pack(kept, grams)
    return packed, read_model(packed)


Ints = NDArray[np.integer]
Floats = NDArray[np.floating]
Counts = list[tuple[Ints, Ints, Ints]]  # by order: n-gram keys, counts, counts to smooth
Grams = list[tuple[Ints, Floats, Floats]]  # by order: keys, gains, shares (1 without children)


def _counts(flat: Ints, position: Ints, order: int) -> Counts:
    """By order: sorted n-gram keys, how often each was seen, and the count Kneser-Ney smooths.

    That is, below the highest order, in how many different places (symbols to the left) it was
    seen; an n-gram at the start of a word has nothing to its left and keeps its plain count.
    """
    keys, seen = np.zeros_like(flat), []
    for length in range(1, order + 1):
        shifted = np.concatenate([np.zeros(length - 1, np.int64), flat[: len(flat) - length + 1]])
        keys = keys + shifted * BASE ** (length - 1)
        seen.append(np.unique(keys[position >= length - 1], return_counts=True))
    counts: Counts = []
    for length, (key, count) in enumerate(seen, 1):
        smooth = count
        if length < order:
            right, contexts = np.unique(seen[length][0] % BASE**length, return_counts=True)
            smooth = np.where(key // BASE ** (length - 1) == START, count, 0)
            smooth[np.searchsorted(key, right)] = contexts
        if length == 1:
            smooth = np.where(key == START, 0, smooth)  # never predicted
        counts.append((key, count, smooth))
    return counts


def _smoothed(counts: Counts, least: int) -> Grams:
    """Modified Kneser-Ney (Chen and Goodman, 1999), interpolated: shorter contexts get the rest."""
    grams: Grams = []
    for length, (key, count, smooth) in enumerate(counts, 1):
        n1, n2, n3, n4 = (max(int((smooth == value).sum()), 1) for value in (1, 2, 3, 4))
        part = n1 / (n1 + 2 * n2)
        off = np.array(
            [0.0, 1 - 2 * part * n2 / n1, 2 - 3 * part * n3 / n2, 3 - 4 * part * n4 / n3]
        )
        parent, group = np.unique(key // BASE, return_inverse=True)
        total = np.bincount(group, smooth)[group]
        gain = np.maximum(smooth - off[np.minimum(smooth, 3)], 0.0) / np.maximum(total, 1)
        keep = count >= (least if length > 3 else 1)
        share = np.maximum(1.0 - np.bincount(group, gain * keep), 1e-5)
        if length == 1:
            grams.append((np.zeros(1, np.int64), np.zeros(1), share))
        else:
            contexts, _, shares = grams[-1]
            known = np.isin(parent, contexts)
            shares[np.searchsorted(contexts, parent[known])] = share[known]
        grams.append((key[keep], gain[keep], np.ones(int(keep.sum()))))
    return grams


def _pack(pairs: list[tuple[str, str]], grams: Grams) -> bytes:
    """The model as an xz-compressed .npz: a trie by order; probabilities take one byte each."""
    arrays: dict[str, Any] = {"pairs": np.array([letter + phones for letter, phones in pairs])}
    for length, (key, gain, share) in enumerate(grams):
        if length:
            arrays[f"symbol{length}"] = (key % BASE).astype(np.uint16)
            arrays[f"gain{length}"] = _byte(gain)
        if length + 1 < len(grams):
            parents = np.searchsorted(key, grams[length + 1][0] // BASE)
            children = np.bincount(parents, minlength=len(key))
            arrays[f"children{length}"] = children.astype(np.uint16)
            arrays[f"share{length}"] = _byte(share[children > 0])
    file = io.BytesIO()
    np.savez(file, **arrays)
    return lzma.compress(file.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def _byte(chance: Floats) -> NDArray[np.uint8]:
    return np.clip(np.round(-np.log(np.maximum(chance, 1e-9)) * QUIET), 0, 255).astype(np.uint8)


def held_out(word: str) -> bool:
    """Whether a word belongs to the 5 % that accuracy is measured on."""
    return zlib.crc32(word.encode()) % 20 == 0


def accuracy(reader: LetterModel, words: Mapping[str, str]) -> tuple[float, float]:
    """The share of words read right, and 1 - phone edits / phones."""
    right = edits = phones = 0
    for word, sounds in words.items():
        guess = reader.sound(word)
        right += guess == sounds
        edits += distance(guess, sounds)
        phones += len(sounds)
    return right / len(words), 1 - edits / phones


def distance(text: str, other: str) -> int:
    """How many letters to insert, drop or change to get from one text to the other."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(text, 1):
        diagonal, row[0] = row[0], number
        for column, wanted in enumerate(other, 1):
            cost = min(row[column] + 1, row[column - 1] + 1, diagonal + (letter != wanted))
            diagonal, row[column] = row[column], cost
    return row[-1]


def main() -> None:
    """Measure on a held-out twentieth of the lexicon, train on all of it and write the file."""
    parser = argparse.ArgumentParser(prog="python scripts/train_g2p.py", description=main.__doc__)
    parser.add_argument(
        "--dictionary", type=Path, help="first compile the lexicon from this CMU Sphinx dictionary"
    )
    parser.add_argument("--order", type=int, default=6)
    parser.add_argument("--least", type=int, default=2)
    options = parser.parse_args()
    if options.dictionary:
        print(f"lexicon: {compile_lexicon(options.dictionary):,} words")
    words = lexicon()
    train = {word: sounds for word, sounds in words.items() if not held_out(word)}
    test = {word: sounds for word, sounds in words.items() if held_out(word)}
    _, reader = train_letters(train, options.order, options.least)
    right, phones = accuracy(reader, test)
    print(f"held out: {len(test):,} words; {right:.1%} of words right, {phones:.1%} of phones")
    packed, _ = train_letters(words, options.order, options.least)
    (HOME / "reader.npz.xz").write_bytes(packed)
    print(f"{HOME / 'reader.npz.xz'}: {len(packed):,} bytes")


if __name__ == "__main__":
    main()
