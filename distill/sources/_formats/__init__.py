"""How others write songs down: a file a format, each a function from content to timed sections.

Nothing here opens a recording. A reader is given the recording's length and raises LyricsError,
naming file and row, for what cannot be sung to it; whatever bytes it gets, it raises nothing else.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from distill.songs import Fact, Section

SLACK_SECONDS = 0.5  # times are set by hand, and an MP3's length is known to a frame or two

SECTION = re.compile(  # what sections are called, where something else could stand
    r"\s*((?:pre-?|post-?)?(?:verse|chorus|refrain|bridge|intro|outro|hook|coda))\b", re.IGNORECASE
)
LANGUAGES = {
    "english": "en", "german": "de", "french": "fr", "spanish": "es", "castilian": "es",
    "italian": "it", "portuguese": "pt", "dutch": "nl", "polish": "pl", "czech": "cs",
    "slovak": "sk", "hungarian": "hu", "swedish": "sv", "norwegian": "no", "danish": "da",
    "finnish": "fi", "icelandic": "is", "russian": "ru", "ukrainian": "uk", "bulgarian": "bg",
    "croatian": "hr", "serbian": "sr", "slovenian": "sl", "romanian": "ro", "greek": "el",
    "turkish": "tr", "hebrew": "he", "arabic": "ar", "japanese": "ja", "korean": "ko",
    "chinese": "zh", "mandarin": "zh", "latin": "la", "catalan": "ca", "basque": "eu",
    "welsh": "cy", "irish": "ga",
}  # fmt: skip


def language_of(text: str) -> str:
    """The code of the first known language in a text, or "": "English, German (Swiss)" -> "en"."""
    for name in re.split(r"[,;/]", text):
        name = name.partition("(")[0].strip().replace("_", "-")
        if code := LANGUAGES.get(name.lower()):
            return code
        if tag := re.fullmatch(r"([A-Za-z]{2,3})((?:-[A-Za-z0-9]{2,8})*)", name):
            return tag[1].lower() + tag[2]
    return ""


class Read(NamedTuple):
    """What a file of lyrics says: its sections, about the song, and how its times are known.

    `about` may hold title, artist, lyricist, author (who set the times), source, rights, language,
    genre, and the files that it names: audio, vocals, accompaniment."""

    sections: tuple[Section, ...]
    about: dict[str, str]
    facts: tuple[Fact, ...] = ()


def clock(seconds: float) -> str:
    """Seconds as LRC writes them: 62.5 -> "01:02.50"."""
    return f"{int(seconds // 60):02d}:{seconds % 60:05.2f}"
