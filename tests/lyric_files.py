"""Small files of lyrics and scores to read, and to damage."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill.errors import DistillError, LyricsError


def record(path: Path, seconds: float = 8.0, rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)
    soundfile.write(path, wave.astype(np.float32), rate)
    return path


def refused(read: Callable[[], object], says: str, error: type[DistillError] = LyricsError) -> str:
    with pytest.raises(error, match=says) as caught:
        read()
    assert "\n" not in str(caught.value) and ": " in str(caught.value) and "; " in str(caught.value)
    return str(caught.value)


BOAT = """\
#VERSION:1.0.0
#TITLE:Boat
#ARTIST:Nobody
#MP3:boat.wav
#BPM:150
#GAP:1000
#LANGUAGE:English
#GENRE:Folk
#CREATOR:Somebody
: 0 4 0 Row,
: 5 4 0  row
: 10 3 4  your
* 13 4 5  boat
- 18
: 20 2 7 gen
: 22 2 4 tly
F 24 4 0  down
R 28 3 2  the
: 31 3 0  stream
: 34 4 2 ~
E
: 99 9 9 not read
"""


def note(
    step: str, octave: int, long: int, lyric: str = "", syllabic: str = "single", more: str = ""
) -> str:
    text = f"<lyric><syllabic>{syllabic}</syllabic><text>{lyric}</text></lyric>" if lyric else ""
    pitch = f"<pitch><step>{step}</step><octave>{octave}</octave></pitch>" if step else "<rest/>"
    return f"<note>{pitch}<duration>{long}</duration>{more}<voice>1</voice>{text}</note>"


def score(*measures: str, divisions: int = 2, head: str = "") -> bytes:
    body = "".join(
        f'<measure number="{n}">{measure}</measure>' for n, measure in enumerate(measures, 1)
    )
    body = body.replace(">", f"><attributes><divisions>{divisions}</divisions></attributes>", 1)
    return (
        '<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE score-partwise PUBLIC '
        '"-//Recordare//DTD MusicXML 4.0 Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">'
        f'<score-partwise version="4.0">{head}<part-list><score-part id="P1"/></part-list>'
        f'<part id="P1">{body}</part></score-partwise>'
    ).encode()


def verses(step: str, *texts: str) -> str:
    sung = "".join(f'<lyric number="{n}"><text>{t}</text></lyric>' for n, t in enumerate(texts, 1))
    return note(step, 4, 4).replace("</note>", sung + "</note>")


def ending(number: str, kind: str) -> str:
    return f'<barline><ending number="{number}" type="{kind}"/></barline>'


START, END = (
    '<barline><repeat direction="forward"/></barline>',
    '<barline><repeat direction="backward"/></barline>',
)


def mxl(content: bytes, named: str = "a.musicxml") -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as folder:
        rootfile = f'<container><rootfiles><rootfile full-path="{named}"/></rootfiles></container>'
        folder.writestr("META-INF/container.xml", rootfile)
        folder.writestr("a.musicxml", content)
    return memory.getvalue()
