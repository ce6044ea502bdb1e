"""The sound of a word, of whatever script, spelling or number, in the letters of `g2p.py`.

English by the dictionary, and by the learned model where the dictionary ends. Spanish by its own
rules, which its spelling follows. Chinese characters in Mandarin (`pinyin`), a line at once.
Anything else is spelled in Roman letters first and read as English: a foreign accent, but always a
vowel to sing on.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence

from distill.lyrics import pinyin
from distill.lyrics.g2p import CORRECTED, VOWELS, lexicon, model

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen".split()
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ENDINGS = {"st": "st", "nd": "nd", "rd": "rd", "th": "T", "s": "z"}  # 1st, 80s: after digits
_FROM = "абвгдезийклмнопрстуфыэіαβγδεζηικλμνξοπρσςτυφω"
_TO = "abvgdeziyklmnoprstufyeiavgdeziiklmnxoprsstifo"
ROMAN = dict(zip(_FROM, _TO, strict=True)) | {
    "х": "kh", "ё": "yo", "ж": "zh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "sh", "ъ": "", "ь": "",
    "ю": "yu", "я": "ya", "є": "ye", "ї": "yi", "θ": "th", "χ": "kh", "ψ": "ps", "ß": "ss",
    "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "th", "þ": "th", "ı": "i", "ŋ": "ng",
}  # fmt: skip


def sound(word: str, language: str = "en") -> str:
    """The sound of a word: "stream" -> "strIm"; "" without a letter or digit.

    Spanish by its rules, Chinese characters in Mandarin (but in Japanese), all else as English:
    from the dictionary, else by the letter-to-sound model, digits as numbers, Greek, Cyrillic, kana
    and hangul by Roman letters; a character of any other script is an open vowel.
    """
    return "".join(sounds([word], language)[0])


def sounds(words: Sequence[str], language: str = "en") -> list[list[str]]:
    """The sounds of a line's words, by part: each Chinese character is one, read in its context."""
    plain = language.partition("-")[0].lower()
    parts = [(index, part) for index, word in enumerate(words) for part in _PARTS.findall(word)]
    han = "".join(part if _HAN.match(part) else " " for _, part in parts)
    readings = pinyin.readings(han) if han.strip() and plain != "ja" else [""] * len(parts)
    result: list[list[str]] = [[] for _ in words]
    for (index, part), reading in zip(parts, readings, strict=True):
        result[index].append(pinyin.spell(reading) or _sound(part, plain))
    return result


_HAN = re.compile(f"[{pinyin.HAN}]")
_PARTS = re.compile(f"[{pinyin.HAN}]|[^{pinyin.HAN}]+")


@functools.lru_cache(maxsize=65536)
def _sound(word: str, language: str) -> str:
    if language == "es" and (letters := spanish(word)):
        return letters
    spelling = roman(word)
    letters = ""
    for run in re.findall(r"\d+|[a-z']+", spelling):
        if run.isdigit():
            letters += "".join(map(english, number(run)))
        elif letters and run in ENDINGS and re.search(r"\d" + run, spelling):
            letters += ENDINGS[run]
        else:
            letters += english(run)
    return letters or ("A" if any(map(str.isalnum, word)) else "")


def roman(word: str) -> str:
    """A word in a-z, digits, apostrophes, and a space after each sign for a syllable."""
    text = unicodedata.normalize("NFKC", word.replace("\u2019", "'")).casefold()
    return "".join(map(_roman, text))


def _roman(letter: str) -> str:
    if letter.isascii():
        return letter if letter.isalnum() or letter == "'" else " "
    if letter in ROMAN:
        return ROMAN[letter]
    if letter.isdecimal():
        return str(unicodedata.decimal(letter))
    name = unicodedata.name(letter, "")
    if match := re.search(r"(?:LETTER|SYLLABLE)(?: SMALL)? ([A-Z]+)$", name):
        return match.group(1).lower() + " "
    base = unicodedata.normalize("NFKD", letter)[0]  # without its accents
    if base != letter:
        return _roman(base)
    if re.match("Lm|M", unicodedata.category(letter)):
        return ""
    return "ah " if letter.isalpha() else " "


_DRAWN_OUT = re.compile(r"(.)\1{2,}")  # looove


def english(word: str) -> str:
    """The sound of a word in a-z and apostrophes."""
    known = lexicon()
    twice, once = (_DRAWN_OUT.sub(letters, word) for letters in (r"\1\1", r"\1"))
    for spelling in (word, twice, once):
        for stem in (spelling, spelling.strip("'")):
            if stem in known:
                return known[stem]
        if spelling.endswith("in'") and spelling[:-1] + "g" in known:
            return known[spelling[:-1] + "g"][:-1] + "n"
        if spelling.endswith("'s") and spelling[:-2] in known:
            stem = known[spelling[:-2]]
            return stem + ("uz" if stem[-1] in "szSZCJ" else "s" if stem[-1] in "ptkfT" else "z")
    spelling = _DRAWN_OUT.sub(r"\1\1", word.strip("'"))
    if not spelling:
        return ""
    vowels = set(spelling) & set("aeiouy'")
    if len(spelling) <= 4 and not vowels and not re.search(r"(.)\1", spelling):
        return "".join(known[letter] for letter in spelling)  # initials, read letter by letter
    return voiced(model().sound(spelling))


def voiced(sounds: str) -> str:
    """The same sounds with a vowel to sing on: "brr" -> "bur"."""
    return sounds if set(sounds) & set(VOWELS) else sounds[:1] + "u" + sounds[1:]


def number(digits: str) -> list[str]:
    """The English words of a number; 1101 to 1999 in pairs, long ones by digit."""
    value = int(digits) if len(digits) <= 9 else -1
    if value < 0 or (len(digits) > 1 and digits[0] == "0"):
        return [SMALL[int(digit)] for digit in digits]
    if 1100 <= value < 2000 and value % 100:
        return number(digits[:2]) + (["oh"] if value % 100 < 10 else []) + number(str(value % 100))
    for size, name in ((1_000_000, "million"), (1000, "thousand"), (100, "hundred")):
        count, rest = divmod(value, size)
        if count:
            return [*number(str(count)), name, *(number(str(rest)) if rest else [])]
    if value >= 20:
        return [TENS[value // 10 - 2], *([SMALL[value % 10]] if value % 10 else [])]
    return [SMALL[value]]


# Letters and what they sound like, longest first. Latin American: c and z are s.
SPANISH = [(re.compile(rule), sounds) for rule, sounds in (
    ("ch", "C"), ("ll", "y"), ("rr", "r"), ("ñ", "ny"), ("gü", "gw"),
    ("qu(?=[eiéí])", "k"), ("gu(?=[eiéí])", "g"), ("c(?=[eiéí])", "s"), ("g(?=[eiéí])", "h"),
    ("hu(?=[aeoáéó])", "w"), ("hi(?=[aeoáéó])", "y"), ("h", ""),
    ("[aá][iy](?![aeiouáéíóú])", "Y"), ("[eé][iy](?![aeiouáéíóú])", "E"),
    ("[oó][iy](?![aeiouáéíóú])", "Q"), ("[aá]u(?![aeiouáéíóú])", "W"),
    ("i(?=[aeouáéóú])", "y"), ("[uü](?=[aeioáéíóy])", "w"), ("y(?=[aeiouáéíóú])", "y"),
    ("[aá]", "A"), ("[eé]", "e"), ("[iíy]", "I"), ("[oó]", "o"), ("[uúü]", "V"),
    ("[bv]", "b"), ("[ckq]", "k"), ("z", "s"), ("j", "h"), ("x", "ks"),
    ("([dfglmnprstw])", r"\1"), (".", ""),
)]  # fmt: skip
SPANISH_DIGITS = "cero uno dos tres cuatro cinco seis siete ocho nueve".split()


def spanish(word: str) -> str:
    """The sound of a Spanish word, by rule; digits are read one by one."""
    text = unicodedata.normalize("NFC", word).lower()
    if text in CORRECTED:
        return CORRECTED[text]  # la, ooh, shh: the same in every language
    text = "".join(letter if letter in "ñüáéíóú" else roman(letter) for letter in text)
    text = re.sub(r"\d", lambda digit: SPANISH_DIGITS[int(digit.group())] + " ", text)
    letters, start = "", 0
    while start < len(text):
        sounds, match = next((s, m) for r, s in SPANISH if (m := r.match(text, start)))
        letters += match.expand(sounds)
        start = match.end()
    return voiced(letters) if letters else ""
