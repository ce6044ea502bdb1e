"""How sure a figure is: bootstrap intervals over lines.

A row of a report is a share, such as wrong words / words sung, whose counts come line by line. The
words of one line are not independent (a slurred line loses several), so whole lines are drawn again
with replacement and the share is formed anew for each draw; the interval is where the middle 95 %
of the draws lie (Efron's percentile bootstrap, doi:10.1214/aos/1176344552). Two singers heard on
the same lines are compared on the same draws, line by line: that removes what makes one line harder
than another.

All functions are pure; `hits_L` and `counts_L` hold one number a line. The same seed gives the same
interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its 95 % interval, in the figure's own unit (a share of 1, or a
    quotient)."""

    value: float
    low: float
    high: float


def share(hits_L: ArrayLike, counts_L: ArrayLike, seed: int = 0) -> Interval:
    """sum(hits) / sum(counts) and its interval over lines. ValueError when nothing was counted."""
    return _interval(_shares(*_pair(hits_L, counts_L), seed))


def difference(
    hits_L: ArrayLike,
    counts_L: ArrayLike,
    other_hits_L: ArrayLike,
    other_counts_L: ArrayLike,
    seed: int = 0,
) -> Interval:
    """First share minus second share, paired: line i of both rows must be the same line."""
    hits, counts, other_hits, other_counts = _four(hits_L, counts_L, other_hits_L, other_counts_L)
    return _interval(_shares(hits, counts, seed) - _shares(other_hits, other_counts, seed))


def quotient(
    hits_L: ArrayLike,
    counts_L: ArrayLike,
    other_hits_L: ArrayLike,
    other_counts_L: ArrayLike,
    seed: int = 0,
) -> Interval | None:
    """First share divided by second share, paired as in `difference`; None where the second row hit
    nothing."""
    hits, counts, other_hits, other_counts = _four(hits_L, counts_L, other_hits_L, other_counts_L)
    if not other_hits.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval(_shares(hits, counts, seed) / _shares(other_hits, other_counts, seed))


def _pair(
    hits_L: ArrayLike, counts_L: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    hits, counts = np.asarray(hits_L, dtype=np.float64), np.asarray(counts_L, dtype=np.float64)
    if hits.shape != counts.shape or hits.ndim != 1:
        raise ValueError(
            f"bootstrap: hits {hits.shape} and counts {counts.shape} differ; give one of each a "
            "line"
        )
    if counts.sum() <= 0:
        raise ValueError(
            "bootstrap: nothing was counted; give at least one line with something to count"
        )
    return hits, counts


def _four(*lines: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    four = (*_pair(lines[0], lines[1]), *_pair(lines[2], lines[3]))
    if len(four[0]) != len(four[2]):
        raise ValueError(
            f"bootstrap: {len(four[0])} lines against {len(four[2])}; a paired figure needs the "
            "same lines"
        )
    return four


@lru_cache(maxsize=8)
def _draws(lines: int, seed: int) -> NDArray[np.float64]:
    """How often each line is drawn, per resample: [resamples, lines]. The same draws serve every
    figure of a report."""
    return (
        np.random.default_rng(seed)
        .multinomial(lines, [1 / lines] * lines, size=RESAMPLES)
        .astype(np.float64)
    )


def _shares(
    hits_L: NDArray[np.float64], counts_L: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """The share as measured, then the share of every resample: [1 + resamples]; nan where a draw
    counted nothing."""
    draws_RL = _draws(len(hits_L), seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.append(hits_L.sum(), draws_RL @ hits_L) / np.append(
            counts_L.sum(), draws_RL @ counts_L
        )


def _interval(value_and_draws: NDArray[np.float64]) -> Interval:
    tail = (1 - LEVEL) / 2
    value, drawn_R = value_and_draws[0], value_and_draws[1:]
    kept = drawn_R[np.isfinite(drawn_R)]  # a draw that holds only uncounted lines says nothing
    low, high = np.quantile(kept, [tail, 1 - tail]) if len(kept) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))
