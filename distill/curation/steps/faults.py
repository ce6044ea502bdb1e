"""Is the sound whole? Silence, clipping, a constant offset, gaps, clicks, and values that are no
sound at all.

    NaN, infinity      set aside: something went wrong before, and nobody knows what else did
    length, silence    set aside when too short, too long, or hardly anything sounds; long silent ends are noted
    clipping           three or more samples in a row of one value at the top (or bottom) of the wave, which it was about
                       to pass: a flat top, at full scale or, where somebody turned it down afterwards, below
    offset             subtracted from all tracks (the mean: it is linear, so stems still add up)
    dropouts           samples held still (at nothing or elsewhere) for 1 ms or more in the middle of sound
    clicks             a jump between samples ten times sharper than anything within 10 ms of it; noted

Each remark names its numbers. All thresholds are settings. What this cannot see: flat tops that a
lossy codec has bent, gaps that were faded, and a square wave, which is what it looks like: clipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from distill.curation.steps import Item, Remark, Sound
from distill.curation.steps._levels import SILENT_PEAK, equal_runs, frame_decibels, loud_decibels
from distill.errors import SettingsError

STEP = "faults"
FRAME_SECONDS = 0.02
HELD_SECONDS = 0.001  # longer than any wave stands still in the middle of sound
BESIDE_SECONDS = 0.01  # around a gap or click: what it is compared with
FLAT_RUN = 3  # samples: two equal ones are common at a natural peak
NATURAL_OVERSHOOT = 0.005  # of the top: rounding flattens a slow peak by less than this
CLICK_SHARPNESS = 10.0
FAINTEST_CLICK = 0.02  # of the highest sample


@dataclass(frozen=True)
class Settings:
    """When a song is set aside, and from where on a fault is worth a remark.

    Seconds: shorter than a sung line is no song; 20 minutes is the limit of decoding. Silence is 50
    dB and more below the loud parts (`silence_db`): a voice alone rests for up to half of its song,
    hence `most_silence` 0.8. A loud master clips 1 sample in 1,000; at `most_clipped` 1 in 100 the
    voice itself is distorted. `offset_db` is against the RMS: from 1 % on (-40 dB) it costs
    headroom and thumps at cuts. `most_dropped` is a share of the sound's length.
    """

    shortest_seconds: float = 2.0
    longest_seconds: float = 1200.0
    silence_db: float = 50.0
    most_silence: float = 0.8
    long_silence_seconds: float = 5.0
    most_clipped: float = 0.01
    offset_db: float = -40.0
    most_dropped: float = 0.005
    most_clicks_per_minute: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.shortest_seconds < self.longest_seconds:
            raise SettingsError("shortest_seconds must be 0 or more and below longest_seconds")
        for name in ("most_silence", "most_clipped", "most_dropped"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingsError(
                    f"{name} is {getattr(self, name)}; give a share above 0 and up to 1"
                )
        for name in ("silence_db", "long_silence_seconds", "most_clicks_per_minute"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a number above 0")
        if self.offset_db >= 0:
            raise SettingsError(f"offset_db is {self.offset_db}; give decibels below 0, as -40")

    def curate(self, item: Item) -> Item:
        """The item with its faults told, and without offset."""
        if not item.tracks:
            return item.remark(STEP, "noted", "no sound: nothing to find fault with")
        broken = list(self._hopeless(item))
        if broken:
            return replace(item, remarks=(*item.remarks, *broken))
        for name, sound in item.tracks.items():
            whose = "" if name == "audio" else f"{name}: "
            finds = [
                *self._silence(sound),
                *_clipping(sound, self),
                *_dropouts(sound, self),
                *_clicks(sound, self),
            ]
            for remark in finds:
                # which may rest, or be distorted
                aside = remark.verdict == "set aside" and name != "accompaniment"
                item = item.remark(STEP, "set aside" if aside else "noted", whose + remark.text)
        return self._without_offset(item)

    def _hopeless(self, item: Item) -> Iterator[Remark]:
        for name, sound in item.tracks.items():
            wrong = int(sound.wave_CW.size - np.isfinite(sound.wave_CW).sum())
            if wrong:
                yield Remark(STEP, "set aside", f"{name}: {wrong:,} samples are NaN or infinite")
            elif sound.seconds < self.shortest_seconds:
                yield Remark(
                    STEP,
                    "set aside",
                    f"{name}: lasts {sound.seconds:.2f} s, less than {self.shortest_seconds:g}",
                )
            elif sound.seconds > self.longest_seconds:
                yield Remark(
                    STEP,
                    "set aside",
                    f"{name}: lasts {sound.seconds:.0f} s, more than {self.longest_seconds:g}",
                )
            elif float(np.abs(sound.wave_CW).max(initial=0.0)) < SILENT_PEAK:
                verdict = "noted" if name == "accompaniment" else "set aside"
                if verdict == "set aside":
                    yield Remark(STEP, "set aside", f"{name}: is silent")

    def _silence(self, sound: Sound) -> Iterator[Remark]:
        decibels_F = frame_decibels(sound.mono(), max(1, round(FRAME_SECONDS * sound.sample_rate)))
        sounds_F = decibels_F > loud_decibels(decibels_F) - self.silence_db
        if not sounds_F.any():
            return
        share = 1 - float(sounds_F.mean())
        first, last = np.flatnonzero(sounds_F)[[0, -1]]
        if share > self.most_silence:
            yield Remark(STEP, "set aside", f"{100 * share:.0f} % of it is silent")
        for where, frames in (("begins", first), ("ends", len(sounds_F) - 1 - last)):
            if frames * FRAME_SECONDS > self.long_silence_seconds:
                yield Remark(
                    STEP, "noted", f"{where} with {frames * FRAME_SECONDS:.1f} s of silence"
                )

    def _without_offset(self, item: Item) -> Item:
        means = {
            name: sound.wave_CW.mean(1, dtype=np.float64) for name, sound in item.tracks.items()
        }
        worst = 0.0
        for name, sound in item.tracks.items():
            rms = float(np.sqrt(np.square(sound.wave_CW, dtype=np.float64).mean()))
            largest = float(np.abs(means[name]).max())
            if largest > 10 ** (self.offset_db / 20) * rms:
                worst = max(worst, largest)
        if not worst:
            return item
        tracks = {
            name: Sound(
                (sound.wave_CW - means[name][:, None]).astype(np.float32), sound.sample_rate
            )
            for name, sound in item.tracks.items()
        }
        return replace(item, tracks=tracks).remark(
            STEP, "mended", f"constant offset of {worst:.4f} subtracted"
        )


def _clipping(sound: Sound, settings: Settings) -> Iterator[Remark]:
    samples = runs = 0
    for wave_W in sound.wave_CW:
        for lengths_R in (flat_tops(wave_W), flat_tops(-wave_W)):
            runs, samples = runs + len(lengths_R), samples + int(lengths_R.sum())
    if runs:
        share = samples / sound.wave_CW.size
        verdict = "set aside" if share > settings.most_clipped else "noted"
        text = f"clipped: {samples:,} samples in {runs:,} runs ({_percent(share)})"
        yield Remark(STEP, verdict, text)  # type: ignore[arg-type]


def flat_tops(wave_W: NDArray[np.float32]) -> NDArray[np.int64]:
    """Lengths of the runs that stand still at the top of the wave, though they came up steeply
    enough to pass it."""
    top = float(wave_W.max(initial=0.0))
    if top <= 0:
        return np.empty(0, np.int64)
    starts, lengths = equal_runs(wave_W, FLAT_RUN)
    at_top = wave_W[starts] >= 0.999 * top
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
    """What the samples were once rounded to, whatever gain came after; 0 for a wave that was not
    rounded."""
    steps_W = np.abs(np.diff(wave_W[: 2**18].astype(np.float64)))
    steps_W = steps_W[steps_W > 0]
    if not len(steps_W):
        return 0.0
    multiples_W = steps_W / steps_W.min()
    rounded = np.median(np.abs(multiples_W - np.round(multiples_W))) < 0.05
    return float(steps_W.min()) if rounded else 0.0


def _dropouts(sound: Sound, settings: Settings) -> Iterator[Remark]:
    gaps, samples = 0, 0
    least = max(8, round(HELD_SECONDS * sound.sample_rate))
    beside = round(BESIDE_SECONDS * sound.sample_rate)
    for wave_W in sound.wave_CW:
        loud = 10 ** (loud_decibels(frame_decibels(wave_W, 2 * beside)) / 20)
        top = 0.999 * float(np.abs(wave_W).max(initial=0.0))
        for start, length in zip(*equal_runs(wave_W, least), strict=True):
            if start < beside or start + length + beside > len(wave_W) or abs(wave_W[start]) >= top:
                continue  # at the ends it is silence, at the top it is clipping
            left_W, right_W = (
                wave_W[start - beside : start],
                wave_W[start + length : start + length + beside],
            )
            sides = [
                float(np.sqrt(np.square(side_W, dtype=np.float64).mean()))
                for side_W in (left_W, right_W)
            ]
            value = float(wave_W[start])
            jumps = (
                abs(float(left_W[-1]) - value) > 0.1 * sides[0],
                abs(float(right_W[0]) - value) > 0.1 * sides[1],
            )
            if min(sides) > 0.1 * loud and any(jumps):
                gaps, samples = gaps + 1, samples + int(length)
    if gaps:
        share = samples / sound.wave_CW.size
        verdict = "set aside" if share > settings.most_dropped else "noted"
        milliseconds = 1000 * samples / sound.sample_rate
        text = f"dropouts: {gaps:,} gaps within sound, {milliseconds:,.0f} ms in all ({_percent(share)})"
        yield Remark(STEP, verdict, text)  # type: ignore[arg-type]


def _clicks(sound: Sound, settings: Settings) -> Iterator[Remark]:
    beside = round(BESIDE_SECONDS * sound.sample_rate)
    clicks = max(len(click_places(wave_W, beside)) for wave_W in sound.wave_CW)
    if clicks:
        per_minute = 60 * clicks / sound.seconds
        verdict = "set aside" if per_minute > settings.most_clicks_per_minute else "noted"
        yield Remark(STEP, verdict, f"clicks: {clicks:,} ({per_minute:.1f} a minute)")  # type: ignore[arg-type]


def click_places(wave_W: NDArray[np.float32], beside: int) -> NDArray[np.int64]:
    """Samples where the wave bends ten times more sharply than anywhere within `beside` samples,
    itself aside."""
    if len(wave_W) < 4 * beside:
        return np.empty(0, np.int64)
    bend_W = np.abs(np.diff(wave_W, n=2))
    loudest = float(np.abs(wave_W).max(initial=0.0))
    peaks = np.flatnonzero(bend_W > FAINTEST_CLICK * loudest)
    if not len(peaks):
        return np.empty(0, np.int64)
    highest_W = maximum_filter1d(bend_W, 2 * beside + 1)
    peaks = peaks[bend_W[peaks] == highest_W[peaks]]  # one a neighbourhood
    own = 4  # samples: one jump bends its neighbours too
    left_W = maximum_filter1d(bend_W, beside, origin=(beside - 1) // 2)
    right_W = maximum_filter1d(bend_W, beside, origin=-((beside - 1) // 2))
    around = np.maximum(
        left_W[np.maximum(peaks - own, 0)], right_W[np.minimum(peaks + own, len(bend_W) - 1)]
    )
    found = peaks[bend_W[peaks] > CLICK_SHARPNESS * around]
    return found[np.diff(found, prepend=-2 * beside) > beside]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
