"""A MusicXML score, part by part and measure by measure: notes, syllables, tempos, sections.

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
    """What one <lyric> says."""

    verse: str
    times: tuple[int, ...]  # for which it is written; (): for that of its verse
    text: str
    begins: bool  # a word
    ends_line: bool  # behind it


class Written(NamedTuple):
    """A note in its measure: where it begins, its length (quarters), MIDI pitch, syllables."""

    at: float
    long: float
    midi: float | None
    voice: str
    tied: bool
    syllables: tuple[Syllable, ...]


class Measure(NamedTuple):
    """A measure of a part: its quarters, notes, (quarter, tempo) marks and section mark."""

    long: float
    notes: tuple[Written, ...]
    tempos: tuple[tuple[float, float], ...]
    section: str


def parts_of(root: Element, where: str) -> list[list[Element]]:
    """The measures of each part; a timewise score is turned. LyricsError: this is no MusicXML."""
    if root.tag == "score-partwise":
        parts = [part.findall("measure") for part in root.findall("part")]
    elif root.tag == "score-timewise":
        by_id: dict[str, list[Element]] = {}
        for measure in root.findall("measure"):
            for part in measure.findall("part"):
                by_id.setdefault(part.get("id", ""), []).append(part)
        parts = list(by_id.values())
    else:
        raise LyricsError(f"{where}: <{root.tag[:30]}> is not MusicXML; export the score as such")
    if not any(parts):
        raise LyricsError(f"{where}: a score without measures; export it again")
    if len(parts) > MOST_PARTS:
        raise LyricsError(f"{where}: {len(parts):,} parts are no song's; export the one that sings")
    return [part for part in parts if part]


def about(root: Element) -> dict[str, str]:
    """What is named of title, artist (composer, lyricist), author (arranger), rights, source."""

    def short(text: str | None) -> str:
        return " ".join((text or "").split())[:200]

    creators = {creator.get("type", ""): short(creator.text) for creator in root.iter("creator")}
    artists = (creators.get(kind, "") for kind in ("composer", "lyricist", "poet"))
    named = {
        "title": short(root.findtext("work/work-title")) or short(root.findtext("movement-title")),
        "artist": " and ".join(dict.fromkeys(filter(None, artists))) or creators.get("", ""),
        "author": creators.get("arranger", ""),
        "rights": short(root.findtext("identification/rights")),
        "source": short(root.findtext("identification/source")),
    }
    language = next(root.iter("lyric-language"), None)
    if language is not None:
        tags = (value for name, value in language.attrib.items() if name.endswith("lang"))
        named["language"] = language_of(next(tags, ""))
    return {name: text for name, text in named.items() if text}


def measures_of(part: list[Element], where: str) -> list[Measure]:
    """Everything in a part that sounds or sets a tempo, measure by measure."""
    divisions, transpose, measures = 1.0, 0.0, []
    for measure in part:
        at, longest, last = 0.0, 0.0, 0.0  # quarters: now, the farthest, where the last note began
        notes: list[Written] = []
        tempos: list[tuple[float, float]] = []
        section = ""
        for element in measure:
            if element.tag == "attributes":
                divisions = _number(element.findtext("divisions"), divisions, where)
                if divisions <= 0:
                    raise LyricsError(f"{where}: <divisions> is {divisions:g}; export it again")
                transpose = _transpose(element.find("transpose"), transpose, where)
            elif element.tag in ("direction", "sound"):
                tempos += [(at, tempo) for tempo in _tempos(element, where)]
                section = _section(element) or section
            elif element.tag in ("backup", "forward"):
                step = _number(element.findtext("duration"), 0.0, where) / divisions
                at = max(0.0, at - step) if element.tag == "backup" else at + step
            elif element.tag == "note" and not _has(element, "grace") and not _has(element, "cue"):
                long = _number(element.findtext("duration"), 0.0, where) / divisions
                if long < 0:
                    raise LyricsError(f"{where}: a note of negative length; export the score again")
                if not _has(element, "chord"):
                    last, at = at, at + long
                if not _has(element, "rest"):
                    notes.append(_written(element, last, long, transpose, where))
            longest = max(longest, at)
        measures.append(Measure(longest, tuple(notes), tuple(tempos), section))
    return measures


def _has(element: Element, tag: str) -> bool:
    return element.find(tag) is not None


def _number(text: str | None, default: float, where: str) -> float:
    if text is None:
        return default
    if not NUMBER.fullmatch(text):
        reason = f"{text.strip()[:20]!r} where a number belongs; export the score again"
        raise LyricsError(f"{where}: {reason}")
    return float(text)


def _transpose(mark: Element | None, default: float, where: str) -> float:
    if mark is None:
        return default
    octaves = _number(mark.findtext("octave-change"), 0.0, where)
    return _number(mark.findtext("chromatic"), 0.0, where) + 12 * octaves


def _tempos(element: Element, where: str) -> list[float]:
    """Quarters a minute: what is played, or else what is printed."""
    sounds = [element] if element.tag == "sound" else element.iter("sound")
    played = (sound.get("tempo") for sound in sounds)
    tempos = [_number(tempo, 0.0, where) for tempo in played if tempo is not None]
    for mark in element.iter("metronome") if not tempos else ():
        unit, beats = mark.findtext("beat-unit") or "", mark.findtext("per-minute") or ""
        if unit in QUARTERS and NUMBER.fullmatch(beats):
            dots = len(mark.findall("beat-unit-dot"))
            tempos.append(float(beats) * QUARTERS[unit] * (2 - 0.5 ** min(dots, 3)))
    if any(not 1 <= tempo <= 10_000 for tempo in tempos):
        raise LyricsError(f"{where}: a tempo of {min(tempos):g} quarters a minute; correct it")
    return tempos


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
            raise LyricsError(f"{where}: {step[:10]!r} is no step of a pitch; export it again")
        octave = _number(pitch.findtext("octave"), 4, where)
        alter = _number(pitch.findtext("alter"), 0.0, where)
        midi = 12 * (octave + 1) + STEPS[step] + alter + transpose
        if not 0 <= midi <= 127:
            raise LyricsError(f"{where}: a pitch of MIDI {midi:g}, which nobody sings; correct it")
    tied = any(tie.get("type") == "stop" for tie in note.findall("tie"))
    voice = (note.findtext("voice") or "1").strip()[:20]
    syllables = map(_syllable, note.findall("lyric"))
    worded = tuple(syllable for syllable in syllables if syllable.text)
    return Written(at, long, midi, voice, tied, worded)


def _syllable(lyric: Element) -> Syllable:
    """The letters under one note; where the score binds two syllables by an elision, both."""
    text, begins, syllabic, bound = "", True, "", False
    for element in lyric:
        if element.tag == "syllabic":
            syllabic = (element.text or "").strip()
        elif element.tag == "elision":
            bound = True
        elif element.tag == "text":
            letters = STANZA.sub("", element.text or "").replace("\u00a0", " ").strip("_ ")
            new_word = syllabic not in ("middle", "end")
            begins = begins if text else new_word
            text += (" " if bound and text and new_word else "") + " ".join(letters.split())
            syllabic, bound = "", False
    if not lyrics.words(text):
        text = ""
    times = tuple(int(time) for time in re.findall(r"\d{1,3}", lyric.get("time-only", "")))
    ends = _has(lyric, "end-line") or _has(lyric, "end-paragraph")
    return Syllable(lyric.get("number") or lyric.get("name") or "1", times, text, begins, ends)
