"""How a written word sounds: a dictionary, and for words it does not hold a model learned from it.

Sounds are written with one ASCII letter each ("stream" -> "strIm"), so that every tokenizer cuts
them alike between spaces: one for each of the CMU dictionary's 39 phones (ARPABET without stress).

The dictionary is CMUdict as the CMU Sphinx project distributes it (BSD; see
`embedded/lexicon/LICENSE`), first pronunciations only, read on first use.

The model is a joint n-gram (Bisani and Ney, 2008, "Joint-sequence models for grapheme-to-phoneme
conversion"): a word and its sound are one sequence of *pairs*, each a letter with the 0 to 2 phones
it is read as (x:ks, e:). Expectation maximisation finds the pairs, an n-gram with modified
Kneser-Ney smoothing scores their sequences, and reading a word is a beam search over the pairs its
letters allow. `scripts/train_g2p.py` trains it.
"""

from __future__ import annotations

import functools
import io
import lzma
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.folders import package_path

HOME = package_path("lexicon")

LETTER_OF = {
    "B": "b", "CH": "C", "D": "d", "DH": "D", "F": "f", "G": "g", "HH": "h", "JH": "J", "K": "k",
    "L": "l", "M": "m", "N": "n", "NG": "N", "P": "p", "R": "r", "S": "s", "SH": "S", "T": "t",
    "TH": "T", "V": "v", "W": "w", "Y": "y", "Z": "z", "ZH": "Z",
    "AA": "A", "AE": "a", "AH": "u", "AO": "O", "AW": "W", "AY": "Y", "EH": "e", "ER": "R",
    "EY": "E", "IH": "i", "IY": "I", "OW": "o", "OY": "Q", "UH": "U", "UW": "V",
}  # fmt: skip
PHONE_OF = {letter: phone for phone, letter in LETTER_OF.items()}
VOWELS = "AauOWYeREiIoQUV"

# where the dictionary reads a cry as an abbreviation ("baa" as B, A, A) or has no vowel to sing on
CORRECTED = {
    "aa": "A", "aaa": "A", "aah": "A", "baa": "bA", "mm": "um", "hm": "hum", "hmm": "hum",
    "sh": "Su", "shh": "Su", "ooh": "V", "whoa": "wo", "na": "nA", "la": "lA", "da": "dA",
    "ba": "bA", "doo": "dV", "woo": "wV",
}  # fmt: skip


@functools.cache
def lexicon() -> dict[str, str]:
    """Lower-case word -> its sound in letters. About 125,000 words."""
    pieces = lzma.decompress((HOME / "lexicon.txt.xz").read_bytes()).decode("ascii").split()
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def compile_lexicon(dictionary: Path, out: Path = HOME / "lexicon.txt.xz") -> int:
    """Writes the lexicon from a CMU Sphinx dictionary (`word PHONE PHONE ...`); how many words."""
    sounds: dict[str, str] = {}
    for row in dictionary.read_text("utf-8").splitlines():
        word, *phones = row.split()
        # leaves out variants ("word(2)"), abbreviations with dots, digits
        if re.fullmatch("[a-z']*[a-z][a-z']*", word):
            sounds[word] = "".join(LETTER_OF[phone] for phone in phones)
    sounds.update(CORRECTED)
    sounds = {word: sound for word, sound in sounds.items() if set(sound) & set(VOWELS)}
    text = "".join(f"{word} {sound}\n" for word, sound in sorted(sounds.items()))
    out.write_bytes(lzma.compress(text.encode("ascii"), preset=9 | lzma.PRESET_EXTREME))
    return len(sounds)


START, END, FIRST = 1, 2, 3  # symbols of a pair sequence; pairs count from FIRST
BASE = 512  # so that a key (the symbols of an n-gram as digits) of 7 symbols fits 63 bits
QUIET = 255 / 12  # quantisation steps a neper: a byte holds probabilities from 1 down to e^-12


@dataclass(frozen=True)
class LetterModel:
    """pairs: (letter, phones) by symbol - FIRST. gain: n-gram key -> its part of the probability.
    yielded: context key -> the share it leaves to the context a symbol shorter."""

    order: int
    pairs: tuple[tuple[str, str], ...]
    gain: Mapping[int, float]
    yielded: Mapping[int, float]

    def probability(self, symbol: int, contexts: list[tuple[int, float]]) -> float:
        """P(symbol | context), interpolated from the shortest context to the longest."""
        chance = self.gain.get(symbol, 0.0) + self.yielded[0] / (len(self.pairs) + 1)
        for key, share in contexts:
            chance = self.gain.get(key * BASE + symbol, 0.0) + share * chance
        return chance

    def contexts(self, history: int) -> list[tuple[int, float]]:
        """The known contexts (key, share yielded) that end a history's key, shortest first."""
        contexts: list[tuple[int, float]] = []
        for length in range(1, self.order):
            key = history % BASE**length
            share = self.yielded.get(key)
            if share is None or (contexts and key == contexts[-1][0]):
                break
            contexts.append((key, share))
        return contexts

    def sound(self, letters: str, beam: int = 24) -> str:
        """The likeliest sound of a spelling in a-z and apostrophe (others are silent)."""
        readings: dict[str, list[int]] = defaultdict(list)
        for symbol, (letter, _) in enumerate(self.pairs, FIRST):
            readings[letter].append(symbol)
        paths: dict[int, tuple[float, str]] = {START: (0.0, "")}
        for letter in [*letters, ""]:
            choices = readings[letter] if letter else [END]
            if not choices:
                continue
            grown: dict[int, tuple[float, str]] = {}
            likeliest = sorted(paths.items(), key=lambda path: -path[1][0])[:beam]
            for history, (logp, sounds) in likeliest:
                contexts = self.contexts(history)
                for symbol in choices:
                    total = logp + math.log(self.probability(symbol, contexts))
                    key = (history * BASE + symbol) % BASE ** (self.order - 1)
                    if key not in grown or total > grown[key][0]:
                        phones = self.pairs[symbol - FIRST][1] if letter else ""
                        grown[key] = (total, sounds + phones)
            paths = grown
        return max(paths.values())[1]


def read_model(packed: bytes) -> LetterModel:
    """The model from the bytes that `scripts/train_g2p.py` packs."""
    with np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False) as arrays:
        pairs = tuple((text[0], text[1:]) for text in arrays["pairs"].tolist())
        order = sum(name.startswith("symbol") for name in arrays)
        chance = np.exp(-np.arange(256) / QUIET)
        gain: dict[int, float] = {}
        yielded: dict[int, float] = {}
        key, children = np.zeros(1, np.int64), np.zeros(1, np.int64)
        for length in range(order + 1):
            if length:
                key = np.repeat(key, children) * BASE + arrays[f"symbol{length}"]
                gains = chance[arrays[f"gain{length}"]]
                gain.update(zip(key.tolist(), gains.tolist(), strict=True))
            if length < order:
                children = arrays[f"children{length}"]
                shares = chance[arrays[f"share{length}"]]
                yielded.update(zip(key[children > 0].tolist(), shares.tolist(), strict=True))
    return LetterModel(order, pairs, gain, yielded)


@functools.cache
def model() -> LetterModel:
    """The embedded letter-to-sound model, read on first use."""
    return read_model((HOME / "reader.npz.xz").read_bytes())
