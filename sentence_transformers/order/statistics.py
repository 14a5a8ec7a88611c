"""What an epoch holds: rows used, repeated and left out, values twice, and false negatives. Counted, not listed.

A value is *twice* in a batch if two of its rows hold it. It is a *false negative* if one of these rows holds it as
anchor or positive: then the loss pushes a text away that is right. With one or two columns the two are the same; of
three or more, those from the third on are taken for mined negatives, which two rows may share without harm.

Guarantee: all counts are exact, up to the 64-bit hashes of :mod:`~sentence_transformers.planned.value_hashes`.

Cost: linear in rows × columns but for the sorts. Held: 4 bytes a row and column, 4 a row, and pieces of about
``PIECE`` rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset

Step = list[list[int]]
Ints = npt.NDArray[np.integer[Any]]
Hashes = npt.NDArray[np.uint64]

PIECE = 1 << 18  # rows that are counted at a time
_STRONG = 2  # leading columns whose texts are right for their row: anchor and positive


@dataclass(frozen=True, eq=False)
class ValueTable:
    """
    The values that two or more rows hold.

    Args:
        numbers: int32 of shape (rows, columns); the number of the value, or -1 where no other row holds it, or this
            row holds it in an earlier column.
        rows_of: The number of rows that hold each value.
        cells: A cell (row × columns + column) that holds each value.
    """

    numbers: npt.NDArray[np.int32]
    rows_of: Ints
    cells: Ints

    @property
    def has_negatives(self) -> bool:
        """Whether there are columns that are taken for mined negatives."""
        return bool(self.numbers.shape[1] > _STRONG)


def hashes_of(datasets: list[Dataset], excluded: set[str]) -> list[Hashes]:
    """
    The hashes of the values of each dataset that has rows, of shape (rows, columns).

    Args:
        datasets: The datasets of a run.
        excluded: Names of columns whose values do not count.
    """
    from sentence_transformers.planned.value_hashes import columns_of, hash_values

    return [hash_values(dataset, columns_of(dataset, excluded)) for dataset in datasets if len(dataset)]


def value_table(parts: list[Hashes]) -> ValueTable:
    """
    Number the values that two or more rows share, over all datasets, whose rows are numbered through.

    Args:
        parts: The hashes of each dataset, of shape (rows, columns).
    """
    hashes = np.zeros((sum(map(len, parts)), max(part.shape[1] for part in parts)), dtype=np.uint64)
    low = 0
    for part in parts:
        hashes[low : low + len(part), : part.shape[1]] = part
        low += len(part)
    for column in range(1, hashes.shape[1]):
        hashes[(hashes[:, :column] == hashes[:, column : column + 1]).any(axis=1), column] = 0  # no value, too
    if not hashes.size:
        return ValueTable(np.empty(hashes.shape, np.int32), np.empty(0, int), np.empty(0, int))
    found, cells, inverse, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    kept = (counts > 1) & (found != 0)
    number_of = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    return ValueTable(number_of[inverse.reshape(hashes.shape)], counts[kept], cells[kept])


class Statistics:
    """
    Counts an epoch while its steps pass.

    Args:
        values (ValueTable): Of all rows.
    """

    def __init__(self, values: ValueTable) -> None:
        self.values = values
        self.steps = self.batches = self.uneven_steps = 0
        self.batches_with_duplicates = self.steps_with_duplicates = 0
        self.batches_with_false_negatives = self.steps_with_false_negatives = 0
        self.times = np.zeros(len(values.numbers), dtype=np.uint32)  # that each row was used
        self._held: list[Step] = []
        self._held_rows = 0

    def passing(self, steps: Iterable[Step]) -> Iterator[Step]:
        """The same steps, counted; complete once they are at an end."""
        for step in steps:
            self._held.append(step)
            self._held_rows += sum(map(len, step))
            if self._held_rows >= PIECE:
                self._count()
            yield step
        self._count()

    def _count(self) -> None:
        steps, self._held, self._held_rows = self._held, [], 0
        batches = [batch for step in steps for batch in step]
        rows = np.fromiter((row for batch in batches for row in batch), dtype=np.int64)
        sizes = np.fromiter(map(len, batches), dtype=np.int64, count=len(batches))
        self.steps += len(steps)
        self.batches += int(np.count_nonzero(sizes))
        self.uneven_steps += sum(not all(step) for step in steps)
        np.add.at(self.times, rows, 1)
        by_batch = np.repeat(np.arange(len(batches)), sizes)
        twice, false = groups_with_duplicates(by_batch, rows, self.values)
        self.batches_with_duplicates += twice
        self.batches_with_false_negatives += false
        of_step = np.repeat(np.arange(len(steps)), np.fromiter(map(len, steps), dtype=np.int64, count=len(steps)))
        twice, false = groups_with_duplicates(of_step[by_batch], rows, self.values)
        self.steps_with_duplicates += twice
        self.steps_with_false_negatives += false

    @property
    def used(self) -> int:
        """Rows used at least once."""
        return int(np.count_nonzero(self.times))

    @property
    def repeated(self) -> int:
        """Rows used more than once."""
        return int(np.count_nonzero(self.times > 1))


def groups_with_duplicates(groups: Ints, rows: Ints, values: ValueTable) -> tuple[int, int]:
    """
    The number of groups that hold a value, or a row, twice; and of those in which it is a false negative.

    Args:
        groups: int64 of shape (n,); the group of each member, from 0.
        rows: int64 of shape (n,); the row that each member is.
        values: Of all rows.
    """
    numbers = values.numbers[rows].astype(np.int64)
    held = numbers >= 0  # no number is in two columns of one row, so the columns of a group can be joined
    strong = np.arange(numbers.shape[1]) < _STRONG
    all_groups, strong = (np.broadcast_to(one, numbers.shape)[held] for one in (groups[:, None], strong))
    twice, false = _repeated(all_groups * max(len(values.rows_of), 1) + numbers[held], strong)
    of_rows, _ = _repeated(groups * max(len(values.numbers), 1) + rows, np.ones(len(rows), dtype=bool))
    again = of_rows // max(len(values.numbers), 1)
    counts = (len(np.union1d(one // max(len(values.rows_of), 1), again)) for one in (twice, false))
    return next(counts), next(counts)


def _repeated(keys: Ints, strong: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """The keys that occur more than once; and of these, the ones with a strong member."""
    order = np.argsort(keys, kind="stable")
    keys, strong = keys[order], strong[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1)) if len(keys) else np.empty(0, dtype=np.int64)
    if not len(starts):
        return keys, keys
    more = np.diff(np.append(starts, len(keys))) > 1
    any_strong = np.logical_or.reduceat(strong, starts)
    return keys[starts[more]], keys[starts[more & any_strong]]
