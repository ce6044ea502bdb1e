"""UltraStar: a text file of notes for karaoke games, https://usdx.eu/format (up to version 1).

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
ABOUT = {  # what a header says about the song; the later of two counts
    "TITLE": "title", "ARTIST": "artist", "GENRE": "genre", "AUTHOR": "author", "CREATOR": "author",
    "SOURCE": "source", "PROVIDEDBY": "source", "MP3": "audio", "AUDIO": "audio",
    "VOCALS": "vocals", "INSTRUMENTAL": "accompaniment",
}  # fmt: skip


@dataclass
class Voice:
    """One singer's phrases so far; `offset`: the beat that the present one counts from."""

    phrases: list[list[Sung]] = field(default_factory=lambda: [[]])
    offset: int = 0
    open: bool = False  # the last note ended with a space: the next one begins a word
    worded: bool = False  # the present phrase has letters


def is_ultrastar(text: str) -> bool:
    """Whether a text begins with headers, in any order, of which the format knows one."""
    for row in text[:4096].lstrip("\ufeff").splitlines():
        header = HEADER.match(row.strip())
        if header is not None and header.group(1).upper() in KNOWN:
            return True
        if row.strip() and not row.lstrip().startswith("#"):
            return False
    return False


def headers(text: str) -> dict[str, str]:
    """The headers of a file by upper-case name; those without a value are left out."""
    rows = (HEADER.fullmatch(row.strip("\ufeff \t")) for row in text.splitlines()[:1000])
    pairs = ((row.group(1).upper(), row.group(2).strip()) for row in rows if row)
    return {name: value for name, value in pairs if value}


def about(text: str) -> dict[str, str]:
    """What the headers say about the song, in our words."""
    header = headers(text)
    named = {name: header[key] for key, name in ABOUT.items() if key in header}
    if code := language_of(header.get("LANGUAGE", "")):
        named["language"] = code
    return named


def read_ultrastar(text: str, seconds: float, where: str, language: str) -> Read:
    """Lines with their words and notes. `seconds`: the recording's length; `where`: the file.

    Raises LyricsError, naming file and row, for wrong headers, notes and times."""
    header, named = headers(text), about(text)
    if header.get("VERSION", "1").split(".")[0].strip() not in ("0", "1"):
        unread = f"UltraStar version {header['VERSION'][:12]} is not read here"
        raise LyricsError(f"{where}: {unread}; save it as version 1")
    bpm, gap = _number(header, "BPM", where), _number(header, "GAP", where, 0.0) / 1000
    if not 1 <= bpm <= 100_000:
        reason = f"#BPM:{header['BPM'][:12]} is no tempo"
        raise LyricsError(f"{where}: {reason}; give beats a minute, 1 or more")
    relative = header.get("RELATIVE", "no").lower() == "yes"
    if relative and "VERSION" in header:
        raise LyricsError(f"{where}: #RELATIVE:yes is of files without #VERSION; take one away")
    voices = _voices(text, where, 15 / bpm, gap, relative)
    phrases, duet = _together(voices, header, where)
    lines = lines_of(phrases, seconds, named.get("language", language), where)
    facts = (Fact("timed_by", "ultrastar"), *duet)
    return Read((Section("verse", lines),), named, facts)


def _number(header: dict[str, str], name: str, where: str, default: float | None = None) -> float:
    if name not in header and default is not None:
        return default
    if not NUMBER.fullmatch(header.get(name, "")):
        value = header.get(name, "missing")[:20]
        raise LyricsError(f"{where}: #{name} is {value}; write #{name}: and a number")
    return float(header[name].replace(",", "."))


def _voices(text: str, where: str, beat: float, gap: float, relative: bool) -> dict[int, Voice]:
    """The phrases of each singer, by number; beat and gap in seconds."""
    voices = {1: Voice()}
    voice = voices[1]
    for number, row in enumerate(text.splitlines(), 1):
        row = row.lstrip("\ufeff \t")
        at, stripped = f"{where}:{number}", row.rstrip()
        if stripped == "E":
            break
        if not stripped or row.startswith("#"):
            continue
        if singer := VOICE.fullmatch(stripped):
            voice = voices.setdefault(int(singer.group(1)), Voice())
            voice.open = False
        elif line_end := BREAK.fullmatch(stripped):
            # an old file without its second number means the first one
            if relative and line_end.group(1):
                voice.offset += int(line_end.group(2) or line_end.group(1))
            voice.phrases.append([])
            voice.worded = False
        elif note := NOTE.fullmatch(row):
            voice.phrases[-1].append(_note(note, voice, at, beat, gap))
        else:
            unread = f"{row[:30]!r} is no note, line end or voice"
            raise LyricsError(f"{at}: {unread}; write `: beat length pitch text`")
    return voices


def _note(row: re.Match[str], voice: Voice, at: str, beat: float, gap: float) -> Sung:
    kind, first, length, pitch, typed = row.groups()
    typed = typed or ""
    start = gap + (voice.offset + int(first)) * beat
    if int(length) == 0:
        raise LyricsError(f"{at}: a note of length 0 cannot be sung; give it a beat")
    if start < 0:
        fault = f"this note is {-start:.2f} s before the recording"
        raise LyricsError(f"{at}: {fault}; correct it or #GAP")
    letters = typed.strip().lstrip("~").strip("~ ")
    goes_on = not lyrics.words(letters) and typed.strip(" ~-\u2013") == ""
    begins = not goes_on and (not voice.worded or voice.open or typed.startswith(" "))
    voice.worded = voice.worded or not goes_on
    if not goes_on or typed.endswith(" "):
        voice.open = typed.endswith(" ")
    midi = float(MIDDLE_C + int(pitch)) if kind in ":*" else None
    if midi is not None and not 0 <= midi <= 127:
        unsung = f"pitch {pitch} is MIDI {midi:g}, which nobody sings"
        raise LyricsError(f"{at}: {unsung}; count from middle C, 0")
    return Sung(start, start + int(length) * beat, midi, "" if goes_on else letters, begins)


def _together(
    voices: dict[int, Voice], header: dict[str, str], where: str
) -> tuple[list[list[Sung]], tuple[Fact, ...]]:
    """The phrases of all voices in the order of their times; for a duet, the Fact of who sings."""
    both = {3: {1, 2}} if "VERSION" not in header else {}  # in old files P3 is P1 and P2 at once
    sung = [
        (without_overlaps(phrase, where), both.get(number, {number}))
        for number, voice in sorted(voices.items())
        for phrase in voice.phrases
        if any(lyrics.words(note.text) for note in phrase)
    ]
    sung.sort(key=lambda pair: pair[0][0].start)
    kept: list[tuple[list[Sung], set[int]]] = []
    left_out = []
    for phrase, singers in sung:
        if not kept or phrase[0].start >= kept[-1][0][-1].end - 1e-9:
            kept.append((phrase, set(singers)))
        elif phrase == kept[-1][0]:
            kept[-1][1].update(singers)
        elif singers == kept[-1][1]:
            line = f"the line at {clock(phrase[0].start)}"
            raise LyricsError(f"{where}: {line} begins within the one before; move it")
        else:
            left_out.append("".join(" " * note.begins + note.text for note in phrase).strip())
    phrases = [phrase for phrase, _ in kept]
    numbers = sorted(set().union(*(singers for _, singers in sung)))
    if numbers in ([], [1]):
        return phrases, ()
    names = [header.get(f"P{n}") or header.get(f"DUETSINGERP{n}") or f"singer {n}" for n in numbers]
    duet = {"singers": names, "sung_by": [sorted(by) for _, by in kept], "left_out": left_out}
    return phrases, (Fact("duet", duet),)
