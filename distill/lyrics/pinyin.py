"""Chinese characters as they are read in Mandarin, and readings spelled in the letters of `g2p.py`.

    一样长大  ->  yi yang zhang da  ->  I, yAN, JAN, dA

One character is one syllable, and in songs one word. Its neighbours may change how it is read
(长 is chang, in 长大 zhang), so a line is read at once: by pypinyin (MIT), phrases first, then its
first reading of each character. Tones are left out: the melody takes their place. Readings are
spelled in the 39 English sounds, near enough to tell syllables apart: x and sh, q and ch, j and zh
fall together.
"""

from __future__ import annotations

import re

# for between brackets
HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
AGAIN = "\u3005"  # 々: the character before it once more
# alone, where pypinyin's first reading is rarer in songs, or no syllable
_ALONE = dict(zip("长長佛弹彈咯嗯欸", "chang chang fo tan tan lo en ei".split(), strict=True))
_INITIALS = {"j": "J", "q": "C", "x": "S", "zh": "J", "ch": "C", "sh": "S", "z": "dz", "c": "ts"}
_FINALS = {  # with its glide
    "a": "A", "o": "O", "e": "u", "i": "I", "u": "V", "v": "yV", "ê": "e",
    "ai": "Y", "ei": "E", "ao": "W", "ou": "o",
    "an": "An", "en": "un", "ang": "AN", "eng": "uN", "ong": "UN", "er": "R",
    "ia": "yA", "ie": "ye", "iao": "yW", "iu": "yo", "io": "yO",
    "ian": "yen", "in": "In", "iang": "yAN", "ing": "IN", "iong": "yUN",
    "ua": "wA", "uo": "wO", "uai": "wY", "ui": "wE",
    "uan": "wAn", "un": "wun", "uang": "wAN", "ueng": "wuN", "ve": "ye", "van": "yen", "vn": "yVn",
}  # fmt: skip
_HUMS = {"m": "um", "hm": "hum", "n": "un", "ng": "uN", "hng": "huN"}


def readings(text: str) -> list[str]:
    """The pinyin of each character, without tones and with v for ü; "" for what has no reading."""
    from pypinyin import Style, lazy_pinyin  # 56 MB, which only Chinese songs need
    from pypinyin.seg.mmseg import seg

    while AGAIN in text.lstrip(AGAIN):
        text = re.sub(f"([^{AGAIN}]){AGAIN}", r"\1\1", text)
    result: list[str] = []
    for phrase in seg.cut(text):
        if phrase in _ALONE:
            result.append(_ALONE[phrase])
        else:
            result += lazy_pinyin(phrase, Style.NORMAL, errors=_unread)  # type: ignore[arg-type]
    return result


def _unread(characters: str) -> list[str]:
    return [""] * len(characters)


def spell(pinyin: str) -> str:
    """A reading in the letters of `g2p.py`: "hua" -> "hwA"; "" for no syllable of Mandarin."""
    if pinyin in _HUMS:
        return _HUMS[pinyin]
    initial, final = split(pinyin)
    sound = _INITIALS.get(initial, initial)
    if final == "i" and initial in ("zh", "ch", "sh", "r", "z", "c", "s"):
        return sound + ("R" if initial[-1] in "hr" else "u")
    return sound + _FINALS[final] if final in _FINALS else ""


def split(pinyin: str) -> tuple[str, str]:
    """(initial, final) of a syllable, y and w undone: "yuan" -> "", "van"; "liu" -> "l", "iu"."""
    match = re.fullmatch("(zh|ch|sh|[bpmfdtnlgkhjqxrzcs]?)(.*)", pinyin)
    assert match is not None
    initial, final = match.groups()
    if final.startswith("yu"):
        return "", "v" + final[2:]
    if final.startswith("y"):
        return "", final[1:] if final[1:2] == "i" else "iu" if final == "you" else "i" + final[1:]
    if final.startswith("w"):
        rest = {"wu": "u", "wei": "ui", "wen": "un"}.get(final)
        return "", rest or "u" + final[1:]
    if initial in ("j", "q", "x") and final.startswith("u"):
        final = "v" + final[1:]
    return initial, final
