"""Songs as loud as each other.

A model that hears quiet and loud masters learns the mastering. So the integrated loudness (EBU R
128, ITU-R BS.1770-4: K-weighted, gated at -70 LUFS and 10 LU below the mean) is brought to one
target by one gain for the song and all its tracks, so that stems still add up. Never by a limiter,
which would change the sound: where the true peak (BS.1770 annex 2, four times oversampled) leaves
no room, the gain is lowered and the song stays quieter.

-18 LUFS is the reference of ReplayGain 2.0, between broadcast (-23) and streaming (-14): a voice,
whose peaks stand 15 to 20 dB above its loudness, reaches it with a true peak of -1 dBTP, which
codecs and resamplers need as headroom.

What the recording had is kept as the facts `loudness_lufs` and `true_peak_dbtp`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from distill.config.ranges import Checked, above, at_least, at_most, below
from distill.curation.steps import Item, Sound
from distill.errors import SettingsError
from distill.songs import Fact

STEP = "loudness"
BLOCK_SECONDS = 0.4  # BS.1770's gating block: nothing shorter has a loudness
GATE_LUFS = -70.0  # BS.1770's absolute gate: nothing quieter has a loudness
SURROUND = 5  # channels whose weights BS.1770 gives; more are averaged first
# samples that are oversampled at a time, and their neighbours that the filter needs
PIECE, MARGIN = (2**16, 32)
OVERSAMPLING = 4
# between samples a wave rises at most so far above its highest sample: twice, in practice 3 dB
HIGHEST_OVER = 2.0
ROUNDING_DB = 0.005  # what was scaled once stays as it is


@dataclass(frozen=True)
class Settings(Checked):
    """`target_lufs` and `peak_dbtp`: see above. A song within `tolerance_db` of the target stays as
    it is. More than `most_gain_db` is not given: 30 dB lift the rounding noise of 16 bits to -68
    dBFS, where it is heard."""

    target_lufs: float = below(0, default=-18.0)
    peak_dbtp: float = at_most(0, default=-1.0)
    tolerance_db: float = at_least(0, default=0.1)
    most_gain_db: float = above(0, default=30.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_lufs <= GATE_LUFS:
            fault = f"target_lufs is {self.target_lufs}; it must be above {GATE_LUFS:g}"
            raise SettingsError(f"{fault} and below 0, as -18")

    def curate(self, item: Item) -> Item:
        """The item, all tracks scaled alike, with its old loudness. Silence and NaN stay."""
        if not item.tracks:
            return item.remark(STEP, "noted", "no sound: the loudness is unknown")
        loudness = integrated(mix(item.tracks))
        if not math.isfinite(loudness):
            text = "too short, silent or not finite: the loudness is unknown"
            return item.remark(STEP, "noted", text)
        peak = max(true_peak(sound.wave_CW) for sound in item.tracks.values())
        peak_dbtp = 20 * math.log10(peak)
        lufs = Fact("loudness_lufs", round(loudness, 2), STEP, 1.0)
        item = item.know(lufs, Fact("true_peak_dbtp", round(peak_dbtp, 2), STEP, 1.0))
        return self._scaled(item, loudness, peak_dbtp)

    def _scaled(self, item: Item, loudness: float, peak_dbtp: float) -> Item:
        wanted = self.target_lufs - loudness
        if abs(wanted) <= self.tolerance_db:
            wanted = 0.0
        gain = min(wanted, self.most_gain_db, self.peak_dbtp - peak_dbtp)
        if abs(gain) < ROUNDING_DB:
            gain = 0.0
        if gain:
            factor = np.float32(10 ** (gain / 20))
            sounds = item.tracks.items()
            tracks = {name: Sound(s.wave_CW * factor, s.sample_rate) for name, s in sounds}
            item = replace(item, tracks=tracks)
            text = f"{loudness:.1f} to {loudness + gain:.1f} LUFS ({gain:+.1f} dB)"
            item = item.remark(STEP, "mended", text)
        if wanted - gain > self.tolerance_db:
            peak = f"its true peak is {peak_dbtp + gain:.1f} dBTP"
            why = "its gain is limited" if gain == self.most_gain_db else peak
            item = item.remark(STEP, "noted", f"{wanted - gain:.1f} dB below the target: {why}")
        return item.leave(STEP, {"gain_db": round(gain, 3)})


def mix(tracks: Mapping[str, Sound]) -> Sound:
    """The track "audio", else the sum of the stems where they fit, else the first."""
    if "audio" in tracks:
        return tracks["audio"]
    first, *others = tracks.values()
    if len({(stem.sample_rate, stem.wave_CW.shape) for stem in tracks.values()}) == 1:
        return Sound(sum((stem.wave_CW for stem in others), first.wave_CW), first.sample_rate)
    return first


def integrated(sound: Sound) -> float:
    """Integrated loudness in LUFS; -inf for silence and what is under 0.4 s; nan for NaN."""
    import pyloudnorm

    wave_CW = sound.wave_CW if len(sound.wave_CW) <= SURROUND else sound.mono()[None]
    if wave_CW.shape[1] < BLOCK_SECONDS * sound.sample_rate:
        return -math.inf
    if not np.isfinite(wave_CW).all():
        return math.nan
    # "DeMan" is BS.1770's filter at any sample rate; its "K-weighting" is 0.04 LU off at 1 kHz
    meter = pyloudnorm.Meter(sound.sample_rate, "DeMan")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # of a mean over no block at all, when every block is below the gate
        warnings.simplefilter("ignore")
        lufs = float(meter.integrated_loudness(wave_CW.T.astype(np.float64)))
    return lufs if math.isfinite(lufs) and lufs > GATE_LUFS else -math.inf


def true_peak(wave_CW: NDArray[np.float32]) -> float:
    """The highest value (linear) that the wave reaches between its samples, found at four times the
    sample rate. Only where samples come within 6 dB of the highest: nothing else can rise above it
    (see HIGHEST_OVER)."""
    highest = sample_peak = float(np.abs(wave_CW).max(initial=0.0))
    for wave_W in wave_CW:
        for start in range(0, len(wave_W), PIECE):
            piece_W = wave_W[max(0, start - MARGIN) : start + PIECE + MARGIN]
            if sample_peak == 0 or float(np.abs(piece_W).max()) * HIGHEST_OVER < highest:
                continue
            highest = max(highest, float(np.abs(resample_poly(piece_W, OVERSAMPLING, 1)).max()))
    return highest
