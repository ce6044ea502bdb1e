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

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from distill.errors import DistillError
from distill.measures import Details, Figures, Performance, Sheet, lot

FIGURES = {
    "in_tune": "share of notes within 50 cents of the score",
    "wrong_melody_in_tune": "control: the same takes against another line's notes; should be low",
}

TRACKER_RATE = 16_000  # Hz
LOWEST_HZ, HIGHEST_HZ = 65.0, 900.0
FRAME_SECONDS = 0.005
MIDDLE = (0.3, 0.8)
LEAST_FRAMES = 3
IN_TUNE_CENTS = 50.0


def measure(performance: Performance, others: Sequence[Sheet]) -> tuple[Figures, Details]:
    """Notes in tune of one line, and its control. Details: signed `cents` a note, null unsung."""
    midi_F = track(performance.wave_W, performance.sample_rate)
    cents = [off_by(midi_F, *note) for note in performance.notes]
    # the same notes with another line's pitches; none where there is no other melody
    pairs = zip(performance.notes, another_melody(performance.sheet, others), strict=False)
    astray = [off_by(midi_F, start, end, midi) for (start, end, _), midi in pairs]
    figures = {
        "in_tune": (sum(map(in_tune, cents)), len(cents)),
        "wrong_melody_in_tune": (sum(map(in_tune, astray)), len(astray)),
    }
    return figures, {"cents": [None if value is None else round(value, 1) for value in cents]}


def summarise(details: Sequence[Details]) -> dict[str, int | float | None]:
    """Median absolute cents over the notes that were sung, and how many were not."""
    cents = [value for line in details for value in line["cents"]]
    sung = [abs(value) for value in cents if value is not None]
    return {
        "notes_not_sung": len(cents) - len(sung),
        "median_cents": round(float(np.median(sung)), 1) if sung else None,
    }


def track(wave_W: NDArray[np.floating], sample_rate: int) -> NDArray[np.float64]:
    """Pitch in MIDI units every 5 ms, NaN where unvoiced."""
    try:
        with warnings.catch_warnings():
            # pyworld's own build still uses pkg_resources, and says so
            warnings.simplefilter("ignore")
            import pyworld
    except ImportError as error:
        fault = f"pyworld cannot be imported ({error})"
        raise DistillError(f'measures.pitch: {fault}; pip install "distill[judge]"') from None
    wave_W = np.asarray(wave_W, dtype=np.float64)
    if sample_rate != TRACKER_RATE and len(wave_W):
        wave_W = resample_poly(wave_W, TRACKER_RATE, sample_rate)
    if len(wave_W) < TRACKER_RATE // 4:  # WORLD's filters are longer than such a scrap
        wave_W = np.pad(wave_W, (0, TRACKER_RATE // 4 - len(wave_W)))
    grid = {"f0_floor": LOWEST_HZ, "f0_ceil": HIGHEST_HZ, "frame_period": 1000 * FRAME_SECONDS}
    hertz_F, _ = pyworld.harvest(wave_W, TRACKER_RATE, **grid)
    return np.where(hertz_F > 0, 69 + 12 * np.log2(np.maximum(hertz_F, 1) / 440), np.nan)


def off_by(midi_F: NDArray[np.float64], start: float, end: float, midi: float) -> float | None:
    """Cents by which a note's middle lies above (+) or below (-) `midi`: the median, signed."""
    first, last = (round((start + part * (end - start)) / FRAME_SECONDS) for part in MIDDLE)
    voiced = midi_F[max(0, first) : max(0, last) + 1]
    voiced = voiced[~np.isnan(voiced)]
    if len(voiced) < LEAST_FRAMES:
        return None
    return float(np.median(100 * (voiced - midi)))


def in_tune(cents: float | None) -> bool:
    """Whether a note counts."""
    return cents is not None and abs(cents) <= IN_TUNE_CENTS


def another_melody(sheet: Sheet, others: Sequence[Sheet]) -> list[float]:
    """As many pitches as the line has notes, of another line or, if short, several; else none."""
    own = [midi for _, _, midi in sheet.notes]

    def turn(other: Sheet) -> tuple[bool, bytes]:  # those with enough notes first, by the texts
        return len(other.notes) < len(own), lot(sheet.text, other.text)

    melodies = ([midi for _, _, midi in other.notes] for other in sorted(others, key=turn))
    strung = [midi for melody in melodies if melody != own for midi in melody]
    return strung[: len(own)] if len(strung) >= len(own) else []
