"""Notes judged by the pitch that was tracked: how far off each is, and by WORLD's tracker."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distill.errors import DistillError
from distill.measures import Details, Performance
from distill.measures._waves import at_rate

TRACKER_RATE = 16_000  # Hz
LOWEST_HZ, HIGHEST_HZ = 65.0, 900.0
FRAME_SECONDS = 0.005
MIDDLE = (0.3, 0.8)
LEAST_FRAMES = 3
IN_TUNE_CENTS = 50.0


@functools.lru_cache(maxsize=1)  # the line that is measured now: `swift_f0` asks again
def track_of(performance: Performance) -> NDArray[np.float64]:
    """`track` of a line."""
    return track(performance.wave_W, performance.sample_rate)


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
    wave_W = at_rate(np.asarray(wave_W, dtype=np.float64), sample_rate, TRACKER_RATE)
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


def summary(details: Sequence[Details]) -> dict[str, int | float | None]:
    """Median absolute cents over the notes that were sung, and how many were not."""
    cents = [value for line in details for value in line["cents"]]
    sung = [abs(value) for value in cents if value is not None]
    return {
        "notes_not_sung": len(cents) - len(sung),
        "median_cents": round(float(np.median(sung)), 1) if sung else None,
    }
