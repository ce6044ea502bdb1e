"""UltraStar: a text file of notes for karaoke games, https://usdx.eu/format (unversioned, and
versions 0 and 1).

    #TITLE:Boat          : 0 4 0 Row,      from beat 0 for 4 beats at middle C
    #BPM:100             * 4 4 0  row      a golden note; the space before "row" begins a word
    #GAP:1500            F 8 2 0 ~         freestyle: no pitch; ~ goes on with the syllable before
                         - 12              a line ends
                         E

A beat lasts 15 / BPM seconds (the format counts in quarters of what it calls a beat), beat 0 is GAP
milliseconds into the recording, and a pitch counts semitones from middle C, MIDI 60. R and G are
rap notes, spoken, so without pitch. With `#RELATIVE:yes` beats count from the last line's end,
which then names a second number. `P1`, `P2` say whose notes follow: a duet's lines are put in the
order of their times. Where both sing the same it stands once; where they sing different words at
once, the line that began first stays, and the Fact "duet" names the others.

What the format leaves open: whether a note begins with its syllable's first consonant or with its
vowel. Starts are taken as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from distill import lyrics
from distill.errors import LyricsError
from distill.songs import Fact, Section
from distill.sources._formats import Read, clock, language_of
from distill.sources._formats.sung import Sung, lines_of, without_overlaps

MIDDLE_C = 60
KNOWN = {"VERSION", "TITLE", "ARTIST", "BPM", "GAP", "MP3", "AUDIO", "ENCODING", "LANGUAGE"}
HEADER = re.compile(r"#\s*([^:#]{1,40}?)\s*:(.*)")
NOTE = re.compile(r"([!-\"$-~])\s+(-?\d{1,8})\s+(\d{1,8})\s+(-?\d{1,3})(?:\s(.*))?")
BREAK = re.compile(r"-\s*(?:(-?\d{1,8})(?:\s+(-?\d{1,8}))?)?")
VOICE = re.compile(r"P\s?([1-9])")
NUMBER = re.compile(r"-?\d{1,9}(?:[.,]\d{1,9})?")
TOLD = {  # what a header says about the song; the later of two counts
    "TITLE": "title", "ARTIST": "artist", "GENRE": "genre", "AUTHOR": "author", "CREATOR": "author",
    "SOURCE": "source", "PROVIDEDBY": "source", "MP3": "audio", "AUDIO": "audio", "VOCALS": "vocals",
    "INSTRUMENTAL": "accompaniment",
}  # fmt: skip


@dataclass
class Voice:
    """One singer's phrases so far, and, in relative mode, the beat that the present phrase counts
    from."""

    phrases: list[list[Sung]] = field(default_factory=lambda: [[]])
    offset: int = 0
    open: bool = False  # the last note ended with a space: the next one begins a word
    worded: bool = False  # the present phrase has letters


def is_ultrastar(text: str) -> bool:
    """Whether a text begins as UltraStar files do: with headers, in any order, of which the format
    knows one."""
    for row in text[:4096].lstrip("\ufeff").splitlines():
        header = HEADER.match(row.strip())
        if header is not None and header.group(1).upper() in KNOWN:
            return True
        if row.strip() and not row.lstrip().startswith("#"):
            return False
    return False


def headers(text: str) -> dict[str, str]:
    """The headers of a file by upper-case name; those without a value are left out."""
    found = (HEADER.fullmatch(row.strip("\ufeff \t")) for row in text.splitlines()[:1000])
    return {
        one.group(1).upper(): one.group(2).strip() for one in found if one and one.group(2).strip()
    }


def about(text: str) -> dict[str, str]:
    """What the headers say about the song, in our words."""
    said = headers(text)
    told = {name: said[key] for key, name in TOLD.items() if key in said}
    if code := language_of(said.get("LANGUAGE", "")):
        told["language"] = code
    return told


def read_ultrastar(text: str, seconds: float, where: str, language: str) -> Read:
    """Lines with their words and notes. `seconds` is the recording's length, `where` the file's
    name.

    Raises LyricsError, naming file and row, for headers, notes and times that are wrong or beyond
    the recording.
    """
    said, told = headers(text), about(text)
    language = told.get("language", language)
    if said.get("VERSION", "1").split(".")[0].strip() not in ("0", "1"):
        raise LyricsError(
            f"{where}: UltraStar version {said['VERSION'][:12]} is not read here; save it as "
            "version 1"
        )
    bpm, gap = _number(said, "BPM", where), _number(said, "GAP", where, 0.0) / 1000
    if not 1 <= bpm <= 100_000:
        raise LyricsError(
            f"{where}: #BPM:{said['BPM'][:12]} is no tempo; give beats a minute, 1 or more"
        )
    relative = said.get("RELATIVE", "no").lower() == "yes"
    if relative and "VERSION" in said:
        raise LyricsError(
            f"{where}: #RELATIVE:yes is of files without #VERSION; take one of the two away"
        )
    voices = _voices(text, where, 15 / bpm, gap, relative)
    phrases, duet = _together(voices, said, where)
    lines = lines_of(phrases, seconds, language, where)
    facts = (Fact("timed_by", "ultrastar"), *duet)
    return Read((Section("verse", lines),), told, facts)


def _number(said: dict[str, str], name: str, where: str, default: float | None = None) -> float:
    if name not in said and default is not None:
        return default
    if not NUMBER.fullmatch(said.get(name, "")):
        raise LyricsError(
            f"{where}: #{name} is {said.get(name, 'missing')[:20]}; write #{name}: and a number"
        )
    return float(said[name].replace(",", "."))


def _voices(
    text: str, where: str, beat_seconds: float, gap: float, relative: bool
) -> dict[int, Voice]:
    """The phrases of each singer, by number."""
    voices = {1: Voice()}
    now = voices[1]
    for number, row in enumerate(text.splitlines(), 1):
        row, at = row.lstrip("\ufeff \t"), f"{where}:{number}"
        if row.rstrip() == "E":
            break
        if not row.strip() or row.startswith("#"):
            continue
        if voice := VOICE.fullmatch(row.rstrip()):
            now = voices.setdefault(int(voice.group(1)), Voice())
            now.open = False
        elif broken := BREAK.fullmatch(row.rstrip()):
            # an old file without its second number means the first one
            if relative and broken.group(1):
                now.offset += int(broken.group(2) or broken.group(1))
            now.phrases.append([])
            now.worded = False
        elif note := NOTE.fullmatch(row):
            now.phrases[-1].append(_note(note, now, at, beat_seconds, gap))
        else:
            raise LyricsError(
                f"{at}: {row[:30]!r} is no note, line end or voice; write `: beat length pitch "
                "text`"
            )
    return voices


def _note(row: re.Match[str], voice: Voice, at: str, beat_seconds: float, gap: float) -> Sung:
    kind, first, length, pitch, typed = row.groups()
    typed = typed or ""
    start = gap + (voice.offset + int(first)) * beat_seconds
    if int(length) == 0:
        raise LyricsError(f"{at}: a note of length 0 cannot be sung; give it a beat")
    if start < 0:
        raise LyricsError(
            f"{at}: this note is {-start:.2f} s before the recording; correct it or #GAP"
        )
    letters = typed.strip().lstrip("~").strip("~ ")
    goes_on = not lyrics.words(letters) and typed.strip(" ~-\u2013") == ""
    begins = not goes_on and (not voice.worded or voice.open or typed.startswith(" "))
    voice.worded = voice.worded or not goes_on
    if not goes_on or typed.endswith(" "):
        voice.open = typed.endswith(" ")
    midi = float(MIDDLE_C + int(pitch)) if kind in ":*" else None
    if midi is not None and not 0 <= midi <= 127:
        raise LyricsError(
            f"{at}: pitch {pitch} is MIDI {midi:g}, which nobody sings; count from middle C, 0"
        )
    return Sung(start, start + int(length) * beat_seconds, midi, "" if goes_on else letters, begins)


def _together(
    voices: dict[int, Voice], said: dict[str, str], where: str
) -> tuple[list[list[Sung]], tuple[Fact, ...]]:
    """The phrases of all voices in the order of their times, and for a duet the Fact about who
    sings."""
    both = {3: {1, 2}} if "VERSION" not in said else {}  # in old files P3 is P1 and P2 at once
    sung = [
        (without_overlaps(phrase, where), both.get(number, {number}))
        for number, voice in sorted(voices.items())
        for phrase in voice.phrases
        if any(lyrics.words(note.text) for note in phrase)
    ]
    sung.sort(key=lambda one: one[0][0].start)
    kept: list[tuple[list[Sung], set[int]]] = []
    left_out = []
    for phrase, singers in sung:
        if not kept or phrase[0].start >= kept[-1][0][-1].end - 1e-9:
            kept.append((phrase, set(singers)))
        elif phrase == kept[-1][0]:
            kept[-1][1].update(singers)
        elif singers == kept[-1][1]:
            raise LyricsError(
                f"{where}: the line at {clock(phrase[0].start)} begins within the one before; "
                "move it"
            )
        else:
            left_out.append(
                "".join((" " if note.begins else "") + note.text for note in phrase).strip()
            )
    phrases = [phrase for phrase, _ in kept]
    used = sorted(set().union(*(singers for _, singers in sung)))
    if used in ([], [1]):
        return phrases, ()
    names = [said.get(f"P{n}") or said.get(f"DUETSINGERP{n}") or f"singer {n}" for n in used]
    duet = {"singers": names, "sung_by": [sorted(by) for _, by in kept], "left_out": left_out}
    return phrases, (Fact("duet", duet),)
