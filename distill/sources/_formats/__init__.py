"""How others write songs down: one file a format, each a function from a file's content to sections of timed lines.

Nothing here opens a recording. A reader is told how long the recording is and raises LyricsError, naming file and row,
for what cannot be sung to it; whatever bytes it is given, it raises nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

from distill.songs import Fact, Section

SLACK_SECONDS = 0.5  # times are set by hand, and an MP3's length is known to a frame or two


class Read(NamedTuple):
    """What a file of lyrics says: its sections, what it says about the song, and what is known of its times.

    `about` may hold title, artist, author (who set the times), source, rights, language, genre, and the files that it
    names: audio, vocals, accompaniment.
    """

    sections: tuple[Section, ...]
    about: dict[str, str]
    facts: tuple[Fact, ...] = ()


def clock(seconds: float) -> str:
    """Seconds as LRC writes them: 62.5 -> "01:02.50"."""
    return f"{int(seconds // 60):02d}:{seconds % 60:05.2f}"
