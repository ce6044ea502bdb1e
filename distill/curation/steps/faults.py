"""Is the sound whole? Silence, clipping, offset, gaps, clicks, and values that are no sound.

    NaN, infinity    set aside: something went wrong before, and nobody knows what else did
    length, silence  set aside when too short, too long or hardly anything sounds; long silent ends
                     are noted
    clipping         three or more samples in a row of one value at the top (or bottom) of the wave,
                     which it was about to pass: a flat top, at full scale or, turned down, below it
    offset           subtracted from all tracks (the mean: it is linear, so stems still add up)
    dropouts         samples held still (at nothing or elsewhere) for 1 ms or more amid sound
    clicks           a jump between samples ten times sharper than all within 10 ms of it; noted

Each remark names its numbers. All thresholds are settings. What this cannot see: flat tops that a
lossy codec has bent, gaps that were faded, and a square wave, which is what it looks like: clipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from distill.config.ranges import Checked, above, at_least, below, share
from distill.curation.steps import Item, Remark, Sound, Verdict
from distill.curation.steps._levels import SILENT_PEAK, equal_runs, frame_decibels, loud_decibels
from distill.errors import SettingsError

STEP = "faults"
FRAME_SECONDS = 0.02
HELD_SECONDS = 0.001  # longer than any wave stands still in the middle of sound
BESIDE_SECONDS = 0.01  # around a gap or click: what it is compared with
AT_TOP = 0.999  # of the highest sample: what reaches it stands at the top
FLAT_RUN = 3  # samples: two equal ones are common at a natural peak
NATURAL_OVERSHOOT = 0.005  # of the top: rounding flattens a slow peak by less than this
ROUNDED = 0.05  # steps between samples that are whole multiples of one, but for this part of it
LEAST_HELD = 8  # samples of a gap at any sample rate
GAP_JUMP, GAP_LOUDNESS = 0.1, 0.1  # of the RMS beside a gap; of the loud parts, beside it
CLICK_SHARPNESS = 10.0
CLICK_SAMPLES = 4  # one jump bends its neighbours too
FAINTEST_CLICK = 0.02  # of the highest sample


@dataclass(frozen=True)
class Settings(Checked):
    """When a song is set aside, and when a fault is worth a remark. Seconds: shorter than a sung
    line is no song; 20 minutes is the limit of decoding. Silence is 50 dB and more below the loud
    parts (`silence_db`): a voice alone rests for up to half of its song, hence `most_silence` 0.8.
    A loud master clips 1 sample in 1,000; at `most_clipped` 1 in 100 the voice itself is distorted.
    `offset_db` is against the RMS: from 1 % on (-40 dB) it costs headroom and thumps at cuts.
    `most_dropped` is a share of the sound's length."""

    shortest_seconds: float = at_least(0, default=2.0)
    longest_seconds: float = 1200.0
    silence_db: float = above(0, default=50.0)
    most_silence: float = share(zero=False, default=0.8)
    long_silence_seconds: float = above(0, default=5.0)
    most_clipped: float = share(zero=False, default=0.01)
    offset_db: float = below(0, default=-40.0)
    most_dropped: float = share(zero=False, default=0.005)
    most_clicks_per_minute: float = above(0, default=60.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shortest_seconds < self.longest_seconds:
            raise SettingsError("shortest_seconds must be below longest_seconds")

    def curate(self, item: Item) -> Item:
        """The item with a remark for each fault, and without offset."""
        if not item.tracks:
            return item.remark(STEP, "noted", "no sound: nothing to find fault with")
        reasons = list(self._hopeless(item))
        if reasons:
            remarks = (Remark(STEP, "set aside", text) for text in reasons)
            return replace(item, remarks=(*item.remarks, *remarks))
        for name, sound in item.tracks.items():
            whose = "" if name == "audio" else f"{name}: "
            for find in (self._silence, self._clipping, self._dropouts, self._clicks):
                for remark in find(sound):
                    # an accompaniment may rest, or be distorted
                    verdict = remark.verdict if name != "accompaniment" else "noted"
                    item = item.remark(STEP, verdict, whose + remark.text)
        return self._without_offset(item)

    def _hopeless(self, item: Item) -> Iterator[str]:
        """Why nothing can be done with its sound."""
        for name, sound in item.tracks.items():
            wrong = int(sound.wave_CW.size - np.isfinite(sound.wave_CW).sum())
            if wrong:
                yield f"{name}: {wrong:,} samples are NaN or infinite"
            elif sound.seconds < self.shortest_seconds:
                yield f"{name}: lasts {sound.seconds:.2f} s, less than {self.shortest_seconds:g}"
            elif sound.seconds > self.longest_seconds:
                yield f"{name}: lasts {sound.seconds:.0f} s, more than {self.longest_seconds:g}"
            elif name != "accompaniment" and _highest(sound.wave_CW) < SILENT_PEAK:
                yield f"{name}: is silent"

    def _silence(self, sound: Sound) -> Iterator[Remark]:
        decibels_F = frame_decibels(sound.mono(), max(1, round(FRAME_SECONDS * sound.sample_rate)))
        sounds_F = decibels_F > loud_decibels(decibels_F) - self.silence_db
        if not sounds_F.any():
            return
        silent = 1 - float(sounds_F.mean())
        first, last = np.flatnonzero(sounds_F)[[0, -1]]
        if silent > self.most_silence:
            yield Remark(STEP, "set aside", f"{100 * silent:.0f} % of it is silent")
        for where, frames in (("begins", first), ("ends", len(sounds_F) - 1 - last)):
            seconds = frames * FRAME_SECONDS
            if seconds > self.long_silence_seconds:
                yield Remark(STEP, "noted", f"{where} with {seconds:.1f} s of silence")

    def _clipping(self, sound: Sound) -> Iterator[Remark]:
        samples = runs = 0
        for wave_W in sound.wave_CW:
            for lengths_R in (flat_tops(wave_W), flat_tops(-wave_W)):
                runs, samples = runs + len(lengths_R), samples + int(lengths_R.sum())
        if runs:
            clipped = samples / sound.wave_CW.size
            text = f"clipped: {samples:,} samples in {runs:,} runs ({_percent(clipped)})"
            yield Remark(STEP, _verdict(clipped > self.most_clipped), text)

    def _dropouts(self, sound: Sound) -> Iterator[Remark]:
        gaps = [length for wave_W in sound.wave_CW for length in _gaps(wave_W, sound.sample_rate)]
        if gaps:
            dropped = sum(gaps) / sound.wave_CW.size
            milliseconds = f"{1000 * sum(gaps) / sound.sample_rate:,.0f} ms in all"
            text = f"dropouts: {len(gaps):,} gaps within sound, {milliseconds}"
            verdict = _verdict(dropped > self.most_dropped)
            yield Remark(STEP, verdict, f"{text} ({_percent(dropped)})")

    def _clicks(self, sound: Sound) -> Iterator[Remark]:
        beside = round(BESIDE_SECONDS * sound.sample_rate)
        clicks = max(len(click_places(wave_W, beside)) for wave_W in sound.wave_CW)
        if clicks:
            rate = 60 * clicks / sound.seconds
            text = f"clicks: {clicks:,} ({rate:.1f} a minute)"
            yield Remark(STEP, _verdict(rate > self.most_clicks_per_minute), text)

    def _without_offset(self, item: Item) -> Item:
        means = {name: s.wave_CW.mean(1, dtype=np.float64) for name, s in item.tracks.items()}
        worst = 0.0
        for name, sound in item.tracks.items():
            rms = float(np.sqrt(np.square(sound.wave_CW, dtype=np.float64).mean()))
            largest = float(np.abs(means[name]).max())
            if largest > 10 ** (self.offset_db / 20) * rms:
                worst = max(worst, largest)
        if not worst:
            return item
        tracks = {}
        for name, sound in item.tracks.items():
            wave_CW = (sound.wave_CW - means[name][:, None]).astype(np.float32)
            tracks[name] = Sound(wave_CW, sound.sample_rate)
        text = f"constant offset of {worst:.4f} subtracted"
        return replace(item, tracks=tracks).remark(STEP, "mended", text)


def _verdict(aside: bool) -> Verdict:
    return "set aside" if aside else "noted"


def _highest(wave: NDArray[np.float32]) -> float:
    return float(np.abs(wave).max(initial=0.0))


def flat_tops(wave_W: NDArray[np.float32]) -> NDArray[np.int64]:
    """Lengths of the runs at the top of the wave that came up steeply enough to pass it."""
    top = float(wave_W.max(initial=0.0))
    if top <= 0:
        return np.empty(0, np.int64)
    starts, lengths = equal_runs(wave_W, FLAT_RUN)
    at_top = wave_W[starts] >= AT_TOP * top
    starts, lengths = starts[at_top], lengths[at_top]
    ends = starts + lengths  # one behind
    before = wave_W[starts] - wave_W[np.maximum(starts - 1, 0)]
    after = wave_W[starts] - wave_W[np.minimum(ends, len(wave_W) - 1)]
    # Straight on from both sides, the wave would have met half-way at this height above the flat
    # top. Rounding makes a slow slope up to one step too steep, and it is rounding that flattens
    # the top of a slow wave.
    overshoot = ((before + after) / 2 - rounding_step(wave_W)) * lengths / 4
    return lengths[overshoot > NATURAL_OVERSHOOT * top]


def rounding_step(wave_W: NDArray[np.float32]) -> float:
    """What the samples were once rounded to, whatever gain came after; 0 where they were not."""
    steps_W = np.abs(np.diff(wave_W[: 2**18].astype(np.float64)))
    steps_W = steps_W[steps_W > 0]
    if not len(steps_W):
        return 0.0
    multiples_W = steps_W / steps_W.min()
    rounded = np.median(np.abs(multiples_W - np.round(multiples_W))) < ROUNDED
    return float(steps_W.min()) if rounded else 0.0


def _gaps(wave_W: NDArray[np.float32], sample_rate: int) -> Iterator[int]:
    """Lengths (samples) of the runs that stand still amid sound, with a jump at one end."""
    least = max(LEAST_HELD, round(HELD_SECONDS * sample_rate))
    beside = round(BESIDE_SECONDS * sample_rate)
    loud = 10 ** (loud_decibels(frame_decibels(wave_W, 2 * beside)) / 20)
    top = AT_TOP * _highest(wave_W)
    for start, length in zip(*equal_runs(wave_W, least), strict=True):
        stop = start + length
        if start < beside or stop + beside > len(wave_W) or abs(wave_W[start]) >= top:
            continue  # at the ends it is silence, at the top it is clipping
        left_W, right_W = wave_W[start - beside : start], wave_W[stop : stop + beside]
        powers = [np.square(side_W, dtype=np.float64).mean() for side_W in (left_W, right_W)]
        left, right = map(float, np.sqrt(powers))
        held = float(wave_W[start])
        jumps_left = abs(float(left_W[-1]) - held) > GAP_JUMP * left
        jumps_right = abs(float(right_W[0]) - held) > GAP_JUMP * right
        if min(left, right) > GAP_LOUDNESS * loud and (jumps_left or jumps_right):
            yield int(length)


def click_places(wave_W: NDArray[np.float32], beside: int) -> NDArray[np.int64]:
    """Samples where the wave bends ten times more sharply than within `beside` samples of it."""
    if len(wave_W) < 4 * beside:
        return np.empty(0, np.int64)
    bend_W = np.abs(np.diff(wave_W, n=2))
    peaks = np.flatnonzero(bend_W > FAINTEST_CLICK * _highest(wave_W))
    if not len(peaks):
        return np.empty(0, np.int64)
    highest_W = maximum_filter1d(bend_W, 2 * beside + 1)
    peaks = peaks[bend_W[peaks] == highest_W[peaks]]  # one a neighbourhood
    left_W = maximum_filter1d(bend_W, beside, origin=(beside - 1) // 2)
    right_W = maximum_filter1d(bend_W, beside, origin=-((beside - 1) // 2))
    before = left_W[np.maximum(peaks - CLICK_SAMPLES, 0)]
    after = right_W[np.minimum(peaks + CLICK_SAMPLES, len(bend_W) - 1)]
    clicks = peaks[bend_W[peaks] > CLICK_SHARPNESS * np.maximum(before, after)]
    return clicks[np.diff(clicks, prepend=-2 * beside) > beside]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
