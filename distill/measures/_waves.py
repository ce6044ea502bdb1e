"""Sound as the recognisers and trackers want it."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from scipy.signal import resample_poly


def at_rate(wave_W: NDArray[Any], sample_rate: int, wanted: int) -> NDArray[Any]:
    """A wave at another sample rate, of the same dtype; nothing stays nothing."""
    if sample_rate == wanted or not len(wave_W):
        return wave_W
    return resample_poly(wave_W, wanted, sample_rate)
