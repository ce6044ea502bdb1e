"""First-fit packing of very many passages: blocks of them side by side, as lanes of one array.

Packing one passage after the other takes Python a microsecond or two each, and so half a minute
for 16 M of them. The blocks of a shuffled order know nothing of each other, so step t packs the
t-th passage of every block at once; a block is packed exactly as `batches.pack_rows` would.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LANE = 4096  # passages in one block

Ints = NDArray[np.int64]
Shorts = NDArray[np.int32]


class Rows(NamedTuple):
    """Passages of row r: members_N[starts_R[r] : starts_R[r + 1]]."""

    members_N: Shorts
    starts_R: Ints


def pack_lanes(
    lengths_N: Shorts, order_N: Shorts, row_tokens: int, open_rows: int, lane: int = LANE
) -> Rows:
    """Rows of passages in this order, block by block; nothing is longer than a row."""
    total = len(order_N)
    lanes = -(-total // lane)
    ordered_LT = np.zeros((lanes, lane), np.int32)
    ordered_LT.reshape(-1)[:total] = lengths_N[order_N]
    table = _OpenRows(lanes, open_rows, row_tokens)
    row_TL = np.zeros((lane, lanes), np.int32)
    by_step_TL = ordered_LT.T.copy()
    del ordered_LT
    for step in range(min(lane, total)):
        active = lanes if (lanes - 1) * lane + step < total else lanes - 1  # the last is shorter
        row_TL[step, :active] = table.put(by_step_TL[step, :active])
    first_L = np.concatenate([[0], np.cumsum(table.rows_L)])
    row_N = (row_TL.T + first_L[:-1, None].astype(np.int32)).reshape(-1)[:total]
    by_row_N = np.argsort(row_N, kind="stable")
    counts_R = np.bincount(row_N, minlength=int(first_L[-1]))
    return Rows(order_N[by_row_N], np.concatenate([[0], np.cumsum(counts_R)]))


class _OpenRows:
    """The open rows of every lane: how much room is left in each, and its number in the lane."""

    def __init__(self, lanes: int, open_rows: int, row_tokens: int) -> None:
        self.room_LO = np.zeros((lanes, open_rows), np.int64)
        self.number_LO = np.full((lanes, open_rows), -1, np.int64)
        self.rows_L = np.zeros(lanes, np.int64)
        self.row_tokens = row_tokens

    def put(self, length_L: Shorts) -> Ints:
        """Puts one passage into each of the first lanes: the number of its row."""
        lanes = np.arange(len(length_L))
        room_LO, number_LO = self.room_LO[lanes], self.number_LO[lanes]
        fits_LO = room_LO >= length_L[:, None]  # where no row is open there is no room
        oldest_L = np.where(fits_LO, number_LO, np.iinfo(np.int64).max).argmin(1)
        fitting_L = fits_LO[lanes, oldest_L]
        # a new row takes the place of none, or of the fullest, unless it is that itself
        fullest_L = (room_LO * 2**32 + number_LO).argmin(1)
        new_room_L = self.row_tokens - length_L
        unused_L = number_LO[lanes, fullest_L] < 0
        closed_at_once_L = ~fitting_L & ~unused_L & (new_room_L < room_LO[lanes, fullest_L])
        chosen_L = np.where(fitting_L, oldest_L, fullest_L)
        row_L = np.where(fitting_L, number_LO[lanes, chosen_L], self.rows_L[lanes])
        left_L = np.where(fitting_L, room_LO[lanes, chosen_L] - length_L, new_room_L)
        kept_L = ~closed_at_once_L
        self.room_LO[lanes[kept_L], chosen_L[kept_L]] = left_L[kept_L]
        self.number_LO[lanes[kept_L], chosen_L[kept_L]] = row_L[kept_L]
        self.rows_L[lanes] += ~fitting_L
        return row_L
