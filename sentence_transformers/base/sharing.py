"""How processes share what was planned: equal numbers of steps, every row once, no batch of one process empty.

Guarantee: in each step, each process gets one batch of a row or more. Over all processes the batches of an epoch hold
the rows of the plan, each once; no row is repeated to fill a batch up. It holds for sharded loaders (whatever
accelerate's ``even_batches``), with ``split_batches``, and when dispatching.

Batches planned across devices are one to a step, cut into parts as equal as can be. Batches planned for single
devices are ``num_processes`` to a step; of an incomplete last step, the longest batches are cut until there is a part
for each.

Losses that gather across devices, and dispatching, need parts of one length. Then the rows of the last step that are
too many sit out, others in each epoch: fewer than ``num_processes`` where batches are planned across devices.

Cost: none but for the last step.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.data import BatchSampler, DataLoader
from transformers.utils import logging

from sentence_transformers.base.dispatch import StepBatchSampler, prepare_dataloader, with_batch_sampler
from sentence_transformers.base.planned import PlannedNoDuplicatesBatchSampler

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.get_logger(__name__)

Batch = list[int]


class SharedBatchSampler(BatchSampler):
    """
    The batches of single processes: process ``p`` of ``n`` takes every ``n``-th, from the ``p``-th on.

    Args:
        batch_sampler (BatchSampler): Yields planned batches.
        num_processes (int): The number of processes.
        batch_size (int): Number of samples per batch of one process.
        drop_last (bool): Whether batches planned for single devices are left out that do not make a whole step.
        across_devices (bool): Whether a planned batch is one step of all processes, or one batch of a process.
        even (bool): Whether the parts of a step must be of one length; rows that are too many then sit out.
    """

    def __init__(
        self,
        batch_sampler: BatchSampler,
        num_processes: int,
        batch_size: int,
        drop_last: bool,
        across_devices: bool,
        even: bool = False,
    ) -> None:
        self.batch_sampler = batch_sampler
        self.num_processes = num_processes
        # When it splits batches, accelerate asks for a size that the processes divide
        self.batch_size = batch_size * num_processes
        self.drop_last = drop_last
        self.across_devices = across_devices
        self.even = even
        self._lends = batch_size > 1

    def __iter__(self) -> Iterator[Batch]:
        held: list[list[Batch]] = []  # the last steps, as many as it takes to lend a row to each process
        for step in self._steps():
            if _rows([step]) < self.num_processes:
                lenders = [batch for batches in [*held, step] for batch in batches]
                if _rows([lenders]) >= (len(held) + 1) * self.num_processes:
                    yield from self._parts(lenders, len(held) + 1)
                    return
                break
            held.append(step)
            while not self._lends or (len(held) > 1 and _rows(held[1:]) >= len(held) * self.num_processes):
                yield from self._parts(held.pop(0), 1)
                if not held:
                    break
        for step in held:
            yield from self._parts(step, 1)

    def _steps(self) -> Iterator[list[Batch]]:
        """The planned batches of each step, those of a last step that is not whole under ``drop_last`` excepted."""
        batches = iter(self.batch_sampler)
        per_step = 1 if self.across_devices else self.num_processes
        while step := list(islice(batches, per_step)):
            if len(step) == per_step or not self.drop_last:
                yield step

    def _parts(self, batches: list[Batch], steps: int) -> list[Batch]:
        """A part for each process, of one or several steps."""
        parts = cut(batches, steps * self.num_processes)
        if not self.even:
            return parts
        starts = range(0, len(parts), self.num_processes)
        return [part for start in starts for part in _trimmed(parts[start : start + self.num_processes])]

    def __len__(self) -> int:
        """The number of batches over all processes, exact where there is a row for each process in each step."""
        batches = len(self.batch_sampler)
        if self.across_devices:
            return batches * self.num_processes
        steps, rest = divmod(batches, self.num_processes)
        return (steps + (rest > 0 and self._lends and not self.drop_last)) * self.num_processes


def _rows(steps: list[list[Batch]]) -> int:
    return sum(len(batch) for step in steps for batch in step)


def cut(batches: list[Batch], parts: int) -> list[Batch]:
    """Cut batches into a number of parts, always the one whose parts are longest; each part is of one batch."""
    pieces = [1] * len(batches)
    for _ in range(parts - len(batches)):
        longest = max(range(len(batches)), key=lambda i: len(batches[i]) / pieces[i])
        pieces[longest] += 1
    return [part for batch, number in zip(batches, pieces) for part in _even_parts(batch, number)]


def _even_parts(batch: Batch, number: int) -> Iterator[Batch]:
    size, longer = divmod(len(batch), number)
    stop = 0
    for part in range(number):
        start, stop = stop, stop + size + (part < longer)
        yield batch[start:stop]


def _trimmed(parts: list[Batch]) -> list[Batch]:
    size = min(map(len, parts))
    return [part[:size] for part in parts]


def prepare_train_dataloader(
    accelerator: Accelerator,
    dataloader: DataLoader[Any],
    loss: nn.Module | dict[str, nn.Module],
    drop_last: bool = False,
    across_devices: bool | None = None,
) -> DataLoader[Any]:
    """
    Prepare a dataloader for training, planned batches so that the processes share them.

    Args:
        accelerator (Accelerator): Prepares the dataloader; its settings say how batches come to the processes.
        dataloader (DataLoader): As it would be for one process. Its planned samplers are set to the batch size of all
            processes that share a batch.
        loss (nn.Module): The loss to train with, or those of several datasets by name.
        drop_last (bool): Whether planned batches that do not make a whole step are left out. Other loaders keep to
            what their batch sampler says.
        across_devices (bool, optional): Whether no value may be twice in the batches of one step over all devices, or
            in the batch of one device. Defaults to the former if the loss gathers across devices, or when dispatching.

    Returns:
        DataLoader: The prepared dataloader. Its length is the number of steps that each process takes.

    Raises:
        ValueError: If ``split_batches`` is set and the processes cannot share a batch equally, if there are fewer rows
            than processes, or if parts must be of one length, but batches of several datasets are planned for single
            devices.
    """
    num_processes = accelerator.num_processes
    batch_sampler: Any = dataloader.batch_sampler
    planned = _planned_beneath(batch_sampler)
    if not planned or num_processes == 1:
        return prepare_dataloader(accelerator, dataloader)

    dispatches = bool(accelerator.dispatch_batches)
    even = dispatches or gathers_across_devices(loss)
    across_devices = even if across_devices is None else across_devices
    _check_parts(planned, even, across_devices)
    batch_size = batch_size_of_one(accelerator, batch_sampler.batch_size)
    shared_by = num_processes if across_devices else 1
    for sampler in planned:
        sampler.plan_for(batch_size * shared_by, shared_by, drop_last)
    _check_rows(planned, num_processes)
    shared = SharedBatchSampler(batch_sampler, num_processes, batch_size, drop_last, across_devices, even)
    if even:
        _warn_of_uneven_rest(planned, num_processes, across_devices)
    if dispatches:
        prepared = accelerator.prepare(with_batch_sampler(dataloader, StepBatchSampler(shared, num_processes)))
        prepared.split_batches = True
    else:
        prepared = accelerator.prepare(with_batch_sampler(dataloader, shared))
        # Each batch is for one process, as long as it is: nothing to split, and no rows to fill it up.
        prepared.batch_sampler.split_batches, prepared.batch_sampler.batch_size = False, None
    result: DataLoader[Any] = prepared
    return result


def _planned_beneath(batch_sampler: Any) -> list[PlannedNoDuplicatesBatchSampler]:
    """The planned samplers of one dataset or of several; none if some are of another kind."""
    samplers = getattr(batch_sampler, "batch_samplers", [batch_sampler])
    return samplers if all(isinstance(sampler, PlannedNoDuplicatesBatchSampler) for sampler in samplers) else []


def _check_parts(planned: list[PlannedNoDuplicatesBatchSampler], even: bool, across_devices: bool) -> None:
    if even and not across_devices and len(planned) > 1:
        raise ValueError(
            "plan_across_devices=False does not go together with several datasets and dispatch_batches, or a loss "
            "that gathers across devices: parts of one length would leave out rows in mid-epoch. Leave it unset."
        )


def _check_rows(planned: list[PlannedNoDuplicatesBatchSampler], num_processes: int) -> None:
    rows = sum(sampler.rows_planned for sampler in planned)
    if 0 < rows < num_processes:
        raise ValueError(
            f"{rows} rows without duplicates cannot be shared by {num_processes} processes; each needs a row at "
            "least. Train on fewer processes, or on more rows."
        )


def batch_size_of_one(accelerator: Accelerator, batch_size: int) -> int:
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


def _warn_of_uneven_rest(
    planned: list[PlannedNoDuplicatesBatchSampler], num_processes: int, across_devices: bool
) -> None:
    if across_devices:
        rest = sum(sampler.rows_in_last_batch % num_processes for sampler in planned)
        said = f"{rest} rows sit out" if rest else ""
    else:
        said = "Rows of the last step may sit out" if sum(map(len, planned)) % num_processes else ""
    if said:
        logger.warning_once(
            f"{said} each epoch, others each time: with a loss that gathers across devices, or with dispatch_batches, "
            f"{num_processes} processes can only share equal parts of a step."
        )


def gathers_across_devices(loss: nn.Module | dict[str, nn.Module]) -> bool:
    """Whether a loss, or one that it wraps, takes the batches of all devices as negatives."""
    losses = loss.values() if isinstance(loss, dict) else [loss]
    return any(getattr(module, "gather_across_devices", False) for one in losses for module in one.modules())
