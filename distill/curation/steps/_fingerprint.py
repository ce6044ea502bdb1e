"""A recording as a sky of spectral peaks, and where two skies lie over one another.

    wave -> constellation: the loudest points of the spectrogram  (curate, ~80 bytes a second)
         -> triples of near peaks, each hashed -> songs that share hashes at one time offset
         -> the two skies laid over one another there: which seconds of each are in the other

Landmark hashing is Wang's ("An industrial-strength audio search algorithm", ISMIR 2003). Peaks know
nothing of gain and survive codecs well. Two things differ. A hash joins three peaks, not two: songs
share words, pitches and tempi, so pairs collide where triples do not. And shared hashes only
nominate: what counts is how many seconds of the song hold the other's peaks at one offset, which
words, a loop or an intro in common do not reach.

A peak is one whole number, frame x BINS + bin, in sorted arrays.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, maximum_filter1d

from distill.audio.resampling import resample_array

Ints = NDArray[np.int64]
Peaks = Ints

RATE = 8000  # Hz: what tells recordings apart lies below 4 kHz, and every codec keeps that
# samples: 128 ms to see single harmonics, every 32 ms, or peaks move with the cut
WINDOW, HOP = 1024, 256
BINS = 512
LOWEST_BIN = 8  # 62 Hz: below lie hum and rumble
FRAMES_PER_SECOND = RATE / HOP
# a peak is the loudest within 0.26 s and 125 Hz each way: about 20 a second
NEAR_FRAMES, NEAR_BINS = 8, 16
FLOOR = 10 ** (-45 / 20)  # below the loudest within 2 s: what lies deeper is codec noise
CANCELLED = 0.05  # power of the channels' mean, of their own, below which they cancel out
AROUND = round(2 * FRAMES_PER_SECOND)
FAINTEST = 1e-4 * WINDOW / 4  # of a sine at -80 dBFS under this window
CHUNK = 4096  # frames at once (131 s): memory does not grow with the song

FAN, WITHIN = 4, 64  # triples are taken among a peak and the next 4, at most 2 s later
# of songs with more peaks (a minute) one hash in 4 is indexed, the same in all
SHORT, KEPT_SHARE = 1200, 4
# places with the same hash that each is paired with: linear also where a hash is everywhere
REACH = 32
# hashes at one offset, absolute and of the fewer, to nominate a pair
LEAST_HITS, LEAST_HIT_SHARE = 3, 0.01
SPAN = 2**22  # of offsets in frames: 18 hours each way
MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: spreads hashes (Fibonacci)
OFFSETS = 3  # tried for two songs, two frames apart: an edit is the same recording at several
BLOCK = round(FRAMES_PER_SECOND)  # frames in which peaks are counted: a second
LEAST_PEAKS = 3  # of a block that has something to compare
# looked at with each block: songs with one accompaniment agree for a second here and there
AROUND_BLOCKS = 2
AGREES = 0.6  # of the peaks there found again; chance gives 0.02, an MP3 at 24 kb/s 0.85


class Overlap(NamedTuple):
    """Seconds from a moment in a to the same in b, and the share of each song in the other."""

    offset_seconds: float
    share_a: float
    share_b: float
    blocks: int

    def turned(self) -> Overlap:
        """The same as b sees it."""
        return Overlap(-self.offset_seconds, self.share_b, self.share_a, self.blocks)


def constellation(wave_CW: NDArray[np.float32], sample_rate: int) -> Peaks:
    """The peaks of a recording, in order. Time 0 is its first sample."""
    wave = resample_array(_one_channel(wave_CW), sample_rate, RATE, quality="MQ")
    wave = np.pad(wave, WINDOW // 2)  # frame f is centred on f x HOP
    frames_FW = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    window = np.hanning(WINDOW).astype(np.float32)
    margin = AROUND + NEAR_FRAMES
    near = (2 * NEAR_FRAMES + 1, 2 * NEAR_BINS + 1)
    peaks = []
    for start in range(0, len(frames_FW), CHUNK):
        first, stop = max(0, start - margin), start + CHUNK + margin
        level_FB = np.abs(scipy.fft.rfft(frames_FW[first:stop] * window, axis=1)[:, :BINS])
        level_FB[:, :LOWEST_BIN] = 0
        loudest_F = maximum_filter1d(level_FB.max(1), 2 * AROUND + 1, mode="constant")
        near_FB = maximum_filter(level_FB, near, mode="constant")
        least_F1 = np.maximum(FLOOR * loudest_F, FAINTEST)[:, None]
        frame, bin = np.nonzero((level_FB == near_FB) & (level_FB > least_F1))
        frame = frame + first
        inside = (frame >= start) & (frame < start + CHUNK)
        peaks.append(frame[inside] * BINS + bin[inside])
    return np.concatenate(peaks).astype(np.int64)


def between(peaks: Peaks, start: float, end: float) -> Peaks:
    """The peaks from one time (seconds) to another."""
    second = peaks // BINS / FRAMES_PER_SECOND
    return peaks[(second >= start) & (second < end)]


def _one_channel(wave_CW: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the channels; the loudest of them where they cancel out."""
    mono = wave_CW.mean(0)
    power = np.square(wave_CW).mean(1)
    sounds = np.square(mono).mean() >= CANCELLED * power.mean()
    return mono if sounds else wave_CW[power.argmax()]


# --- which songs to lay over one another ----------------------------------------------------------


def hashes(peaks: Peaks) -> tuple[Ints, NDArray[np.int32]]:
    """(hash, first peak's frame) of triples of near peaks; 39 bits of three bins and two steps."""
    frame, bin = np.divmod(peaks, BINS)
    kept, frames = [], []
    for second, third in itertools.combinations(range(1, FAN + 1), 2):
        count = max(0, len(peaks) - third)
        a, b, c = (slice(start, start + count) for start in (0, second, third))
        step, steps = frame[b] - frame[a], frame[c] - frame[a]
        hash = (((bin[a] * BINS + bin[b]) * BINS + bin[c]) * WITHIN + step) * WITHIN + steps
        good = (step > 0) & (steps < WITHIN)
        if len(peaks) > SHORT:
            good &= (hash.astype(np.uint64) * MIXER >> np.uint64(32)) % KEPT_SHARE == 0
        kept.append(hash[good])
        frames.append(frame[a][good])
    return np.concatenate(kept), np.concatenate(frames).astype(np.int32)


def nominated(skies: Sequence[Peaks]) -> Iterator[tuple[int, int, list[int]]]:
    """(a, b, offsets in frames, the likeliest first) of songs a < b that share enough hashes, in
    order. Linear in the songs: a common hash links each with its next few only, so that all copies
    of one recording still hang together."""
    parts = [hashes(peaks) for peaks in skies]
    counts = np.array([len(part[0]) for part in parts], int)
    if not counts.sum():
        return
    hash, frame = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
    song = np.repeat(np.arange(len(skies), dtype=np.int32), counts)
    del parts
    order = np.argsort(hash, kind="stable")
    hash, frame, song = hash[order], frame[order], song[order]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    for a, end in enumerate(np.cumsum(counts).tolist()):
        key = _followers(rank[end - counts[a] : end], hash, frame, song)
        key, hits = np.unique(key, return_counts=True)
        adjacent, alone = np.diff(key, prepend=-2) == 1, hits.copy()
        hits[adjacent] += alone[:-1][adjacent[1:]]
        hits[:-1][adjacent[1:]] += alone[adjacent]
        fewer = np.minimum(counts[a], counts[key // SPAN])
        enough = hits >= np.maximum(LEAST_HITS, LEAST_HIT_SHARE * fewer)
        other, offset, hits = key[enough] // SPAN, key[enough] % SPAN - SPAN // 2, hits[enough]
        for first, last in _runs(other):
            yield a, int(other[first]), _distinct(offset[first:last], hits[first:last])


def _followers(rank: Ints, hash: Ints, frame: NDArray[np.int32], song: NDArray[np.int32]) -> Ints:
    """song x SPAN + offset for each later song that shares a hash; rank: of this one's hashes."""
    keys = [np.empty(0, np.int64)]
    for reach in range(1, REACH + 1):
        rank = rank[rank + reach < len(hash)]
        rank = rank[hash[rank + reach] == hash[rank]]
        if not len(rank):
            break
        other = rank + reach
        key = song[other].astype(np.int64) * SPAN + (frame[other] - frame[rank] + SPAN // 2)
        keys.append(key[song[other] != song[rank]])
    return np.concatenate(keys)


def _distinct(offset: Ints, hits: Ints) -> list[int]:
    """The offsets with the most hits; those beside one already taken are the same."""
    taken: list[int] = []
    for near in offset[np.lexsort((offset, np.abs(offset), -hits))].tolist():
        if len(taken) < OFFSETS and all(abs(near - other) > 1 for other in taken):
            taken.append(near)
    return taken


def _runs(sorted_keys: Ints) -> Iterator[tuple[int, int]]:
    edges = [0, *(np.flatnonzero(np.diff(sorted_keys)) + 1).tolist(), len(sorted_keys)]
    return ((first, last) for first, last in itertools.pairwise(edges) if first < last)


# --- one sky over another -------------------------------------------------------------------------


def overlap(a: Peaks, b: Peaks, offsets: Sequence[int]) -> Overlap:
    """What of each song is in the other at these offsets (frames, a to b; the main one first)."""
    seen_a, seen_b = np.zeros(_blocks(a), bool), np.zeros(_blocks(b), bool)
    for offset in offsets:
        seen_a |= _agreeing(a, _shared(a + offset * BINS, b))
        seen_b |= _agreeing(b, _shared(b - offset * BINS, a))
    share_a = float(seen_a.sum() / max(1, _full(a).sum()))
    share_b = float(seen_b.sum() / max(1, _full(b).sum()))
    blocks = int(min(seen_a.sum(), seen_b.sum()))
    return Overlap(offsets[0] / FRAMES_PER_SECOND, share_a, share_b, blocks)


def _shared(peaks: Peaks, others: Peaks) -> NDArray[np.bool_]:
    """Which peaks the others have too, up to a frame and a bin: a codec moves them that far."""
    padded = np.append(others, np.iinfo(np.int64).max)
    shared = np.zeros(len(peaks), bool)
    for frames in (-1, 0, 1):
        moved = peaks + frames * BINS
        shared |= padded[np.searchsorted(others, moved - 1)] <= moved + 1
    return shared


def _blocks(peaks: Peaks) -> int:
    return int(peaks[-1]) // (BINS * BLOCK) + 1


def _counted(peaks: Peaks, counts: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """How many peaks each block has; `counts`: which ones count."""
    number = np.bincount(peaks // (BINS * BLOCK), counts, minlength=_blocks(peaks))
    return number.astype(np.float64)


def _full(peaks: Peaks) -> NDArray[np.bool_]:
    return _counted(peaks) >= LEAST_PEAKS


def _agreeing(peaks: Peaks, shared: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The blocks in and around which most peaks are shared."""
    around = np.ones(1 + 2 * AROUND_BLOCKS)
    near = slice(AROUND_BLOCKS, -AROUND_BLOCKS)
    there, again = (np.convolve(_counted(peaks, n), around)[near] for n in (None, shared))
    return _full(peaks) & (again >= AGREES * there)
