"""Each process's own batch, whole, when batches are dispatched.

With ``dispatch_batches=True``, and by default for an ``IterableDataset``, accelerate reads on the main process,
concatenates the batches of a step, broadcasts them, and slices them again. That needs batches of nothing but tensors
of one shape: a string fails, as do texts of unequal length, and tensors whose first dimension is not the row are cut
in the wrong place. Here the batches of a step are packed side by side instead (``packing.py``), a part for each
process, and what accelerate cuts out is the batch that was collated.

Guarantee: at each step, each process gets what the collator returned for its rows, as it would without dispatching:
types, shapes, order of keys, whatever it holds beside tensors. Batches of a step may be of different datasets, columns
and sizes. ``skip_first_batches``, ``set_epoch`` and ``gather_for_metrics`` work as they do for accelerate's loader,
since it is that loader; a batch that is skipped is a step. An error of the collator, or of sending what it returned,
is raised on every process.

Where the last step has not a batch for each process, and is not left out by ``drop_last``, the other processes get its
first batch again. ``gather_for_metrics`` does not count it, and so counts each row of an evaluation once.

Cost: what accelerate's dispatching costs, and a copy of each batch. Every process receives the parts of all. Beside
tensors, objects are pickled, as accelerate does with a batch's structure. With an ``IterableDataset``, a worker reads
a whole step at a time, as it does where accelerate shards it row by row.

A pass without a batch is an error on every process, as long as no batch is skipped.

Known bias: where the last step of an evaluation has fewer rows than processes, a row is counted for each process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from math import ceil
from typing import Any

from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from sentence_transformers.base.dispatch import _KEPT, StepBatchSampler
from sentence_transformers.base.packing import Failure, Step, pack
from sentence_transformers.base.sharing import cut


def dispatch_whole_batches(dataloader: DataLoader[Any]) -> DataLoader[Any]:
    """
    Let a dispatching dataloader hand each process its own batch, whole.

    Args:
        dataloader (DataLoader): As ``accelerator.prepare`` returns it.

    Returns:
        DataLoader: The same loader, changed; on one process, which has no other to dispatch to, one that reads the
        same batches. A loader that does not dispatch, or that repeats batches over a device mesh, is returned as is.
    """
    loader: Any = dataloader
    # An accelerate before it repeated batches over a mesh has none
    if not isinstance(loader, DataLoaderDispatcher) or getattr(loader, "torch_device_mesh", None) is not None:
        return dataloader
    base, num_processes = loader.base_dataloader, loader.state.num_processes
    if base.batch_sampler is None:  # it does not batch at all
        return dataloader
    if num_processes == 1:
        return _undispatched(loader)
    if isinstance(base.dataset, IterableDataset):
        step = base.batch_size if loader.split_batches else base.batch_size * num_processes
        batching = {"dataset": base.dataset, "batch_size": step, "drop_last": base.drop_last}
        collate = _StepCollator(base.collate_fn, num_processes, batch_size=ceil(step / num_processes))
    else:
        sampler = PartBatchSampler(base.batch_sampler, num_processes, loader.split_batches, loader._drop_last)
        batching = {"dataset": DatasetOfBatches(base.dataset), "batch_sampler": sampler}
        collate = _StepCollator(base.collate_fn, num_processes)
    loader.base_dataloader = _never_empty(type(base))(collate_fn=collate, **batching, **_kept(base))
    # A batch is a step, to be split, in which each process has a part: there are no rows to be filled up
    loader.split_batches = loader._drop_last = True
    return dataloader


def _never_empty(cls: Any) -> Any:
    """A loader of which a pass without a batch has one step, a failure; accelerate would broadcast a None."""

    class NeverEmpty(cls):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Step]:
            steps = super().__iter__()  # at once, as the class does
            return _or_failure(steps, self.collate_fn)

    return NeverEmpty


def _or_failure(steps: Iterator[Step], collate: _StepCollator) -> Iterator[Step]:
    first = next(steps, None)
    yield collate([]) if first is None else first
    yield from steps


def _undispatched(loader: Any) -> DataLoader[Any]:
    base = loader.base_dataloader
    if isinstance(base.dataset, IterableDataset):
        batching = {"batch_size": base.batch_size, "drop_last": base.drop_last}
    else:
        batching = {"batch_sampler": base.batch_sampler}
    shard: Any = DataLoaderShard(
        base.dataset,
        device=loader.state.device,
        use_stateful_dataloader=loader.use_stateful_dataloader,
        _drop_last=loader._drop_last,
        _non_blocking=loader._non_blocking,
        collate_fn=base.collate_fn,
        **batching,
        **_kept(base),
    )
    result: DataLoader[Any] = shard
    return result


def _kept(base: DataLoader[Any]) -> dict[str, Any]:
    return {name: getattr(base, name) for name in _KEPT}


class PartBatchSampler(BatchSampler):
    """
    The batches of all processes at each step, as a list of one batch for each. The last list may be shorter.

    Args:
        batch_sampler (BatchSampler): Yields the batches of single processes; or those to split; or, as a
            :class:`~sentence_transformers.base.dispatch.StepBatchSampler`, joins the former.
        num_processes (int): The number of processes.
        split_batches (bool): Whether all processes share each batch.
        drop_last (bool): Whether a last step without a batch for each process is left out. A ``StepBatchSampler``
            knows for itself.
    """

    def __init__(
        self, batch_sampler: BatchSampler, num_processes: int, split_batches: bool = False, drop_last: bool = False
    ) -> None:
        if isinstance(batch_sampler, StepBatchSampler):
            batch_sampler, split_batches, drop_last = batch_sampler.batch_sampler, False, batch_sampler.drop_last
        self.batch_sampler = batch_sampler
        self.num_processes = num_processes
        self.split_batches = split_batches
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[list[int]]]:  # type: ignore[override]
        if self.split_batches:
            for batch in self.batch_sampler:
                yield [part for part in cut([batch], self.num_processes) if part]
            return
        batches = iter(self.batch_sampler)
        while step := list(islice(batches, self.num_processes)):
            if len(step) == self.num_processes or not self.drop_last:
                yield step

    def __len__(self) -> int:
        """The number of steps."""
        steps = len(self.batch_sampler) / (1 if self.split_batches else self.num_processes)
        return int(steps) if self.drop_last else ceil(steps)


class DatasetOfBatches(Dataset[Any]):
    """A dataset by batches: the item of a list of indices is the list of their rows."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: list[int]) -> list[Any]:
        if hasattr(self.dataset, "__getitems__"):
            rows: list[Any] = self.dataset.__getitems__(indices)
            return rows
        return [self.dataset[index] for index in indices]

    def __len__(self) -> int:
        """The number of rows, as a trainer counts examples."""
        return len(self.dataset)


class _StepCollator:
    """Collates each process's rows as they would be alone, and packs the batches as one step."""

    def __init__(
        self, collate_fn: Callable[[list[Any]], Any], num_processes: int, batch_size: int | None = None
    ) -> None:
        self.collate_fn = collate_fn
        self.num_processes = num_processes
        self.batch_size = batch_size  # of each process, if the rows come in one list; else they come in one for each

    def __call__(self, rows: list[Any]) -> Step:
        if self.batch_size is None:
            parts = rows
        else:
            parts = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        try:
            if not parts:
                raise ValueError(
                    "There is no batch to dispatch: the rows of the dataset do not fill one for each of "
                    f"{self.num_processes} processes. Lower per_device_train_batch_size or "
                    "per_device_eval_batch_size, or use more rows or fewer processes."
                )
            return self._packed([self.collate_fn(part) for part in parts], parts)
        except Exception as error:  # raised on all processes, of which the others would wait for this one
            return self._packed([Failure(error)], parts)

    def _packed(self, batches: list[Any], parts: list[Any]) -> Step:
        batches += batches[:1] * (self.num_processes - len(batches))
        return pack(batches, sum(map(len, parts)))
