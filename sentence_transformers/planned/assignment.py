"""The first assignment of an epoch: a shuffle, arranged where values fill many batches.

Guarantee: every row gets one slot. Where every row holds one numbered value at most, no two rows of a value share a
batch. Otherwise conflicts remain, for ``sentence_transformers.planned.repair`` to remove.

Method. Where no value is in more than 1/16 of the batches: the shuffle, cut. Otherwise, in this order:

1. *Surplus.* Of a value in more strong rows than there are batches for it, those latest in the shuffle are left out.
2. *Last batch.* An unfilled last batch takes one row of each value that needs every batch, then the latest rows of the
   shuffle that agree with each other. What is left are full batches alone, and no value has more rows than they are.
3. *Dealing.* Rows of values that are strong in many rows (of all, where no row holds several), value by value in
   random order, are dealt like cards, round by round; each round visits every batch once, in an order of its own.
   Where a value runs over the end of a round, its remaining rows begin the next in batches that it has not met. This
   is the constructive half of the Gale-Ryser theorem (1957).
4. *Filling.* The other rows take the free slots in shuffled order; then each batch is shuffled.

Cost: linear in rows and columns, a Python step per round, at most 4096 of them.

Known bias: two frequent values dealt in the same round do not meet in that epoch. Which ones these are is random.
Above 4096 rounds, neighbouring rounds share an order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sentence_transformers.planned.duplicates import Duplicates, IntArray, Mask, stable_argsort
from sentence_transformers.planned.rng import Rng

Rows = npt.NDArray[np.int32]

FREQUENT = 16  # a value in more than one in so many batches is dealt
_ORDERS = 4096
_READMISSIONS = 8


def first_order(duplicates: Duplicates, batch_size: int, full: int, tail: int, rng: Rng) -> Rows:
    """Row on each slot.

    Args:
        duplicates: the values that keep rows apart.
        batch_size: slots per full batch.
        full: number of full batches.
        tail: rows of the unfilled last batch, 0 for none.
        rng: random choices.

    Returns:
        int32 of shape (rows,): the rows of the full batches, of the last one, and those left out.
    """
    shuffled = rng.permutation(duplicates.rows)
    batches = full + (tail > 0)
    if not duplicates.values or duplicates.largest * FREQUENT <= batches:
        return shuffled
    free = np.ones(duplicates.rows, dtype=bool)
    outside = surplus(duplicates, batch_size, batches, shuffled)[: duplicates.rows - full * batch_size - tail]
    free[outside] = False
    last = _last_batch(duplicates, full, tail, shuffled, free)
    free[last] = False
    rest = shuffled[free[shuffled]]
    inside = rest[: full * batch_size]
    return np.concatenate([_deal(duplicates, inside, batch_size, full, rng), last, outside, rest[len(inside) :]])


def surplus(duplicates: Duplicates, batch_size: int, batches: int, shuffled: Rows) -> Rows:
    """Rows that have to be left out for every value to have room, the latest of the shuffle.

    Of a value, there is room for one strong row a batch, in the batches that its weak rows do not need.
    Where a row holds several such values the choice is greedy, hence perhaps not the smallest.
    """
    weak = np.diff(duplicates.starts) - duplicates.strong_sizes
    room = np.maximum(batches - -(-weak // min(batch_size, duplicates.rows)), 0)
    numbers = np.flatnonzero(duplicates.strong_sizes > room)
    if not len(numbers):
        return np.empty(0, np.int32)
    place_of = np.empty(duplicates.rows, dtype=np.int32)
    place_of[shuffled] = np.arange(duplicates.rows, dtype=np.int32)
    cells, owner = duplicates.holders(numbers, "strong")
    room = room[numbers]
    out = np.zeros(duplicates.rows, dtype=bool)
    out[cells[_rank(owner, place_of[cells]) >= room[owner]]] = True
    for _ in range(_READMISSIONS):
        if not _readmit(out, cells, owner, place_of, room):
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


def _readmit(out: Mask, cells: Rows, owner: IntArray, place_of: Rows, room: IntArray) -> bool:
    """Let rows back in that are left out although all of their values have room; whether there were any."""
    left = room - np.bincount(owner, weights=~out[cells], minlength=len(room)).astype(np.int64)
    waiting = out.copy()
    waiting[cells[left[owner] <= 0]] = False
    ask = np.flatnonzero(waiting[cells])
    if not len(ask):
        return False
    held, place = np.unique(owner[ask], return_inverse=True)
    late = _rank(place, place_of[cells[ask]]) >= left[held][place]
    waiting[cells[ask[late]]] = False
    out[waiting] = False
    return bool(waiting.any())


def _last_batch(duplicates: Duplicates, full: int, tail: int, shuffled: Rows, free: Mask) -> Rows:
    """``tail`` free rows that agree, if need be with conflicts; those first whose values need every batch."""
    if not tail:
        return np.empty(0, np.int32)
    chosen: list[int] = []
    used: set[int] = set()
    for number in np.flatnonzero(duplicates.strong_sizes > full).tolist():
        rows, _ = duplicates.holders(np.array([number]), "strong")
        rows = rows[free[rows]]
        if number in used or len(rows) <= full or len(chosen) == tail:
            continue
        for row in np.resize(np.roll(rows, -int(shuffled[number % len(shuffled)])), 2 * FREQUENT).tolist():
            held = [value for value in duplicates.row_values[row].tolist() if value >= 0]
            if used.isdisjoint(held):
                chosen.append(row)
                used.update(held)
                break
    tight = np.array(chosen, dtype=np.int32)
    free[tight] = False
    late = shuffled[::-1][free[shuffled[::-1]]]
    last = agreeing(duplicates, tail, late, tight)
    free[last] = False
    return np.concatenate([last, late[free[late]][: tail - len(last)]])


def agreeing(duplicates: Duplicates, wanted: int, candidates: Rows, chosen: Rows | None = None) -> Rows:
    """``chosen`` plus the first candidates that conflict neither with it nor with each other, ``wanted`` at most."""
    parts = [np.empty(0, np.int32) if chosen is None else chosen]
    strong = duplicates.strong_columns
    count, low, width = len(parts[0]), 0, 2 * wanted
    # Whether a chosen row holds the value, and whether strongly; the last place is for cells without a number.
    held = np.zeros((2, duplicates.values + 1), dtype=bool)

    def note(rows: Rows) -> None:
        held[0, duplicates.row_values[rows]] = held[1, duplicates.row_values[rows, :strong]] = True
        held[:, -1] = False

    note(parts[0])
    while count < wanted and low < len(candidates):
        rows = candidates[low : low + width]
        low, width = low + width, width * 2
        numbers = duplicates.row_values[rows]
        rows = rows[~(held[0, numbers[:, :strong]].any(axis=1) | held[1, numbers[:, strong:]].any(axis=1))]
        rows = rows[_agrees_with_earlier(duplicates.row_values[rows], strong)][: wanted - count]
        note(rows)
        parts.append(rows)
        count += len(rows)
    return np.concatenate(parts)


def _agrees_with_earlier(numbers: Rows, strong: int) -> Mask:
    """Rows (of shape (rows, columns)) that conflict with no earlier one."""
    columns = max(numbers.shape[1], 1)
    flat = numbers.reshape(-1)
    held = np.flatnonzero(flat >= 0)
    firm = held % columns < strong
    good = np.ones(len(numbers), dtype=bool)
    if not len(held):
        return good
    values, place = np.unique(flat[held], return_inverse=True)
    first = np.full((2, len(values)), len(numbers))  # the first row that holds the value, and that does so strongly
    np.minimum.at(first[0], place, held // columns)
    np.minimum.at(first[1], place[firm], held[firm] // columns)
    earlier = np.where(firm, first[0, place], first[1, place]) < held // columns
    good[held[earlier] // columns] = False
    return good


def _deal(duplicates: Duplicates, rows: Rows, batch_size: int, full: int, rng: Rng) -> Rows:
    """Rows on the slots of ``full`` full batches."""
    if not full:
        return rows
    sizes = duplicates.strong_sizes
    least = 2 if duplicates.single else full // FREQUENT + 2
    held = duplicates.row_values[rows, : duplicates.strong_columns]
    most = held if duplicates.strict else np.where(held >= 0, sizes[held], 0)
    primary = held[np.arange(len(rows)), most.argmax(axis=1)] if held.shape[1] else np.full(len(rows), -1)
    numbers = np.flatnonzero(sizes >= least)
    rank_of = np.full(duplicates.values + 1, -1, dtype=np.int32)  # the last place is for rows without a value
    rank_of[numbers] = rng.permutation(len(numbers))
    rank = rank_of[primary]
    frequent = rank >= 0
    rank = rank[frequent]
    by_value = stable_argsort(rank)
    dealt, rank = rows[frequent][by_value], rank[by_value]
    order = np.full(full * batch_size, -1, dtype=np.int32)
    order[_dealt_slots(rank, batch_size, full, rng)] = dealt
    order[order < 0] = rows[~frequent]
    batch_of = np.empty(duplicates.rows, dtype=np.int32)
    batch_of[order] = np.arange(len(order), dtype=np.int32) // np.int32(batch_size)
    again = rows[rng.permutation(len(rows))]
    mixed: Rows = again[stable_argsort(batch_of[again])]
    return mixed


def _dealt_slots(rank: IntArray, batch_size: int, full: int, rng: Rng) -> IntArray:
    """Slots for rows sorted by ``rank``, the place of their value, no two of a value in the same batch."""
    rounds = -(-len(rank) // full)
    step = full * max(1, -(-rounds // _ORDERS))
    slots = np.empty(len(rank), dtype=np.int64)
    visits = np.arange(full, dtype=np.int64)
    rng.shuffle(visits)
    for low in range(0, len(rank), step):
        high = min(low + step, len(rank))
        slots[low:high] = np.resize(visits, high - low) * batch_size + np.arange(low, high) // full
        if high < len(rank):
            before = high - int(np.searchsorted(rank, rank[high], side="left"))
            after = int(np.searchsorted(rank, rank[high], side="right")) - high
            visits = _next_visits(visits, max(before, 0), after, rng)
    return slots


def _next_visits(visits: IntArray, before: int, after: int, rng: Rng) -> IntArray:
    """A random order of the batches whose first ``after`` are not among the last ``before`` of ``visits``."""
    if not before:
        visits = visits.copy()
        rng.shuffle(visits)
        return visits
    unmet = visits[: max(len(visits) - before, 0)].copy()
    rng.shuffle(unmet)
    rest = np.concatenate([unmet[after:], visits[len(unmet) :]])
    rng.shuffle(rest)
    return np.concatenate([unmet[:after], rest])
