"""Old songs everybody knows, to evaluate a singer on melodies that no generator made.

Public domain as far as we know (check per country). Notes are from memory, corrected where a line
did not fill its bars; some rhythms may differ from your edition. Each song is sung by every voice
that has its range, in the key that suits the voice, over chords found for its tune. They hold words
that training songs must not hold, so their split is "held-out".
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from distill import lyrics
from distill.errors import SongError
from distill.songbook import harmony, mandarin
from distill.songbook.bars import METRES, Bars, Key
from distill.songbook.scores import LineScore, Score, Setting, SyllableScore
from distill.songbook.singers import SINGERS
from distill.songbook.singing import LEAD_STEPS
from distill.songbook.tunes import LONGEST

TICKS = 4  # of a quarter, in which lengths are written


class Song(NamedTuple):
    """A song as written."""

    title: str
    tags: str
    key: Key
    metre: str
    beat_steps: int
    pickup: float  # quarters before the first bar line
    rows: tuple[str, ...]  # words|notes: pitch:quarters; + joins a syllable's, pitch R is a rest
    language: str = "en"
    credit: str = "traditional song, public domain; transcribed from memory"


_C, _F, _G = Key(0, "major"), Key(5, "major"), Key(7, "major")
_SONGS = (
    Song("twinkle", "lullaby, calm, major, fast", _C, "4/4", 10, 0, (
        "twinkle twinkle little star|C4:1 C4:1 G4:1 G4:1 A4:1 A4:1 G4:2",
        "how i wonder what you are|F4:1 F4:1 E4:1 E4:1 D4:1 D4:1 C4:2",
        "up above the world so high|G4:1 G4:1 F4:1 F4:1 E4:1 E4:1 D4:2",
        "like a diamond in the sky|G4:1 G4:1 F4:1 F4:1 E4:1 E4:1 D4:2",
        "twinkle twinkle little star|C4:1 C4:1 G4:1 G4:1 A4:1 A4:1 G4:2",
        "how i wonder what you are|F4:1 F4:1 E4:1 E4:1 D4:1 D4:1 C4:2",
    )),
    Song("mary", "folk, calm, major, fast", _C, "4/4", 11, 0, (
        "mary had a little lamb|E4:1 D4:1 C4:1 D4:1 E4:1 E4:1 E4:2",
        "little lamb little lamb|D4:1 D4:1 D4:2 E4:1 G4:1 G4:2",
        "mary had a little lamb|E4:1 D4:1 C4:1 D4:1 E4:1 E4:1 E4:1",
        "its fleece was white as snow|E4:1 D4:1 D4:1 E4:1 D4:1 C4:4",
    )),
    Song("jacques", "folk, calm, major, fast", _C, "4/4", 11, 0, (
        "are you sleeping are you sleeping|C4:1 D4:1 E4:1 C4:1 C4:1 D4:1 E4:1 C4:1",
        "brother john brother john|E4:1 F4:1 G4:2 E4:1 F4:1 G4:2",
        "morning bells are ringing|G4:.5 A4:.5 G4:.5 F4:.5 E4:1 C4:1",
        "morning bells are ringing|G4:.5 A4:.5 G4:.5 F4:.5 E4:1 C4:1",
        "ding dang dong ding dang dong|C4:1 G3:1 C4:2 C4:1 G3:1 C4:2",
    )),
    Song("row", "folk, lively, major, medium, six-eight", _C, "6/8", 24, 0, (
        "row row row your boat|C4:1.5 C4:1.5 C4:1 D4:.5 E4:1.5",
        "gently down the stream|E4:1 D4:.5 E4:1 F4:.5 G4:3",
        "merrily merrily merrily merrily life is but a dream|C5:.5 C5:.5 C5:.5 G4:.5 G4:.5 G4:.5 "
        "E4:.5 E4:.5 E4:.5"
        " C4:.5 C4:.5 C4:.5 G4:1 F4:.5 E4:1 D4:.5 C4:3",
    )),
    Song("london", "folk, lively, major, fast", _C, "4/4", 11, 0, (
        "london bridge is falling down|G4:1.5 A4:.5 G4:1 F4:1 E4:1 F4:1 G4:2",
        "falling down falling down|D4:1 E4:1 F4:2 E4:1 F4:1 G4:2",
        "london bridge is falling down|G4:1.5 A4:.5 G4:1 F4:1 E4:1 F4:1 G4:2",
        "my fair lady|D4:2 G4:2 E4:1 C4:3",
    )),
    Song("grace", "folk, calm, major, pentatonic, fast, waltz", _F, "3/4", 11, 1, (
        "amazing grace how sweet the sound|C4:1 F4:2 A4:.5+F4:.5 A4:2 G4:1 F4:2 D4:1 C4:2",
        "that saved a wretch like me|C4:1 F4:2 A4:.5+F4:.5 A4:2 G4:1 C5:5",
        "i once was lost but now am found|A4:1 C5:1.5+A4:.5 C5:.5+A4:.5 F4:2 C4:1 D4:1.5+F4:.5 "
        "F4:.5+D4:.5 C4:2",
        "was blind but now i see|C4:1 F4:2 A4:.5+F4:.5 A4:2 G4:1 F4:5",
    )),
    Song("lang-syne", "folk, calm, major, pentatonic, medium", _F, "4/4", 13, 1, (
        "should auld acquaintance be forgot|C4:1 F4:1.5 F4:.5 F4:1 A4:1 G4:1.5 F4:.5 G4:1",
        "and never brought to mind|A4:1 F4:1.5 F4:.5 A4:1 C5:1 D5:3",
        "should auld acquaintance be forgot|D5:1 C5:1.5 A4:.5 A4:1 F4:1 G4:1.5 F4:.5 G4:1",
        "and days of auld lang syne|A4:1 F4:1.5 D4:.5 D4:1 C4:1 F4:3",
    )),
    Song("joy", "folk, lively, major, fast", _C, "4/4", 11, 0, (
        "joyful joyful we adore thee|E4:1 E4:1 F4:1 G4:1 G4:1 F4:1 E4:1 D4:1",
        "god of glory lord of love|C4:1 C4:1 D4:1 E4:1 E4:1.5 D4:.5 D4:2",
    ), credit="words: Henry van Dyke, 1907; tune: Beethoven, 1824; public domain; transcribed "
              "from memory"),
    Song("saints", "folk, lively, major, fast", _C, "4/4", 10, 3, (
        "oh when the saints|C4:1 E4:1 F4:1 G4:5",
        "go marching in|C4:1 E4:1 F4:1 G4:5",
        "oh when the saints go marching in|C4:1 E4:1 F4:1 G4:2 E4:2 C4:2 E4:2 D4:6",
        "when the saints go marching in|E4:1 F4:1 G4:2 E4:2 C4:2 D4:2 C4:4",
    )),
    Song("jingle", "folk, lively, major, fast", _C, "4/4", 10, 0, (
        "jingle bells jingle bells|E4:1 E4:1 E4:2 E4:1 E4:1 E4:2",
        "jingle all the way|E4:1 G4:1 C4:1.5 D4:.5 E4:4",
        "oh what fun it is to ride|F4:1 F4:1 F4:1.5 F4:.5 F4:1 E4:1 E4:1",
        "in a one horse open sleigh|E4:.5 E4:.5 E4:1 D4:1 D4:1 E4:1 D4:4",
    ), credit="James Pierpont, 1857; public domain; transcribed from memory"),
    Song("silent", "lullaby, calm, major, slow, six-eight", _C, "6/8", 28, 0, (
        "silent night holy night|G4:.75+A4:.25 G4:.5 E4:1.5 G4:.75+A4:.25 G4:.5 E4:1.5",
        "all is calm all is bright|D5:1 D5:.5 B4:1.5 C5:1 C5:.5 G4:1.5",
        "round yon virgin mother and child|A4:1 A4:.5 C5:.75+B4:.25 A4:.5 G4:.75 A4:.25 G4:.5 "
        "E4:1.5",
        "holy infant so tender and mild|A4:1 A4:.5 C5:.75 B4:.25 A4:.5 G4:.75 A4:.25 G4:.5 E4:1.5",
        "sleep in heavenly peace|D5:1 D5:.5 F5:.75 D5:.25 B4:.5 C5:1.5+E5:1.5",
        "sleep in heavenly peace|C5:.75+G4:.25 E4:.5 G4:.75 F4:.25 D4:.5 C4:3",
    ), credit="Franz Xaver Gruber, 1818; English by John Freeman Young, 1859; public domain; from "
              "memory"),
    Song("bonnie", "folk, calm, major, fast, waltz", _C, "3/4", 11, 1, (
        "my bonnie lies over the ocean|G3:1 E4:1.5 D4:.5 C4:1 D4:1 C4:1 A3:1 G3:1 E3:4",
        "my bonnie lies over the sea|G3:1 E4:1.5 D4:.5 C4:1 C4:1 B3:1 C4:1 D4:5",
        "my bonnie lies over the ocean|G3:1 E4:1.5 D4:.5 C4:1 D4:1 C4:1 A3:1 G3:1 E3:4",
        "oh bring back my bonnie to me|G3:1 A3:1 D4:1 C4:1 B3:1 A3:1 B3:1 C4:5",
    )),
    Song("susanna", "folk, lively, major, fast", _C, "4/4", 11, 1, (
        "i come from alabama|C4:.5+D4:.5 E4:1 G4:1 G4:1.5 A4:.5 G4:1 E4:1",
        "with my banjo on my knee|C4:1.5 D4:.5 E4:1 E4:1 D4:1 C4:1 D4:3 R:1",
        "oh susanna oh don't you cry for me|F4:2 F4:2 A4:1 A4:2 A4:1 G4:1 G4:1 E4:1 C4:1 D4:3",
        "for i come from alabama|C4:.5 D4:.5 E4:1 G4:1 G4:1.5 A4:.5 G4:1 E4:1",
        "with my banjo on my knee|C4:1.5 D4:.5 E4:1 E4:1 D4:1 D4:1 C4:4",
    ), credit="Stephen Foster, 1848; public domain; transcribed from memory"),
    Song("yankee", "folk, lively, major, fast", _C, "4/4", 10, 0, (
        "yankee doodle went to town|C4:1 C4:1 D4:1 E4:1 C4:1 E4:1 D4:2",
        "riding on a pony|C4:1 C4:1 D4:1 E4:1 C4:2 B3:2",
        "stuck a feather in his hat|C4:1 C4:1 D4:1 E4:1 F4:1 E4:1 D4:1",
        "and called it macaroni|C4:1 B3:1 G3:1 A3:1 B3:1 C4:2 C4:2",
    )),
    Song("macdonald", "folk, lively, major, fast", _G, "4/4", 10, 0, (
        "old macdonald had a farm|G4:1 G4:1 G4:1 D4:1 E4:1 E4:1 D4:2",
        "e i e i o|B4:1 B4:1 A4:1 A4:1 G4:3",
        "and on his farm he had a cow|D4:1 G4:1 G4:1 G4:1 D4:1 E4:1 E4:1 D4:2",
        "e i e i o|B4:1 B4:1 A4:1 A4:1 G4:4",
    )),
    Song("baa", "folk, calm, major, fast", _C, "4/4", 11, 0, (
        "baa baa black sheep have you any wool|C4:1 C4:1 G4:1 G4:1 A4:.5 B4:.5 C5:.5 A4:.5 G4:2",
        "yes sir yes sir three bags full|F4:1 F4:1 E4:1 E4:1 D4:1 D4:1 C4:2",
        "one for the master one for the dame|G4:1 G4:.5 G4:.5 F4:1 F4:1 E4:1 E4:.5 E4:.5 D4:2",
    )),
    Song("茉莉花", "folk, calm, major, pentatonic, medium", _C, "4/4", 15, 0, (
        "好一朵美丽的茉莉花|E4:1 E4:.5 G4:.5 A4:.5 C5:.5 C5:.5+A4:.5 G4:1 G4:.5+A4:.5 G4:2",
        "好一朵美丽的茉莉花|E4:1 E4:.5 G4:.5 A4:.5 C5:.5 C5:.5+A4:.5 G4:1 G4:.5+A4:.5 G4:2",
        "芬芳美丽满枝桠|G4:1 G4:1 G4:1 E4:.5+G4:.5 A4:1 A4:1 G4:2",
        "又香又白人人夸|E4:1 D4:.5+E4:.5 G4:1 E4:.5+D4:.5 C4:1 C4:.5+D4:.5 C4:2",
        "让我来将你摘下|E4:.5+D4:.5 C4:.5+E4:.5 D4:1.5 E4:.5 G4:1 A4:.5+C5:.5 G4:2",
        "送给别人家|D4:1 E4:.5+G4:.5 D4:.5+E4:.5 C4:.5+A3:.5 G3:2 R:2",
        "茉莉花呀茉莉花|A3:1 C4:1 D4:1.5 E4:.5 C4:.5+D4:.5 C4:.5+A3:.5 G3:2",
    ), "zh", "Jiangsu folk song; notes and words from memory"),
    Song("送别", "ballad, calm, major, medium", _C, "4/4", 15, 0, (
        "长亭外古道边|G4:1 E4:.5+G4:.5 C5:2 A4:1 C5:1 G4:2",
        "芳草碧连天|G4:1 C4:.5+D4:.5 E4:1 D4:.5+C4:.5 D4:4",
        "晚风拂柳笛声残|G4:1 E4:.5+G4:.5 C5:1.5 B4:.5 A4:1 C5:1 G4:2",
        "夕阳山外山|G4:1 D4:.5+E4:.5 F4:1.5 B3:.5 C4:4",
        "天之涯地之角|A4:1 C5:1 C5:2 B4:1 A4:.5+B4:.5 C5:2",
        "知交半零落|A4:.5+B4:.5 C5:.5+A4:.5 A4:.5+G4:.5 E4:.5+C4:.5 D4:4",
        "一壶浊酒尽余欢|G4:1 E4:.5+G4:.5 C5:1.5 B4:.5 A4:1 C5:1 G4:2",
        "今宵别梦寒|G4:1 D4:.5+E4:.5 F4:1.5 B3:.5 C4:4",
    ), "zh", "words: Li Shutong, about 1915; tune: John P. Ordway, 1868; public domain; from "
             "memory"),
)  # fmt: skip


def songs(
    voices: Sequence[str] = tuple(SINGERS), languages: Sequence[str] = ("en", "zh"),
    accompaniments: Sequence[str] = ("none",),
) -> list[Score]:  # fmt: skip
    """Every song in these languages by every voice that has its range, accompanied in turn."""
    in_range = (
        (song, voice, shift)
        for voice in voices
        for song in _SONGS
        if song.language in languages and (shift := _shift(song, voice)) is not None
    )
    count = len(accompaniments)
    return [_score(*sung, accompaniments[k % count]) for k, sung in enumerate(in_range)]


Note = tuple[int, int, int]  # first tick from the first bar line, last tick, MIDI
Syllable = tuple[Note, ...]  # its notes


@functools.cache
def _read(song: Song) -> tuple[tuple[Syllable, ...], ...]:
    """The syllables of each line. Raises SongError where the song does not fill whole bars."""
    pickup = round(song.pickup * TICKS)
    tick = -pickup
    lines = []
    for row in song.rows:
        syllables = []
        for group in row.partition("|")[2].split():
            notes = []
            for item in group.split("+"):
                name, _, length = item.partition(":")
                stop = tick + round(float(length) * TICKS)
                if name != "R":
                    notes.append((tick, stop, _midi(name)))
                tick = stop
            if notes:
                syllables.append(tuple(notes))
        lines.append(tuple(syllables))
    beats, ticks = METRES[song.metre]
    if (tick + pickup) % (beats * ticks) not in (0, pickup):
        where = f"traditional songs: {song.title} ends at tick {tick}"
        raise SongError(f"{where}, inside a bar; correct its lengths")
    return tuple(lines)


def _midi(name: str) -> int:
    match = re.fullmatch("([A-G])([0-9])", name)
    if match is None:
        raise SongError(f"traditional songs: {name!r} is not a note; write it like C4")
    steps = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
    return steps[match[1]] + 12 * (int(match[2]) + 1)


def _shift(song: Song, voice: str) -> int | None:
    """Semitones that bring a song to the middle of a voice; None if the voice has not the range."""
    pitches = [midi for line in _read(song) for syllable in line for _, _, midi in syllable]
    singer = SINGERS[voice]
    if max(pitches) - min(pitches) > singer.highest - singer.lowest:
        return None
    return (singer.lowest + singer.highest - min(pitches) - max(pitches)) // 2


def _score(song: Song, voice: str, shift: int, accompaniment: str) -> Score:
    alone = accompaniment == "none"
    intro = 2 if not alone else 1 if song.pickup else 0
    bars = Bars(song.metre, song.beat_steps, LEAD_STEPS)
    grid = Bars(song.metre, song.beat_steps)
    key = replace(song.key, tonic=(song.key.tonic + shift) % 12)
    sung = [
        [tuple((a, b, midi + shift) for a, b, midi in syllable) for syllable in line]
        for line in _read(song)
    ]
    notes = [note for line in sung for syllable in line for note in syllable]
    degrees = harmony.fit(notes, bars.ticks, -(-notes[-1][1] // bars.ticks), key)
    starts = [line[0][0][0] for line in sung]
    # a singer breathes at the end of a line: its last note makes room for the next one's lead-in
    latest = [*(grid.step(start) - LEAD_STEPS for start in starts[1:]), math.inf]
    spans = zip(song.rows, sung, latest, strict=True)
    lines = tuple(_line(song.language, row, line, grid, last) for row, line, last in spans)
    firsts = tuple(bars.step(intro * bars.ticks + start) - LEAD_STEPS for start in starts)
    chords = [0] * intro + degrees + ([] if alone else [0])
    setting = Setting(bars, key, tuple(map(key.chord, chords)), firsts, accompaniment)
    return Score(
        id=f"traditional-{song.title}-{voice.replace(' ', '-')}",
        style=song.tags if alone else f"{song.tags}, {accompaniment}",
        split="held-out",
        sections=(("verse", lines),),
        setting=setting,
        voice=voice,
        source="traditional",
        credit=song.credit,
        language=song.language,
    )


def _line(language: str, row: str, line: list[Syllable], grid: Bars, latest: float) -> LineScore:
    """`latest`: the step at which the line must have ended."""
    text = row.partition("|")[0]
    if language == "zh":
        spelled = [(character, [mandarin.syllable(character)]) for character in text]
    else:
        spelled = [(word, lyrics.syllables(word)) for word in lyrics.words(text)]
    if sum(len(syllables) for _, syllables in spelled) != len(line):
        notes = f"has {len(line)} notes for another number of syllables"
        raise SongError(f"traditional songs: {text!r} {notes}")
    offset = LEAD_STEPS - grid.step(line[0][0][0])

    def steps(first: int, last: int, midi: int) -> tuple[int, int, int]:
        start = grid.step(first)
        stop = int(min(grid.step(last), start + LONGEST, latest))
        return start + offset, stop + offset, midi

    sung = iter(line)
    words = []
    for word, syllables in spelled:
        scores = (SyllableScore(s, tuple(steps(*note) for note in next(sung))) for s in syllables)
        words.append((word, tuple(scores)))
    return LineScore(tuple(words), language)
