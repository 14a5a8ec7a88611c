"""Places for rows that meet others in most batches: first fit in order of conflicts, then a tabu search.

``first_fit`` gives rows, those with most conflicts first, to the batch where they meet fewest others, of equally good
ones to the emptier. ``tabu_search`` then lets conflicting rows change places with the best partner in a batch where
they meet fewest others; rows that moved stay for some rounds. Both are standard for graph colouring (Welsh and Powell
1967; Hertz and de Werra 1987), here with parts of fixed sizes. What stalls is searched on with fewer moves at a time.

Guarantee: batches keep their numbers of rows. Nothing says that a plan that exists is found.

Cost: first fit looks at ``_FEWEST`` to ``_LOOKED_AT`` batches a row, drawn at random where there are more; a round of
the search moves ``_AT_ONCE`` rows at most, each with the best of ``_PARTNERS`` partners, and the search ends after
some rounds without progress. Memory: two tables of 4 bytes a value and batch, of ``MOST_CELLS`` at most.

Known bias: rows are taken a few at a time, which do not see each other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sentence_transformers.planned.conflicts import Assignment, Rows
from sentence_transformers.planned.duplicates import Duplicates, IntArray
from sentence_transformers.planned.rng import Rng

MOST_CELLS = 1 << 25

_FEWEST, _LOOKED_AT = 8, 64
_PARTNERS = 256
_AT_A_TIME = 8  # rows that first fit takes together, at least
_TIMES = 2048  # steps that it takes, about, where there are more rows
_AT_ONCE = 64
_STALLED = 32  # rounds without progress after which half as many rows move at a time
_LEAST = 20  # rounds without progress, for few rows
_TENURE = 4  # rounds, at most, that a moved row stays
_NEVER = 1 << 30

Counts = npt.NDArray[np.int64]


class Tables:
    """How many rows of each batch hold each value, at all and in a strong column.

    Args:
        duplicates: the values that keep rows apart.
        batches: number of batches; one more stands for the rows left out.
    """

    def __init__(self, duplicates: Duplicates, batches: int) -> None:
        self.row_values, self.strong = duplicates.row_values, duplicates.strong_columns
        self.width = batches + 1
        # The last line is that of cells without a number, -1, and stays empty.
        self.every = np.zeros((duplicates.values + 1, self.width), dtype=np.int32)
        self.firm = self.every if duplicates.strict else np.zeros_like(self.every)

    def add(self, rows: Rows, batches: npt.NDArray[np.integer] | int, number: int = 1) -> None:
        """Count rows in their batches, or with -1 no longer."""
        held = self.row_values[rows]
        places = held * np.int64(self.width) + np.asarray(batches)[..., None]
        np.add.at(self.every.reshape(-1), places[held >= 0], number)
        if self.firm is not self.every:
            held, places = held[:, : self.strong], places[:, : self.strong]
            np.add.at(self.firm.reshape(-1), places[held >= 0], number)

    def met(self, rows: Rows, batches: npt.NDArray[np.integer]) -> Counts:
        """Conflicts of each row, of shape (n,), in its batches, of shape (n, m) or (m,); itself counts as well."""
        held = self.row_values[rows]
        places = np.where(held < 0, len(self.every) - 1, held)[:, :, None] * np.int64(self.width)
        places = places + (batches if batches.ndim == 1 else batches[:, None, :])
        total: Counts = self.every.reshape(-1)[places[:, : self.strong]].sum(axis=1)
        if self.strong < held.shape[1]:
            total += self.firm.reshape(-1)[places[:, self.strong :]].sum(axis=1)
        return total


def degrees(duplicates: Duplicates) -> Counts:
    """Of each row, the number of its conflicts with all other rows, those over two values twice."""
    sizes = np.append(np.diff(duplicates.starts), 0)
    firm = np.append(duplicates.strong_sizes, 0)
    strong = duplicates.row_values[:, : duplicates.strong_columns]
    weak = duplicates.row_values[:, duplicates.strong_columns :]
    total: Counts = sizes[strong].sum(axis=1) - (strong >= 0).sum(axis=1) + firm[weak].sum(axis=1)
    return total


def density(assignment: Assignment) -> float:
    """The number of conflicts that a row would have in a random batch, on average; 0 where a plan is constructed."""
    duplicates = assignment.duplicates
    strong = duplicates.strong_sizes.astype(np.int64)
    conflicts = int((strong * (2 * np.diff(duplicates.starts) - strong - 1)).sum())
    return 0.0 if duplicates.single else conflicts / (max(assignment.batches, 1) * duplicates.rows)


def fits_tables(assignment: Assignment) -> bool:
    """Whether the tables are of bearable size."""
    return (assignment.duplicates.values + 1) * (assignment.batches + 1) <= MOST_CELLS


def first_fit(assignment: Assignment, rng: Rng) -> Assignment:
    """The rows of all batches given anew."""
    rows = assignment.order[: assignment.planned]
    rows = rows[np.argsort(-degrees(assignment.duplicates)[rows], kind="stable")]
    batch_of = _given(assignment, rows, rng)
    mixed = rng.permutation(len(rows))
    order = rows[mixed[np.argsort(batch_of[mixed], kind="stable")]]
    order = np.concatenate([order, assignment.order[assignment.planned :]])
    return Assignment(assignment.duplicates, order, assignment.batch_size, assignment.full, assignment.tail)


def _given(assignment: Assignment, rows: Rows, rng: Rng) -> npt.NDArray[np.int64]:
    """The batch of each row."""
    batches = assignment.batches
    tables = Tables(assignment.duplicates, batches)
    size = np.full(batches, assignment.batch_size)
    if assignment.tail:
        size[-1] = assignment.tail
    room = size.copy()
    batch_of = np.full(len(rows), -1)
    low, waiting, taken = 0, np.empty(0, np.int64), max(_AT_A_TIME, len(rows) // _TIMES)
    most = min(_LOOKED_AT, _FEWEST + int(2 * _FEWEST * density(assignment)))
    while low < len(rows) or len(waiting):
        high = min(max(low + taken - len(waiting), low), len(rows))
        asked, low = np.concatenate([waiting, np.arange(low, high)]), high
        looked = np.flatnonzero(room)
        if len(looked) > most:
            looked = looked[rng.below(len(looked), len(asked) * most).reshape(len(asked), -1)]
        else:
            looked = np.broadcast_to(looked, (len(asked), len(looked)))
        score = tables.met(rows[asked], looked) + (1 - room[looked] / size[looked]) * 0.9
        score += rng.below(1 << 20, score.size).reshape(score.shape) / (1 << 24)
        chosen = looked[np.arange(len(asked)), score.argmin(axis=1)]
        by_batch = np.argsort(chosen, kind="stable")
        rank = np.arange(len(asked)) - np.searchsorted(chosen[by_batch], chosen[by_batch])
        given = by_batch[rank < room[chosen[by_batch]]]
        batch_of[asked[given]] = chosen[given]
        room -= np.bincount(chosen[given], minlength=batches)
        tables.add(rows[asked[given]], chosen[given])
        waiting = np.delete(asked, given)
    return batch_of


def tabu_search(assignment: Assignment, rng: Rng, patience: int) -> Rows:
    """Swap the best pairs until no row conflicts, or there is no progress; returns the rows that still conflict.

    Args:
        assignment: is changed.
        rng: random choices.
        patience: rounds without progress after which the search ends.
    """
    search = _Search(assignment, rng)
    patience = min(patience, _LEAST + len(assignment.order))
    number, progress, fewest, most = 0, 0, search.conflicts, _AT_ONCE
    while fewest and number - progress < patience:
        number += 1
        search.swap_some(number, most)
        if search.conflicts < fewest:
            fewest, progress = search.conflicts, number
        elif (number - progress) % _STALLED == 0:
            most = max(most // 2, 1)
    return assignment.conflicting()


class _Search:
    """The state of the tabu search."""

    def __init__(self, assignment: Assignment, rng: Rng) -> None:
        self.assignment, self.duplicates, self.rng = assignment, assignment.duplicates, rng
        self.tables = Tables(self.duplicates, assignment.batches)
        self.inside = assignment.order[: assignment.planned].copy()
        self.tables.add(self.inside, assignment.batch_of[self.inside])
        self.own = np.zeros(len(assignment.order), dtype=np.int64)  # conflicts of each row in its batch
        self._note(self.inside)
        self.until = np.zeros(len(assignment.order), dtype=np.int64)  # rows must stay until that round

    @property
    def conflicts(self) -> int:
        """Conflicts of all rows."""
        return int(self.own.sum())

    def swap_some(self, number: int, most: int) -> None:
        """Let some conflicting rows change places, each with the best of some rows in the best of some batches."""
        held = self.assignment
        rows = np.flatnonzero((self.own > 0) & (self.until < number)).astype(np.int32)
        if not len(rows):
            return
        rows = np.unique(rows[self.rng.below(len(rows), min(len(rows), most))])
        partners = self._best_partners(rows, self._best_batches(rows), number)
        kept = np.flatnonzero(~np.isin(partners, rows) & (held.batch_of[rows] != held.batch_of[partners]))
        kept = kept[np.unique(partners[kept], return_index=True)[1]]
        if not len(kept):
            return
        rows, partners = rows[kept], partners[kept]
        both = np.concatenate([rows, partners])
        self.tables.add(both, held.batch_of[both], -1)
        held.swap(rows, partners)
        self.tables.add(both, held.batch_of[both])
        self.tables.every[:, -1] = self.tables.firm[:, -1] = 0  # rows left out do not conflict
        self.own[both] = 0
        self._note_around(both, held.batch_of[both])
        self.until[both] = number + self.rng.below(_TENURE, len(both))

    def _best_batches(self, rows: Rows) -> npt.NDArray[np.int64]:
        """For each row, a batch other than its own where it meets fewest others."""
        held, draw = self.assignment, self.rng.below
        batches = held.batches + (held.planned < len(held.order))
        looked = np.arange(batches)[None].repeat(len(rows), axis=0)
        if batches > _LOOKED_AT:
            looked = draw(batches, len(rows) * _LOOKED_AT).reshape(len(rows), -1)
        met = self.tables.met(rows, looked) + draw(1 << 20, looked.size).reshape(looked.shape) / (1 << 20)
        met[looked == held.batch_of[rows][:, None]] = np.inf
        # Outside no row conflicts, but not every row from there fits: every second time, look elsewhere.
        met[(looked == held.batches) & (draw(2, len(rows))[:, None] == 0)] = _NEVER
        best: npt.NDArray[np.int64] = looked[np.arange(len(rows)), met.argmin(axis=1)]
        return best

    def _best_partners(self, rows: Rows, there: npt.NDArray[np.int64], number: int) -> Rows:
        """For each row, one of that batch who makes fewest conflicts in its stead."""
        held, draw = self.assignment, self.rng.below
        starts = np.where(there <= held.full, there * held.batch_size, held.planned)
        stops = np.where(there < held.full, starts + held.batch_size, held.planned)
        stops[there == held.batches] = len(held.order)
        slots = starts[:, None] + draw(2**62, len(rows) * _PARTNERS).reshape(len(rows), -1) % (stops - starts)[:, None]
        partners = held.order[slots]
        met = self.tables.met(partners.reshape(-1), held.batch_of[rows].repeat(_PARTNERS)[:, None]).reshape(
            slots.shape
        )
        change = met - self.own[partners] + draw(1 << 20, slots.size).reshape(slots.shape) / (1 << 20)
        change[self.until[partners] >= number] += _NEVER
        best: Rows = partners[np.arange(len(rows)), change.argmin(axis=1)]
        return best

    def _note(self, rows: Rows) -> None:
        """Count the conflicts of rows that are in batches anew."""
        met = self.tables.met(rows, self.assignment.batch_of[rows][:, None])[:, 0]
        self.own[rows] = met - (self.duplicates.row_values[rows, : self.tables.strong] >= 0).sum(axis=1)

    def _note_around(self, moved: Rows, batches: IntArray) -> None:
        """Count the conflicts anew that moves between these batches may have changed."""
        held = self.assignment
        numbers = self.duplicates.row_values[moved]
        numbers = numbers[numbers >= 0]
        batches = np.unique(batches)
        if int(self.duplicates.sizes(numbers).sum()) < len(batches) * held.batch_size:
            around, _ = self.duplicates.holders(numbers)
            around = np.concatenate([moved, around[np.isin(held.batch_of[around], batches)]])
        else:
            around = np.concatenate([held.rows_in(batch) for batch in batches.tolist()])
        self._note(held.inside(around))
