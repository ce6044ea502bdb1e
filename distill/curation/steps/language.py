"""The language that lyrics are in: by script where that says it, else by py3langid.

    hangul                                Korean      Chinese characters alone   Chinese
    kana anywhere in an East Asian song   Japanese    everything else            py3langid

py3langid is a naive Bayes classifier over byte n-grams (Lui and Baldwin, 2012, "langid.py"), its
model is in its package. Cries and vocables ("la la", "oh yeah") say nothing and are left out. The
confidence is the classifier's, or, if that is less, the share of the letters in lines that agree.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from distill.config.ranges import Checked, share
from distill.curation.steps import Item
from distill.errors import SettingsError
from distill.lyrics import words
from distill.songs import Fact

STEP = "language"
# Of py3langid's 140, those with many songs. Among all of them a short line is too often Wu,
# Ligurian or Pidgin.
LANGUAGES = (
    "af ar be bg bn ca cs cy da de el en es et eu fa fi fr ga gl he hi hr hu id is it ja ko la lt "
    "lv mk ms nl no pl pt ro ru sk sl sq sr sv sw ta te th tl tr uk ur vi zh"
).split()
_SPELLINGS = {
    "en": "english eng", "es": "spanish spa español", "fr": "french fra fre français",
    "de": "german deu ger deutsch", "it": "italian ita", "pt": "portuguese por",
    "zh": "chinese mandarin zho chi cmn cn yue cantonese wuu", "ja": "japanese jpn jp",
    "ko": "korean kor kr", "ru": "russian rus", "nl": "dutch nld dut", "sv": "swedish swe",
    "pl": "polish pol", "tr": "turkish tur", "no": "norwegian nb nn nor", "da": "danish dan",
    "fi": "finnish fin", "el": "greek ell", "uk": "ukrainian ukr", "cs": "czech ces",
    "hu": "hungarian hun", "la": "latin lat", "tl": "filipino fil", "he": "iw hebrew",
    "id": "in indonesian", "hr": "bs sh",
}  # fmt: skip
SPELLED = {name: code for code, names in _SPELLINGS.items() for name in names.split()}
CLOSE = ("no da", "hr sr sl", "id ms", "cs sk", "bg mk", "uk be ru", "es gl", "hi ur")
FEWEST_LETTERS = 12  # of a song; below that even the classifier's certainty means little
SURE_LINE = 0.9  # the confidence from which on a line counts for its own language
EAST_ASIAN = 3  # Latin letters that say as much as one character of the East
MIXED_CONFIDENCE = 0.5  # single lines err more than the whole
_VOCABLE = re.compile(
    r"(?:l[aeiou]h?|n[ao]h?|d[aou]o?h?|t?ra|o+h*|a+h*|u+h*|e+h*|h[aeiou]+h?|y[aeo]+h?|yea+h?|hey+|"
    r"wo+a*h*|whoa+|m+h?|hm+|a+y+|ba|do+|du+|sha|shoo|doo+|ooh+|wow|uh-?huh|bis|la+|na+|fa|sol|ti|"
    r"ri|pa|pam|bam|bop|ding|dong)"
)


class Guess(NamedTuple):
    """A language (ISO 639-1; "" for unknown), how sure, and letters by their line's language."""

    language: str
    confidence: float
    letters: Counter[str]


@dataclass(frozen=True)
class Settings(Checked):
    """languages: those that are wanted; () all. Songs in others are set aside. differs: what
    becomes of a song whose lyrics are in another language than it says, where that is `sure`.
    mixed: the share of a second language from which on a song counts as mixed."""

    languages: tuple[str, ...] = ()
    differs: Literal["mend", "note", "set aside"] = "mend"
    sure: float = share(zero=False, default=0.8)
    mixed: float = share(zero=False, one=False, default=0.2)

    def __post_init__(self) -> None:
        super().__post_init__()
        for language in self.languages:
            if code(language) not in LANGUAGES:
                text = f"languages: {language!r} is not known; give ISO 639-1 codes such as en, zh"
                raise SettingsError(text)

    def curate(self, item: Item) -> Item:
        """The item with Fact("language"), mended where the lyrics are surely in another one."""
        stated = item.song.language
        guess = identify(line.text for line in item.song.lines)
        if guess.language:
            item = item.know(Fact("language", guess.language, STEP, round(guess.confidence, 3)))
            item = self._mixture(self._compared(item, guess, stated), guess)
        elif item.song.lines:
            text = f"too little text to tell the language; {stated or 'none'} is stated"
            item = item.remark(STEP, "noted", text)
        wanted = not self.languages or code(item.song.language) in map(code, self.languages)
        if not item.aside and not wanted:
            text = f"in {item.song.language or 'no stated language'}"
            item = item.remark(STEP, "set aside", f"{text}; wanted: {', '.join(self.languages)}")
        return item

    def _compared(self, item: Item, guess: Guess, stated: str) -> Item:
        """The item, mended or remarked where it states another language than the guess."""
        if code(stated) == guess.language:
            return item
        text = f"the lyrics are in {guess.language}, stated is {stated or 'nothing'}"
        text += f" (confidence {guess.confidence:.2f})"
        if guess.confidence < self.sure or _close(code(stated), guess.language):
            return item.remark(STEP, "noted", text + "; left as stated")
        if self.differs == "note":
            return item.remark(STEP, "noted", text)
        if self.differs == "set aside":
            return item.remark(STEP, "set aside", text)
        item = replace(item, song=replace(item.song, language=guess.language))
        return item.remark(STEP, "mended", text)

    def _mixture(self, item: Item, guess: Guess) -> Item:
        """The item with Fact("languages") where a good part of the lines is in another language."""
        total = sum(guess.letters.values())
        counts = guess.letters.most_common()
        shares = {name: count / total for name, count in counts if count >= self.mixed * total}
        if len(shares) < 2:
            return item
        rounded = {name: round(part, 2) for name, part in shares.items()}
        item = item.know(Fact("languages", rounded, STEP, MIXED_CONFIDENCE))
        listed = ", ".join(f"{name} {100 * part:.0f} %" for name, part in shares.items())
        return item.remark(STEP, "noted", f"mixed languages, as far as single lines say: {listed}")


def code(language: str) -> str:
    """The ISO 639-1 code of a language however spelled: "en-GB", "English", "eng" -> "en"."""
    plain = re.split(r"[-_ (]", language.strip().lower())[0]
    return SPELLED.get(plain, plain)


def identify(lines: Iterable[str]) -> Guess:
    """The language of lyrics. Lines that come again count once, or a chorus outvotes the song."""
    spoken = [text for line in dict.fromkeys(lines) if (text := _speaking(line))]
    scripts = [_script(text) for text in spoken]
    if "ja" in scripts:  # one line in kana: then lines of Chinese characters alone are Japanese too
        scripts = ["ja" if script == "zh" else script for script in scripts]
    rest = [text for text, script in zip(spoken, scripts, strict=True) if not script]
    letters: Counter[str] = Counter()
    for script, text in zip(scripts, spoken, strict=True):
        if script:
            letters[script] += EAST_ASIAN * _letters(text)
    best, probability = _classify("\n".join(rest)) if rest else ("", 0.0)
    for text in rest:
        language, confidence = _classify(text)
        # a line alone may err: where it is unsure it counts for what the whole says
        sure = confidence > SURE_LINE and _letters(text) >= FEWEST_LETTERS
        letters[language if sure else best] += _letters(text)
    total = sum(letters.values())
    if total < FEWEST_LETTERS:
        return Guess("", 0.0, letters)
    language, count = letters.most_common(1)[0]
    agreed = count / total
    return Guess(language, min(agreed, probability) if language == best else agreed, letters)


def likeliest(lines: Iterable[str], among: Sequence[str]) -> str:
    """Which of some languages (ISO 639-1) lyrics are in: by script where that says it, else the one
    that py3langid ranks first; the first given where there is too little to tell by."""
    spoken = [text for line in lines if (text := _speaking(line))]
    scripts = dict.fromkeys(map(_script, spoken))
    if written := [language for language in ("ja", "ko", "zh") if language in scripts]:
        return next((language for language in written if language in among), among[0])
    ranked = _identifier().rank("\n".join(spoken)) if spoken else ()
    return next((str(language) for language, _ in ranked if language in among), among[0])


def _speaking(line: str) -> str:
    """The words of a line that belong to a language."""
    spoken = [word for word in words(line) if not _VOCABLE.fullmatch(word)]
    return " ".join(word for word in spoken if not word.isdigit())


def _letters(text: str) -> int:
    return sum(letter.isalpha() for letter in text)


def _script(text: str) -> str:
    """ "ko", "ja" or "zh" where most of a line's letters are written so; "" elsewhere."""
    hangul = len(re.findall("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]", text))
    kana = len(re.findall("[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9d]", text))
    han = len(re.findall("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]", text))
    if EAST_ASIAN * (hangul + kana + han) <= _letters(text):  # "baby 사랑해" is sung in both
        return ""
    return "ko" if hangul >= kana + han else "ja" if kana else "zh"


@functools.cache
def _identifier() -> LanguageIdentifier:
    """Loaded once a process."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier


@functools.lru_cache(maxsize=4096)
def _classify(text: str) -> tuple[str, float]:
    language, probability = _identifier().classify(text)
    return str(language), float(probability)


def _close(a: str, b: str) -> bool:
    """Whether two languages are too near to each other to tell them apart in a few lines."""
    return any({a, b} <= set(group.split()) for group in CLOSE)
