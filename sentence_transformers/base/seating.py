"""Which row sits in which batch, which rows clash there, and the swaps that part them.

Seats are numbered through: seat ``s`` belongs to batch ``s // batch_size``. Seats from ``batches * batch_size`` on are
outside: their rows sit out this epoch and never clash. An unfilled last batch leaves empty seats (-1) at its end.

Guarantee: ``clashing`` is exact; ``part`` ends with the rows that still clash, none if all is well, and never changes
the number of rows in a batch.

Cost: finding clashes is linear in repeated cells and sorts nothing: values in up to ``_PAIRWISE`` rows are compared in
pairs, the others mark their batches in a table of (value, batch). A round of swaps is linear in the clashing rows and
the values they hold; there are at most ``_ROUNDS`` rounds. Kept: 8 bytes a row; tables: at most 2 more.

Known bias: of the rows that clash in a batch, those with higher numbers move.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sentence_transformers.base.draws import Draws
from sentence_transformers.base.repeats import IntArray, RepeatedValues, ragged, stable_argsort

Rows = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

_PAIRWISE = 16
_CHUNK = 1 << 18
_TABLE = 1 << 20
_PROPOSALS = 1 << 11
_BUDGET = 8
_ROUNDS = 256
_PATIENCE = 2


class Seating:
    """Rows on seats.

    Args:
        values: the repeated values of the rows.
        order: int32 of shape (seats,); row on each seat, -1 where empty; each row exactly once.
        batch_size: seats per batch.
        batches: batches, the last of them perhaps unfilled; later seats are outside.
    """

    def __init__(self, values: RepeatedValues, order: Rows, batch_size: int, batches: int) -> None:
        self.values = values
        self.order = order
        self.batch_size = batch_size
        self.batches = batches
        self.seat_of = np.empty(values.rows, dtype=np.int32)
        self._large = values.first_of_size(_PAIRWISE + 1)
        self._table_size = max(_TABLE, values.rows // 4, batches)
        self.rounds = 0
        self._index_seats()

    def _index_seats(self) -> None:
        for low in range(0, len(self.order), _CHUNK):
            rows = self.order[low : low + _CHUNK]
            seats = np.arange(low, low + len(rows), dtype=np.int32)
            taken = rows >= 0
            self.seat_of[rows[taken]] = seats[taken]

    def batch_of(self, rows: IntArray) -> Rows:
        """Batch of each row; ``batches`` or more means outside."""
        batches: Rows = self.seat_of[rows] // np.int32(self.batch_size)
        return batches

    def clashing(self) -> Rows:
        """Rows to move: for each (value, batch) held by several rows, all of these but one. Rising, each once."""
        found = [*self._small_clashes(), *self._large_clashes()]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int32)

    def _inside(self, rows: Rows) -> Rows:
        return rows[self.batch_of(rows) < self.batches]

    def _small_clashes(self) -> Iterator[Rows]:
        starts, members = self.values.starts, self.values.members
        for size in range(2, _PAIRWISE + 1):
            low, high = self.values.first_of_size(size), self.values.first_of_size(size + 1)
            groups = members[int(starts[low]) : int(starts[high])].reshape(-1, size)
            for first in range(0, len(groups), _CHUNK // size):
                rows = np.ascontiguousarray(groups[first : first + _CHUNK // size].T)
                clash = _equal_to_an_earlier(self.batch_of(rows))
                if clash.any():
                    yield self._inside(rows[clash])

    def _large_clashes(self) -> Iterator[Rows]:
        table = np.empty(self._table_size if self._large < self.values.values else 0, dtype=np.int32)
        numbers = np.arange(self._large, self.values.values)
        for low, high in self._table_chunks(numbers):
            rows, slots = self._slots(numbers[low:high])
            mine = np.arange(len(rows), dtype=np.int32)
            table[slots] = mine
            clash = table[slots] != mine
            if clash.any():
                yield rows[clash]

    def _table_chunks(self, numbers: IntArray) -> Iterator[tuple[int, int]]:
        """Runs of values whose (value, batch) slots fit the table, of about ``_CHUNK`` rows."""
        ends = np.cumsum(self.values.sizes(numbers))
        most = max(1, self._table_size // max(1, self.batches))
        low = 0
        while low < len(numbers):
            before = int(ends[low - 1]) if low else 0
            high = min(low + most, max(low + 1, int(np.searchsorted(ends, before + _CHUNK, side="right"))))
            yield low, min(high, len(numbers))
            low = high

    def _slots(self, numbers: IntArray) -> tuple[Rows, npt.NDArray[np.int64]]:
        """Rows inside that hold the values, and their slots: place of the value in ``numbers`` × batches + batch."""
        sizes = self.values.sizes(numbers)
        rows = self.values.members[ragged(self.values.starts[numbers], sizes)]
        batches = self.batch_of(rows)
        inside = batches < self.batches
        place = np.repeat(np.arange(len(numbers)), sizes)[inside]
        return rows[inside], place * self.batches + batches[inside]

    def meets(self, rows: Rows, batches: IntArray, besides: Rows) -> Mask:
        """Whether another row than ``rows[i]`` and ``besides[i]`` holds one of its values in ``batches[i]``."""
        met = np.zeros(len(rows), dtype=bool)
        for low in range(0, len(rows), _CHUNK):
            part = slice(low, low + _CHUNK)
            for column in range(self.values.columns):
                numbers = self.values.row_values[rows[part], column]
                for select, ask in (
                    ((numbers >= 0) & (numbers < self._large), self._small_meets),
                    (numbers >= self._large, self._large_meets),
                ):
                    asked = np.flatnonzero(select)
                    if len(asked):
                        at = asked + low
                        met[at] |= ask(numbers[asked], rows[at], batches[at], besides[at])
        return met

    def _small_meets(self, numbers: Rows, rows: Rows, batches: IntArray, besides: Rows) -> Mask:
        sizes = self.values.sizes(numbers)
        others = self.values.members[ragged(self.values.starts[numbers], sizes)]
        asker = np.repeat(np.arange(len(rows)), sizes)
        bad = (self.batch_of(others) == batches[asker]) & (others != rows[asker]) & (others != besides[asker])
        met = np.zeros(len(rows), dtype=bool)
        met[asker[bad]] = True
        return met

    def _large_meets(self, numbers: Rows, rows: Rows, batches: IntArray, besides: Rows) -> Mask:
        """As ``meets``; overlooks a third holder where the row and its companion hold the value there as well."""
        distinct, place = np.unique(numbers, return_inverse=True)
        by_value = stable_argsort(place)
        bounds = np.searchsorted(place[by_value], np.arange(len(distinct) + 1))
        first = np.full(self._table_size, -1, dtype=np.int32)
        last = first.copy()
        met = np.zeros(len(rows), dtype=bool)
        for low, high in self._table_chunks(distinct):
            holders, slots = self._slots(distinct[low:high])
            last[slots] = holders
            first[slots[::-1]] = holders[::-1]
            asked = by_value[bounds[low] : bounds[high]]
            slot = (place[asked] - low) * self.batches + batches[asked]
            for holder in (first[slot], last[slot]):
                met[asked] |= (holder >= 0) & (holder != rows[asked]) & (holder != besides[asked])
            first[slots] = last[slots] = -1
        return met

    def part(self, clashing: Rows, draws: Draws, outside: bool = False) -> Rows:
        """Swap rows at random until none clashes or the proposals are used up; returns the rows that still clash.

        Args:
            clashing: rows to move; all others agree.
            draws: random choices.
            outside: on even rounds change places with rows outside alone.
        """
        rows, stalled = self.values.rows, 0
        left = _BUDGET * rows + 8 * _PROPOSALS
        for _ in range(_ROUNDS):
            if not len(clashing) or left <= 0:
                break
            times = max(1, min(_PROPOSALS, 4 * rows) // len(clashing), min(rows // 16 // len(clashing), 32))
            left -= times * len(clashing)
            self.rounds += 1
            before, walk = len(clashing), stalled >= _PATIENCE
            clashing = self._swap_round(np.tile(clashing, times), clashing, draws, outside, walk)
            stalled = 0 if walk or len(clashing) < before else stalled + 1
        return clashing

    def _swap_round(self, rows: Rows, clashing: Rows, draws: Draws, outside: bool, walk: bool) -> Rows:
        """Propose a swap for each of ``rows``, carry out one per clashing row; returns the rows that clash then.

        In a walk the partner need not fit: it clashes in the other's stead, and is the next to look for a place.
        """
        seats = self._proposed_seats(rows, draws, outside and self.rounds % 2 == 0)
        partners = self.order[seats]
        here, there = self.batch_of(rows), seats // self.batch_size
        fits = (partners >= 0) & (here != there) & ~np.isin(partners, clashing)
        for mover, target, other in ((rows, there, partners), (partners, here, rows))[: 1 if walk else 2]:
            ask = np.flatnonzero(fits & (target < self.batches))
            fits[ask] = ~self.meets(mover[ask], target[ask], other[ask])
        chosen = np.flatnonzero(fits)
        chosen = chosen[np.unique(rows[chosen], return_index=True)[1]]
        chosen = chosen[np.unique(partners[chosen], return_index=True)[1]]
        self._swap(rows[chosen], partners[chosen])
        touched = self._inside(np.concatenate([clashing, partners[chosen]]))
        return np.sort(touched[self.meets(touched, self.batch_of(touched), touched)])

    def _proposed_seats(self, rows: Rows, draws: Draws, outside: bool) -> IntArray:
        """A random seat for each row; on odd rounds that of a row with the same value, if it is in many batches."""
        drawn = draws.below(2**62, len(rows))
        first = min(self.batches * self.batch_size, len(self.order) - 1) if outside else 0
        seats = first + drawn % (len(self.order) - first)
        if self.rounds % 2:
            numbers = self.values.row_values[rows].max(axis=1)
            sizes = self.values.sizes(numbers)
            dense = np.flatnonzero(sizes * 4 > self.batches)
            peers = self.values.starts[numbers[dense]] + drawn[dense] % sizes[dense]
            seats[dense] = self.seat_of[self.values.members[peers]]
        return seats

    def _swap(self, rows: Rows, partners: Rows) -> None:
        seats, partner_seats = self.seat_of[rows], self.seat_of[partners]
        self.order[seats], self.order[partner_seats] = partners, rows
        self.seat_of[rows], self.seat_of[partners] = partner_seats, seats


def _equal_to_an_earlier(batches: Rows) -> Mask:
    """For shape (members, values): whether an earlier member of the value is in the same batch."""
    clash = np.zeros(batches.shape, dtype=bool)
    for later in range(1, len(batches)):
        for earlier in range(later):
            clash[later] |= batches[earlier] == batches[later]
    return clash
