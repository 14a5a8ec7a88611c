"""The batch sampler whose batches hold no value twice, whose length is exact, and which leaves no row out.

A thin class around :mod:`~sentence_transformers.base.planning`, which draws the plan of an epoch, and
:mod:`~sentence_transformers.base.keys`, which numbers the repeated values of a dataset. See there for guarantees and
cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler
from transformers.utils import logging

from sentence_transformers.base.keys import build_keys, shown_value
from sentence_transformers.base.planning import Capacity, capacity, plan_epoch
from sentence_transformers.base.repeats import RepeatedValues
from sentence_transformers.base.tail import Rows, last_batches, steps_of

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)

_NAMED = 3  # values that a warning names


class PlannedNoDuplicatesBatchSampler(DefaultBatchSampler):
    """
    Batches without duplicates, planned for the whole epoch in advance.

    As with :class:`~sentence_transformers.base.sampler.NoDuplicatesBatchSampler`, no value occurs twice in a batch,
    over all columns but labels and ``dataset_name``. Other than there:

    - ``len(sampler)`` is the number of batches of every epoch: ``ceil(rows / batch_size)``, or the floor with
      ``drop_last``.
    - Each row is in one batch of an epoch, and every batch is full but the last. With ``drop_last``, other rows are
      left out in each epoch.
    - Where that is impossible, because a value is in more rows than there are batches, the surplus rows sit out,
      others in each epoch, the length stays constant, and a warning says how many rows, which values, and what batch
      size fits.
    - Time and memory grow with rows and columns, whatever the values.

    The plan is a function of the rows, the seed, the epoch and the batch size alone.

    Args:
        dataset (Dataset): The dataset to sample from.
        batch_size (int): Number of samples per batch.
        drop_last (bool): If True, leave out the rows of an unfilled last batch.
        valid_label_columns (List[str], optional): Names of columns whose values do not count.
        generator (torch.Generator, optional): Not used; the plan follows from seed and epoch.
        seed (int): Seed of the plan. Defaults to 0.

    Raises:
        ValueError: If the batch size is below 1, the dataset has no rows or no random access, or holds values that can
            neither be compared nor pickled.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        self.dataset = dataset
        self.num_processes = 1
        self._excluded = {"dataset_name", *(valid_label_columns or [])}
        self._values: RepeatedValues = build_keys(dataset, self._excluded)
        self._set_capacity()

    def plan_for(self, batch_size: int, num_processes: int = 1, drop_last: bool | None = None) -> None:
        """
        Plan batches of another size, each of which several processes share.

        Args:
            batch_size (int): Number of samples per batch, over all processes that share it.
            num_processes (int): The number of processes that share a batch. Every batch, the last one too, then has at
                least as many rows.
            drop_last (bool, optional): If True, leave out the rows of an unfilled last batch. Defaults to what it was.

        Raises:
            ValueError: If the batch size is below the number of processes, or the dataset has fewer rows than that.
        """
        if batch_size < num_processes:
            raise ValueError(
                f"A batch of {batch_size} rows cannot be shared by {num_processes} processes; each needs a row at "
                f"least. Use a batch size of at least {num_processes}."
            )
        self.batch_size, self.num_processes = batch_size, num_processes
        self.drop_last = self.drop_last if drop_last is None else drop_last
        self._set_capacity()

    def _set_capacity(self) -> None:
        self._capacity: Capacity = capacity(self._values, self.batch_size, self.drop_last)
        self._length = steps_of(self._capacity, self.num_processes)
        self._warn_of_rows_sitting_out()

    def __iter__(self) -> Iterator[list[int]]:
        return self._cut_order(self._draw_order())

    def _draw_order(self) -> Rows:
        seed = (self.seed or 0) % 2**64
        plan = plan_epoch(self._values, self._capacity, seed, self.epoch)
        last = last_batches(plan, self._capacity, self._values, self.num_processes)
        order = plan.order[: (self._length - len(last)) * self.batch_size]
        return np.concatenate([order, *last]) if last else order

    def _cut_order(self, order: Rows) -> Iterator[list[int]]:
        last = max(len(order) - self.rows_in_last_batch, 0)  # all before are full, but one that lent rows to the last
        for start in range(0, last, self.batch_size):
            yield order[start : min(start + self.batch_size, last)].tolist()
        if self._length:
            yield order[last:].tolist()

    @property
    def rows_planned(self) -> int:
        """The number of rows in the batches of every epoch."""
        return min(self._capacity.planned, self._length * self.batch_size)

    @property
    def rows_without_room(self) -> int:
        """The number of rows that sit out each epoch because too many others hold the same values."""
        held = self._capacity
        return max(held.sitting_out - (held.rows % self.batch_size if self.drop_last else 0), 0)

    @property
    def rows_in_last_batch(self) -> int:
        """The number of rows in the last batch of every epoch."""
        if self._length == self._capacity.full:
            return self.batch_size
        return max(self._capacity.tail, self.num_processes)

    def __len__(self) -> int:
        """The number of batches of every epoch, exact."""
        return self._length

    def _warn_of_rows_sitting_out(self) -> None:
        held, surplus = self._capacity, self.rows_without_room
        if surplus:
            logger.warning_once(
                f"{surplus} of {held.rows} rows sit out each epoch, others each time: batches of {self.batch_size} "
                "without duplicates do not have room for all of them. The most frequent values are "
                f"{self._frequent()}. A batch size of {max(held.rows // self._values.largest, 1)} over all processes "
                "that share a batch has room for each of these."
            )
        if self._length < len(held):
            logger.warning_once(
                f"{held.tail} of {held.rows} rows sit out each epoch, others each time: {self.num_processes} "
                f"processes cannot share a last batch of {held.tail}, nor take rows from one of {self.batch_size} "
                "before it. Use a larger batch size."
            )

    def _frequent(self) -> str:
        """The most frequent values, with their numbers of rows."""
        starts = self._values.starts  # of values in the order of their frequency
        numbers = reversed(range(max(self._values.values - _NAMED, 0), self._values.values))
        return ", ".join(
            f"{shown_value(self.dataset, self._values, number, self._excluded)} "
            f"({starts[number + 1] - starts[number]} rows)"
            for number in numbers
        )
