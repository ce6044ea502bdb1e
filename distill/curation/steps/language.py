"""The language that lyrics are in: by script where the script says it, else by py3langid, line by
line and as a whole.

    hangul                     Korean                        kana anywhere in an East Asian song    Japanese
    Chinese characters alone   Chinese                       everything else                        py3langid

py3langid is a naive Bayes classifier over byte n-grams (Lui and Baldwin, 2012, "langid.py"), its
model is in its package. On 119 single lines of songs in 30 languages it names 114 right when it
chooses among `LANGUAGES`, and all songs of several lines but one: a Danish line that is Norwegian
as well. Cries and vocables ("la la", "oh yeah") say nothing and are left out. The confidence is the
classifier's, or, if that is less, the share of the letters in lines that agree.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from distill.curation.steps import Item
from distill.errors import SettingsError
from distill.lyrics import words
from distill.songs import Fact

STEP = "language"
# Of py3langid's 140, those with many songs. Among all of them a short line is too often Wu,
# Ligurian or Pidgin.
LANGUAGES = (
    "af ar be bg bn ca cs cy da de el en es et eu fa fi fr ga gl he hi hr hu id is it ja ko la lt "
    "lv mk ms nl no pl pt ro ru "
    "sk sl sq sr sv sw ta te th tl tr uk ur vi zh"
).split()
SPELLED = {
    "english": "en", "eng": "en", "spanish": "es", "spa": "es", "español": "es", "french": "fr", "fra": "fr", "fre": "fr",
    "français": "fr", "german": "de", "deu": "de", "ger": "de", "deutsch": "de", "italian": "it", "ita": "it",
    "portuguese": "pt", "por": "pt", "chinese": "zh", "mandarin": "zh", "zho": "zh", "chi": "zh", "cmn": "zh", "cn": "zh",
    "yue": "zh", "cantonese": "zh", "wuu": "zh", "japanese": "ja", "jpn": "ja", "jp": "ja", "korean": "ko", "kor": "ko",
    "kr": "ko", "russian": "ru", "rus": "ru", "dutch": "nl", "nld": "nl", "dut": "nl", "swedish": "sv", "swe": "sv",
    "polish": "pl", "pol": "pl", "turkish": "tr", "tur": "tr", "norwegian": "no", "nb": "no", "nn": "no", "nor": "no",
    "danish": "da", "dan": "da", "finnish": "fi", "fin": "fi", "greek": "el", "ell": "el", "ukrainian": "uk", "ukr": "uk",
    "czech": "cs", "ces": "cs", "hungarian": "hu", "hun": "hu", "latin": "la", "lat": "la", "filipino": "tl", "fil": "tl",
    "iw": "he", "hebrew": "he", "in": "id", "indonesian": "id", "bs": "hr", "sh": "hr",
}  # fmt: skip
CLOSE = [
    set(pair.split())
    for pair in ("no da", "hr sr sl", "id ms", "cs sk", "bg mk", "uk be ru", "es gl", "hi ur")
]
FEWEST_LETTERS = 12  # of a song; below that even the classifier's certainty means little
_VOCABLE = re.compile(
    r"(?:l[aeiou]h?|n[ao]h?|d[aou]o?h?|t?ra|o+h*|a+h*|u+h*|e+h*|h[aeiou]+h?|y[aeo]+h?|yea+h?|hey+|wo+a*h*|whoa+|m+h?|hm+|a+y+|"
    r"ba|do+|du+|sha|shoo|doo+|ooh+|wow|uh-?huh|bis|la+|na+|fa|sol|ti|ri|pa|pam|bam|bop|ding|dong)"
)


class Found(NamedTuple):
    """A language (ISO 639-1; "" where nothing says it), how sure, and letters of the lines by their
    language."""

    language: str
    confidence: float
    letters: Counter[str]


@dataclass(frozen=True)
class Settings:
    """languages: those that are wanted; () all. Songs in others are set aside.

    differs: what becomes of a song whose lyrics are in another language than it says, where that is
    `sure`. mixed: the share of a second language from which on a song counts as mixed.
    """

    languages: tuple[str, ...] = ()
    differs: Literal["mend", "note", "set aside"] = "mend"
    sure: float = 0.8
    mixed: float = 0.2

    def __post_init__(self) -> None:
        if self.differs not in ("mend", "note", "set aside"):
            raise SettingsError(
                f"differs is {self.differs!r}; it must be one of mend, note, set aside"
            )
        if not 0 < self.sure <= 1 or not 0 < self.mixed < 1:
            raise SettingsError(
                f"sure is {self.sure} and mixed is {self.mixed}; both are shares between 0 and 1"
            )
        if unknown := [one for one in self.languages if code(one) not in LANGUAGES]:
            raise SettingsError(
                f"languages: {unknown[0]!r} is not known; give ISO 639-1 codes such as en, es, zh"
            )

    def curate(self, item: Item) -> Item:
        """The item with Fact("language"), and with its language mended where the lyrics are surely
        in another one."""
        stated = item.song.language
        found = identify(line.text for line in item.song.lines)
        if not found.language:
            if item.song.lines:
                item = item.remark(
                    STEP,
                    "noted",
                    f"too little text to tell the language; {stated or 'none'} is stated",
                )
        else:
            item = item.know(Fact("language", found.language, STEP, round(found.confidence, 3)))
            item = self._compared(item, found, stated)
            item = self._mixture(item, found)
        if (
            not item.aside
            and self.languages
            and code(item.song.language) not in {code(one) for one in self.languages}
        ):
            wanted = ", ".join(self.languages)
            item = item.remark(
                STEP,
                "set aside",
                f"in {item.song.language or 'no stated language'}; wanted: {wanted}",
            )
        return item

    def _compared(self, item: Item, found: Found, stated: str) -> Item:
        if code(stated) == found.language:
            return item
        said = f"the lyrics are in {found.language}, stated is {stated or 'nothing'} (confidence {found.confidence:.2f})"
        if found.confidence < self.sure or _close(code(stated), found.language):
            return item.remark(STEP, "noted", said + "; left as stated")
        if self.differs == "note":
            return item.remark(STEP, "noted", said)
        if self.differs == "set aside":
            return item.remark(STEP, "set aside", said)
        item = replace(item, song=replace(item.song, language=found.language))
        return item.remark(STEP, "mended", said)

    def _mixture(self, item: Item, found: Found) -> Item:
        """The item with Fact("languages") where a good part of the lines is in another language."""
        total = sum(found.letters.values())
        shares = {
            one: count / total
            for one, count in found.letters.most_common()
            if count >= self.mixed * total
        }
        if len(shares) < 2:
            return item
        item = item.know(
            Fact("languages", {one: round(share, 2) for one, share in shares.items()}, STEP, 0.5)
        )
        listed = ", ".join(f"{one} {100 * share:.0f} %" for one, share in shares.items())
        return item.remark(STEP, "noted", f"mixed languages, as far as single lines say: {listed}")


def code(language: str) -> str:
    """The ISO 639-1 code of a language however it is spelled: "en-GB", "English" and "eng" are
    "en"."""
    plain = re.split(r"[-_ (]", language.strip().lower())[0]
    return SPELLED.get(plain, plain)


def identify(lines: Iterable[str]) -> Found:
    """The language of lyrics. Lines that come again count once, or a chorus would outvote the song."""
    spoken = [text for line in dict.fromkeys(lines) if (text := _speaking(line))]
    scripts = [_script(text) for text in spoken]
    if "ja" in scripts:  # one line in kana: then lines of Chinese characters alone are Japanese too
        scripts = ["ja" if script == "zh" else script for script in scripts]
    rest = [text for text, script in zip(spoken, scripts, strict=True) if not script]
    letters: Counter[str] = Counter()
    for script, text in zip(scripts, spoken, strict=True):
        if script:
            # a character of the East says as much as some letters
            letters[script] += 3 * _letters(text)
    best, probability = _classify("\n".join(rest)) if rest else ("", 0.0)
    for text in rest:
        one, sure = _classify(text)
        # a line alone may err: where it is unsure it counts for what the whole says
        letters[one if sure > 0.9 and _letters(text) >= FEWEST_LETTERS else best] += _letters(text)
    total = sum(letters.values())
    if total < FEWEST_LETTERS:
        return Found("", 0.0, letters)
    language, count = letters.most_common(1)[0]
    agreed = count / total
    return Found(language, min(agreed, probability) if language == best else agreed, letters)


def _speaking(line: str) -> str:
    """The words of a line that belong to a language."""
    return " ".join(
        word for word in words(line) if not _VOCABLE.fullmatch(word) and not word.isdigit()
    )


def _letters(text: str) -> int:
    return sum(letter.isalpha() for letter in text)


def _script(text: str) -> str:
    """ "ko", "ja" or "zh" where most of a line's letters are written so; "" elsewhere."""
    hangul = len(re.findall("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]", text))
    kana = len(re.findall("[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9d]", text))
    han = len(re.findall("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]", text))
    # "baby 사랑해" is sung in both; three Latin letters make one of these
    if 3 * (hangul + kana + han) <= _letters(text):
        return ""
    return "ko" if hangul >= kana + han else "ja" if kana else "zh"


@functools.cache
def _identifier() -> LanguageIdentifier:
    """Loaded once a process: 0.9 s and 100 MB."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier


@functools.lru_cache(maxsize=4096)
def _classify(text: str) -> tuple[str, float]:
    language, probability = _identifier().classify(text)
    return str(language), float(probability)


def _close(one: str, other: str) -> bool:
    """Whether two languages are too near to each other to tell them apart in a few lines."""
    return any({one, other} <= group for group in CLOSE)
