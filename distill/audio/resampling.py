"""The one resampler: soxr, by default at its quality HQ.

HQ has a linear phase and is flat to 91 % of the lower Nyquist frequency: a tone of 1 kHz keeps its
level within 0.1 dB, and what would fold or be mirrored lies below -80 dB.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray


def resample_array(
    wave: NDArray[np.float32], from_rate: int, to_rate: int, quality: str = "HQ"
) -> NDArray[np.float32]:
    """wave_W or wave_CW from one rate (Hz) to another: ceil or floor of W * to / from samples.

    `quality`: one of soxr's names. An empty wave, or one that has the rate, comes back as it is.
    """
    if from_rate == to_rate or not wave.size:
        return wave
    wave_WC = soxr.resample(np.ascontiguousarray(wave.T), from_rate, to_rate, quality)
    return np.ascontiguousarray(wave_WC.T)
