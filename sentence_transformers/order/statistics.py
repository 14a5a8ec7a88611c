"""What an epoch holds: rows used, repeated and left out, and values twice in a batch or a step. Counted, not listed.

Guarantee: all counts are exact, up to the 64-bit identities of :mod:`~sentence_transformers.base.keys`.

Cost: linear in rows × columns but for the sorts, which run over pieces of about ``PIECE`` rows. Held: 4 bytes a row,
the numbers of the repeated values, and one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from sentence_transformers.base.keys import build_keys, hash_values
from sentence_transformers.base.repeats import RepeatedValues, group_rows

Step = list[list[int]]

PIECE = 1 << 18  # rows that are counted at a time


class Tally:
    """
    Counts an epoch while its steps pass.

    Args:
        values (RepeatedValues): The repeated values of all rows.
    """

    def __init__(self, values: RepeatedValues) -> None:
        self.values = values
        self.steps = self.batches = 0
        self.batches_with_duplicates = self.steps_with_duplicates = 0
        self.uneven_steps = 0
        self.times = np.zeros(values.rows, dtype=np.uint32)  # that each row was used
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
        self.batches_with_duplicates += groups_with_duplicates(by_batch, rows, self.values)
        of_step = np.repeat(np.arange(len(steps)), np.fromiter(map(len, steps), dtype=np.int64, count=len(steps)))
        self.steps_with_duplicates += groups_with_duplicates(of_step[by_batch], rows, self.values)

    @property
    def used(self) -> int:
        """Rows used at least once."""
        return int(np.count_nonzero(self.times))

    @property
    def repeated(self) -> int:
        """Rows used more than once."""
        return int(np.count_nonzero(self.times > 1))


def groups_with_duplicates(groups: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], values: RepeatedValues) -> int:
    """
    The number of groups that hold a value, or a row, more than once.

    Args:
        groups: int64 of shape (n,); the group of each member, from 0.
        rows: int64 of shape (n,); the row that each member is.
        values: the repeated values of all rows.
    """
    numbers = values.row_values[rows].astype(np.int64)
    held = numbers >= 0  # no number is in two columns of one row, so the columns of a group can be joined
    groups_of_numbers = np.broadcast_to(groups[:, None], numbers.shape)
    of_values = _groups_of_repeats(groups_of_numbers[held], numbers[held], values.values)
    return len(np.union1d(of_values, _groups_of_repeats(groups, rows, values.rows)))


def _groups_of_repeats(
    groups: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64], limit: int
) -> npt.NDArray[np.int64]:
    """The groups that hold one of the ``numbers``, all below ``limit``, more than once."""
    keys = np.sort(groups * max(limit, 1) + numbers)
    return np.unique(keys[1:][keys[1:] == keys[:-1]] // max(limit, 1))


def repeated_values(datasets: list[Dataset], excluded: set[str]) -> RepeatedValues:
    """
    The values that two or more rows share, over all datasets, whose rows are numbered through.

    Args:
        datasets: the datasets of a run.
        excluded: names of columns whose values do not count.
    """
    if len(datasets) == 1:
        return build_keys(datasets[0], excluded)
    hashes = [hash_values(dataset, excluded) for dataset in datasets]
    columns = max(part.shape[1] for part in hashes)
    joined = np.zeros((sum(map(len, datasets)), columns), dtype=np.uint64)
    low = 0
    for part in hashes:
        high = low + len(part)
        # Filled up with a value of the same row, which counts once there; or, without any, with one of its own
        joined[low:high] = part[:, :1] if part.shape[1] else np.arange(low, high, dtype=np.uint64)[:, None]
        joined[low:high, : part.shape[1]] = part
        low = high
    return group_rows(joined)
