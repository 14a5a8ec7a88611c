"""The values that occur in two rows or more: all that a no-duplicates plan has to look at.

Guarantee: two rows share a value number exactly when they share a 64-bit identity; a value that occurs in one row
alone has no number, since it can never collide. Columns share one space of numbers.

Cost: linear in rows × columns but for the sorts, which run over pieces that fit the processor's cache. Kept: at most
10 bytes per row and column (4 for ``row_values``, 4 for ``members``, 2 for ``starts``); peak while building: about 20,
the identities included.

Known bias: none. Values are numbered by rising number of rows, so that equal sizes lie side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.signedinteger]

MAX_ROWS = 2**31 - 2**26  # seats are int32, and an unfilled last batch leaves some of them empty


_SORTED = 1 << 18  # cells that are sorted at a time
_PIECE = 1 << 18  # cells that are copied at a time
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads small integers over the pieces


@dataclass(frozen=True, eq=False)
class RepeatedValues:
    """Rows grouped by the values that they share.

    Args:
        row_values: int32 of shape (rows, columns); number of the value, or -1 where no other row holds it (or where
            this row holds it in an earlier column too).
        members: int32 of shape (repeated cells,); rows by value, rising within a value.
        starts: shape (values + 1,); value ``v`` is held by ``members[starts[v]:starts[v + 1]]``. Sizes never fall.
    """

    row_values: npt.NDArray[np.int32]
    members: npt.NDArray[np.int32]
    starts: IntArray

    @property
    def rows(self) -> int:
        """Rows of the dataset."""
        return int(self.row_values.shape[0])

    @property
    def columns(self) -> int:
        """Columns that count."""
        return int(self.row_values.shape[1])

    @property
    def values(self) -> int:
        """Number of repeated values."""
        return len(self.starts) - 1

    @property
    def largest(self) -> int:
        """Number of rows that hold the most frequent value; 1 where nothing repeats, 0 without rows."""
        return int(self.starts[-1] - self.starts[-2]) if self.values else min(self.rows, 1)

    @cached_property
    def single(self) -> bool:
        """Whether no row holds more than one repeated value."""
        holding = 0
        for low in range(0, self.rows, _PIECE):
            holding += int(np.count_nonzero((self.row_values[low : low + _PIECE] >= 0).any(axis=1)))
        return holding == len(self.members)

    def sizes(self, numbers: IntArray) -> npt.NDArray[np.int64]:
        """Number of rows that hold each of the values ``numbers``."""
        return (self.starts[numbers + 1] - self.starts[numbers]).astype(np.int64)

    def first_of_size(self, size: int) -> int:
        """Lowest number of a value held by at least ``size`` rows (``values`` where there is none)."""
        low, high = 0, self.values
        while low < high:
            middle = (low + high) // 2
            if self.starts[middle + 1] - self.starts[middle] < size:
                low = middle + 1
            else:
                high = middle
        return low


def ragged(starts: IntArray, sizes: IntArray) -> npt.NDArray[np.int64]:
    """Concatenation of ``arange(start, start + size)``."""
    sizes = np.asarray(sizes, dtype=np.int64)
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(np.asarray(starts, dtype=np.int64) - (ends - sizes), sizes) + np.arange(total)


def stable_argsort(numbers: IntArray) -> npt.NDArray[np.int64]:
    """Stable order of non-negative integers below 2**32, by 16 bits at a time: NumPy sorts those in linear time."""
    order = np.argsort((numbers & 0xFFFF).astype(np.uint16), kind="stable")
    if len(numbers) and int(numbers.max()) > 0xFFFF:
        order = order[np.argsort((numbers[order] >> 16).astype(np.uint16), kind="stable")]
    return order


def group_rows(identities: npt.NDArray[np.integer]) -> RepeatedValues:
    """Group rows by equal identities.

    Args:
        identities: integers of shape (rows, columns), at most 64 bits each; equal means the same value.

    Raises:
        ValueError: If the array is not two-dimensional, not of integers, or has more than ``MAX_ROWS`` rows.
    """
    if identities.ndim != 2 or identities.dtype.kind not in "iu":
        raise ValueError(
            f"identities must be integers of shape (rows, columns), got {identities.dtype} of shape "
            f"{identities.shape}; hash other values first, see sentence_transformers.base.keys.build_keys."
        )
    if identities.shape[0] > MAX_ROWS:
        raise ValueError(
            f"The dataset has {identities.shape[0]} rows, a plan covers at most {MAX_ROWS}; split the dataset."
        )
    rows, columns = identities.shape
    cells, sizes = _repeated_cells(identities)
    starts: IntArray = np.zeros(len(sizes) + 1, dtype=np.int32 if rows * columns < 2**31 else np.int64)
    np.cumsum(sizes, out=starts[1:])
    row_values = np.full(rows * columns, -1, dtype=np.int32)
    for low, high in _spans(starts):
        piece = slice(int(starts[low]), int(starts[high]))
        row_values[cells[piece]] = np.repeat(np.arange(low, high, dtype=np.int32), sizes[low:high])
    if columns > 1:
        np.floor_divide(cells, columns, out=cells)
    return RepeatedValues(row_values.reshape(rows, columns), cells.astype(np.int32, copy=False), starts)


def _spans(starts: IntArray) -> Iterator[tuple[int, int]]:
    """Runs of values that together hold about ``_PIECE`` cells."""
    low = 0
    while low < len(starts) - 1:
        high = int(np.searchsorted(starts, starts[low] + _PIECE, side="right")) - 1
        high = max(high, low + 1)
        yield low, high
        low = high


def _repeated_cells(identities: npt.NDArray[np.integer]) -> tuple[IntArray, IntArray]:
    """Cells (row × columns + column) of the repeated values by rising size, and the sizes."""
    flat = np.ascontiguousarray(identities).reshape(-1)
    index_type = np.int32 if len(flat) < 2**31 else np.int64
    pieces = [_runs(cells, flat[cells], identities.shape[1]) for cells in _pieces(flat, index_type)]
    cells = np.concatenate([piece[0] for piece in pieces] or [np.empty(0, index_type)])
    sizes = np.concatenate([piece[1] for piece in pieces] or [np.empty(0, np.int32)])
    del pieces
    starts = np.cumsum(sizes, dtype=np.int64) - sizes
    by_size = stable_argsort(sizes)
    starts, sizes = starts[by_size].astype(index_type), sizes[by_size]
    del by_size
    ordered = np.empty_like(cells)
    ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    for low, high in _spans(ends):
        ordered[ends[low] : ends[high]] = cells[ragged(starts[low:high], sizes[low:high])]
    return ordered, sizes


def _pieces(flat: npt.NDArray[np.integer], index_type: type) -> Iterator[IntArray]:
    """Cells in pieces of about ``_SORTED``, equal identities always in the same piece."""
    count = min(256, -(-len(flat) // _SORTED))
    if count <= 1:
        yield np.arange(len(flat), dtype=index_type)
        return
    piece_of = np.empty(len(flat), dtype=np.uint8)
    for low in range(0, len(flat), _PIECE):
        part = flat[low : low + _PIECE].astype(np.uint64) * _SPREAD
        piece_of[low : low + _PIECE] = ((part >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)
    for piece in range(count):
        yield np.flatnonzero(piece_of == piece).astype(index_type)


def _runs(cells: IntArray, identities: npt.NDArray[np.integer], columns: int) -> tuple[IntArray, IntArray]:
    """Cells of the identities found in two rows or more, grouped and rising within a group, and the group sizes."""
    company = _in_company(identities)
    cells, identities = cells[company], identities[company]
    order = np.argsort(identities, kind="stable")
    cells, identities = cells[order], identities[order]
    begins = np.ones(len(cells), dtype=bool)
    begins[1:] = identities[1:] != identities[:-1]
    if columns > 1:
        fresh = begins.copy()
        fresh[1:] |= cells[1:] // columns != cells[:-1] // columns
        cells, begins = cells[fresh], begins[fresh]
    first = np.flatnonzero(begins)
    sizes = np.diff(np.append(first, len(cells)))
    repeated = sizes >= 2
    return cells[np.repeat(repeated, sizes)], sizes[repeated].astype(np.int32)


def _in_company(identities: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Cells that share a slot of a hash table with another cell: all repeated ones, and an eighth of the others."""
    size = 4 << len(identities).bit_length()
    slots = (identities.astype(np.uint64) * _SPREAD) >> np.uint64(16)
    slots &= np.uint64(size - 1)
    places = slots.view(np.int64)
    last = np.zeros(size, dtype=np.int32)
    mine = np.arange(len(identities), dtype=np.int32)
    last[places] = mine
    overwritten = last[places] != mine
    last[places] = 0
    last[places[overwritten]] = 1
    company: npt.NDArray[np.bool_] = last[places] == 1
    return company
