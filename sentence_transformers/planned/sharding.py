"""How processes share the planned batches: equal numbers of steps, every row once, no batch of one process empty.

A planned *step* holds the rows that all processes take at a time. Process ``p`` of ``n`` takes the ``p``-th of ``n``
parts of it, which differ by one row at most; of a full step each is a full batch.

Guarantee: every step has a row for each process at least. A last step of fewer rows is filled up from the step before
it; where batches of one row leave it nothing to give, the rows are left out, others in each epoch. How many rows move
depends on the number of processes, so that the last two steps, and no others, differ on another number of them.

Cost: none but for the last two steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import BatchSampler, DataLoader

from sentence_transformers.planned.assignment import Rows
from sentence_transformers.planned.duplicates import Duplicates, Mask

_KEPT = (
    "num_workers",
    "pin_memory",
    "persistent_workers",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "generator",
)


def parts_of(step: Sequence[int], num_processes: int) -> Iterator[list[int]]:
    """The batch of each process, the longer ones first."""
    size, longer = divmod(len(step), num_processes)
    stop = 0
    for process in range(num_processes):
        start, stop = stop, stop + size + (process < longer)
        yield list(step[start:stop])


class ProcessBatches(BatchSampler):
    """
    The batches of single processes, ``num_processes`` for each step.

    Args:
        steps (BatchSampler): Yields the rows of each step; takes the epoch.
        num_processes (int): The number of processes.
        batch_size (int, optional): What accelerate is told of the number of rows in a batch. None, the default, tells
            it to take batches of any length.
    """

    def __init__(self, steps: Any, num_processes: int, batch_size: int | None = None) -> None:
        self.batch_sampler = steps
        self.num_processes = num_processes
        self.batch_size: Any = batch_size
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the sampler beneath; accelerate and transformers do not look that deep."""
        self.batch_sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.batch_sampler:
            yield from parts_of(step, self.num_processes)

    def __len__(self) -> int:
        return len(self.batch_sampler) * self.num_processes


def prepare(accelerator: Any, dataloader: DataLoader[Any], batch_size: int) -> DataLoader[Any]:
    """
    A dataloader that gives each process its part of each step, after ``accelerator.prepare`` as well as before.

    Args:
        accelerator (Accelerator): Its settings say how batches come to the processes.
        dataloader (DataLoader): Its batch sampler yields the rows of each step.
        batch_size (int): Number of samples per full batch of one process.
    """
    num_processes, steps = accelerator.num_processes, dataloader.batch_sampler
    if accelerator.dispatch_batches and accelerator.split_batches:
        return _with_batch_sampler(dataloader, ProcessBatches(steps, 1, batch_size * num_processes))
    if accelerator.dispatch_batches:
        return _with_batch_sampler(dataloader, ProcessBatches(steps, num_processes, batch_size))
    if not accelerator.split_batches:
        return _with_batch_sampler(dataloader, ProcessBatches(steps, num_processes))
    # accelerate splits batches of one size alone: let it take the parts as they are.
    batches = ProcessBatches(steps, num_processes, batch_size * num_processes)
    prepared = accelerator.prepare(_with_batch_sampler(dataloader, batches))
    prepared.batch_sampler.split_batches, prepared.batch_sampler.batch_size = False, None
    result: DataLoader[Any] = prepared
    return result


def _with_batch_sampler(dataloader: DataLoader[Any], batch_sampler: BatchSampler) -> DataLoader[Any]:
    kept = {name: getattr(dataloader, name) for name in _KEPT}
    return DataLoader(dataloader.dataset, batch_sampler=batch_sampler, collate_fn=dataloader.collate_fn, **kept)


def batch_size_of_one(accelerator: Any, batch_size: int) -> int:
    """
    Number of samples per batch of one process.

    Raises:
        ValueError: If batches are to be split, and the processes do not divide ``batch_size``.
    """
    if not accelerator.split_batches:
        return batch_size
    if batch_size % accelerator.num_processes:
        raise ValueError(
            f"With split_batches=True, {accelerator.num_processes} processes cannot share batches of {batch_size} "
            f"rows equally. Use a batch size that {accelerator.num_processes} divides."
        )
    return batch_size // int(accelerator.num_processes)


def gathers_across_devices(loss: nn.Module | dict[str, nn.Module]) -> bool:
    """Whether a loss, or one that it wraps, takes the batches of all devices as negatives."""
    losses = loss.values() if isinstance(loss, dict) else [loss]
    return any(
        getattr(module, "gather_across_devices", False)
        for one in losses
        if isinstance(one, nn.Module)
        for module in one.modules()
    )


def last_step_filled(step: Rows, last: Rows, num_processes: int, duplicates: Duplicates | None) -> tuple[Rows, Rows]:
    """The last two steps with a row for each process in the last one, which has fewer.

    Args:
        step: a full step of two rows or more a process.
        last: the rows of the last step.
        num_processes: the number of processes.
        duplicates: the values that keep the rows of a step apart. None if they may be in the batches of different
            processes: each process then has one row of the last step.
    """
    if duplicates is None:
        size = len(step) // num_processes
        moving = np.arange(len(last) + 1, num_processes + 1) * size - 1  # the last row of as many batches as needed
        return np.delete(step, moving), np.concatenate([last, step[moving]])
    for kept in range(len(last), -1, -1):
        wanted = num_processes - kept
        free = np.flatnonzero(~_shares_a_value(duplicates, step, last[:kept]))
        if len(free) >= wanted:
            moving = free[-wanted:]
            return np.delete(step, moving), np.concatenate([last[:kept], step[moving]])
    raise AssertionError("a step of two rows a process has enough rows to give away")


def _shares_a_value(duplicates: Duplicates, rows: Rows, others: Rows) -> Mask:
    """Of each row, whether it shares a value with one of the others."""
    taken = duplicates.row_values[others]
    return np.asarray(np.isin(duplicates.row_values[rows], taken[taken >= 0]).any(axis=1))
