"""Bars, beats and keys: the grid that melody, words and accompaniment of a song share.

Score time is counted in ticks (a sixteenth) and sung in steps of 40 ms. A beat is a whole number of
steps, so a tempo is 1500 beats a minute over that number, and every bar and beat lies on the grid;
what lies between two beats is moved to the next step, for the voice and the accompaniment alike. In
6/8 the beat is the dotted quarter.
"""

from __future__ import annotations

from dataclasses import dataclass

from distill.songbook.singing import GRID_SECONDS

# beats of a bar, ticks of a beat
METRES = {"4/4": (4, 4), "3/4": (3, 4), "2/4": (2, 4), "6/8": (2, 6)}
PITCHES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
Chord = tuple[int, int, int]  # a triad of pitch classes, root first
PENTATONIC = {"major": (0, 2, 4, 7, 9), "minor": (0, 3, 5, 7, 10)}


@dataclass(frozen=True)
class Key:
    """A tonic (0 is C), a mode, and whether the tune leaves two of the seven tones out."""

    tonic: int
    mode: str
    pentatonic: bool = False

    @property
    def name(self) -> str:
        """As in "C major"."""
        return f"{PITCHES[self.tonic % 12]} {self.mode}"

    @property
    def scale(self) -> tuple[int, ...]:
        """Semitones above the tonic that a tune uses."""
        return PENTATONIC[self.mode] if self.pentatonic else self._seven

    @property
    def _seven(self) -> tuple[int, ...]:
        return MAJOR if self.mode == "major" else MINOR

    def chord(self, degree: int) -> Chord:
        """The triad on a degree, 0 to 6. The fifth of minor is a major chord."""
        root, third, fifth = (self._seven[(degree + step) % 7] for step in (0, 2, 4))
        if self.mode == "minor" and degree == 4:
            third = 11
        return (self.tonic + root) % 12, (self.tonic + third) % 12, (self.tonic + fifth) % 12


def chord_name(chord: Chord) -> str:
    """As in "Am" or "Bdim"."""
    third, fifth = (chord[1] - chord[0]) % 12, (chord[2] - chord[0]) % 12
    return PITCHES[chord[0]] + ("dim" if fifth == 6 else "m" if third == 3 else "")


@dataclass(frozen=True)
class Bars:
    """The grid of one song: metre, steps of a beat, and the step at which the first bar begins."""

    metre: str
    beat_steps: int
    first_step: int = 0

    @property
    def beats(self) -> int:
        """Beats of a bar."""
        return METRES[self.metre][0]

    @property
    def beat_ticks(self) -> int:
        """Ticks of a beat."""
        return METRES[self.metre][1]

    @property
    def ticks(self) -> int:
        """Ticks of a bar."""
        return self.beats * self.beat_ticks

    @property
    def tempo_bpm(self) -> float:
        """Beats a minute."""
        return 60 / (self.beat_steps * GRID_SECONDS)

    def step(self, tick: int) -> int:
        """The step on which a tick (counted from the first bar, may be negative) falls."""
        beats, ticks = divmod(tick, self.beat_ticks)
        between = -(-ticks * self.beat_steps // self.beat_ticks)  # rounded up
        return self.first_step + beats * self.beat_steps + between

    def seconds(self, tick: int) -> float:
        """The same in seconds."""
        return round(self.step(tick) * GRID_SECONDS, 2)
