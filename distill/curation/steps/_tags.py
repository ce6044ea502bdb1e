"""What people call the sections of a song, in many languages, and what we call them.

    [Verse 2]   (Chorus x2)   Refrain:   副歌   サビ   Estribillo   [Hook: Somebody]   Repeat chorus

`read` takes one row of text and says whether it is such a tag: the section's name, how often it is
to be sung, and what stands behind it on the row.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

MOST_REPEATS = 8  # more is a typing error or "repeat to fade"

_WORDS = {
    "verse": "verse verso vers verses strophe strofe strofa strophes estrofa estrofe stanza "
    "couplet couplets copla zwrotka sloka vers verš verze kupleta куплет купле строфа säkeistö "
    "kıta bait 主歌 主歌a 主歌b aメロ 절 벌스",
    "pre-chorus": "pre-chorus prechorus pre pre-hook pre-refrain prerefrain pré-refrain "
    "pré-refrão pre-coro precoro pre-estribillo preestribillo pre-ritornello предприпев 预副歌 "
    "預副歌 导歌 導歌 bメロ 프리코러스 lift build-up",
    "chorus": "chorus choruses refrain refrein ref reff refrän refräng refreng refren refrén "
    "refrão refrao coro estribillo ritornello kehrreim kehrvers omkvæd omkvaed kertosäe nakarat "
    "припев припiв приспів 副歌 サビ 大サビ 落ちサビ ラスサビ ラストサビ 후렴 코러스 후렴구 "
    "điệp-khúc",
    "post-chorus": "post-chorus postchorus post-refrain after-chorus post-estribillo",
    "bridge": "bridge middle-8 middle-eight middle8 puente pont ponte brücke bruecke brug brygga "
    "stick mostek köprü бридж мост 桥段 橋段 过桥 過橋 cメロ dメロ 브릿지 브리지",
    "intro": "intro introduction introducción introduccion introdução introduzione opening "
    "einleitung вступление интро 前奏 イントロ 인트로 전주 prelude",
    "outro": "outro ending end coda final finale finał cierre schluss fin fade-out fadeout "
    "концовка кода аутро 尾奏 尾声 尾聲 後奏 アウトロ エンディング 아웃트로 후주 tag",
    "hook": "hook hookline 훅",
    "rap": "rap rap-verse рэп 说唱 說唱 ラップ 랩",
    "spoken": "spoken spoken-word spoken-intro hablado parlé gesprochen 念白 旁白 独白 獨白 "
    "セリフ 台詞",
    "ad-lib": "ad-lib adlib ad-libs adlibs vocalise vocalization",
    "instrumental": "instrumental instrumental-break instrumental-interlude instrumentale "
    "instrumental-solo inst interlude interludio intermezzo interlúdio zwischenspiel solo "
    "guitar-solo piano-solo sax-solo drum-solo solo-de-guitarra solo-guitare gitarrensolo break "
    "breakdown drop music music-break musical-interlude musique música musik проигрыш соло "
    "инструментал 间奏 間奏 纯音乐 純音樂 器乐 간주 변주",
}
NAMES = {word: name for name, words in _WORDS.items() for word in words.split()}
# words that backing voices sing in round brackets: there they open no section
_BACKING = set("end final finale fin pre tag stick drop lift break".split())
# words that are sung as well: they open a section only in brackets or before a colon
_SUNG_TOO = _BACKING | set(
    "music música musique musik solo соло rap hook мост brug copla bait pont ponte prelude coda "
    "inst breakdown vocalise".split()
)
LONGEST_TAG = 30  # characters of a row that may be a tag without brackets

_X = r"[x×✕*]\s?(\d{1,2})|(\d{1,2})\s?[x×✕]"
_TIMES = rf"{_X}|(\d{{1,2}})\s?(?:times|veces|fois|mal|volte|vezes)|\bbis|\btwice|2回|两遍|兩遍"
_MARK = rf"[\[(（]\s*(?:{_TIMES})\s*[)\]）]"
REPEAT_AT_END = re.compile(rf"\s*(?:{_MARK}|(?<=\s)(?:{_X}))\s*[.!]?\s*$", re.IGNORECASE)
REPEAT_ALONE = re.compile(rf"\s*(?:{_MARK}|{_TIMES})\s*[.!]?\s*", re.IGNORECASE)
_INSIDE = re.compile(rf"[,;:\s(]*(?:{_TIMES})\s*[)]?\s*$", re.IGNORECASE)
_BRACKETED = re.compile(
    r"(?:\[([^\[\]]{1,60})\]|\(([^()]{1,60})\)|（([^（）]{1,60})）|【([^【】]{1,60})】|"
    r"[{<]([^<>{}]{1,60})[>}])\s*:?\s*"
)
_BEFORE_COLON = re.compile(rf"([^:：]{{1,{LONGEST_TAG}}}?)\s*[:：]\s*")
_REPEAT = re.compile(r"(?:repeat|repetir|repite|répéter|wdh)-(.+)|(.+)-(?:repeats?|again)")
_ARTICLE = re.compile(r"(?:the|el|la|le|der|die|final|last|first|second|third|double|half)-(?=.)")
_NUMBER = re.compile(
    r"-?(?:\d{1,2}|[一二三四五六七八九十])$|-(?:[ivx]{1,4}|[a-d]|one|two|three|four|five|six)$"
)


class Tag(NamedTuple):
    """A section's name ("chorus"), how often it is sung, the row's rest, if it says "repeat"."""

    name: str
    times: int = 1
    rest: str = ""
    again: bool = False


def read(row: str) -> Tag | None:
    """The tag that a row is, or begins with; None for a row that is sung or not understood."""
    row = row.strip()
    row = row.strip("*_=~#—–- ") if row[:1] in set("*_=~#—–-") else row
    if match := _BRACKETED.match(row):
        inside, rest = next(group for group in match.groups() if group), row[match.end() :]
        sung = (_SUNG_TOO if rest else _BACKING) if row[0] in "(（" else set[str]()
        return _tag(inside, rest, sung)
    if match := _BEFORE_COLON.match(row):
        return _tag(match.group(1), row[match.end() :], set())
    return _tag(row, "", _SUNG_TOO) if len(row) <= LONGEST_TAG else None


def _tag(inside: str, rest: str, unless: set[str]) -> Tag | None:
    """The tag between brackets or before a colon; None for a word of `unless` or no section's."""
    times, again = 1, False
    if mark := _INSIDE.search(inside):
        times, inside = count(mark), inside[: mark.start()]
    if mark := REPEAT_ALONE.fullmatch(rest):
        times, rest = count(mark), ""
    # "Verse 1: Somebody"
    plain = simple(re.split(r"\s*[:：|,;/–—]\s*|\s+-\s+", inside.strip(), maxsplit=1)[0])
    if repeat := _REPEAT.fullmatch(plain):
        plain, again = repeat.group(1) or repeat.group(2), True
    if article := _ARTICLE.match(plain):
        plain = plain[article.end() :]
    name = name_of(plain)
    return None if name is None or plain in unless else Tag(name, times, rest.strip(), again)


def name_of(tag: str) -> str | None:
    """Our name of a section ("Strophe 2" -> "verse"), or None for what is none that we know."""
    plain = simple(tag)
    if plain in NAMES:
        return NAMES[plain]
    if re.fullmatch(r"第?[一二三四五六七八九十\d]+[段节節番]", plain):
        return "verse"
    numbered = re.sub(r"^(?:\d{1,2}(?:st|nd|rd|th)?)-?(?=\D)", "", plain)
    return NAMES.get(_NUMBER.sub("", numbered))


def simple(text: str) -> str:
    """Lower case, hyphens for spaces, nothing around: "Pre Chorus " -> "pre-chorus"."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    return re.sub(r"[\s_.#-]+", "-", text).strip("-'\"")


def count(mark: re.Match[str]) -> int:
    """How often, as a repeat mark says: "x3" -> 3, "bis" -> 2; at most MOST_REPEATS."""
    times = next((int(group) for group in mark.groups() if group), 2)
    return min(max(times, 1), MOST_REPEATS)
