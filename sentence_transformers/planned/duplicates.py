"""The values that keep rows apart, and the rows that hold them: all that a plan has to look at.

A cell of the table of values is *strong* if its value may not occur in any other row of a batch (anchors, positives,
and every column under the strict rule), *weak* if only strong cells may not repeat it (mined negatives). Two rows
conflict if they share a value that is strong in at least one of them.

Guarantee: two rows share a value number exactly if they share a 64-bit identity. A value without a number can never
make a conflict: it is in one row alone, or weak in all of them. Columns share one space of numbers.

Cost: sorts of about ``_PIECE`` cells (rows × columns) each, linear but for that. Kept: 8 to 11 bytes a row and column;
peak while building: about 28, the identities included, and 12 more for weak columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.signedinteger]
Mask = npt.NDArray[np.bool_]

Part = Literal["all", "strong", "weak"]

MAX_ROWS = 2**31 - 1  # rows are int32

_PIECE = 1 << 18  # cells that are looked at together
_PARTS = 128
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd: a bijection that spreads small integers


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Rows grouped by the values that keep them apart.

    Args:
        row_values: int32 of shape (rows, columns); number of the value, or -1 where it makes no conflict (or where
            this row holds it in an earlier column too).
        members: int32 of shape (numbered cells,); rows by value, first those that hold it in a strong column.
        starts: shape (values + 1,); value ``v`` is held by ``members[starts[v]:starts[v + 1]]``. Sizes never fall.
        strong_sizes: shape (values,); number of the rows that hold each value in a strong column.
        strong_columns: the leading columns of ``row_values`` that are strong.
    """

    row_values: npt.NDArray[np.int32]
    members: npt.NDArray[np.int32]
    starts: IntArray
    strong_sizes: IntArray
    strong_columns: int

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
        """Number of numbered values."""
        return len(self.starts) - 1

    @property
    def largest(self) -> int:
        """Number of rows that hold the most frequent value; 1 where none has a number, 0 without rows."""
        return int(self.starts[-1] - self.starts[-2]) if self.values else min(self.rows, 1)

    @property
    def strict(self) -> bool:
        """Whether all columns are strong."""
        return self.strong_columns == self.columns

    @cached_property
    def single(self) -> bool:
        """Whether all columns are strong, and no row holds more than one numbered value."""
        return self.strict and int(np.count_nonzero((self.row_values >= 0).any(axis=1))) == len(self.members)

    def sizes(self, numbers: IntArray, strong: bool = False) -> npt.NDArray[np.int64]:
        """Number of rows that hold each of the values ``numbers``, at all or in a strong column."""
        if strong and not self.strict:
            return self.strong_sizes[numbers].astype(np.int64)
        return (self.starts[numbers + 1] - self.starts[numbers]).astype(np.int64)

    def holders(self, numbers: IntArray, part: Part = "all") -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Rows that hold the values ``numbers``, and for each the index of its value in ``numbers``."""
        strong, sizes = self.sizes(numbers, strong=True), self.sizes(numbers)
        starts = self.starts[numbers] + (strong if part == "weak" else 0)
        sizes = {"all": sizes, "strong": strong, "weak": sizes - strong}[part]
        return self.members[ragged(starts, sizes)], np.repeat(np.arange(len(numbers)), sizes)

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


def group_by_value(identities: npt.NDArray[np.integer], strong_columns: int | None = None) -> Duplicates:
    """Group rows by equal identities.

    Args:
        identities: integers of shape (rows, columns), at most 64 bits each; equal means the same value.
        strong_columns: the leading columns that are strong. Defaults to all.

    Raises:
        ValueError: If the array is not two-dimensional, not of integers, or has more than ``MAX_ROWS`` rows.
    """
    if identities.ndim != 2 or identities.dtype.kind not in "iu":
        raise ValueError(
            f"identities must be integers of shape (rows, columns), got {identities.dtype} of shape "
            f"{identities.shape}; hash other values first, see sentence_transformers.planned.value_hashes."
        )
    rows, columns = identities.shape
    if rows > MAX_ROWS:
        raise ValueError(f"The dataset has {rows} rows, a plan covers at most {MAX_ROWS}; split the dataset.")
    strong = columns if strong_columns is None else min(strong_columns, columns)
    identities = np.ascontiguousarray(identities)
    # Cells of strong columns come first; a weak cell whose row holds its value in a strong one does not count.
    flat, kept = identities.reshape(-1), np.empty(0, np.int64)
    if strong < columns:
        weak = identities[:, strong:]
        kept = np.flatnonzero(~(weak[:, :, None] == identities[:, None, :strong]).any(axis=2))
        flat = np.concatenate([identities[:, :strong].reshape(-1), weak.reshape(-1)[kept]])
    cells, starts, strong_sizes = _numbered_cells(flat, rows * strong, strong, kept // max(columns - strong, 1))
    row_values = np.full((rows, columns), -1, dtype=np.int32)
    members = np.empty(len(cells), dtype=np.int32)
    for low, high in _spans(starts):
        piece = cells[starts[low] : starts[high]]
        numbers = np.repeat(np.arange(low, high, dtype=np.int32), np.diff(starts[low : high + 1]))
        row, column = _places(piece, kept, rows, strong, columns)
        members[starts[low] : starts[high]] = row
        row_values[row, column] = numbers
    return Duplicates(row_values, members, starts, strong_sizes, strong)


def _places(cells: IntArray, kept: IntArray, rows: int, strong: int, columns: int) -> tuple[IntArray, IntArray]:
    """Row and column of each cell; ``kept`` are the weak ones that count."""
    row, column = np.divmod(cells, max(strong, 1))
    weak = np.flatnonzero(cells >= rows * strong)
    if len(weak):
        row[weak], column[weak] = np.divmod(kept[cells[weak] - rows * strong], columns - strong)
        column[weak] += strong
    return row, column


def _numbered_cells(
    flat: npt.NDArray[np.integer], strong_cells: int, strong: int, weak_rows: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Cells of the values that make conflicts, by rising size; where each value starts, and its strong cells."""
    found = [_conflicting(part, flat[part], strong_cells, strong, weak_rows) for part in _parts(flat)]
    cells, sizes, strong_sizes = (np.concatenate(each) for each in zip(*found))
    del found
    by_size = stable_argsort(sizes)
    found_at = (np.cumsum(sizes, dtype=np.int64) - sizes)[by_size]
    sizes, strong_sizes = sizes[by_size], strong_sizes[by_size]
    starts = np.zeros(len(sizes) + 1, dtype=cells.dtype)
    np.cumsum(sizes, out=starts[1:])
    ordered = np.empty_like(cells)
    for low, high in _spans(starts):
        ordered[starts[low] : starts[high]] = cells[ragged(found_at[low:high], sizes[low:high])]
    return ordered, starts, strong_sizes


def _spans(starts: IntArray) -> Iterator[tuple[int, int]]:
    """Runs of values that together hold about ``_PIECE`` cells."""
    low = 0
    while low < len(starts) - 1:
        high = max(int(np.searchsorted(starts, starts[low] + _PIECE, side="right")) - 1, low + 1)
        yield low, high
        low = high


def _parts(flat: npt.NDArray[np.integer]) -> Iterator[IntArray]:
    """Cells in parts of about ``_PIECE``, equal identities always in the same part; parts by rising key."""
    index_type = np.int32 if len(flat) < 2**31 else np.int64
    count = max(min(_PARTS, len(flat) // _PIECE), 1)
    part_of = np.empty(len(flat), dtype=np.uint8)
    for low in range(0, len(flat), _PIECE):
        keys = flat[low : low + _PIECE].astype(np.uint64) * _SPREAD
        part_of[low : low + _PIECE] = ((keys >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)
    for part in range(count):
        yield np.flatnonzero(part_of == part).astype(index_type)


def _conflicting(
    part: IntArray, identities: npt.NDArray[np.integer], strong_cells: int, strong: int, weak_rows: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Of some cells, those of values that make conflicts, grouped; the sizes, and of strong cells alone."""
    cells, begins = _grouped_cells(identities)
    cells = part[cells]
    firm = cells < strong_cells
    rows = cells // max(strong, 1)
    rows[~firm] = weak_rows[cells[~firm] - strong_cells]
    first = begins.copy()  # of a value that a row holds twice, the first cell counts
    first[1:] |= rows[1:] != rows[:-1]
    cells, begins, firm = cells[first], begins[first], firm[first]
    starts = np.flatnonzero(begins)
    sizes = np.diff(np.append(starts, len(cells)))
    strong_sizes = np.add.reduceat(firm, starts, dtype=np.int64) if len(starts) else sizes
    counts = (sizes >= 2) & (strong_sizes > 0)
    return cells[np.repeat(counts, sizes)], sizes[counts].astype(np.int32), strong_sizes[counts].astype(np.int32)


def _grouped_cells(flat: npt.NDArray[np.integer]) -> tuple[IntArray, Mask]:
    """Cells of identities that occur twice or more, equal ones side by side and rising, and where a group begins.

    Sorts each identity's high bits together with its cell's number, in place, which is several times faster than a
    sort of indices; identities that agree in their high bits alone are parted afterwards.
    """
    bits = np.uint64(max(len(flat) - 1, 1).bit_length())
    keys = flat.astype(np.uint64) * _SPREAD
    keys >>= bits
    keys <<= bits
    keys |= np.arange(len(flat), dtype=np.uint64)
    keys.sort()
    high = keys >> bits
    same = high[1:] == high[:-1]
    paired = np.zeros(len(flat), dtype=bool)
    paired[1:] = same
    paired[:-1] |= same
    high = high[paired]
    cells = (keys[paired] & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    del keys, same, paired
    values = flat[cells]
    begins = np.ones(len(cells), dtype=bool)
    begins[1:] = values[1:] != values[:-1]
    if (begins[1:] & (high[1:] == high[:-1])).any():
        order = np.lexsort((cells, values, high))
        cells, values = cells[order], values[order]
        begins[1:] = values[1:] != values[:-1]
    return cells, begins
