"""How lyrics sound, in the few classes of sound that an aligner can tell apart in any language.

    "seven boats" -> s e v ə n | b o u t s

espeak-ng reads more than a hundred languages to IPA and is used where it is installed (the optional
extra; GPL-3+). Without it words are read by `distill.lyrics.pronounce`: English and Spanish well,
everything else with an English accent. A class joins what sounds alike when it is sung (θ and f, ʁ
and x); `none` is no voice: silence, or a band playing.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable

from distill import lyrics
from distill.lyrics.g2p import PHONE_OF
from distill.lyrics.pronounce import sound
from distill.songbook import espeak

VOWELS = tuple("aeiouyøə")
CONSONANTS = tuple("ptkbdgmnŋlrɹwjhfvszʃ")
CLASSES = (*VOWELS, *CONSONANTS, "none")
INDEX = {name: number for number, name in enumerate(CLASSES)}
NONE = INDEX["none"]

_SOUNDS = {
    "a": "aäɑɐæʌᵄ", "e": "eɛᵻ", "i": "iɪɨᶦ", "o": "oɔɒɤ", "u": "uʊɯʉᶷ", "y": "yʏ", "ø": "øœ",
    "ə": "əɜɚɘɝɵᵊ", "p": "pɸ", "t": "tʈ", "k": "kqc", "b": "b", "d": "dɖɟ", "g": "gɡ", "m": "mɱ",
    "n": "nɲɳ", "ŋ": "ŋ", "l": "lɫɭʎɬʟ", "r": "rɾɽ", "ɹ": "ɹɻ", "w": "wʍɥ", "j": "jʝ",
    "h": "hɦxχħçɣʁʀ", "f": "fθ", "v": "vðβʋ", "s": "s", "z": "z", "ʃ": "ʃʒʂʐɕʑ",
}  # fmt: skip
_CLASS_OF = {sign: name for name, signs in _SOUNDS.items() for sign in signs}
_ARPABET = {
    "B": "b", "CH": "tʃ", "D": "d", "DH": "ð", "F": "f", "G": "g", "HH": "h", "JH": "dʒ", "K": "k",
    "L": "l", "M": "m", "N": "n", "NG": "ŋ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t",
    "TH": "θ", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ", "AA": "a", "AE": "æ", "AH": "ʌ",
    "AO": "ɔ", "AW": "aʊ", "AY": "aɪ", "EH": "ɛ", "ER": "ɜɹ", "EY": "eɪ", "IH": "ɪ", "IY": "i",
    "OW": "oʊ", "OY": "ɔɪ", "UH": "ʊ", "UW": "u",
}  # fmt: skip
_CRIES = {
    r"a+h+|aa+": "a", r"oo+h*|u+h+|uu+": "u", r"o+h+": "o", r"e+h+|ee+": "e", r"h*mm+h*": "m",
}  # fmt: skip


def classes(ipa: str) -> tuple[str, ...]:
    """The classes in a stretch of IPA; stress, length, tone and what is no sound fall away."""
    names = [_CLASS_OF[sign] for sign in unicodedata.normalize("NFC", ipa) if sign in _CLASS_OF]
    return tuple(name for name, _ in itertools.groupby(names))


def units(line: str) -> list[str]:
    """What is placed one by one: the words of a line; kana character by character."""
    return re.findall(r"[\u3040-\u30ff]|[^\s\u3040-\u30ff]+", " ".join(lyrics.words(line)))


def pronounce(words: Iterable[str], language: str) -> dict[str, tuple[str, ...]]:
    """The classes each word is sung in, among them a vowel or a hum; () where it cannot be sung."""
    sung = {word: _cry(word) for word in words}
    unread = [word for word, sounds in sung.items() if not sounds]
    for word, ipa in zip(unread, espeak.ipa(unread, language), strict=True):
        sung[word] = classes(ipa)
        if not set(sung[word]) & set(VOWELS):
            phones = (_ARPABET[PHONE_OF[letter]] for letter in sound(word, language))
            sung[word] = classes("".join(phones))
    return sung


def _cry(word: str) -> tuple[str, ...]:
    """ "ooh" and "ah" are sung as they are meant, not as they would be read."""
    return next(((sound,) for cry, sound in _CRIES.items() if re.fullmatch(cry, word)), ())
