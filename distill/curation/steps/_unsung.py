"""Rows of lyrics that nobody sings: credits, addresses, chords, tablature, adverts.

A row is taken out only where it can hardly be sung; where it might be, it stays.
"""

from __future__ import annotations

import re

from distill.lyrics import CHORD, CHORD_NAME
from distill.lyrics.g2p import lexicon

_LABELS = frozenset(
    (
        "作词 作詞 填词 填詞 词 詞 作曲 曲 编曲 編曲 词曲 詞曲 制作人 製作人 制作 製作 监制 監製 "
        "演唱 原唱 翻唱 歌手 歌 唱 和声 和聲 混音 录音 錄音 母带 母帶 吉他 贝斯 貝斯 鼓 键盘 鍵盤 "
        "钢琴 鋼琴 弦乐 弦樂 出品 出品人 发行 發行 企划 企劃 统筹 統籌 专辑 專輯 歌名 歌曲 配唱 "
        "后期 後期 op sp isrc 작사 작곡 편곡 노래 가수 lyrics lyric words music melody composer "
        "composers lyricist songwriter songwriters writer writers producer producers arranger "
        "arranged-by arrangement artist artists title album year genre label publisher key capo "
        "tempo bpm tuning time-signature transcribed-by vocals vocal singer singers performer "
        "recorded-by mixed-by mastered-by upc letra letras música musica autor autora autores "
        "compositor compositora intérprete interprete álbum título titulo productor paroles "
        "musique auteur compositeur interprète titre text musik melodie worte komponist texter "
        "dichter interpret titel testo testi autore compositore слова музыка текст автор "
        "исполнитель композитор аранжировка альбом words-and-music music-and-lyrics "
        "lyrics-and-music letra-y-música paroles-et-musique text-und-musik слова-и-музыка "
        "musik-och-text sanoitus sävel tekst muzyka söz müzik "
    ).split()
)
_BY = re.compile(
    r"^\W*(?:(?:words?|lyrics?|music|melody|song|lyrics and music|words and music|music and lyrics|"
    r"written|composed|produced|arranged|performed|recorded|transcribed|submitted|translated|"
    r"subtitles|subtitled|synced|lrc)"
    r"(?:\s*(?:&|and|/|,)\s*"
    r"(?:words?|lyrics?|music|written|composed|produced|arranged|performed))*)"
    r"\s+by\b\s*[:\-]?\s*(.*)$",
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"https?://|\bwww\.\w|"
    r"\b[\w-]+\.(?:com|net|org|info|co\.uk|de|fr|es|ru|cn|jp|lyrics)(?:/|\b\s*$)|"
    r"\b\w[\w.]*@\w+\.\w{2,}",
    re.IGNORECASE,
)
_RIGHTS = re.compile(
    r"^\W*(?:©|℗|copyright\W*(?:\(c\)|©|\d{4}|by\b)|\(c\)\s*\d{4}|all rights reserved|"
    r"lyrics (?:©|licensed|provided)|publish(?:ed|er)\W)",
    re.IGNORECASE,
)
_SITES = re.compile(
    r"^\W*(?:you might also like|see .{1,60} live(?:get tickets as low as.*)?|"
    r"\d* ?contributors?.*lyrics|\d*embed|this lyrics is not for commercial use.*|"
    r"paroles de la chanson .*|lyrics to .{1,60}|translations?|文本歌词|暂无歌词.*|"
    r"纯音乐.*请欣赏.*|此歌曲为没有填词的纯音乐.*|未经.*(?:许可|授权).*|.*不得翻唱.*)\W*$",
    re.IGNORECASE,
)
_DIRECTIONS = re.compile(
    r"[\[(（]\s*(?:repeat.{0,20}|fade.{0,10}|\?+|laugh(?:s|ter|ing)?|applause|cheer(?:s|ing)|"
    r"clapping|whistl(?:es|ing)|humming|spoken|speaking|talking|screams?|inaudible|unintelligible|"
    r"silence|pause|beat drops?|d\.?c\.?.{0,12}|da capo.{0,12})\s*[)\]）]|"
    r"capo\W+(?:on\W+)?\d.{0,12}|d\.[cs]\. al (?:fine|coda)",
    re.IGNORECASE,
)
_TABLATURE = re.compile(r"^\s*[eBGDAEbgda]?\s*\|[-\d\s|hpbx/\\~()]{4,}\|?\s*$")
_CHORD = re.compile(CHORD_NAME)
_BARS = re.compile(
    r"(?:\|+:?|:?\|+|-+|/+|%|\.+|N\.?C\.?|[x×]\s?\d{1,2}|\d{1,2}\s?[x×]|\(|\))", re.IGNORECASE
)
_PARTICLES = ("and", "de", "van", "von", "der", "y", "la")  # of names, in small letters
_ORNAMENT = re.compile(r"^[\s♪♫♬♩🎵🎶*_~=•·]+|[\s♪♫♬♩🎵🎶*_~=•·]+$")


def why(row: str, first_or_last: bool = False) -> str:
    """Why nobody sings this row: "credits", "addresses", "chords", "adverts", "directions"; "" for
    a row that may be sung. first_or_last: where credits without a colon stand."""
    plain = row.strip()
    if not plain:
        return ""
    if _ADDRESS.search(plain):
        return "addresses"
    if _RIGHTS.search(plain) or _label(plain):
        return "credits"
    if (by := _BY.match(plain)) and (first_or_last or ":" in plain) and _names(by.group(1)):
        return "credits"
    if _SITES.match(plain):
        return "adverts"
    if _DIRECTIONS.fullmatch(plain):
        return "directions"
    if _TABLATURE.match(plain) or chords(row):
        return "chords"
    return ""


def chords(row: str) -> bool:
    """Whether a row holds chords only: "Am  G/B  Cmaj7". Words too ("A", "A B C") prove nothing."""
    words = row.split()
    names = [name for word in words if _CHORD.fullmatch(name := word.strip("[]()"))]
    others = [word for word in words if not _CHORD.fullmatch(word.strip("[]()"))]
    if not names or not all(map(_BARS.fullmatch, others)):
        return False
    if all(len(name) == 1 for name in names):
        return bool(others) or bool(re.search(r"\S {2,}\S", row.strip()))
    return len(names) > 1 or names[0].lower() not in lexicon()


def without_chords(row: str) -> str:
    """A row without chords in square brackets: "[Am]Hello [G]darkness" -> "Hello darkness"."""
    if not CHORD.search(row):
        return row
    return " ".join(CHORD.sub(" " if re.search(r"\s\[|\]\s", row) else "", row).split())


def without_ornaments(row: str) -> str:
    """A row without notes, stars and lines drawn around it."""
    return _ORNAMENT.sub("", row)


def _label(row: str) -> bool:
    """ "作词：Somebody", "Lyrics by: Somebody", "Words & Music: A. Body"."""
    label = re.match(r"^[\W_]*([^:：]{1,40}?)\s*(?:by)?\s*[:：]", row, re.IGNORECASE)
    if not label:
        return False
    text = label.group(1).strip().lower()
    parts = re.split(r"\s*(?:[&/,+、\\]|\band\b|\bund\b|\bet\b|\by\b)\s*", text)
    joined = (("-".join(part.split()), "".join(part.split())) for part in parts)
    return all(hyphened in _LABELS or closed in _LABELS for hyphened, closed in joined)


def _names(text: str) -> bool:
    """Whether every word begins with a capital, as in names."""
    words = re.findall(r"[^\W\d_]+", text)
    return bool(words) and all(word[0].isupper() or word in _PARTICLES for word in words)
