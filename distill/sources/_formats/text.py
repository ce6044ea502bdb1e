"""Bytes to text: UTF-8, marked UTF-16, the one that the file names, or its language's old one."""

from __future__ import annotations

import re
from pathlib import Path

from distill.errors import LyricsError
from distill.lyrics import LONGEST_LYRICS

LARGEST_BYTES = 20 * LONGEST_LYRICS  # stamps, four-byte letters and all
# what such lyrics were saved in before UTF-8, by language; Western Europe's page is the rest
PAGES = {
    "zh": "gb18030", "ja": "cp932", "ko": "cp949", "th": "cp874", "vi": "cp1258", "ar": "cp1256",
    "he": "cp1255", "el": "cp1253", "tr": "cp1254", "ru": "cp1251", "uk": "cp1251", "bg": "cp1251",
    "sr": "cp1251", "pl": "cp1250", "cs": "cp1250", "sk": "cp1250", "hu": "cp1250", "sl": "cp1250",
    "hr": "cp1250", "ro": "cp1250", "et": "cp1257", "lv": "cp1257", "lt": "cp1257",
}  # fmt: skip
NAMED = {  # what UltraStar's #ENCODING may say
    "utf8": "utf-8", "utf-8": "utf-8", "cp1252": "cp1252", "cp1250": "cp1250", "cp1251": "cp1251",
    "windows-1252": "cp1252", "windows-1250": "cp1250", "windows-1251": "cp1251",
    "iso-8859-1": "cp1252",
}  # fmt: skip


def read_text(path: Path, language: str = "en") -> tuple[str, str]:
    """A file's text and encoding (a code page is a guess). LyricsError: no text, or too much."""
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise LyricsError(f"{path}: {size:,} bytes are no song's lyrics; cut them into songs")
        content = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); look at its path and rights"
        raise LyricsError(f"{path}: {reason}") from None
    for encoding in _encodings(content, language, str(path)):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, encoding
    raise LyricsError(f"{path}: this is not text; save the lyrics as UTF-8")


def _encodings(content: bytes, language: str, where: str) -> tuple[str, ...]:
    """Those to try, in order."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ("utf-16",)
    header = rb"^\s*#ENCODING\s*:[ \t]*([\w-]+)"
    named = re.search(header, content[:4096], re.IGNORECASE | re.MULTILINE)
    name = named.group(1).decode("ascii", "replace").lower() if named else "auto"
    if name == "auto" or content.startswith(b"\xef\xbb\xbf"):
        return ("utf-8-sig", PAGES.get(language.lower().partition("-")[0], "cp1252"))
    if name not in NAMED:
        advice = "save the file as UTF-8 without this line"
        raise LyricsError(f"{where}: #ENCODING:{name[:20]} is not known; {advice}")
    return (NAMED[name],)
