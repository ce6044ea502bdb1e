"""Melodies from a seed: a key, a scale, a tempo, and for each line a walk that steps, leaps now and then,
and comes home.

Pitches are MIDI numbers of one low voice (about 48 to 60). Lengths are steps of 40 ms, the codec's frames.
Everything a style tag says (tempo, scale, mood) is a choice made here, so tags are true by construction.
"""

from __future__ import annotations

import dataclasses
import random

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "pentatonic": (0, 2, 4, 7, 9)}
_HOME = {"major": (0, 4, 7), "minor": (0, 3, 7), "pentatonic": (0, 4, 7)}  # tones a line may end on
TEMPI = {"fast": 7, "medium": 8, "slow": 10}  # steps of a plain note
MOODS = ("calm", "lively")  # calm: mostly steps; lively: more leaps and uneven lengths
KINDS = ("folk", "pop", "lullaby", "ballad")
LOWEST, HIGHEST = 46, 62
SHORTEST, LONGEST, LONGEST_LAST = 6, 16, 20  # steps: 0.24 s, 0.64 s, 0.8 s


@dataclasses.dataclass(frozen=True)
class Manner:
    """What a whole song keeps: kind, mood, scale, tempo, and its tonic."""

    kind: str
    mood: str
    scale: str
    tempo: str
    tonic: int

    @property
    def style(self) -> str:
        """The style tags of a song sung so."""
        return f"{self.kind}, {self.mood}, {self.scale}, {self.tempo}"


def choose_manner(dice: random.Random) -> Manner:
    """A lullaby or ballad is calm and not fast; the rest is free."""
    kind = dice.choice(KINDS)
    calm = kind in ("lullaby", "ballad")
    tempo = dice.choice(("slow", "medium") if calm else ("medium", "fast", "fast"))
    scale = dice.choices(list(SCALES), (5, 3, 3))[0]
    return Manner(kind, "calm" if calm else dice.choice(MOODS), scale, tempo, dice.randint(47, 54))


def walk(manner: Manner, count: int, dice: random.Random) -> list[int]:
    """`count` MIDI pitches of one line, the last one a tone of the home chord."""
    ladder = [
        manner.tonic + 12 * octave + step
        for octave in (-1, 0, 1)
        for step in SCALES[manner.scale]
        if LOWEST <= manner.tonic + 12 * octave + step <= HIGHEST
    ]
    chord = [k for k, midi in enumerate(ladder) if (midi - manner.tonic) % 12 in _HOME[manner.scale]]
    at = dice.choice(chord)
    drift = dice.choice((-1, 1))
    places = []
    for index in range(count):
        places.append(at)
        left = count - index - 1
        if dice.random() < 0.2 or at in (0, len(ladder) - 1):
            drift = 1 if at == 0 else -1 if at == len(ladder) - 1 else -drift
        leaps = 0.28 if manner.mood == "lively" else 0.12
        draw = dice.random()
        if left == 1:
            at = min(chord, key=lambda place: (abs(place - at) + dice.random(), place))
        elif draw < leaps:
            at = dice.choice(chord)
        elif draw < leaps + 0.15:
            pass  # the note again
        else:
            at += drift * (2 if dice.random() < 0.12 else 1)
        at = max(0, min(len(ladder) - 1, at))
    return [ladder[place] for place in places]


def lengths(manner: Manner, crowding: list[int], dice: random.Random) -> list[int]:
    """Steps of each note; `crowding` counts the consonants that must share it, and a crowded note is not
    short."""
    plain = TEMPI[manner.tempo]
    steps = []
    for consonants in crowding:
        draw = dice.random()
        length = plain
        if draw < (0.3 if manner.mood == "lively" else 0.15):
            length = plain + dice.choice((-2, 3, 4))
        elif draw > 0.93:
            length = dice.randint(12, LONGEST)
        elif dice.random() < 0.35:
            length = plain + dice.choice((-1, 1))  # nobody sings like a clock
        steps.append(max(SHORTEST + max(0, consonants - 2), min(LONGEST, length)))
    steps[-1] = max(10, min(LONGEST_LAST, dice.randint(10, 14) + (plain - 7) * 2))
    return steps
