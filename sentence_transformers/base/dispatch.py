"""Dispatching by whole steps, so that skipping ``n`` batches of a dispatching loader skips ``n`` steps.

With ``dispatch_batches=True``, accelerate reads ``num_processes`` batches on the main process in each step and hands
one to each process. Its ``skip_first_batches`` skips ``n`` of those batches, not ``n`` steps of them, so that a
resumed run goes on in the wrong place. Here the batches of a step are joined into one before accelerate sees them, and
accelerate splits them again (its ``split_batches``): one batch is one step, for skipping as for counting.

Guarantee: each process sees the rows that it would see without dispatching, at each step, resumed or not. As there, a
last step that has not one batch for each process is left out if the batch sampler says ``drop_last``.

Cost: none; the same rows are read, collated and sent. Bound to batches of equal size, the last one excepted, which is
what ``batch_size`` promises of a batch sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any

from accelerate.utils import concatenate
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

if TYPE_CHECKING:
    from accelerate import Accelerator

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


class StepBatchSampler(BatchSampler):
    """
    The batches that all processes take in one step, as one batch.

    Args:
        batch_sampler (BatchSampler): Yields the batches of single processes. It must have ``batch_size`` and may have
            ``drop_last``.
        num_processes (int): The number of processes, and so of batches in a step.
    """

    def __init__(self, batch_sampler: BatchSampler, num_processes: int) -> None:
        self.batch_sampler = batch_sampler
        self.num_processes = num_processes
        self.batch_size = batch_sampler.batch_size * num_processes
        self.drop_last = getattr(batch_sampler, "drop_last", False)

    def __iter__(self) -> Iterator[list[int]]:
        batches = iter(self.batch_sampler)
        while step := list(islice(batches, self.num_processes)):
            if len(step) == self.num_processes or not self.drop_last:
                yield [row for batch in step for row in batch]

    def __len__(self) -> int:
        """The number of steps."""
        steps = len(self.batch_sampler) / self.num_processes
        return int(steps) if self.drop_last else ceil(steps)


class _StepCollator:
    """Collates each process's batch of a step as it would be alone, and joins them as accelerate's dispatcher does."""

    def __init__(self, collate_fn: Callable[[list[Any]], Any], batch_size: int) -> None:
        self.collate_fn = collate_fn
        self.batch_size = batch_size

    def __call__(self, rows: list[Any]) -> Any:
        starts = range(0, len(rows), self.batch_size)
        batches = [self.collate_fn(rows[start : start + self.batch_size]) for start in starts]
        # accelerate joins nothing but tensors; a batch alone is left as it is, whatever it holds
        return batches[0] if len(batches) == 1 else concatenate(batches)


def with_batch_sampler(
    dataloader: DataLoader[Any], batch_sampler: BatchSampler, collated_alone: int | None = None
) -> DataLoader[Any]:
    """
    The same dataloader over another batch sampler.

    Args:
        dataloader (DataLoader): Built from a batch sampler.
        batch_sampler (BatchSampler): Yields the batches in its place.
        collated_alone (int, optional): Number of rows that are collated at a time. Defaults to all of a batch.
    """
    collate_fn = dataloader.collate_fn
    return DataLoader(
        dataloader.dataset,
        batch_sampler=batch_sampler,
        collate_fn=_StepCollator(collate_fn, collated_alone) if collated_alone else collate_fn,
        **{name: getattr(dataloader, name) for name in _KEPT},
    )


def prepare_dataloader(accelerator: Accelerator, dataloader: DataLoader[Any]) -> DataLoader[Any]:
    """
    ``accelerator.prepare(dataloader)``, dispatching by whole steps where it dispatches batches of a map-style dataset.

    Args:
        accelerator (Accelerator): Prepares the dataloader; its settings say whether it dispatches.
        dataloader (DataLoader): Built from a batch sampler, or over an ``IterableDataset``.

    Returns:
        DataLoader: The prepared dataloader. Its length is the number of steps that each process takes.
    """
    prepared: DataLoader[Any]
    batch_sampler: Any = dataloader.batch_sampler
    if (
        not accelerator.dispatch_batches
        or accelerator.split_batches
        or accelerator.num_processes == 1
        or isinstance(dataloader.dataset, IterableDataset)
        or getattr(batch_sampler, "batch_size", None) is None
    ):
        prepared = accelerator.prepare(dataloader)
        return prepared

    by_steps = StepBatchSampler(batch_sampler, accelerator.num_processes)
    prepared = accelerator.prepare(with_batch_sampler(dataloader, by_steps, batch_sampler.batch_size))
    prepared.split_batches = True
    return prepared
