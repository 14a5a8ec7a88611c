"""The batch sampler: batches without duplicates or false negatives, planned for the whole epoch in advance.

A thin class around :mod:`~sentence_transformers.planned.plan`, which draws the plan of an epoch. See there for
guarantees and cost, and ``docs/planned.md`` for the rule and the losses for which it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from accelerate.state import PartialState, is_initialized
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch import nn
from torch.utils.data import DataLoader
from transformers.utils import logging

from sentence_transformers.planned import fitting, sharding
from sentence_transformers.planned.assignment import Rows
from sentence_transformers.planned.duplicates import Duplicates
from sentence_transformers.planned.plan import Capacity, capacity, plan_epoch
from sentence_transformers.planned.rule import Rule
from sentence_transformers.planned.value_hashes import columns_of

logger = logging.get_logger(__name__)


class PlannedNoDuplicatesBatchSampler(DefaultBatchSampler):
    """
    Batches without duplicates, planned for the whole epoch in advance.

    Pass the class as ``batch_sampler`` to the training arguments, or ``functools.partial`` of it with its options. As
    with :class:`~sentence_transformers.base.sampler.NoDuplicatesBatchSampler`, no value occurs twice in a batch, over
    all columns but labels and ``dataset_name``. With three columns or more (anchor, positive, negatives), two rows may
    share a negative, which is a false negative for neither; see ``strict``. Other than there:

    - ``len(sampler)`` is the number of batches of every epoch.
    - Each row is in one batch of an epoch, and every batch is full but those of the last step. With ``drop_last``,
      other rows are left out in each epoch.
    - On several processes, what holds for a batch holds for the batches that all of them take in a step; all take the
      same number of steps, and share the last one as equally as can be.
    - Where this is impossible, because too many rows share a value, up to 1 % of the rows are left out, others in each
      epoch, with a warning. Beyond that, an error before the first step says what can be done.
    - Time and memory grow with rows and columns, whatever the values.

    The plan is a function of the rows, the seed, the epoch and the number of rows in a step alone.

    Args:
        dataset (Dataset): The dataset to sample from.
        batch_size (int): Number of samples per batch of one process.
        drop_last (bool): If True, leave out the rows of an unfilled last batch. On several processes, where
            sentence-transformers sets it whatever the user says, ``drop_last_step`` counts.
        valid_label_columns (List[str], optional): Names of columns whose values do not count.
        generator (torch.Generator, optional): Not used; the plan follows from seed and epoch.
        seed (int): Seed of the plan. Defaults to 0.
        across_devices (bool): Whether what holds for a batch holds for those of all processes in a step. Defaults to
            True.
        strict (bool): Whether rows that share a negative are kept apart as well. Defaults to False.
        negative_columns (List[str], optional): Names of the columns that hold negatives. Defaults to all but the first
            two that count.
        max_skipped (float): The share of the rows that may be left out of each epoch because they share values with
            too many others. Defaults to 0.01.
        drop_last_step (bool, optional): If True, leave out the rows of an unfilled last step. Defaults to
            ``drop_last`` on one process, and to False on several.
        equal_parts (bool, optional): If True, the batches of a step have equal numbers of rows, as a loss with
            ``gather_across_devices=True`` needs; fewer rows than processes are then left out. Defaults to what the
            trainer says, if it does, and to False otherwise.
        num_processes (int, optional): The number of processes that share the batches. Defaults to accelerate's.

    Raises:
        ValueError: If an option is not what it must be, the dataset has no rows or no random access, or holds values
            that can neither be compared nor pickled.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
        *,
        across_devices: bool = True,
        strict: bool = False,
        negative_columns: Sequence[str] | None = None,
        max_skipped: float = 0.01,
        drop_last_step: bool | None = None,
        equal_parts: bool | None = None,
        num_processes: int | None = None,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        fitting.check_share(max_skipped)
        for name, value in (("across_devices", across_devices), ("strict", strict)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False, got {value!r}.")
        if num_processes is not None and (not isinstance(num_processes, int) or num_processes < 1):
            raise ValueError(f"num_processes must be a whole number of at least 1, got {num_processes!r}.")
        self.dataset = dataset
        self.across_devices, self.max_skipped, self.equal_parts = across_devices, max_skipped, equal_parts
        if num_processes is None:
            num_processes = PartialState().num_processes if is_initialized() else 1
        self.drop_last = drop_last_step if drop_last_step is not None else drop_last and num_processes == 1
        excluded = {"dataset_name", *(valid_label_columns or [])}
        self.rule = Rule.of(columns_of(dataset, excluded), negative_columns, strict)
        self.duplicates: Duplicates = self.rule.duplicates(dataset)
        self._batch_size, self._yields_parts = batch_size, True
        self._set_processes(batch_size, num_processes)

    def _set_processes(self, rows_per_process: int, num_processes: int) -> None:
        self.num_processes, self.rows_per_process = num_processes, rows_per_process
        self.rows_per_step = rows_per_process * num_processes
        # accelerate takes batches of any length, one for each process in turn, if it is told no size.
        self.batch_size: Any = rows_per_process if num_processes == 1 else None
        self.__dict__.pop("capacity", None)

    def share_batches(
        self, dataloader: DataLoader[Any], accelerator: Any, loss: nn.Module | dict[str, nn.Module] | None
    ) -> DataLoader[Any]:
        """
        Say how processes share the batches of a dataloader of one dataset or of several.

        Args:
            dataloader (DataLoader): Its batch sampler is this one, or takes batches from this one and others.
            accelerator (Accelerator): Its settings say how batches come to the processes.
            loss (nn.Module or dict, optional): If it gathers across devices, the batches of a step have equal numbers
                of rows.

        Returns:
            DataLoader: A dataloader to prepare with the accelerator.

        Raises:
            ValueError: If ``split_batches`` is set and the processes cannot share a batch equally, or some datasets
                have another kind of batch sampler.
        """
        if accelerator.num_processes == 1:
            return dataloader
        samplers = getattr(dataloader.batch_sampler, "batch_samplers", [dataloader.batch_sampler])
        if others := {type(one).__name__ for one in samplers if not isinstance(one, type(self))}:
            raise ValueError(
                f"Processes cannot share batches of {type(self).__name__} and of {', '.join(sorted(others))} in one "
                f"run. Use {type(self).__name__} for all datasets."
            )
        equal = bool(accelerator.dispatch_batches) or sharding.gathers_across_devices(loss or {})
        size = sharding.batch_size_of_one(accelerator, self._batch_size)
        for sampler in samplers:
            sampler._yields_parts = False
            sampler.equal_parts = equal if sampler.equal_parts is None else sampler.equal_parts
            sampler._set_processes(size, accelerator.num_processes)
        return sharding.prepare(accelerator, dataloader, size)

    @cached_property
    def capacity(self) -> Capacity:
        """What every epoch holds."""
        size, steps = (self.rows_per_step, 1) if self.across_devices else (self.rows_per_process, self.num_processes)
        found = capacity(self.duplicates, size, self.drop_last, steps)
        fitting.check_capacity(self, found)
        if self._yields_parts and self.equal_parts is None and found.tail % self.num_processes:
            logger.warning_once(
                f"In the last step, the batches of the {self.num_processes} processes differ by a row. A loss with "
                "gather_across_devices=True needs the sampler's option equal_parts=True."
            )
        return found

    @property
    def num_steps(self) -> int:
        """The number of steps of every epoch: all processes take one batch in each."""
        held = self.capacity
        return held.full // held.batches_per_step + (self._rows_in_last_step > 0)

    @property
    def _rows_in_last_step(self) -> int:
        """The number of rows in the unfilled last step, 0 if there is none."""
        tail, processes = self.capacity.tail, self.num_processes
        if tail < processes:
            lends = tail > 0 and self.capacity.full > 0 and self.rows_per_process > 1
            return processes if lends else 0
        return tail - tail % processes if self.equal_parts else tail

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps():
            if self._yields_parts:
                yield from sharding.parts_of(step, self.num_processes)
            else:
                yield step

    def _steps(self) -> Iterator[list[int]]:
        plan = plan_epoch(self.duplicates, self.capacity, (self.seed or 0) % 2**64, self.epoch)
        end = self.capacity.full * self.capacity.batch_size
        full, last = plan.order[:end], plan.order[end:]
        ends: list[Rows] = []
        if 0 < len(last) < self.num_processes and self._rows_in_last_step:
            step = full[end - self.rows_per_step :]
            full = full[: end - self.rows_per_step]
            ends += sharding.last_step_filled(
                step, last, self.num_processes, self.duplicates if self.across_devices else None
            )
        elif self._rows_in_last_step:
            ends.append(last[: self._rows_in_last_step])
        for start in range(0, len(full), self.rows_per_step):
            yield full[start : start + self.rows_per_step].tolist()
        for rows in ends:
            yield rows.tolist()

    def __len__(self) -> int:
        """The number of batches of every epoch, exact."""
        return self.num_steps * (self.num_processes if self._yields_parts else 1)

    @property
    def rows_skipped(self) -> int:
        """The number of rows that every epoch leaves out because they share values with too many others."""
        return self.capacity.skipped
