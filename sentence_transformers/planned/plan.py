"""The order of rows in an epoch in which no two rows of a batch conflict: shuffle, then repair.

``capacity`` says once how many batches an epoch has; ``plan_epoch`` draws the epoch. Both are pure functions.

Guarantee, for every plan:

- no two rows of a batch conflict, see :mod:`~sentence_transformers.planned.duplicates`;
- every batch is full but perhaps the last; each row is in the plan or in ``left_out``, exactly once;
- the number of batches and of rows left out is ``capacity``'s, in every epoch;
- the same values, capacity, seed and epoch give the same plan on every platform and NumPy version.

How many rows find a place:

- *All* (all but ``rows % batch_size`` with ``drop_last``), if 4 × columns × (m - 1) ≤ full batches, m being the rows
  of the most frequent value, and no batch is larger than the full ones: half of all swaps then help a conflicting row,
  whatever the assignment. Also if all columns are strong, no row holds more than one repeated value, and a plan exists
  at all: it is then constructed.
- *As many as is possible at all*, if in that case no full plan exists: with m(v) rows of value v, F full batches exist
  if and only if the sum of min(m(v), F) is at least F × batch size (Gale and Ryser, 1957); the last batch takes what
  the sum grows by with one batch more. Which rows are left out is drawn anew each epoch.
- Otherwise the question is graph colouring, which has no known quick answer. The planner looks for a plan for all
  rows, by a bounded search; what it finds is the capacity, and rows without a place are left out. An epoch whose own
  search finds less falls back on the plan found at first, its batches and rows in random order.

Cost: linear in rows × columns, with bounded rounds. Memory: 12 bytes a row for the assignment, and tables of 2 more,
on top of the values.

Known bias: see ``assignment`` and ``repair``. Where hardly any row conflicts, an epoch is a plain shuffle but for
those rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from sentence_transformers.planned.assignment import Rows, first_order, surplus
from sentence_transformers.planned.conflicts import Assignment
from sentence_transformers.planned.duplicates import Duplicates
from sentence_transformers.planned.repair import exchange_left_out, repaired, searched
from sentence_transformers.planned.rng import Rng

_SPARSE = 4  # a swap is free half the time if no row's values are in more than a quarter of the batches
_ATTEMPTS = 16  # where all rows are known to fit
_FIRST = 0x5EED  # path of the plan drawn at construction; an epoch's path has two parts, so none is the same


@dataclass(frozen=True)
class Capacity:
    """What every epoch of these rows holds.

    Args:
        rows: rows of the dataset.
        batch_size: rows per full batch.
        batches_per_step: the number of full batches is a multiple of it; the last batch then stands for a whole step,
            and has fewer rows than that.
        full: full batches.
        tail: rows of the unfilled last batch, 0 for none.
        drop_last: whether the rows of an unfilled last batch are left out.
        found: where the plan is the result of a search, the rows in the order found at first, those left out last.
    """

    rows: int
    batch_size: int
    batches_per_step: int
    full: int
    tail: int
    drop_last: bool = False
    found: Rows | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return self.full + (self.tail > 0)

    @property
    def planned(self) -> int:
        """Rows in each epoch's plan."""
        return self.full * self.batch_size + self.tail

    @property
    def left_out(self) -> int:
        """Rows that each epoch leaves out."""
        return self.rows - self.planned

    @property
    def skipped(self) -> int:
        """Rows that each epoch leaves out because they share values with too many others."""
        return max(self.left_out - (self.rows % (self.batch_size * self.batches_per_step) if self.drop_last else 0), 0)


@dataclass(frozen=True, eq=False)
class Plan:
    """One epoch.

    Args:
        order: int32 of shape (planned rows,); the rows of the full batches, then those of the last one.
        left_out: int32; rows that are not in the plan.
        capacity: says where to cut the order.
    """

    order: Rows
    left_out: Rows
    capacity: Capacity

    def __len__(self) -> int:
        return len(self.capacity)

    def __iter__(self) -> Iterator[Rows]:
        """The rows of each batch."""
        end = self.capacity.full * self.capacity.batch_size
        for start in range(0, end, self.capacity.batch_size):
            yield self.order[start : start + self.capacity.batch_size]
        if end < len(self.order):
            yield self.order[end:]


def capacity(duplicates: Duplicates, batch_size: int, drop_last: bool = False, batches_per_step: int = 1) -> Capacity:
    """Number of batches of every epoch, exact.

    Args:
        duplicates: the values that keep rows apart.
        batch_size: rows per full batch.
        drop_last: leave out the rows of the unfilled last batch.
        batches_per_step: see ``Capacity``.

    Raises:
        ValueError: If there are no rows or the batch size is below 1.
    """
    if duplicates.rows < 1:
        raise ValueError("The dataset has no rows to plan; pass a dataset with at least one row.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    full, tail = _target(duplicates, batch_size, batches_per_step, drop_last)
    most = Capacity(duplicates.rows, batch_size, batches_per_step, full, tail, drop_last)
    if _is_sparse(duplicates, batch_size, full, tail) or duplicates.single:
        return most
    first = _searched(duplicates, most, Rng(_FIRST, 1))
    return replace(most, full=first.full, tail=0 if drop_last else first.tail, found=first.order)


def fits(duplicates: Duplicates, batch_size: int, batches_per_step: int = 1) -> bool:
    """Whether a brief search finds a place for every row; then ``capacity`` does, too.

    Args:
        duplicates: the values that keep rows apart.
        batch_size: rows per full batch.
        batches_per_step: see ``Capacity``.
    """
    full, tail = _target(duplicates, batch_size, batches_per_step, False)
    if full * batch_size + tail < duplicates.rows:
        return False
    if _is_sparse(duplicates, batch_size, full, tail) or duplicates.single:
        return True
    rng = Rng(_FIRST, 1)
    order = first_order(duplicates, batch_size, full, tail, rng)
    return not len(searched(Assignment(duplicates, order, batch_size, full, tail), rng, briefly=True)[1])


def plan_epoch(duplicates: Duplicates, capacity: Capacity, seed: int, epoch: int) -> Plan:
    """Draw one epoch.

    Args:
        duplicates: the values that keep rows apart.
        capacity: of these values, see ``capacity``.
        seed: non-negative integer.
        epoch: non-negative integer.

    Raises:
        ValueError: If seed or epoch is negative, or the capacity is of another number of rows.
    """
    if seed < 0 or epoch < 0:
        raise ValueError(f"seed and epoch must not be negative, got seed {seed} and epoch {epoch}.")
    if duplicates.rows != capacity.rows:
        raise ValueError(
            f"The capacity is of {capacity.rows} rows, the values are of {duplicates.rows}; compute it anew."
        )
    for attempt in range(1 if capacity.found is not None else _ATTEMPTS):
        drawn = _searched(duplicates, capacity, Rng(seed, epoch, 0, attempt))
        if (drawn.full, drawn.tail) == (capacity.full, capacity.tail):
            return Plan(drawn.order[: capacity.planned], drawn.order[capacity.planned :], capacity)
    return _shuffled(duplicates, capacity, Rng(seed, epoch, 1))


def _is_sparse(duplicates: Duplicates, batch_size: int, full: int, tail: int) -> bool:
    """Whether a conflicting row can change places with every second row, whatever the assignment."""
    # A last batch that stands for a whole step may be larger than the others.
    return duplicates.columns * (duplicates.largest - 1) * _SPARSE * max(batch_size, tail) <= full * batch_size


def _target(duplicates: Duplicates, batch_size: int, batches_per_step: int, drop_last: bool) -> tuple[int, int]:
    """Most full batches, and rows of the last, for which every value has room."""
    order = Rng(_FIRST, 0).permutation(duplicates.rows)
    step_size = batch_size * batches_per_step

    def kept(batches: int) -> int:
        return duplicates.rows - len(surplus(duplicates, batch_size, batches, order))

    low = high = duplicates.rows // step_size
    while kept(low * batches_per_step) < low * step_size:
        low, high = low * 3 // 4, low - 1
    while low < high:
        middle = (low + high + 1) // 2
        fits = kept(middle * batches_per_step) >= middle * step_size
        low, high = (middle, high) if fits else (low, middle - 1)
    spare = kept(low * batches_per_step + 1) - low * step_size
    if spare > batch_size:  # no value is in it twice, either
        spare = min(spare, kept(1))
    return low * batches_per_step, 0 if drop_last else min(max(spare, 0), step_size - 1)


def _searched(duplicates: Duplicates, capacity: Capacity, rng: Rng) -> Assignment:
    """An assignment without conflicts, of the capacity if the search succeeds."""
    size = min(capacity.batch_size, capacity.rows)
    order = first_order(duplicates, size, capacity.full, capacity.tail, rng)
    return repaired(Assignment(duplicates, order, size, capacity.full, capacity.tail), rng, capacity.batches_per_step)


def _shuffled(duplicates: Duplicates, capacity: Capacity, rng: Rng) -> Plan:
    """The plan found at first with its full batches, and the rows of each batch, in random order."""
    size, full = min(capacity.batch_size, capacity.rows), capacity.full
    assert capacity.found is not None
    held = Assignment(duplicates, capacity.found.copy(), size, full, capacity.tail)
    exchange_left_out(held, rng)
    batches = rng.permutation(full)
    order = held.order
    order[: full * size] = order[: full * size].reshape(full, size)[batches].reshape(-1)
    planned = order[: capacity.planned]
    for low in range(0, len(planned), size):
        rng.shuffle(planned[low : low + size])
    return Plan(planned, order[capacity.planned :], capacity)
