"""Lyrics to what can be sung: text -> sections of lines -> words -> syllables -> pieces.

A syllable is what one note holds: consonants, one vowel, consonants. It is cut by maximal onset:
between two vowels as many consonants as can begin an English syllable go to the later one. A
*piece* is a syllable's letters separated by spaces ("s t r I m"), one ASCII letter a phone
(`g2p.LETTER_OF`), so that every tokenizer reads it alike. Lyrics that spell a codec token
(`<custom_token_5>`) are the words custom, token, five.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from distill.errors import LyricsError
from distill.lyrics.g2p import LETTER_OF, PHONE_OF, VOWELS
from distill.lyrics.pinyin import HAN
from distill.lyrics.pronounce import sound, sounds

LONGEST_LYRICS = 20_000  # characters; far beyond any song, and short enough to be cut in a blink
LONGEST_WORD = 64  # characters

_NOTE = r"[A-G](?:#|b|♯|♭)?"
_KIND = (
    r"(?:maj|min|mi|m|M|dim|aug|sus|add|dom|°|ø|\+|-)?(?:\d{1,2})?"
    r"(?:(?:maj|sus|add|b|#|no|/)\d{1,2})*(?:\([^()\s]{1,6}\))?"
)
CHORD_NAME = rf"{_NOTE}{_KIND}(?:/{_NOTE})?"
CHORD = re.compile(rf"\[{CHORD_NAME}\]")  # "[Am]", "[F#m7/C#]"
TAG = re.compile(
    r"\s*\[\s*(?![x×]\s?\d+\s*\])([^\W\d_][\w' -]{0,30}?(?:\b[x×]\s?\d+)?)[\s\d]*(?::[^\]]*)?\]"
)

ONSETS = frozenset(  # of more than one consonant
    "pr pl py pw br bl by bw tr tw ty dr dw dy kr kl kw ky gr gl gw gy fr fl fy vr vl vy Tr Tw Ty "
    "Sr Sl Sm Sn Sw sp st sk sm sn sl sw sf sv hy hw my ny ly spr spl spy str sty skr skl skw "
    "sky".split()
)
OPENED = frozenset(["'bout", "'cause", "'em", "'n", "'round", "'til", "'tis", "'twas"])


class Syllable(NamedTuple):
    """One vowel and the consonants around it, one letter a phone."""

    onset: str
    nucleus: str
    coda: str


class Verse(NamedTuple):
    """A section of lyrics: its tag ("verse", "chorus", ...) and its lines as written, if any."""

    tag: str
    lines: tuple[str, ...]


def phones(word: str, language: str = "en") -> tuple[str, ...]:
    """ARPABET phones, unstressed: "stream" -> ("S", "T", "R", "IY", "M").

    () only where nothing can be sung (no letter, no digit); otherwise one at least is a vowel.
    """
    return tuple(PHONE_OF[letter] for letter in sound(word, language))


def syllables(word: str, language: str = "en") -> list[Syllable]:
    """The syllables of a word; [] for one without letters or digits."""
    return read([word], language)[0]


def read(line_words: Sequence[str], language: str = "en") -> list[list[Syllable]]:
    """The syllables of each of a line's words: a Chinese character is read among its neighbours."""
    every = sounds(line_words, language)
    return [[syllable for part in parts for syllable in cut(part)] for parts in every]


def cut(sounds: str) -> list[Syllable]:
    """The syllables of a word's sound letters, by maximal onset; none of consonants alone."""
    nuclei = [index for index, letter in enumerate(sounds) if letter in VOWELS]
    if not nuclei:
        return []
    starts = [0]
    for before, nucleus in itertools.pairwise(nuclei):
        start = nucleus
        while start > before + 1 and can_begin(sounds[start - 1 : nucleus]):
            start -= 1
        starts.append(start)
    ends = [*starts[1:], len(sounds)]
    return [
        Syllable(sounds[start:nucleus], sounds[nucleus], sounds[nucleus + 1 : end])
        for start, nucleus, end in zip(starts, nuclei, ends, strict=True)
    ]


def can_begin(consonants: str) -> bool:
    """Whether English begins syllables so. Each consonant alone does, but NG."""
    return consonants != LETTER_OF["NG"] if len(consonants) == 1 else consonants in ONSETS


def sing_text(syllable: Syllable) -> str:
    """The syllable as a piece: ("str", "I", "m") -> "s t r I m"."""
    return " ".join(syllable.onset + syllable.nucleus + syllable.coda)


def sing_texts(line: str, language: str = "en") -> list[str]:
    """The pieces of a whole line, one a syllable: "your boat" -> ["y O r", "b o t"]."""
    return [sing_text(syllable) for word in read(words(line), language) for syllable in word]


def words(line: str) -> list[str]:
    """The words of a line: lower case, accents and inner apostrophes kept, other marks dropped.

    "Row, row - don't STOP!" -> ["row", "row", "don't", "stop"]; outer apostrophes stay in known
    words ('til, singin'). Chinese characters are words: "爱你baby" -> ["爱", "你", "baby"]. Chords
    are marks: "[Am]Hello" -> ["hello"].
    """
    text = unicodedata.normalize("NFC", CHORD.sub("", line)).lower()
    text = re.sub("[\u2018\u2019\u02bc\u00b4\u0060\u2032]", "'", text)
    runs = re.findall(rf"[{HAN}]|'?(?:[^\W_{HAN}]|[\u0300-\u036f'])+", text)
    return [word for run in runs if (word := _bare(run))]


def _bare(word: str) -> str:
    """The word without the apostrophes around it that are marks; "" where nothing else is there."""
    opening = "'" if word in OPENED else ""
    closing = "'" if word.endswith("in'") and len(word) > 4 else ""
    inner = word.strip("'")
    return opening + inner + closing if any(letter.isalnum() for letter in inner) else ""


def parse(lyrics: str, where: str = "lyrics") -> list[Verse]:
    """Cuts lyrics into sections and lines, without lines of marks alone (emoji, rules, chords).

    "[verse]", "[Chorus 2]" or "[pre-chorus: soft]" opens a section ("[Chorus x2]" one called
    chorus-x2), "[Am]" is a chord. A tag stays without lines too (instrumental, or sung again).
    Untagged lyrics are cut at blank lines into sections tagged "verse". LyricsError (naming
    `where`) on what is not text, empty, too long, or has nothing to sing.
    """
    if not isinstance(lyrics, str):
        raise LyricsError(f"{where}: lyrics are {type(lyrics).__name__}, not text; give a string")
    if not lyrics.strip():
        raise LyricsError(f"{where}: lyrics are empty; give at least one line to sing")
    if len(lyrics) > LONGEST_LYRICS:
        ways = f"cut them to songs of at most {LONGEST_LYRICS:,}"
        raise LyricsError(f"{where}: {len(lyrics):,} characters of lyrics; {ways}")
    sections: list[tuple[str, list[str]]] = [("", [])]  # "" until there is a tag
    for row in lyrics.splitlines():
        if (match := TAG.match(row)) and not CHORD.match(row.strip()):
            tag = re.sub(r"(?<=\b[x×])\s", "", match.group(1).lower()).strip()
            sections.append((re.sub(r"\s+", "-", tag), []))
            row = row[match.end() :]
        elif not row.strip() and not sections[-1][0]:
            sections.append(("", []))
        line = words(row)
        for word in line:
            if len(word) > LONGEST_WORD:
                long = f"{word[:20]!r}... is one word of {len(word)} letters"
                raise LyricsError(f"{where}: {long}; cut it with spaces")
        if line:
            sections[-1][1].append(row.strip())
    verses = [Verse(tag or "verse", tuple(lines)) for tag, lines in sections if tag or lines]
    if not any(verse.lines for verse in verses):
        ways = "give at least one word to sing"
        raise LyricsError(f"{where}: lyrics have no letter or digit; {ways}")
    return verses
