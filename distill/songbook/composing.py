"""Songs: a seed draws language, voice, key, metre, tempo, accompaniment and form; then come words
with metre and rhyme, chords, and a tune over them.

Verses share a tune as far as their words allow it, the third line of four often takes up the first,
and the chorus returns unchanged. Between sections the accompaniment may play a bar alone; it begins
a bar or two before the voice and ends a bar after it. Everything a tag or a fact says is a choice
made here, so it is true by construction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill import lyrics
from distill.songbook import harmony, mandarin, rhymes, stanzas, stress, tunes
from distill.songbook.bars import METRES, Bars, Chord, Key
from distill.songbook.scores import LineScore, Score, Setting, SyllableScore
from distill.songbook.singers import MANNERS, SINGERS
from distill.songbook.singing import LEAD_STEPS

KINDS = ("folk", "pop", "lullaby", "ballad")
FORMS = {  # and how often
    ("verse", "chorus"): 6,
    ("verse", "chorus", "verse", "chorus"): 1,
    ("verse", "chorus", "bridge", "chorus"): 1,
    ("verse", "verse", "chorus"): 1,
    ("chorus", "verse", "chorus"): 2,
}
# steps of a beat: 83 to 68, 115 to 88, 167 to 125 a minute
_BEAT_STEPS = {"slow": (18, 22), "medium": (13, 17), "fast": (9, 12)}
_COMPOUND_STEPS = {"slow": (28, 32), "medium": (23, 27), "fast": (18, 22)}  # of the dotted quarter
_METRE_WEIGHTS = (5, 3, 1, 2)  # of METRES
_PENTATONIC_SHARE = {"zh": 0.7, "en": 0.15}
_MELISMA_SHARE = 0.09  # of the syllables
_CONNECTED_SHARE = 0.7  # of the lines begin where the one before ended
ACCOMPANIMENTS = ("guitar", "piano", "pad", "band", "harp")


@dataclass(frozen=True)
class Edition:
    """Who writes the English words: stanzas in a metre, and which of a line's syllables are
    stressed. `name` is part of every song's seed."""

    name: str
    metres: tuple[rhymes.Metre, ...]
    stanza: Callable[[random.Random, rhymes.Metre, bool, set[str]], list[str]]
    stresses: Callable[[str], list[bool]]


EDITIONS = {
    2: Edition("second", stanzas.METRES, stanzas.stanza, stanzas.stresses),
    3: Edition("third", rhymes.METRES, rhymes.stanza, stress.of_line),  # lines that mean something
}


@dataclass(frozen=True)
class Style:
    """What a whole song keeps: a kind, a tempo by name, a grid, a key, a range, a language."""

    kind: str
    tempo: str
    lively: bool
    bars: Bars
    key: Key
    within: tunes.Range
    language: str
    edition: Edition

    @property
    def tags(self) -> list[str]:
        """What the prompt says of it, true by construction."""
        scale = ["pentatonic"] if self.key.pentatonic else []
        metre = {"3/4": ["waltz"], "6/8": ["six-eight"]}.get(self.bars.metre, [])
        mood = "lively" if self.lively else "calm"
        return [self.kind, mood, self.key.mode, *scale, self.tempo, *metre]


@dataclass(frozen=True)
class Part:
    """A section of tuned lines, and the degree of the chord of each of their bars."""

    lines: tuple[LineScore, ...]
    rhythms: tuple[tunes.Rhythm, ...]
    degrees: tuple[tuple[int, ...], ...]


def compose(
    seed: int, index: int, split: str, voices: Sequence[str] = tuple(SINGERS),
    languages: Sequence[str] = ("en", "zh"), accompaniments: Sequence[str] = ACCOMPANIMENTS,
    edition: int = 2,
) -> Score:  # fmt: skip
    """Song `index` of a seed, split and edition, drawn from what is allowed."""
    # part of every seed: other words here would give other songs
    rng = random.Random(f"{EDITIONS[edition].name} edition:{split}:{seed}:{index}")
    # one draw for each choice whatever is allowed, so that a narrower choice leaves the rest of a
    # song as it was
    voice = voices[int(rng.random() * len(voices))]
    language = languages[int(rng.random() ** 1.6 * len(languages))]
    accompaniment = accompaniments[int(rng.random() * len(accompaniments))]
    manner = rng.choices(list(MANNERS), list(MANNERS.values()))[0]
    style = _style(voice, language, rng, EDITIONS[edition])
    parts = _parts(style, split == "held-out", rng)
    setting = _lay_out(parts, style, accompaniment, rng)
    tags = ", ".join([*style.tags, *([accompaniment] if accompaniment != "none" else [])])
    sections = tuple((tag, part.lines) for tag, part in parts)
    name = f"songbook-{split}-{seed}-{index:05d}"
    return Score(name, tags, split, sections, setting, voice, language=language, manner=manner)


def _style(voice: str, language: str, rng: random.Random, edition: Edition) -> Style:
    kind = rng.choice(KINDS)
    calm = kind in ("lullaby", "ballad")
    metre = rng.choices(list(METRES), _METRE_WEIGHTS)[0]
    tempo = rng.choice(("slow", "medium", "medium") if calm else ("medium", "fast", "fast"))
    beat_steps = rng.randint(*(_COMPOUND_STEPS if metre == "6/8" else _BEAT_STEPS)[tempo])
    mode = rng.choices(("major", "minor"), (3, 2))[0]
    key = Key(rng.randrange(12), mode, rng.random() < _PENTATONIC_SHARE[language])
    singer = SINGERS[voice]
    within = tunes.choose_range(singer.lowest, singer.highest, rng)
    lively = not calm and rng.random() < 0.6
    return Style(kind, tempo, lively, Bars(metre, beat_steps), key, within, language, edition)


def _parts(style: Style, held_out: bool, rng: random.Random) -> list[tuple[str, Part]]:
    """The sections in order; the same chorus each time it comes."""
    form = rng.choices(list(FORMS), list(FORMS.values()))[0]
    plans = {  # a metre, and for Mandarin characters and lines
        "verse": (_verse_metre(rng, style), rng.choice((5, 7)), rng.choice((2, 4))),
        "chorus": (_verse_metre(rng, style), rng.choice((5, 7)), rng.choice((2, 4))),
        "bridge": (_verse_metre(rng, style, True), rng.choice((5, 7)), 2),
    }
    used: set[str] = set()
    by_tag: dict[str, Part] = {}  # the latest section of each tag
    parts = []
    for tag in form:
        if tag != "chorus" or tag not in by_tag:
            metre, count, rows = plans[tag]
            if style.language == "zh":
                texts = mandarin.stanza(rng, count, rows, held_out, used)
                words = [_chinese(text) for text in texts]
            else:
                texts = style.edition.stanza(rng, metre, held_out, used)
                words = [_english(text, style.edition) for text in texts]
            by_tag[tag] = _part(words, style, by_tag.get(tag), rng)
        parts.append((tag, by_tag[tag]))
    return parts


def _verse_metre(rng: random.Random, style: Style, short: bool = False) -> rhymes.Metre:
    """A metre; two in three have two lines."""
    short = short or rng.random() < 0.65
    return rng.choice(
        [metre for metre in style.edition.metres if (len(metre.scheme) == 2) == short]
    )


# a line: word, its syllables and their stresses
Words = list[tuple[str, list[lyrics.Syllable], list[bool]]]


def _english(text: str, edition: Edition) -> Words:
    stresses = iter(edition.stresses(text))
    cut = [(word, lyrics.syllables(word)) for word in text.split()]
    return [(word, syllables, [next(stresses) for _ in syllables]) for word, syllables in cut]


def _chinese(text: str) -> Words:
    weak = set("的了里着啊呀")
    return [(c, [mandarin.syllable(c)], [k % 2 == 0 and c not in weak]) for k, c in enumerate(text)]


def _beats(line: Words) -> list[tunes.Beat]:
    flat = [
        (syllable, stressed, k == len(syllables) - 1)
        for _, syllables, stresses in line
        for k, (syllable, stressed) in enumerate(zip(syllables, stresses, strict=True))
    ]
    onsets = [len(syllable.onset) for syllable, _, _ in flat[1:]] + [0]
    return [
        tunes.Beat(stressed, len(syllable.coda) + onset, last)
        for (syllable, stressed, last), onset in zip(flat, onsets, strict=True)
    ]


def _part(words: list[Words], style: Style, model: Part | None, rng: random.Random) -> Part:
    """Words set to the tune of `model`, an earlier section of the tag, or to their own."""
    rhythms = _rhythms(words, style, model, rng)
    degrees = _degrees(rhythms, style, model, rng)
    pitches: list[list[int]] = []
    lines = []
    for row, (line, rhythm) in enumerate(zip(words, rhythms, strict=True)):
        chords = [style.key.chord(degree) for degree in degrees[row]]
        last = row == len(words) - 1
        known = _earlier_pitches(model, row, len(rhythm.spans), degrees)
        same = row == 2 and not last and degrees[2] == degrees[0] and rhythms[2] == rhythms[0]
        if known is None and same:
            known = pitches[0]
        if known is None:
            connected = pitches and rng.random() < _CONNECTED_SHARE
            known = tunes.tune(
                rhythm.spans, style.bars, style.key, chords, style.within, rng, style.lively,
                pitches[-1][-1] if connected else None, last,
            )  # fmt: skip
        pitches.append(known)
        lines.append(_line(line, rhythm, known, chords, style, rng))
    return Part(tuple(lines), tuple(rhythms), tuple(tuple(line) for line in degrees))


def _rhythms(
    words: list[Words], style: Style, model: Part | None, rng: random.Random
) -> list[tunes.Rhythm]:
    """A rhythm for each line: the model's, or else that of the second line before, if it fits."""
    rhythms: list[tunes.Rhythm] = []
    for row, line in enumerate(words):
        beats = _beats(line)
        known = model.rhythms[row : row + 1] if model else rhythms[: max(0, row - 1)][-1:]
        if known and tunes.fits(beats, known[0], style.bars):
            rhythms.append(known[0])
        else:
            bars = rhythms[row - 1].bars if rhythms else 0
            rhythms.append(tunes.rhythm(beats, style.bars, rng, style.lively, bars))
    return rhythms


def _degrees(
    rhythms: list[tunes.Rhythm], style: Style, model: Part | None, rng: random.Random
) -> list[list[int]]:
    """The degrees of each line's chords: the model's, if it has as many bars and ends at home."""
    counts = [rhythm.bars for rhythm in rhythms]
    close = max(0, rhythms[-1].spans[-1][0] // style.bars.ticks)  # the bar of the last note
    degrees = harmony.degrees(style.key.mode, counts, close, rng)
    if model and [len(line) for line in model.degrees] == counts and model.degrees[-1][close] == 0:
        return [list(line) for line in model.degrees]
    return degrees


def _earlier_pitches(
    model: Part | None, row: int, count: int, degrees: list[list[int]]
) -> list[int] | None:
    """The pitches of that line in an earlier verse with as many syllables and the same chords."""
    if model is None or row >= len(model.lines) or list(model.degrees[row]) != degrees[row]:
        return None
    first = [syllable.notes[0][2] for _, sung in model.lines[row].words for syllable in sung]
    return first if len(first) == count else None


def _line(
    line: Words, rhythm: tunes.Rhythm, pitches: list[int], chords: list[Chord], style: Style,
    rng: random.Random,
) -> LineScore:  # fmt: skip
    """A line's score, in steps from the start of its lead-in."""
    bars, key, within = style.bars, style.key, style.within
    offset = LEAD_STEPS - bars.step(rhythm.spans[0][0])
    nexts = iter(zip(rhythm.spans, pitches, [*pitches[1:], None], strict=True))
    words = []
    for word, syllables, _ in line:
        sung = []
        for syllable in syllables:
            span, midi, later = next(nexts)
            notes = [(*span, midi)]
            if rng.random() < _MELISMA_SHARE and later is not None:
                chord = chords[max(0, min(len(chords) - 1, span[0] // bars.ticks))]
                notes = tunes.melisma(span, midi, later, bars, key, chord, within, rng)
            steps = ((bars.step(a) + offset, bars.step(b) + offset, pitch) for a, b, pitch in notes)
            sung.append(SyllableScore(syllable, tuple(steps)))
        words.append((word, tuple(sung)))
    return LineScore(tuple(words), style.language)


def _lay_out(
    parts: list[tuple[str, Part]], style: Style, accompaniment: str, rng: random.Random
) -> Setting:
    """Where each line begins, and the chords of the whole song with what is played between."""
    alone = accompaniment == "none"
    intro, breaks, outro = rng.choice((1, 2)), rng.random() < 0.3, rng.choice((1, 1, 2))
    home = style.key.chord(0)
    bars = Bars(style.bars.metre, style.bars.beat_steps, LEAD_STEPS)
    pickup = parts[0][1].rhythms[0].spans[0][0] < 0
    chords = [home] * (int(pickup) if alone else intro)
    firsts: list[int] = []
    for index, (_, part) in enumerate(parts):
        if index and breaks and not alone:
            chords.append(home)
        for rhythm, degrees in zip(part.rhythms, part.degrees, strict=True):
            firsts.append(bars.step(len(chords) * bars.ticks + rhythm.spans[0][0]) - LEAD_STEPS)
            chords += [style.key.chord(degree) for degree in degrees]
    if not alone:
        chords += [home] * outro
    louder_db = rng.uniform(3.0, 9.0)
    return Setting(bars, style.key, tuple(chords), tuple(firsts), accompaniment, louder_db)
