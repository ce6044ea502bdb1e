"""How high does the sound reach? What was telephone, low-rate MP3 or upsampled stays muffled.

Music fades towards the top; a codec or a resampler cuts. So the long-term spectrum (Welch, of the
mono sum) is taken in bands of about 100 Hz, and a cut is a place where it falls by `cut_db` or more
within `CUT_HZ`, and stays flat above. The cut is the bandwidth; without one it is the highest band
above the floor that the sample format leaves. Both are guesses: an MP3 encoder that drops its
low-pass for loud passages, or an instrument that really ends there, look alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

from distill.config.ranges import Checked, above, at_least, share
from distill.curation.steps import Item, Sound
from distill.songs import Fact

STEP = "bandwidth"
BAND_HZ = 100.0
CUT_HZ = 1000.0  # within which a cut is complete: MP3 encoders' low-passes take up to half of it
FLOOR_DB = 90.0  # below the strongest band: 16 bits reach so far down
DEAD_DB = 100.0  # below the strongest band: nothing
LEAST_POWER = 1e-24  # -240 dB
SILENT_DB = -150.0  # of the strongest band: there is no sound
FLAT_DB = 12.0  # what is left above a cut is rounding, and flat; music goes on rising and falling
CONFIDENCE_CUT, CONFIDENCE_FADE = 0.9, 0.5
USUAL = {
    (3000, 3700): "a telephone",
    (3700, 4200): "8 kHz",
    (5100, 5700): "11 kHz",
    (7300, 8200): "16 kHz",
    (10000, 11100): "22 kHz",
    (11200, 12200): "24 kHz",
    (14500, 16300): "a lossy codec, or 32 kHz",
    (16300, 20900): "a lossy codec",
}


@dataclass(frozen=True)
class Settings(Checked):
    """Below `lowest_hz` a song is set aside: consonants lie between 4 and 8 kHz, and a telephone
    ends before them. Below `noted_share` of half the sample rate it is noted. `cut_db` is what a
    cut must fall by: music fades by less than 2 dB within its width (3 to 12 dB an octave)."""

    lowest_hz: float = at_least(0, default=4000.0)
    noted_share: float = share(zero=False, default=0.85)
    cut_db: float = above(0, default=20.0)

    def curate(self, item: Item) -> Item:
        """The item with the fact `bandwidth_hz`, of the recording or else of its first stem."""
        sound = item.tracks.get("audio", item.voice) or next(iter(item.tracks.values()), None)
        if sound is None:
            return item.remark(STEP, "noted", "no sound: the bandwidth is unknown")
        hertz, cut = bandwidth(sound, self.cut_db)
        if not hertz:
            return item.remark(STEP, "noted", "too short or silent: the bandwidth is unknown")
        half = sound.sample_rate / 2
        confidence = CONFIDENCE_CUT if cut else CONFIDENCE_FADE
        item = item.know(Fact("bandwidth_hz", round(hertz), STEP, confidence))
        text = f"{'cut off' if cut else 'fades out'} at {hertz / 1000:.1f} of {half / 1000:.1f} kHz"
        for (low, high), what in USUAL.items():
            if cut and low <= hertz < high:
                text += f": was {what} before?"
        if hertz < self.lowest_hz:
            text += f"; at least {self.lowest_hz / 1000:g} kHz are wanted"
            return item.remark(STEP, "set aside", text)
        if hertz < self.noted_share * half and cut:
            return item.remark(STEP, "noted", text)
        return item


def spectrum(sound: Sound) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """hertz_B, the bands' middles, and decibels_B, their long-term power; empty below a frame."""
    rate, wave_W = sound.sample_rate, sound.mono()
    size = 1 << int(np.ceil(np.log2(2 * rate / BAND_HZ)))
    if len(wave_W) < size or not np.isfinite(wave_W).all():
        return np.empty(0), np.empty(0)
    hertz_N, power_N = welch(wave_W, rate, "blackmanharris", size, size // 2, detrend=False)
    bands = int(rate / 2 // BAND_HZ)
    band_N = np.minimum((hertz_N / BAND_HZ).astype(int), bands - 1)
    bins_B = np.bincount(band_N, minlength=bands)
    power_B = np.bincount(band_N, power_N, bands) / np.maximum(bins_B, 1)
    hertz_B = (np.arange(bands, dtype=np.float64) + 0.5) * BAND_HZ
    return hertz_B, 10 * np.log10(np.maximum(power_B, LEAST_POWER))


def bandwidth(sound: Sound, cut_db: float) -> tuple[float, bool]:
    """The highest frequency (Hz) of the sound and whether it is cut off there; 0 without sound."""
    hertz_B, decibels_B = spectrum(sound)
    if not len(hertz_B) or decibels_B.max() < SILENT_DB:
        return 0.0, False
    half, width = sound.sample_rate / 2, int(CUT_HZ / BAND_HZ)
    decibels_B = np.maximum(decibels_B, decibels_B.max() - DEAD_DB)
    best, edge = cut_db, 0
    for band in range(width, len(decibels_B) - width // 2):
        above_B = decibels_B[band + width // 2 :]
        fall = float(np.median(decibels_B[band - width // 2 : band]) - above_B.max())
        if fall > best and np.subtract(*np.percentile(above_B, [90, 10])) < FLAT_DB:
            best, edge = fall, band
    if edge:
        level = float(np.median(decibels_B[edge - width // 2 : edge]))
        over = np.flatnonzero(decibels_B > level - cut_db / 2)
        return float(hertz_B[over[-1]] + BAND_HZ / 2), True
    heard = np.flatnonzero(decibels_B > decibels_B.max() - FLOOR_DB)
    return min(half, float(hertz_B[heard[-1]] + BAND_HZ / 2)), False
