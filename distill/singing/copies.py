"""Does a singer remember instead of sing? What of its takes stands in the songs it learnt from.

A run of N frames counts as known where the training songs hold the same N frames one after the
other: by their coarsest code alone (slot 0) or by all their codes. The figure is the share of
frames that lie in some known run. Silence and held notes are alike everywhere, so a share says
little by itself: beside it stands that of songs which nobody learnt from, the control. A singer
that copies is far above it; one that sings is about there.

Melodies are compared in the same way, as runs of notes: by the interval to the next note in
semitones and by how its length compares, so that another key or tempo hides nothing.

Runs are compared by hashes of 64 bits; among MOST_FRAMES of them a chance agreement is less likely
than one in 10^8. Of larger data a sample is taken, which the result states.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

RUN_SECONDS = (0.4, 1.0)
RUN_NOTES = 6
MOST_FRAMES = 4_000_000
MOST_NOTES = 1_000_000
STEPS_AN_OCTAVE = 2  # of length: a note half as long again is another rhythm

Codes = NDArray[np.int64]  # codes_FS
Symbols = NDArray[np.uint64]  # one number a frame, or one for each pair of notes
Melody = Sequence[tuple[float, float, float]]  # (start s, end s, MIDI pitch) of notes in order


def of_codes(
    rows: Mapping[str, Sequence[Codes]], training: Iterable[Codes], frame_rate: float
) -> dict[str, Any]:
    """Shares of the frames of each row that lie in runs of the training codes.

    {"training_frames", "runs": [{"seconds", "frames", "slot0": {row: share}, "all_slots": ...}]};
    a share is None where no sequence of a row is as long as the run. `training` is read until
    MOST_FRAMES have come.
    """
    known, frames = [], 0
    for codes_FS in training:
        known.append(codes_FS[: MOST_FRAMES - frames])
        frames += len(known[-1])
        if frames >= MOST_FRAMES:
            break
    runs: list[dict[str, Any]] = []
    for seconds in RUN_SECONDS:
        length = max(2, round(seconds * frame_rate))
        runs.append({"seconds": seconds, "frames": length})
        for name, slots in (("slot0", 1), ("all_slots", None)):
            table = _table((_symbols(codes_FS[:, :slots]) for codes_FS in known), length)
            runs[-1][name] = {
                row: _share([_symbols(codes_FS[:, :slots]) for codes_FS in of_row], table, length)
                for row, of_row in rows.items()
            }
    return {"training_frames": frames, "runs": runs}


def of_melodies(rows: Mapping[str, Sequence[Melody]], training: Iterable[Melody]) -> dict[str, Any]:
    """Shares of the notes of each row that lie in runs of RUN_NOTES notes of the training songs.

    {"training_notes", "notes": RUN_NOTES, "shares": {row: share, or None without such a run}}.
    """
    known, notes = [], 0
    for melody in training:
        if notes >= MOST_NOTES:
            break
        known.append(_pairs(melody))
        notes += len(melody)
    length = RUN_NOTES - 1
    table = _table(known, length)
    shares = {
        row: _share([_pairs(melody) for melody in melodies], table, length, ends=1)
        for row, melodies in rows.items()
    }
    return {"training_notes": notes, "notes": RUN_NOTES, "shares": shares}


# --- runs -----------------------------------------------------------------------------------------
def _share(
    sequences: Sequence[Symbols], table: Symbols, length: int, ends: int = 0
) -> float | None:
    """The share of places in runs that the table knows; `ends`: places behind the last symbol."""
    hits = count = 0
    for symbols_N in sequences:
        if len(symbols_N) < length:
            continue
        starts = np.flatnonzero(_is_known(_hashes(symbols_N, length), table))
        open_N = np.zeros(len(symbols_N) + ends + 1, dtype=np.int64)
        np.add.at(open_N, starts, 1)
        np.add.at(open_N, starts + length + ends, -1)
        hits += int((open_N.cumsum()[:-1] > 0).sum())
        count += len(symbols_N) + ends
    return hits / count if count else None


def _table(sequences: Iterable[Symbols], length: int) -> Symbols:
    """The hashes of every run of `length` symbols, in order."""
    hashes = [_hashes(symbols_N, length) for symbols_N in sequences if len(symbols_N) >= length]
    return np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64)


def _is_known(hashes_N: Symbols, table: Symbols) -> NDArray[np.bool_]:
    if not len(table):
        return np.zeros(len(hashes_N), dtype=np.bool_)
    at_N = np.searchsorted(table, hashes_N).clip(max=len(table) - 1)
    return table[at_N] == hashes_N


def _hashes(symbols_N: Symbols, length: int) -> Symbols:
    """The hash of the run that begins at each place."""
    runs = len(symbols_N) - length + 1
    hashes_N = np.zeros(runs, np.uint64)
    for offset in range(length):
        hashes_N = _mixed(hashes_N + symbols_N[offset : offset + runs])
    return hashes_N


def _symbols(codes_FS: Codes) -> Symbols:
    """One number a frame, of all the given slots."""
    frame_F = np.zeros(len(codes_FS), np.uint64)
    for column_F in np.asarray(codes_FS).astype(np.uint64).T:
        frame_F = _mixed(frame_F + column_F)
    return frame_F


def _pairs(melody: Melody) -> Symbols:
    """One number for each note and the next: the interval, and how much longer the next is."""
    numbers = []
    for (start, end, midi), (begin, stop, higher) in pairwise(melody):
        longer = math.log2(max(stop - begin, 1e-3) / max(end - start, 1e-3))
        numbers.append([round(higher - midi), round(STEPS_AN_OCTAVE * longer)])
    return _symbols(np.array(numbers, dtype=np.int64).reshape(-1, 2) + 1024)


def _mixed(numbers_N: Symbols) -> Symbols:
    """Numbers scattered over 64 bits (splitmix64, Steele et al. 2014,
    doi:10.1145/2660193.2660195)."""
    mixed_N = numbers_N + np.uint64(0x9E3779B97F4A7C15)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed_N ^ (mixed_N >> np.uint64(31))
