"""Characters of lyrics made plain: without what editors, scrapers and encodings left.

Every function takes and gives text; `mend` counts what it changed. Text that spells a codec token
stays text.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections import Counter

import ftfy
import ftfy.badness

APOSTROPHES = "\u2018\u2019\u201b\u02bc\u02b9\u00b4\u0060\u2032\uff07"
# Forms of letters that mean the plain letter: full-width ASCII, half-width katakana, mathematical
# alphabets, ligatures.
_FORMS = re.compile(
    "[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff61-\uff9f\U0001d400-\U0001d7ff\ufb00-\ufb06]+"
)
_WIDE_MARKS = re.compile("[\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff5e]")
_EAST = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uac00-\ud7af\u3040-\u30ff\U00020000-\U0003ffff]")
_SPACES = re.compile("[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_MARKUP = re.compile(
    r"</?(?:br|p|i|b|u|em|strong|span|div|sup|sub|small|font|a)\b[^<>]{0,200}>|<br\s*/?>",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});", re.IGNORECASE)
_ODD = re.compile(f"[{re.escape(APOSTROPHES)}]")
_ALPHABETS = {"LATIN", "GREEK", "CYRILLIC"}


def mend(text: str, changed: Counter[str]) -> str:
    """The text in NFC and plain, its ends as they were; `changed` counts changes by kind."""
    if text.isascii() and text.isprintable() and not set("&<`") & set(text):
        return text
    for kind, step in _STEPS:
        if (after := step(text)) != text:
            text = after
            changed[kind] += 1
    return text


def decoded(text: str) -> str:
    """UTF-8 that was read as something else, read right: "corazÃ³n" -> "corazón". Only where ftfy
    finds an encoding there and back, and no result looks wrong or mixes alphabets in a word."""
    return _decoded(text)[0]


def wrong_encoding(text: str) -> str:
    """The encoding a text was wrongly read in ("Windows-1252"); "" where none is certain."""
    return _decoded(text)[1]


@functools.lru_cache(maxsize=1024)
def _decoded(text: str) -> tuple[str, str]:
    if text.isascii():
        return text, ""
    fixed, plan = ftfy.fix_encoding_and_explain(text)
    wrong = "\ufffd" in fixed or ftfy.badness.is_bad(fixed)
    if fixed == text or wrong or _mixed(fixed) > _mixed(text):
        return text, ""
    name = next((step.parameter for step in plan or () if step.action == "encode"), "latin-1")
    return fixed, {"latin-1": "Windows-1252"}.get(name, name.replace("sloppy-windows", "Windows"))


def looks_wrong(text: str) -> bool:
    """Whether text looks like the result of a wrong decoding."""
    return "\ufffd" in text or (not text.isascii() and bool(ftfy.badness.is_bad(text)))


def _mixed(text: str) -> int:
    """Words in letters of more than one of the alphabets Latin, Greek and Cyrillic."""
    words = re.findall(r"[^\W\d_]+", text)
    names = [{unicodedata.name(letter, "").split(" ")[0] for letter in word} for word in words]
    return sum(len(of_word & _ALPHABETS) > 1 for of_word in names)


def _without_markup(text: str) -> str:
    for _ in range(2):  # "&amp;#39;" was escaped twice
        text = _ENTITY.sub(lambda entity: html.unescape(entity.group()), text)
    return _MARKUP.sub(" ", text)


def _visible(text: str) -> str:
    """Without control and unassigned characters, direction marks, joiners that join nothing."""
    kept = []
    for n, letter in enumerate(text):
        category = unicodedata.category(letter)
        # spelling in Persian and in India, rubbish between Latin letters
        if letter in "\u200c\u200d":
            around = text[n - 1 : n] + text[n + 1 : n + 2]
            if len(around) == 2 and all("\u0590" <= beside < "\u1c80" for beside in around):
                kept.append(letter)
        elif letter in "\t\n":
            kept.append(" ")
        elif category not in ("Cc", "Cf", "Cs", "Co", "Cn") and not "\ufe00" <= letter <= "\ufe0f":
            kept.append(letter)
    return "".join(kept)


def _plain_forms(text: str) -> str:
    text = _FORMS.sub(lambda run: unicodedata.normalize("NFKC", run.group()), text)
    if not _EAST.search(text):  # between Chinese letters a wide comma is at home
        text = _WIDE_MARKS.sub(lambda mark: unicodedata.normalize("NFKC", mark.group()), text)
    return text


_STEPS = (
    ("HTML", _without_markup),
    ("encoding", decoded),
    ("hidden characters", _visible),
    ("spaces", lambda text: _SPACES.sub(" ", text)),
    ("wide forms", _plain_forms),
    ("composed letters", lambda text: unicodedata.normalize("NFC", text)),
    ("apostrophes", lambda text: _ODD.sub("'", text)),
)
