"""The first seating of an epoch: a shuffle, arranged where values fill many batches.

Guarantee: every row gets one seat; exactly the seats asked for are filled. Where every row holds one repeated value at
most, no two rows of a value share a batch. Otherwise clashes remain for ``sentence_transformers.base.seating`` to
part.

Method. Where no value is in more than 1/16 of the batches: the shuffle, cut. Otherwise, in this order:

1. *Surplus.* Of a value in more rows than batches, the rows latest in the shuffle sit out.
2. *Last batch.* An unfilled last batch takes one row of each value that needs every batch, then the latest rows of the
   shuffle that agree with each other. What is left are full batches alone, and no value has more rows than they are.
3. *Dealing.* Rows of frequent values (of all, where no row holds several), value by value in random order, are dealt
   like cards, round by round; each round visits every batch once, in an order of its own. Where a value runs over the
   end of a round, its remaining rows begin the next in batches that it has not met. This is the constructive half of
   the Gale-Ryser theorem (1957).
4. *Filling.* The other rows take the free seats in shuffled order; then each batch is shuffled.

Cost: linear in rows and columns, a Python step per round, at most 4096 of them.

Known bias: two frequent values dealt in the same round do not meet in that epoch. Which ones these are is random.
Above 4096 rounds, neighbouring rounds share an order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sentence_transformers.base.draws import Draws
from sentence_transformers.base.repeats import IntArray, RepeatedValues, stable_argsort

Rows = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

FREQUENT = 16  # a value in more than one in so many batches is dealt
_ORDERS = 4096
_READMISSIONS = 8


def place(values: RepeatedValues, batch_size: int, full: int, tail: int, draws: Draws) -> Rows:
    """Row on each seat.

    Args:
        values: repeated values of the rows.
        batch_size: seats per batch.
        full: number of full batches.
        tail: rows of the unfilled last batch, 0 for none.
        draws: random choices.

    Returns:
        int32 of shape (batches × batch_size + rows outside,); -1 marks empty seats of the last batch.
    """
    shuffled = draws.permutation(values.rows)
    if not values.values or values.largest * FREQUENT <= full + (tail > 0):
        return _with_gap(shuffled, batch_size, full, tail)
    free = np.ones(values.rows, dtype=bool)
    outside = surplus(values, full + (tail > 0), shuffled)[: values.rows - full * batch_size - tail]
    free[outside] = False
    last = _last_batch(values, full, tail, shuffled, free)
    free[last] = False
    rest = shuffled[free[shuffled]]
    inside = rest[: full * batch_size]
    order = np.concatenate([_deal(values, inside, batch_size, full, draws), last, outside, rest[len(inside) :]])
    return _with_gap(order, batch_size, full, tail)


def _with_gap(order: Rows, batch_size: int, full: int, tail: int) -> Rows:
    """Keep those outside apart from the unfilled last batch."""
    end = full * batch_size + tail
    if tail == 0 or end == len(order):
        return order
    return np.concatenate([order[:end], np.full(batch_size - tail, -1, np.int32), order[end:]])


def surplus(values: RepeatedValues, batches: int, shuffled: Rows) -> Rows:
    """Rows that have to sit out for every value to be in ``batches`` rows at most, the latest of the shuffle.

    Where a row holds several such values the choice is greedy, hence perhaps not the smallest.
    """
    first = values.first_of_size(batches + 1)
    if first == values.values:
        return np.empty(0, np.int32)
    place_of = np.empty(values.rows, dtype=np.int32)
    place_of[shuffled] = np.arange(values.rows, dtype=np.int32)
    numbers = np.arange(first, values.values)
    cells = values.members[int(values.starts[first]) :]
    owner = np.repeat(numbers - first, values.sizes(numbers))
    out = np.zeros(values.rows, dtype=bool)
    out[cells[_rank(owner, place_of[cells]) >= batches]] = True
    for _ in range(_READMISSIONS):
        if not _readmit(out, cells, owner, place_of, batches):
            break
    return shuffled[out[shuffled]]


def _rank(owner: IntArray, priority: IntArray) -> npt.NDArray[np.int64]:
    """Rank of each cell among those of its owner by priority; owners are numbered through from 0."""
    order = stable_argsort(priority)
    order = order[stable_argsort(owner[order])]
    counts = np.bincount(owner)
    rank = np.empty(len(owner), dtype=np.int64)
    rank[order] = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def _readmit(out: Mask, cells: Rows, owner: IntArray, place_of: Rows, batches: int) -> bool:
    """Let rows back in that sit out although all of their values have room; whether there were any."""
    room = batches - np.bincount(owner, weights=~out[cells]).astype(np.int64)
    waiting = out.copy()
    waiting[cells[room[owner] <= 0]] = False
    ask = np.flatnonzero(waiting[cells])
    if not len(ask):
        return False
    held, place = np.unique(owner[ask], return_inverse=True)
    late = _rank(place, place_of[cells[ask]]) >= room[held][place]
    waiting[cells[ask[late]]] = False
    out[waiting] = False
    return bool(waiting.any())


def _last_batch(values: RepeatedValues, full: int, tail: int, shuffled: Rows, free: Mask) -> Rows:
    """``tail`` free rows without a common value, if need be with one; those first whose values need every batch."""
    if not tail:
        return np.empty(0, np.int32)
    chosen: list[int] = []
    used: set[int] = set()
    for number in range(values.first_of_size(full + 1), values.values):
        rows = values.members[values.starts[number] : values.starts[number + 1]]
        rows = rows[free[rows]]
        if number in used or len(rows) <= full or len(chosen) == tail:
            continue
        for row in np.resize(np.roll(rows, -int(shuffled[number % values.rows])), 2 * FREQUENT).tolist():
            held = [value for value in values.row_values[row].tolist() if value >= 0]
            if used.isdisjoint(held):
                chosen.append(row)
                used.update(held)
                break
    tight = np.array(chosen, dtype=np.int32)
    free[tight] = False
    late = shuffled[::-1][free[shuffled[::-1]]]
    last = agreeing(values, tail, late, tight)
    free[last] = False
    return np.concatenate([last, late[free[late]][: tail - len(last)]])


def agreeing(values: RepeatedValues, wanted: int, candidates: Rows, chosen: Rows | None = None) -> Rows:
    """``chosen`` plus the first candidates that share no value with it or each other, ``wanted`` at most."""
    parts = [np.empty(0, np.int32) if chosen is None else chosen]
    count, low, width = len(parts[0]), 0, 2 * wanted
    used = np.zeros(values.values + 1, dtype=bool)
    used[values.row_values[parts[0]]] = True
    used[-1] = False  # looked up by cells without a repeated value
    while count < wanted and low < len(candidates):
        rows = candidates[low : low + width]
        low, width = low + width, width * 2
        rows = rows[~used[values.row_values[rows]].any(axis=1)]
        rows = rows[_without_earlier_holder(values.row_values[rows])][: wanted - count]
        used[values.row_values[rows]] = True
        used[-1] = False
        parts.append(rows)
        count += len(rows)
    return np.concatenate(parts)


def _without_earlier_holder(numbers: Rows) -> Mask:
    """Rows (of shape (rows, columns)) none of whose values an earlier row holds."""
    flat = numbers.reshape(-1)
    held = np.flatnonzero(flat >= 0)
    first = np.unique(flat[held], return_index=True)[1]
    later = np.ones(len(held), dtype=bool)
    later[first] = False
    good = np.ones(len(numbers), dtype=bool)
    good[held[later] // numbers.shape[1]] = False
    return good


def _deal(values: RepeatedValues, rows: Rows, batch_size: int, full: int, draws: Draws) -> Rows:
    """Rows on the seats of ``full`` full batches."""
    if not full:
        return rows
    primary = values.row_values[rows].max(axis=1)
    first = 0 if values.single else values.first_of_size(full // FREQUENT + 2)
    frequent = primary >= first
    rank = draws.permutation(values.values - first)[primary[frequent] - first]
    by_value = stable_argsort(rank)
    dealt, rank = rows[frequent][by_value], rank[by_value]
    order = np.full(full * batch_size, -1, dtype=np.int32)
    order[_dealt_seats(rank, batch_size, full, draws)] = dealt
    order[order < 0] = rows[~frequent]
    batch_of = np.empty(values.rows, dtype=np.int32)
    batch_of[order] = np.arange(len(order), dtype=np.int32) // np.int32(batch_size)
    again = rows[draws.permutation(len(rows))]
    mixed: Rows = again[stable_argsort(batch_of[again])]
    return mixed


def _dealt_seats(rank: IntArray, batch_size: int, full: int, draws: Draws) -> IntArray:
    """Seats for rows sorted by ``rank``, the place of their value, no two of a value in the same batch."""
    rounds = -(-len(rank) // full)
    step = full * max(1, -(-rounds // _ORDERS))
    seats = np.empty(len(rank), dtype=np.int64)
    visits = np.arange(full, dtype=np.int64)
    draws.shuffle(visits)
    for low in range(0, len(rank), step):
        high = min(low + step, len(rank))
        seats[low:high] = np.resize(visits, high - low) * batch_size + np.arange(low, high) // full
        if high < len(rank):
            before = high - int(np.searchsorted(rank, rank[high], side="left"))
            after = int(np.searchsorted(rank, rank[high], side="right")) - high
            visits = _next_visits(visits, max(before, 0), after, draws)
    return seats


def _next_visits(visits: IntArray, before: int, after: int, draws: Draws) -> IntArray:
    """A random order of the batches whose first ``after`` are not among the last ``before`` of ``visits``."""
    if not before:
        visits = visits.copy()
        draws.shuffle(visits)
        return visits
    unmet = visits[: max(len(visits) - before, 0)].copy()
    draws.shuffle(unmet)
    rest = np.concatenate([unmet[after:], visits[len(unmet) :]])
    draws.shuffle(rest)
    return np.concatenate([unmet[:after], rest])
