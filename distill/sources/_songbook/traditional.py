"""Old songs everybody knows, for judging a singer on melodies that no generator made.

Public domain as far as we know (check per country); notes are from memory and only lines without known
doubts are here. Lengths are in beats and are squeezed into notes short enough to keep the words clear, so
rhythms are near, not exact. They hold words that training songs must not hold, so their split is "held-
out".
"""

from __future__ import annotations

import re

from distill import lyrics
from distill.errors import SongError
from distill.sources._songbook.scores import LineScore, Score, SyllableScore
from distill.sources._songbook.singing import LEAD_STEPS

_STEPS = {0.25: 6, 0.5: 6, 0.75: 8, 1.0: 9, 1.5: 12, 2.0: 16, 3.0: 20}  # beats to steps of 40 ms
TRANSPOSED = (-9, -7, -11)  # semitones: into the low voice, three keys

# title, style, and per line: words | notes (pitch:beats, + joins the notes of one syllable)
_SONGS = (
    ("twinkle", "lullaby, calm, major, medium", (
        "twinkle twinkle little star|C4:1 C4:1 G4:1 G4:1 A4:1 A4:1 G4:2",
        "how i wonder what you are|F4:1 F4:1 E4:1 E4:1 D4:1 D4:1 C4:2",
        "up above the world so high|G4:1 G4:1 F4:1 F4:1 E4:1 E4:1 D4:2",
    )),
    ("mary", "folk, calm, major, medium", ("mary had a little lamb|E4:1 D4:1 C4:1 D4:1 E4:1 E4:1 E4:2",)),
    ("jacques", "folk, calm, major, medium", (
        "are you sleeping are you sleeping|C4:1 D4:1 E4:1 C4:1 C4:1 D4:1 E4:1 C4:1",
        "brother john brother john|E4:1 F4:1 G4:2 E4:1 F4:1 G4:2",
    )),
    ("row", "folk, lively, major, medium", (
        "row row row your boat|C4:1.5 C4:1.5 C4:1 D4:.5 E4:1.5",
        "gently down the stream|E4:1 D4:.5 E4:1 F4:.5 G4:3",
        "life is but a dream|G4:1 F4:.5 E4:1 D4:.5 C4:3",
    )),
    ("london", "folk, lively, major, medium", (
        "london bridge is falling down|G4:1.5 A4:.5 G4:1 F4:1 E4:1 F4:1 G4:2",
    )),
    ("grace", "folk, calm, pentatonic, medium", (
        "amazing grace how sweet the sound|C4:1 F4:2 A4:.5+F4:.5 A4:2 G4:1 F4:2 D4:1 C4:2",
    )),
    ("lang-syne", "folk, calm, pentatonic, medium", (
        "should auld acquaintance be forgot|C4:1 F4:1.5 F4:.5 F4:1 A4:1 G4:1.5 F4:.5 G4:1",
    )),
    ("joy", "folk, lively, major, medium", (
        "joyful joyful we adore thee|E4:1 E4:1 F4:1 G4:1 G4:1 F4:1 E4:1 D4:1",
        "god of glory lord of love|C4:1 C4:1 D4:1 E4:1 E4:1.5 D4:.5 D4:2",
    )),
    ("jingle", "folk, lively, major, medium", (
        "jingle bells jingle bells|E4:1 E4:1 E4:2 E4:1 E4:1 E4:2",
        "oh what fun it is to ride|F4:1 F4:1 F4:1 F4:1 F4:1 E4:1 E4:2",
    )),
    ("silent", "lullaby, calm, major, medium", (
        "silent night holy night|G4:.75+A4:.25 G4:.5 E4:1.5 G4:.75+A4:.25 G4:.5 E4:1.5",
    )),
    ("yankee", "folk, lively, major, medium", (
        "yankee doodle went to town|C4:1 C4:1 D4:1 E4:1 C4:1 E4:1 D4:2",
        "riding on a pony|C4:1 C4:1 D4:1 E4:1 C4:2 B3:2",
    )),
)  # fmt: skip


def songs() -> list[Score]:
    """Every song in every key."""
    return [
        Score(
            f"traditional-{title}{shift}",
            style,
            "held-out",
            (("verse", tuple(_line(row, shift) for row in rows)),),
            source="traditional",
            credit="traditional song, public domain; transcribed from memory",
        )
        for shift in TRANSPOSED
        for title, style, rows in _SONGS
    ]


def _midi(name: str) -> int:
    match = re.fullmatch("([A-G])([0-9])", name)
    if match is None:
        raise SongError(f"traditional songs: {name!r} is not a note; write it like C4")
    return {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}[match[1]] + 12 * (int(match[2]) + 1)


def _line(row: str, shift: int) -> LineScore:
    text, _, score = row.partition("|")
    groups = [[item.split(":") for item in group.split("+")] for group in score.split()]
    cut = [(word, lyrics.syllables(word)) for word in lyrics.words(text)]
    if sum(len(syllables) for _, syllables in cut) != len(groups):
        raise SongError(
            f"traditional songs: {text!r} has {len(groups)} notes for another number of syllables"
        )
    notes, at, words = iter(groups), LEAD_STEPS, []
    for word, syllables in cut:
        sung = []
        for syllable in syllables:
            own = []
            for name, beats in next(notes):
                length = _STEPS[float(beats)]
                own.append((at, at + length, _midi(name) + shift))
                at += length
            sung.append(SyllableScore(syllable, tuple(own)))
        words.append((word, tuple(sung)))
    return LineScore(tuple(words))
