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
Row = ArrayLike  # one number a line


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its 95 % interval, in its own unit (a share of 1, or a quotient)."""

    value: float
    low: float
    high: float


def share(hits_L: Row, counts_L: Row, seed: int = 0) -> Interval:
    """sum(hits) / sum(counts) and its interval over lines. ValueError when nothing was counted."""
    return _interval(_shares(hits_L, counts_L, seed))


def difference(
    hits_L: Row, counts_L: Row, other_hits_L: Row, other_counts_L: Row, seed: int = 0
) -> Interval:
    """First share minus second share, paired: line i of both rows must be the same line."""
    shares, others = _paired(seed, hits_L, counts_L, other_hits_L, other_counts_L)
    return _interval(shares - others)


def quotient(
    hits_L: Row, counts_L: Row, other_hits_L: Row, other_counts_L: Row, seed: int = 0
) -> Interval | None:
    """First share divided by second share, paired likewise; None where the second hit nothing."""
    shares, others = _paired(seed, hits_L, counts_L, other_hits_L, other_counts_L)
    if not np.any(other_hits_L):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval(shares / others)


def _paired(seed: int, *rows: Row) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The shares of two rows, each hits and counts, on the same draws."""
    lines, others = np.size(rows[0]), np.size(rows[2])
    if lines != others:
        fault = f"{lines} lines against {others}"
        raise ValueError(f"bootstrap: {fault}; a paired figure needs the same lines")
    return _shares(rows[0], rows[1], seed), _shares(rows[2], rows[3], seed)


def _shares(hits_L: Row, counts_L: Row, seed: int) -> NDArray[np.float64]:
    """The share as measured, then of every resample, [1 + resamples]; nan: nothing was counted."""
    hits_L, counts_L = (np.asarray(row, dtype=np.float64) for row in (hits_L, counts_L))
    if hits_L.shape != counts_L.shape or hits_L.ndim != 1:
        shapes = f"hits {hits_L.shape} and counts {counts_L.shape} differ"
        raise ValueError(f"bootstrap: {shapes}; give one of each a line")
    if counts_L.sum() <= 0:
        raise ValueError(
            "bootstrap: nothing was counted; give at least one line with something to count"
        )
    draws_RL = _draws(len(hits_L), seed)
    hits, counts = (np.append(row.sum(), draws_RL @ row) for row in (hits_L, counts_L))
    with np.errstate(divide="ignore", invalid="ignore"):
        return hits / counts


@lru_cache(maxsize=8)
def _draws(lines: int, seed: int) -> NDArray[np.float64]:
    """How often each line is drawn, [resamples, lines]: the same for every figure of a report."""
    generator = np.random.default_rng(seed)
    draws_RL = generator.multinomial(lines, [1 / lines] * lines, size=RESAMPLES)
    return draws_RL.astype(np.float64)


def _interval(shares: NDArray[np.float64]) -> Interval:
    tail = (1 - LEVEL) / 2
    value, drawn_R = shares[0], shares[1:]
    kept = drawn_R[np.isfinite(drawn_R)]  # a draw that holds only uncounted lines says nothing
    low, high = np.quantile(kept, [tail, 1 - tail]) if len(kept) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))
