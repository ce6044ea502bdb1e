"""What a MusicXML score says, part by part and measure by measure: notes, syllables, tempos,
sections.

Nothing is played yet: a note stands so many quarters behind its barline, and a repeated measure
stands here once.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.etree.ElementTree import Element

from distill import lyrics
from distill.errors import LyricsError
from distill.sources._formats import SECTION, language_of

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
QUARTERS = {"whole": 4.0, "half": 2.0, "quarter": 1.0, "eighth": 0.5, "16th": 0.25}
MOST_PARTS = 200
STANZA = re.compile(r"^\s*\d{1,2}\.\s*(?=[^\W\d])")  # "1.Row": the number of the verse, not sung
NUMBER = re.compile(r"\s*[+-]?\d{1,9}(?:\.\d{1,9})?\s*")


class Syllable(NamedTuple):
    """What one <lyric> says: its verse, the times for which it is written (() for that of its
    verse), its letters, whether they begin a word, and whether a line ends behind it."""

    verse: str
    times: tuple[int, ...]
    text: str
    begins: bool
    ends_line: bool


class Written(NamedTuple):
    """A note as it stands in its measure: quarters from the barline and long, MIDI pitch, voice,
    and its syllables."""

    at: float
    long: float
    midi: float | None
    voice: str
    tied: bool
    syllables: tuple[Syllable, ...]


class Measure(NamedTuple):
    """A measure of a part: its length in quarters, its notes, (quarter, tempo) marks and its
    section mark."""

    long: float
    notes: tuple[Written, ...]
    tempos: tuple[tuple[float, float], ...]
    section: str


def parts_of(root: Element, where: str) -> list[list[Element]]:
    """The measures of each part; a timewise score is turned. Raises LyricsError for what is not
    MusicXML."""
    if root.tag == "score-partwise":
        parts = [part.findall("measure") for part in root.findall("part")]
    elif root.tag == "score-timewise":
        found: dict[str, list[Element]] = {}
        for measure in root.findall("measure"):
            for part in measure.findall("part"):
                found.setdefault(part.get("id", ""), []).append(part)
        parts = list(found.values())
    else:
        raise LyricsError(
            f"{where}: <{root.tag[:30]}> is not MusicXML; export the score as MusicXML"
        )
    if not any(parts):
        raise LyricsError(f"{where}: a score without measures; export it again")
    if len(parts) > MOST_PARTS:
        raise LyricsError(f"{where}: {len(parts):,} parts are no song's; export the one that sings")
    return [part for part in parts if part]


def about(root: Element) -> dict[str, str]:
    """Title, artist (composer and lyricist), author (arranger), rights, source and language, where
    the score names them."""

    def text(path: str) -> str:
        return " ".join((root.findtext(path) or "").split())[:200]

    made = {
        one.get("type", ""): " ".join((one.text or "").split())[:200]
        for one in root.iter("creator")
    }
    by = " and ".join(
        dict.fromkeys(name for kind in ("composer", "lyricist", "poet") if (name := made.get(kind)))
    )
    told = {
        "title": text("work/work-title") or text("movement-title"),
        "artist": by or made.get("", ""),
        "author": made.get("arranger", ""),
        "rights": text("identification/rights"),
        "source": text("identification/source"),
    }
    for one in root.iter("lyric-language"):
        told["language"] = language_of(
            next((v for key, v in one.attrib.items() if key.endswith("lang")), "")
        )
        break
    return {name: said for name, said in told.items() if said}


def measures_of(part: list[Element], where: str) -> list[Measure]:
    """Everything in a part that sounds or sets a tempo, measure by measure."""
    divisions, transpose, found = 1.0, 0.0, []
    for measure in part:
        at, longest, last = 0.0, 0.0, 0.0
        notes: list[Written] = []
        tempos: list[tuple[float, float]] = []
        section = ""
        for one in measure:
            if one.tag == "attributes":
                divisions = _number(one.findtext("divisions"), divisions, where)
                if divisions <= 0:
                    raise LyricsError(
                        f"{where}: <divisions> is {divisions:g}; export the score again"
                    )
                transpose = _transpose(one.find("transpose"), transpose, where)
            elif one.tag in ("direction", "sound"):
                tempos += [(at, tempo) for tempo in _tempos(one, where)]
                section = _section(one) or section
            elif one.tag in ("backup", "forward"):
                step = _number(one.findtext("duration"), 0.0, where) / divisions
                at = max(0.0, at - step) if one.tag == "backup" else at + step
            elif one.tag == "note" and one.find("grace") is None and one.find("cue") is None:
                long = _number(one.findtext("duration"), 0.0, where) / divisions
                if long < 0:
                    raise LyricsError(f"{where}: a note of negative length; export the score again")
                if one.find("chord") is None:
                    last, at = at, at + long
                if one.find("rest") is None:
                    notes.append(_written(one, last, long, transpose, where))
            longest = max(longest, at)
        found.append(Measure(longest, tuple(notes), tuple(tempos), section))
    return found


def _number(text: str | None, default: float, where: str) -> float:
    if text is None:
        return default
    if not NUMBER.fullmatch(text):
        raise LyricsError(
            f"{where}: {text.strip()[:20]!r} where a number belongs; export the score again"
        )
    return float(text)


def _transpose(mark: Element | None, default: float, where: str) -> float:
    if mark is None:
        return default
    octaves = _number(mark.findtext("octave-change"), 0.0, where)
    return _number(mark.findtext("chromatic"), 0.0, where) + 12 * octaves


def _tempos(one: Element, where: str) -> list[float]:
    """Quarters a minute: what is played, or else what is printed."""
    sounds = [one] if one.tag == "sound" else list(one.iter("sound"))
    found = [
        _number(sound.get("tempo"), 0.0, where)
        for sound in sounds
        if sound.get("tempo") is not None
    ]
    for mark in one.iter("metronome") if not found else ():
        unit, beats = mark.findtext("beat-unit") or "", mark.findtext("per-minute") or ""
        if unit in QUARTERS and NUMBER.fullmatch(beats):
            dots = len(mark.findall("beat-unit-dot"))
            found.append(float(beats) * QUARTERS[unit] * (2 - 0.5 ** min(dots, 3)))
    if any(not 1 <= tempo <= 10_000 for tempo in found):
        raise LyricsError(f"{where}: a tempo of {min(found):g} quarters a minute; correct it")
    return found


def _section(direction: Element) -> str:
    for mark in direction.iter("rehearsal"):
        if named := SECTION.match(mark.text or ""):
            return named.group(1).lower()
    return ""


def _written(note: Element, at: float, long: float, transpose: float, where: str) -> Written:
    pitch, midi = note.find("pitch"), None
    if pitch is not None:
        step = (pitch.findtext("step") or "").strip()
        if step not in STEPS:
            raise LyricsError(
                f"{where}: {step[:10]!r} is no step of a pitch; export the score again"
            )
        octave, alter = (
            _number(pitch.findtext("octave"), 4, where),
            _number(pitch.findtext("alter"), 0.0, where),
        )
        midi = 12 * (octave + 1) + STEPS[step] + alter + transpose
        if not 0 <= midi <= 127:
            raise LyricsError(f"{where}: a pitch of MIDI {midi:g}, which nobody sings; correct it")
    tied = any(tie.get("type") == "stop" for tie in note.findall("tie"))
    said = tuple(one for lyric in note.findall("lyric") if (one := _syllable(lyric)).text)
    return Written(at, long, midi, (note.findtext("voice") or "1").strip()[:20], tied, said)


def _syllable(lyric: Element) -> Syllable:
    """The letters under one note; where the score binds two syllables by an elision, both."""
    text, begins, syllabic, bound = "", True, "", False
    for one in lyric:
        if one.tag == "syllabic":
            syllabic = (one.text or "").strip()
        elif one.tag == "elision":
            bound = True
        elif one.tag == "text":
            letters = " ".join(
                STANZA.sub("", one.text or "").replace("\u00a0", " ").strip("_ ").split()
            )
            begins = syllabic not in ("middle", "end") if not text else begins
            text += (" " if bound and text and syllabic not in ("middle", "end") else "") + letters
            syllabic, bound = "", False
    if not lyrics.words(text):
        text = ""
    times = tuple(int(one) for one in re.findall(r"\d{1,3}", lyric.get("time-only", "")))
    ends = lyric.find("end-line") is not None or lyric.find("end-paragraph") is not None
    return Syllable(lyric.get("number") or lyric.get("name") or "1", times, text, begins, ends)
