"""Rows that meet others in most batches: the first fit in order of conflicts, then a tabu search.

``first_fit`` gives rows, those with most conflicts first, to the batch where they meet fewest others, of equally good
ones to the emptier; ``tabu_search`` then makes one swap at a time, the best one for a conflicting row with a batch
where it meets fewest others, which for some steps must not be undone. Both are standard for graph colouring (Brélaz
1979; Hertz and de Werra 1987), here with parts of fixed sizes.

Guarantee: batches keep their numbers of rows. Nothing says that a plan that exists is found.

Cost: first fit is linear in rows × columns × batches looked at (``_LOOKED_AT`` at most, drawn at random); a step of the
search is linear in the rows of two batches. The search ends after ``_PATIENCE`` steps without progress. Memory: two
tables of 4 bytes a value and batch, ``MOST_CELLS`` at most.

Known bias: rows are taken a few at a time, which do not see each other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sentence_transformers.planned.conflicts import Assignment, Rows
from sentence_transformers.planned.duplicates import Duplicates
from sentence_transformers.planned.rng import Rng

MOST_CELLS = 1 << 25

_LOOKED_AT = 64
_AT_A_TIME = 64
_PATIENCE = 1000
_TENURE = 8
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
        self.firm = self.every if duplicates.strong is None else np.zeros_like(self.every)

    def add(self, rows: Rows, batches: npt.NDArray[np.integer], number: int = 1) -> None:
        """Count rows in their batches, or with -1 no longer."""
        held = self.row_values[rows]
        places = held * np.int64(self.width) + np.asarray(batches)[..., None]
        np.add.at(self.every.reshape(-1), places[held >= 0], number)
        if self.firm is not self.every:
            held, places = held[:, : self.strong], places[:, : self.strong]
            np.add.at(self.firm.reshape(-1), places[held >= 0], number)

    def met(self, rows: Rows, batches: npt.NDArray[np.integer]) -> Counts:
        """Conflicts of each row, of shape (n,), in its batches, of shape (n, m) or (1, m); itself counts as well."""
        held = self.row_values[rows]
        places = np.where(held < 0, len(self.every) - 1, held)[:, :, None] * np.int64(self.width) + batches[:, None, :]
        total = self.every.reshape(-1)[places[:, : self.strong]].sum(axis=1)
        if self.strong < held.shape[1]:
            total += self.firm.reshape(-1)[places[:, self.strong :]].sum(axis=1)
        return total

    def own(self, rows: Rows, batch: int) -> Counts:
        """Conflicts of each of a batch's rows with the others."""
        return self.met(rows, np.array([[batch]]))[:, 0] - (self.row_values[rows, : self.strong] >= 0).sum(axis=1)


def degrees(duplicates: Duplicates) -> Counts:
    """Of each row, the number of its conflicts with all other rows, those over two values twice."""
    sizes = np.append(np.diff(duplicates.starts), 0)
    firm = np.append(duplicates.strong_sizes, 0)
    strong = duplicates.row_values[:, : duplicates.strong_columns]
    weak = duplicates.row_values[:, duplicates.strong_columns :]
    return sizes[strong].sum(axis=1) - (strong >= 0).sum(axis=1) + firm[weak].sum(axis=1)


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
    waiting = np.arange(len(rows))
    while len(waiting):
        asked, waiting = waiting[:_AT_A_TIME], waiting[_AT_A_TIME:]
        looked = np.flatnonzero(room)
        if len(looked) > _LOOKED_AT:
            looked = looked[rng.below(len(looked), len(asked) * _LOOKED_AT).reshape(len(asked), -1)]
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
        waiting = np.concatenate([np.delete(asked, given), waiting])
    return batch_of


def tabu_search(assignment: Assignment, rng: Rng) -> None:
    """Swap the best pairs until no row conflicts, or there is no progress."""
    tables = Tables(assignment.duplicates, assignment.batches)
    tables.add(assignment.order, assignment.batch_of[assignment.order])
    tables.every[:, -1] = tables.firm[:, -1] = 0  # those left out do not conflict
    own = np.zeros(len(assignment.order), dtype=np.int64)
    for batch in range(assignment.batches):
        members = assignment.rows_in(batch)
        own[members] = tables.own(members, batch)
    search = _Search(assignment, tables, own)
    step, progress, fewest = 0, 0, int(own.sum())
    while fewest and step - progress < _PATIENCE:
        step += 1
        rows = np.flatnonzero(own)
        draws = rng.below(1 << 30, 4)
        search.move(int(rows[draws[0] % len(rows)]), step, draws)
        total = int(own.sum())
        if total < fewest:
            fewest, progress = total, step


class _Search:
    """Steps of the tabu search."""

    def __init__(self, assignment: Assignment, tables: Tables, own: Counts) -> None:
        self.assignment, self.tables, self.own = assignment, tables, own
        self.until: dict[int, dict[int, int]] = {}  # by batch: rows that must not come back before a step

    def move(self, row: int, step: int, draws: Counts) -> None:
        """Let a row change places with the best partner of the best batch."""
        held, tables = self.assignment, self.tables
        home, rows = int(held.batch_of[row]), np.array([row], np.int32)
        there = self._best_batch(row, home, step, int(draws[1]))
        if there == home:
            return
        partners = held.rows_in(there)
        tables.add(rows, np.array([home]), -1)
        change = tables.met(partners, np.array([[home]]))[:, 0] - self.own[partners]
        if there < held.batches:
            change -= self._shared(row, partners)
        for index in np.flatnonzero(np.isin(partners, self._barred(home, step))):
            change[index] += _NEVER
        best = np.flatnonzero(change == change.min())
        partner = partners[best[[int(draws[2]) % len(best)]]]
        self._count(rows, partner, home, there)
        wait = step + _TENURE + int(draws[3]) % (1 + int(np.count_nonzero(self.own)) // 2)
        self.until.setdefault(home, {})[row] = self.until.setdefault(there, {})[int(partner[0])] = wait

    def _best_batch(self, row: int, home: int, step: int, draw: int) -> int:
        batches = self.assignment.batches + (self.assignment.planned < len(self.assignment.order))
        met = self.tables.met(np.array([row], np.int32), np.arange(batches)[None])[0]
        met[[batch for batch in range(batches) if self.until.get(batch, {}).get(row, 0) > step]] = _NEVER
        met[home] = 2 * _NEVER
        best = np.flatnonzero(met == met.min())
        return int(best[draw % len(best)]) if met[best[0]] < _NEVER else home

    def _barred(self, batch: int, step: int) -> list[int]:
        barred = {row: until for row, until in self.until.get(batch, {}).items() if until > step}
        self.until[batch] = barred
        return list(barred)

    def _shared(self, row: int, partners: Rows) -> Counts:
        """Conflicts of the row with each partner."""
        strong = self.tables.strong
        mine, theirs = self.tables.row_values[row], self.tables.row_values[partners]
        mine = np.where(mine < 0, -2, mine)
        equal = theirs[:, :, None] == mine
        return equal[:, :strong].sum(axis=(1, 2)) + equal[:, strong:, :strong].sum(axis=(1, 2))

    def _count(self, rows: Rows, partner: Rows, home: int, there: int) -> None:
        """Carry the swap out."""
        held, tables = self.assignment, self.tables
        left_out = held.batches
        if there != left_out:
            tables.add(partner, np.array([there]), -1)
            tables.add(rows, np.array([there]))
        tables.add(partner, np.array([home]))
        held.swap(rows, partner)
        for batch in (home, there):
            members = held.rows_in(batch)
            self.own[members] = 0 if batch == left_out else tables.own(members, batch)
