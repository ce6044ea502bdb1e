"""Are the notes in tune?

Harvest (Morise 2017, doi:10.21437/Interspeech.2017-68) tracks the pitch of the whole line between
65 and 900 Hz. A note is judged by its middle, 30 to 80 % of its length, where neither the slide
into it nor the next consonant disturbs: the median distance from the score there must be within 50
cents, half the way to the neighbouring key. A note with fewer than 3 voiced frames (of 5 ms) in its
middle was not sung, which is a miss. The octave counts.

Control: the same take judged by the tune of another line (its own note times): a singer that sang
this tune and not just any should fail there.
"""

from __future__ import annotations

from collections.abc import Sequence

from distill.measures import Details, Figures, Performance, Sheet, lot
from distill.measures._notes import in_tune, off_by, summary, track, track_of

__all__ = ["in_tune", "measure", "off_by", "summarise", "track"]

FIGURES = {
    "in_tune": "share of notes within 50 cents of the score",
    "wrong_melody_in_tune": "control: the same takes against another line's notes; should be low",
}


def measure(performance: Performance, others: Sequence[Sheet]) -> tuple[Figures, Details]:
    """Notes in tune of one line, and its control. Details: signed `cents` a note, null unsung."""
    midi_F = track_of(performance)
    cents = [off_by(midi_F, *note) for note in performance.notes]
    # the same notes with another line's pitches; none where there is no other melody
    pairs = zip(performance.notes, another_melody(performance.sheet, others), strict=False)
    astray = [off_by(midi_F, start, end, midi) for (start, end, _), midi in pairs]
    figures = {
        "in_tune": (sum(map(in_tune, cents)), len(cents)),
        "wrong_melody_in_tune": (sum(map(in_tune, astray)), len(astray)),
    }
    return figures, {"cents": [None if value is None else round(value, 1) for value in cents]}


summarise = summary


def another_melody(sheet: Sheet, others: Sequence[Sheet]) -> list[float]:
    """As many pitches as the line has notes, of another line or, if short, several; else none."""
    own = [midi for _, _, midi in sheet.notes]

    def turn(other: Sheet) -> tuple[bool, bytes]:  # those with enough notes first, by the texts
        return len(other.notes) < len(own), lot(sheet.text, other.text)

    melodies = ([midi for _, _, midi in other.notes] for other in sorted(others, key=turn))
    strung = [midi for melody in melodies if melody != own for midi in melody]
    return strung[: len(own)] if len(strung) >= len(own) else []
