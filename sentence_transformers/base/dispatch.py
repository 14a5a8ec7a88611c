"""Dispatching by whole steps: the main process reads, and each process gets its own batch as it was collated.

Where accelerate dispatches (``dispatch_batches=True``, and by default an ``IterableDataset``), it concatenates the
batches of a step and slices them again, which takes tensors of one shape and nothing else; and its
``skip_first_batches`` skips one batch where a step takes one for each process. Here a loader's items are steps, whose
batches are scattered as objects, so that a skipped item is a step, and a batch may hold anything that can be pickled.

Guarantee: at each step, resumed or not, process ``i`` has the ``i``-th of the next ``num_processes`` batches, as when
the batches of a dataset with a length are sharded; with ``split_batches``, the ``i``-th part of the next one.
Cost: the batches of a step are pickled; each process receives its own. A resume skips the indices of a dataset with a
length, and reads the rows of a stream again, on the main process alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from math import ceil
from operator import itemgetter
from typing import Any

import torch
from accelerate import skip_first_batches
from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard, prepare_data_loader
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset


def dispatch_by_step(dataloader: DataLoader, drop_last: bool | None = None) -> DataLoader:
    """
    Let a dataloader that dispatches to several processes do so by whole steps, and one of a single process just read.

    Args:
        dataloader (DataLoader): As ``accelerator.prepare`` returns it. It is returned as it is if it does not
            dispatch, has a state of its own, or repeats batches over a device mesh.
        drop_last (bool, optional): Whether a last step without a batch for each process is left out. If not, the
            other processes get its first batch again. Defaults to what ``dataloader`` does.
    """
    if isinstance(dataloader, DataLoaderDispatcher) and dataloader.state.num_processes == 1:
        return _read_alone(dataloader)
    if (
        not isinstance(dataloader, DataLoaderDispatcher)
        or not (torch.distributed.is_available() and torch.distributed.is_initialized())
        or dataloader.use_stateful_dataloader
        or getattr(dataloader, "torch_device_mesh", None) is not None
    ):
        return dataloader
    if dataloader.split_batches:
        base = dataloader.base_dataloader
        base.collate_fn = _SplitCollator(base.collate_fn, dataloader.state.num_processes)
    steps = StepBatchSampler(dataloader, dataloader._drop_last if drop_last is None else drop_last)
    return DataLoaderShard(
        _Steps(dataloader),
        device=dataloader.state.device,
        batch_sampler=steps,
        collate_fn=itemgetter(0),
        _drop_last=steps.drop_last,
        _non_blocking=dataloader._non_blocking,
    )


def _read_alone(dataloader: DataLoaderDispatcher) -> DataLoader:
    """The batches of the only process, which accelerate's dispatcher would cut to the rows of their first tensor."""
    return prepare_data_loader(
        dataloader.base_dataloader,
        device=dataloader.state.device,
        put_on_device=True,
        dispatch_batches=False,
        non_blocking=dataloader._non_blocking,
        use_stateful_dataloader=dataloader.use_stateful_dataloader,
    )


class StepBatchSampler(BatchSampler):
    """Counts the steps of a pass over a dispatching dataloader. It is the main process that ends the pass."""

    def __init__(self, dataloader: DataLoaderDispatcher, drop_last: bool) -> None:
        self.dataloader = dataloader
        self.batch_sampler = dataloader.base_dataloader.batch_sampler
        self.batch_size = getattr(self.batch_sampler, "batch_size", None)
        self.num_processes = dataloader.state.num_processes
        self.split_batches = dataloader.split_batches
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[tuple[_Pass, int]]]:
        this_pass = _Pass(self)
        return ([(this_pass, step)] for step in count())

    def __len__(self) -> int:
        steps = len(self.dataloader.base_dataloader) / (1 if self.split_batches else self.num_processes)
        return int(steps) if self.drop_last else ceil(steps)


class _Steps(Dataset):
    """The item of a pass and a step's number is this process's batch; the length is that of the dataset beneath."""

    def __init__(self, dataloader: DataLoaderDispatcher) -> None:
        self.dataloader = dataloader

    def __getitem__(self, index: tuple[_Pass, int]) -> Any:
        this_pass, step = index
        return this_pass.receive(step)

    def __len__(self) -> int:
        return len(self.dataloader.dataset)

    @property
    def total_dataset_length(self) -> int:
        """The number of rows in all batches, from which accelerate tells how many the last step has."""
        sampler = self.dataloader.base_dataloader.batch_sampler
        return len(sampler) * sampler.batch_size if sampler.drop_last else len(self)

    def set_epoch(self, epoch: int) -> None:
        self.dataloader.set_epoch(epoch)


class _Pass:
    """One pass over the batches, which all processes take step by step, and the main process reads."""

    def __init__(self, steps: StepBatchSampler) -> None:
        self.steps = steps
        self.batches: Iterator[list[Any]] | None = None

    def receive(self, step: int) -> Any:
        """This process's batch. Like the fetcher of an ``IterableDataset``, it raises StopIteration at the end."""
        outcome: list[Any] = [None]
        if self.steps.dataloader.state.process_index != 0:
            torch.distributed.scatter_object_list(outcome, None, src=0)
        else:
            try:
                if self.batches is None:
                    self.batches = self._read(step)
                outcomes = [(batch, None) for batch in next(self.batches, [])]
            except Exception as error:
                failed = (None, f"{type(error).__name__}: {error}")
                torch.distributed.scatter_object_list(outcome, [failed] * self.steps.num_processes, src=0)
                raise
            torch.distributed.scatter_object_list(outcome, outcomes or [None] * self.steps.num_processes, src=0)
        if outcome[0] is None:
            raise StopIteration
        batch, error = outcome[0]
        if error is not None:
            raise RuntimeError(f"The main process, which reads the batches of all processes, failed: {error}")
        return batch

    def _read(self, first: int) -> Iterator[list[Any]]:
        """The batches of all processes at each step, from the first one on."""
        base, num_processes = self.steps.dataloader.base_dataloader, self.steps.num_processes
        skipped = first if self.steps.split_batches else first * num_processes
        if skipped and not isinstance(base.dataset, IterableDataset):
            base, skipped = skip_first_batches(base, skipped), 0
        with torch.random.fork_rng(devices=[]):  # every process has drawn its base seed once, as when sharding
            batches = iter(base)
        next(islice(batches, skipped, skipped), None)
        while step := next(batches, []) if self.steps.split_batches else list(islice(batches, num_processes)):
            if len(step) == num_processes or not self.steps.drop_last:
                yield step + step[:1] * (num_processes - len(step))


class _SplitCollator:
    """Collates for each process its part of a batch that all share (``split_batches``)."""

    def __init__(self, collate_fn: Callable[[list[Any]], Any], num_processes: int) -> None:
        self.collate_fn = collate_fn
        self.num_processes = num_processes

    def __call__(self, rows: list[Any]) -> list[Any]:
        size = ceil(len(rows) / self.num_processes)
        return [self.collate_fn(rows[start : start + size]) for start in range(0, len(rows), size)]
