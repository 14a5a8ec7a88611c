"""The order of rows in an epoch in which no batch holds a value twice: shuffle, then repair.

``capacity`` says once how many batches an epoch has; ``plan_epoch`` draws the epoch. Both are pure functions.

Guarantee, for every plan:

- no value is in two rows of a batch, over all columns;
- every batch is full but perhaps the last; each row is in the plan or in ``sitting_out``, exactly once;
- the number of batches and of rows sitting out is ``capacity``'s, in every epoch;
- the same repeated values, capacity, seed and epoch give the same plan on every platform and NumPy version.

How many rows find a place:

- *All* (all but ``rows % batch_size`` with ``drop_last``), if 4 × columns × (m - 1) ≤ full batches, m being the rows
  of the most frequent value: half of all swaps then help a clashing row, whatever the seating. Also if no row holds
  more than one repeated value and a plan exists at all: it is then constructed.
- *As many as is possible at all*, if no row holds more than one and no full plan exists: with m(v) rows of value v, F
  full batches exist if and only if the sum of min(m(v), F) is at least F × batch size (Gale and Ryser, 1957); the last
  batch takes what the sum grows by with one batch more. Which rows sit out is drawn anew each epoch.
- Otherwise (rows with several values, each in a sizeable part of the batches) the question is graph colouring, which
  has no known quick answer. The planner looks for a plan for all rows, by a bounded search; what it finds is the
  capacity, and rows without a place sit out. An epoch whose own search finds less falls back on the plan found at
  first, its batches and rows in random order.

Cost: linear in rows × columns, with bounded rounds. Memory: 8 bytes a row for the seating, and tables of 2 more, on
top of the repeated values.

Known bias: see ``placing`` and ``seating``. Where hardly any row clashes, an epoch is a plain shuffle but for those
rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sentence_transformers.base.draws import Draws
from sentence_transformers.base.placing import Rows, place, surplus
from sentence_transformers.base.repeats import RepeatedValues
from sentence_transformers.base.seating import Seating
from sentence_transformers.base.settling import settle

_SPARSE = 4  # a swap is free half the time if no row's values are in more than a quarter of the batches
_FIRST = 0x5EED  # path of the plan drawn at construction; an epoch's path has two parts, so none is the same


@dataclass(frozen=True)
class Capacity:
    """What every epoch of these rows holds.

    Args:
        rows: rows of the dataset.
        batch_size: rows per global batch.
        full: full batches.
        tail: rows of the unfilled last batch, 0 for none.
        target: (full, tail) that the plan drawn at construction started from; differs from what it reached where rows
            with several values found no place.
    """

    rows: int
    batch_size: int
    full: int
    tail: int
    target: tuple[int, int]

    def __len__(self) -> int:
        return self.full + (self.tail > 0)

    @property
    def planned(self) -> int:
        """Rows in each epoch's plan."""
        return self.full * self.batch_size + self.tail

    @property
    def sitting_out(self) -> int:
        """Rows that each epoch leaves out."""
        return self.rows - self.planned


@dataclass(frozen=True, eq=False)
class Plan:
    """One epoch.

    Args:
        order: int32 of shape (planned rows,); cut every ``batch_size`` rows.
        sitting_out: int32; rows that are not in the plan.
        batch_size: rows per global batch.
    """

    order: Rows
    sitting_out: Rows
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def batch(self, index: int) -> Rows:
        """Rows of one batch."""
        return self.order[index * self.batch_size : (index + 1) * self.batch_size]

    def __iter__(self) -> Iterator[Rows]:
        return (self.batch(index) for index in range(len(self)))


def capacity(values: RepeatedValues, batch_size: int, drop_last: bool = False) -> Capacity:
    """Number of batches of every epoch, exact.

    Args:
        values: repeated values of the rows.
        batch_size: rows per global batch, that is of all processes together.
        drop_last: leave out the rows of the unfilled last batch.

    Raises:
        ValueError: If there are no rows or the batch size is below 1.
    """
    if values.rows < 1:
        raise ValueError("The dataset has no rows to plan; pass a dataset with at least one row.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    full, tail = _target(values, batch_size, drop_last)
    target = (full, tail)
    if not (_is_sparse(values, full) or values.single):
        first = Capacity(values.rows, batch_size, full, tail, target)
        full, tail = divmod(_filled(_found(values, first, Draws(_FIRST, 1))), batch_size)
    return Capacity(values.rows, batch_size, full, 0 if drop_last else tail, target)


def plan_epoch(values: RepeatedValues, capacity: Capacity, seed: int, epoch: int) -> Plan:
    """Draw one epoch.

    Args:
        values: repeated values of the rows.
        capacity: of these values, see ``capacity``.
        seed: non-negative integer.
        epoch: non-negative integer.

    Raises:
        ValueError: If seed or epoch is negative, or the capacity is of another number of rows.
    """
    if seed < 0 or epoch < 0:
        raise ValueError(f"seed and epoch must not be negative, got seed {seed} and epoch {epoch}.")
    if values.rows != capacity.rows:
        raise ValueError(f"The capacity is of {capacity.rows} rows, the values are of {values.rows}; compute it anew.")
    seating = _found(values, capacity, Draws(seed, epoch, 0))
    if (capacity.full, capacity.tail) == capacity.target and _filled(seating) == capacity.planned:
        return Plan(*_cut(seating, capacity), capacity.batch_size)
    if _filled(seating) < capacity.planned:
        seating = _found(values, capacity, Draws(_FIRST, 1))
    return _shuffled(seating, capacity, Draws(seed, epoch, 1))


def _is_sparse(values: RepeatedValues, full: int) -> bool:
    """Whether a clashing row can change places with every second row, whatever the seating."""
    return values.columns * (values.largest - 1) * _SPARSE <= full


def _target(values: RepeatedValues, batch_size: int, drop_last: bool) -> tuple[int, int]:
    """Most full batches, and rows of the last, for which no value is in more rows than batches."""
    order = Draws(_FIRST, 0).permutation(values.rows)

    def kept(batches: int) -> int:
        return values.rows - len(surplus(values, batches, order))

    low = high = values.rows // batch_size
    while kept(low) < low * batch_size:
        low, high = low * 3 // 4, low - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if kept(middle) >= middle * batch_size else (low, middle - 1)
    spare = kept(low + 1) - low * batch_size
    return low, 0 if drop_last else min(max(spare, 0), batch_size - 1)


def _found(values: RepeatedValues, capacity: Capacity, draws: Draws) -> Seating:
    """A seating without clashes, of the target if the search succeeds."""
    full, tail = capacity.target
    size = min(capacity.batch_size, capacity.rows)
    seating = Seating(values, place(values, size, full, tail, draws), size, full + (tail > 0))
    clashing = seating.part(seating.clashing(), draws)
    return settle(seating, clashing, draws) if len(clashing) else seating


def _filled(seating: Seating) -> int:
    """Rows inside."""
    inside = seating.order[: seating.batches * seating.batch_size]
    return len(inside) - int(np.count_nonzero(inside[-seating.batch_size :] < 0))


def _cut(seating: Seating, capacity: Capacity) -> tuple[Rows, Rows]:
    """Rows of the plan, and rows that sit out."""
    rows = seating.order
    if len(rows) > seating.values.rows:
        rows = rows[rows >= 0]
    return rows[: capacity.planned], rows[capacity.planned :]


def _shuffled(seating: Seating, capacity: Capacity, draws: Draws) -> Plan:
    """The seating with its full batches, and the rows of each batch, in random order."""
    size = capacity.batch_size
    full = _filled(seating) // size
    batches = np.arange(full, dtype=np.int32)
    draws.shuffle(batches)
    inside = seating.order[: full * size].reshape(-1, size)[batches].reshape(-1)
    seating.order[: len(inside)] = inside
    planned, out = _cut(seating, capacity)
    for low in range(0, len(planned), size):
        draws.shuffle(planned[low : low + size])
    return Plan(planned, out, size)
