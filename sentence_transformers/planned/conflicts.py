"""Which row is in which batch, and which rows conflict there.

Slots are numbered through: the full batches' slots come first, those of an unfilled last batch next, and behind them
those of the rows that are left out, which never conflict.

Guarantee: ``conflicting`` is empty if and only if no two rows of a batch conflict. Of the rows that do, it names those
that are best moved: of several strong holders of a value all but one; where a strong one meets weak ones, the strong
one, or the weak ones if they are in so many batches that a strong one could hardly find another.

Cost: finding conflicts is linear in numbered cells and sorts nothing: values in up to ``_PAIRWISE`` rows are compared
in pairs, the others mark their batches in a table of (value, batch). Kept: 12 bytes a row; tables: at most 2 more.

Known bias: of two strong rows that conflict in a batch, the one with the higher number moves.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sentence_transformers.planned.duplicates import Duplicates, IntArray, Mask, Part, stable_argsort

Rows = npt.NDArray[np.int32]

_PAIRWISE = 16
_CHUNK = 1 << 18
_TABLE = 1 << 20
_CROWDED = 2.5  # rows a batch: about e**-2.5, 8 % of the batches, are then without the value


class Assignment:
    """Rows on slots.

    Args:
        duplicates: the values that keep rows apart.
        order: int32 of shape (rows,); row on each slot, each row exactly once.
        batch_size: slots per full batch.
        full: number of full batches.
        tail: slots of the unfilled last batch, 0 for none; it may be longer than ``batch_size``.
    """

    def __init__(self, duplicates: Duplicates, order: Rows, batch_size: int, full: int, tail: int) -> None:
        self.duplicates = duplicates
        self.order = order
        self.batch_size, self.full, self.tail = batch_size, full, tail
        self.batches = full + (tail > 0)
        self.planned = full * batch_size + tail
        self.slot_of = np.empty(len(order), dtype=np.int32)
        self.slot_of[order] = np.arange(len(order), dtype=np.int32)
        self.batch_of = np.empty(len(order), dtype=np.int32)  # ``batches`` for rows that are left out
        self.batch_of[order] = self.batch_at(np.arange(len(order), dtype=np.int32))
        self._large = duplicates.first_of_size(_PAIRWISE + 1)
        self._table_size = max(_TABLE, len(order) // 4, self.batches)

    def batch_at(self, slots: IntArray) -> Rows:
        """Batch of each slot; ``batches`` behind the last one."""
        batches = np.minimum(slots // max(self.batch_size, 1), self.full).astype(np.int32)
        if self.tail:
            batches[slots >= self.planned] += 1
        return batches

    def rows_in(self, batch: int) -> Rows:
        """Rows of a batch, or those left out."""
        start = batch * self.batch_size if batch <= self.full else self.planned
        stop = start + self.batch_size if batch < self.full else self.planned
        return self.order[start : stop if batch < self.batches else None]

    def swap(self, rows: Rows, partners: Rows) -> None:
        """Let rows and partners change places; no row may occur twice."""
        slots, batches = self.slot_of[rows], self.batch_of[rows]
        self.slot_of[rows], self.batch_of[rows] = self.slot_of[partners], self.batch_of[partners]
        self.slot_of[partners], self.batch_of[partners] = slots, batches
        self.order[self.slot_of[rows]], self.order[slots] = rows, partners

    def conflicting(self) -> Rows:
        """Rows to move, rising, each once."""
        found = [*self._small_conflicts(), *self._large_conflicts()]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int32)

    def inside(self, rows: Rows) -> Rows:
        """Those of the rows that are not left out."""
        return rows[self.batch_of[rows] < self.batches]

    def _small_conflicts(self) -> Iterator[Rows]:
        starts, members = self.duplicates.starts, self.duplicates.members
        for size in range(2, _PAIRWISE + 1):
            low, high = self.duplicates.first_of_size(size), self.duplicates.first_of_size(size + 1)
            cells = slice(int(starts[low]), int(starts[high]))
            groups = members[cells].reshape(-1, size)
            firm = None if self.duplicates.strict else self.duplicates.strong_sizes[low:high]
            for first in range(0, len(groups), _CHUNK // size):
                part = slice(first, first + _CHUNK // size)
                rows = np.ascontiguousarray(groups[part].T)
                move = _pairwise(self.batch_of[rows], None if firm is None else firm[part])
                if move.any():
                    yield self.inside(rows[move])

    def _large_conflicts(self) -> Iterator[Rows]:
        last = np.empty(self._table_size if self._large < self.duplicates.values else 0, dtype=np.int32)
        numbers = np.arange(self._large, self.duplicates.values)
        for low, high in self._table_chunks(self.duplicates.sizes(numbers)):
            holders, places = self._places(numbers[low:high], "strong")
            mine = np.arange(len(holders), dtype=np.int32)
            last[places] = mine
            repeated = last[places] != mine
            if not self.duplicates.strict:
                crowded = self.duplicates.sizes(numbers[low:high]) > _CROWDED * self.batches
                weak, weak_places = self._places(numbers[low:high], "weak")
                last[places] = 0
                last[weak_places] = 1
                repeated |= (last[places] == 1) & ~crowded[places // self.batches]
                last[weak_places] = 0
                last[places] = 1
                yield weak[(last[weak_places] == 1) & crowded[weak_places // self.batches]]
            yield holders[repeated]

    def _table_chunks(self, sizes: IntArray) -> Iterator[tuple[int, int]]:
        """Runs of values, of these sizes, whose (value, batch) places fit the table, of about ``_CHUNK`` rows."""
        ends = np.cumsum(sizes)
        most = max(1, self._table_size // max(1, self.batches))
        low = 0
        while low < len(sizes):
            before = int(ends[low - 1]) if low else 0
            high = min(low + most, max(low + 1, int(np.searchsorted(ends, before + _CHUNK, side="right"))))
            yield low, min(high, len(sizes))
            low = high

    def _places(self, numbers: IntArray, part: Part) -> tuple[Rows, npt.NDArray[np.int64]]:
        """Rows inside that hold the values, and their places: index in ``numbers`` and batch as one number."""
        rows, index = self.duplicates.holders(numbers, part)
        batches = self.batch_of[rows]
        inside = batches < self.batches
        return rows[inside], index[inside] * self.batches + batches[inside]

    def met_by(self, row: int) -> Rows:
        """Rows that conflict with a row in its batch."""
        mine, strong = self.duplicates.row_values[row], self.duplicates.strong_columns
        others = self.rows_in(int(self.batch_of[row]))
        equal = self.duplicates.row_values[others][:, :, None] == np.where(mine < 0, -2, mine)
        met = equal[:, :strong].any(axis=(1, 2)) | equal[:, :, :strong].any(axis=(1, 2))
        found: Rows = others[met & (others != row)]
        return found

    def would_conflict(self, rows: Rows, batches: IntArray, besides: Rows) -> Mask:
        """Whether ``rows[i]`` conflicts with a row of ``batches[i]`` other than itself and ``besides[i]``."""
        met = np.zeros(len(rows), dtype=bool)
        for low in range(0, len(rows), _CHUNK):
            part = slice(low, low + _CHUNK)
            for column in range(self.duplicates.columns):
                numbers = self.duplicates.row_values[rows[part], column]
                weak = column >= self.duplicates.strong_columns
                for select, ask in (
                    ((numbers >= 0) & (numbers < self._large), self._small_conflict),
                    (numbers >= self._large, self._large_conflict),
                ):
                    asked = np.flatnonzero(select)
                    if len(asked):
                        at = asked + low
                        met[at] |= ask(numbers[asked], rows[at], batches[at], besides[at], weak)
        return met

    def _small_conflict(self, numbers: Rows, rows: Rows, batches: IntArray, besides: Rows, weak: bool) -> Mask:
        others, asker = self.duplicates.holders(numbers, "strong" if weak else "all")
        bad = (self.batch_of[others] == batches[asker]) & (others != rows[asker]) & (others != besides[asker])
        met = np.zeros(len(rows), dtype=bool)
        met[asker[bad]] = True
        return met

    def _large_conflict(self, numbers: Rows, rows: Rows, batches: IntArray, besides: Rows, weak: bool) -> Mask:
        """Overlooks a third holder where the row and its companion hold the value there as well."""
        distinct, index = np.unique(numbers, return_inverse=True)
        by_value = stable_argsort(index)
        bounds = np.searchsorted(index[by_value], np.arange(len(distinct) + 1))
        first = np.full(self._table_size, -1, dtype=np.int32)
        last = first.copy()
        met = np.zeros(len(rows), dtype=bool)
        for low, high in self._table_chunks(self.duplicates.sizes(distinct, strong=weak)):
            holders, slots = self._places(distinct[low:high], "strong" if weak else "all")
            last[slots] = holders
            first[slots[::-1]] = holders[::-1]
            asked = by_value[bounds[low] : bounds[high]]
            place = (index[asked] - low) * self.batches + batches[asked]
            for holder in (first[place], last[place]):
                met[asked] |= (holder >= 0) & (holder != rows[asked]) & (holder != besides[asked])
            first[slots] = last[slots] = -1
        return met


def _pairwise(batches: Rows, strong: IntArray | None) -> Mask:
    """For shape (members, values), which members to move, so that no two of a value conflict in a batch.

    Of each value, the first ``strong`` members are strong; None if all are.
    """
    move = np.zeros(batches.shape, dtype=bool)
    for later in range(1, len(batches)):
        for earlier in range(later):
            same = batches[earlier] == batches[later]
            if strong is None:
                move[later] |= same
            else:
                move[later] |= same & (later < strong)
                move[earlier] |= same & (earlier < strong) & (later >= strong)
    return move
