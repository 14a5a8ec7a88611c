"""The batches that a run would read, step by step and process by process, without a model and without training.

Guarantee: for built-in samplers, planned ones, and any other whose order follows from the seed and the epoch, the
batches are those of a run with these arguments on ``world_size`` processes: sharded, split or dispatched. The loader
is the trainer's own, from ``get_train_dataloader``, for a world that is described and not started; the epoch is
told as the installed trainers tell it, and accelerate's own shards deal out the batches.

Cost: one pass of the sampler an epoch, whatever the number of processes. No row is read but for the columns that a
sampler compares. Held at a time: the batches of one step.

Known bias: a sampler that draws from a global generator, or to which no epoch can be told, is seen with the draws of
this once.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderDispatcher, prepare_data_loader
from datasets import Dataset, DatasetDict
from sentence_transformers.base.data_collator import DEFAULT_LABEL_COLUMNS
from sentence_transformers.base.trainer import BaseTrainer
from sentence_transformers.base.training_args import BaseTrainingArguments
from sentence_transformers.sentence_transformer.trainer import SentenceTransformerTrainer
from torch import nn
from torch.utils.data import BatchSampler, DataLoader

from sentence_transformers.order.fingerprint import OrderDigest, pack_rows
from sentence_transformers.order.tracker import TransparentBatchSampler, find_sampler

_IS_FORK = "_inner_training_loop" in vars(BaseTrainer)  # tells the epoch, and dispatches, by ways of its own

Batch = list[int]
Step = list[Batch]


class DryRun:
    """
    The epochs of a run that is not started.

    Args:
        dataset (Dataset, DatasetDict or dict): The training data.
        args (BaseTrainingArguments): As given to the trainer; not changed.
        world_size (int, optional): The number of processes. Defaults to that of ``args``.
        loss (nn.Module or dict, optional): As given to the trainer, for trainers whose batches depend on it.
        trainer_class (type, optional): A trainer whose ``get_batch_sampler``, ``get_multi_dataset_batch_sampler`` or
            ``get_train_dataloader`` is overridden. Defaults to what all trainers do.

    Raises:
        ValueError: If the data has no row numbers, or the world size is not an integer of at least 1; and where the
            trainer, its sampler or accelerate refuse the arguments.
    """

    def __init__(
        self,
        dataset: Dataset | DatasetDict | dict[str, Dataset],
        args: BaseTrainingArguments,
        world_size: int | None = None,
        loss: nn.Module | dict[str, nn.Module] | None = None,
        trainer_class: type[BaseTrainer] = SentenceTransformerTrainer,
    ) -> None:
        self.datasets = _by_name(dataset)
        self.world_size = args.world_size if world_size is None else world_size
        if isinstance(self.world_size, bool) or not isinstance(self.world_size, int) or self.world_size < 1:
            raise ValueError(f"world_size must be an integer of at least 1, but got {world_size!r}: count processes.")
        self.args = _args_of_one(args, self.world_size)
        world = _World(self.args, self.world_size)
        self.batch_size = self.args.train_batch_size // (self.world_size if world.split_batches else 1)
        """Of one process."""
        self.rows = sum(map(len, self.datasets.values()))
        several = not isinstance(dataset, Dataset)
        # accelerate takes a seed from the global generator, as set by `seed`
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(args.seed)
            data = DatasetDict(self.datasets) if several else dataset
            self.loader: Any = _loader(data, self.args, world, loss, trainer_class)
            self._drops_last = (
                self.args.dataloader_drop_last if _IS_FORK else getattr(self.loader, "_drop_last", False)
            )
            self._steps = len(self.loader)
            if _IS_FORK and isinstance(self.loader, DataLoaderDispatcher) and self._drops_last:
                at_once = 1 if self.loader.split_batches else self.world_size
                self._steps = len(self.loader.base_dataloader) // at_once
        self._drawn = _Drawn(self.loader, self.rows)
        if not self._steps:
            raise ValueError(
                f"{type(self.batch_sampler).__qualname__} plans no batch for {self.world_size} processes: use a "
                f"smaller batch size than {self.batch_size}, or more than {self.rows} rows."
            )

    @property
    def batch_sampler(self) -> Any:
        """The sampler beneath all that shares its batches out."""
        return self._drawn.tracked

    @property
    def drawn(self) -> npt.NDArray[np.bool_]:
        """Of each row, whether the sampler has put it into a batch of the epoch so far; shape (rows,)."""
        return self._drawn.rows_drawn

    def digest(self) -> str:
        """
        The digest of the epoch, once its ``len(self)`` steps are taken: that of the rows that the sampler planned for
        them.
        """
        return self._drawn.digest.hexdigest()

    def __len__(self) -> int:
        """The number of steps that the trainer takes in an epoch."""
        return self._steps

    def epoch(self, number: int) -> Iterator[Step]:
        """
        The steps of an epoch, as far as the sampler goes; the trainer takes the first ``len(self)`` of them.

        Args:
            number (int): The epoch, counted from 0.

        Yields:
            list: For each process, in the order of ranks, the rows of its batch; an empty list where it has none.
        """
        _tell_epoch(self.loader, number)
        self._drawn.begin(len(self))
        if isinstance(self.loader, DataLoaderDispatcher):
            return self._dispatched()
        if self.world_size == 1:
            return ([list(batch)] for batch in self._drawn.over(self.loader.batch_sampler))
        return self._sharded()

    def _sharded(self) -> Iterator[Step]:
        """One pass of the sampler for all shards, which go on in step."""
        shard = self.loader.batch_sampler
        streams = itertools.tee(shard.batch_sampler, self.world_size)
        shards = [_shard_of(shard, rank, stream) for rank, stream in enumerate(streams)]
        return (list(map(list, step)) for step in itertools.zip_longest(*shards, fillvalue=()))

    def _dispatched(self) -> Iterator[Step]:
        """What the main process reads for each: the rows of a step, cut into equal parts."""
        at_once = 1 if self.loader.split_batches else self.world_size
        batches = iter(self._drawn.over(self.loader.batch_sampler))
        first: Batch = []
        while read := list(itertools.islice(batches, at_once)):
            if len(read) < at_once and self._drops_last:
                return
            rows = [row for batch in read for row in batch]
            first = first or rows
            if len(rows) % self.world_size and not self._drops_last:
                rows += first[: self.world_size]
            size = len(rows) // self.world_size
            yield [rows[rank * size : (rank + 1) * size] for rank in range(self.world_size)]


class _Drawn(TransparentBatchSampler):
    """Notes the rows that the sampler itself puts into batches."""

    def __init__(self, loader: Any, rows: int) -> None:
        place = find_sampler(loader)
        super().__init__(place.sampler)
        self.rows_drawn = np.zeros(rows, dtype=bool)
        self._batches_per_step = place.batches_per_step
        self._on_top = place.above is None
        self.begin(0)
        if place.above is not None:
            place.above.batch_sampler = self

    def begin(self, steps: int) -> None:
        """The next pass is an epoch of so many steps."""
        self.rows_drawn.fill(False)
        self.digest = OrderDigest()
        self._left = steps * self._batches_per_step

    def over(self, batch_sampler: BatchSampler) -> BatchSampler:
        """The sampler of a loader; this one where nothing stands between."""
        return self if self._on_top else batch_sampler

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.tracked:
            packed = pack_rows(batch)
            self.rows_drawn[batch] = True
            if self._left:
                self._left -= 1
                self.digest.update_packed(packed)
            yield batch


class _Stream(BatchSampler):
    """Batches that are drawn once for all shards."""

    def __init__(self, batches: Iterator[Batch], batch_size: int | None) -> None:
        self.batches = batches
        self.batch_size = batch_size  # type: ignore[assignment]  # a sampler of batches of any size has none

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class _World:
    """What a trainer's loader asks of an accelerator, on the main process of a world of ``num_processes``."""

    def __init__(self, args: BaseTrainingArguments, num_processes: int) -> None:
        config: Any = args.accelerator_config  # made so by the arguments, whatever it was set from
        self.num_processes, self.process_index = num_processes, 0
        self.is_main_process = self.is_local_main_process = True
        self.device = torch.device("cpu")
        self.split_batches, self.dispatch_batches = config.split_batches, config.dispatch_batches
        self.even_batches, self.use_seedable_sampler = config.even_batches, config.use_seedable_sampler
        self.dataloader_config = SimpleNamespace(data_seed=args.data_seed)

    def prepare(self, dataloader: DataLoader[Any]) -> DataLoader[Any]:
        """``Accelerator.prepare``, for a dataloader alone."""
        prepared: DataLoader[Any] = prepare_data_loader(
            dataloader,
            self.device,
            num_processes=self.num_processes,
            process_index=self.process_index,
            split_batches=self.split_batches,
            put_on_device=True,
            dispatch_batches=self.dispatch_batches,
            even_batches=self.even_batches,
            use_seedable_sampler=self.use_seedable_sampler,
            data_seed=self.dataloader_config.data_seed,
        )
        if isinstance(prepared, DataLoaderDispatcher):
            prepared.state = self  # in place of the world that is started
        return prepared

    prepare_data_loader = prepare


class _Rows:
    """Takes the data collator's place: no batch is collated here."""

    def __init__(self) -> None:
        self.valid_label_columns = list(DEFAULT_LABEL_COLUMNS)

    def __call__(self, rows: list[Any]) -> list[Any]:
        return rows


def _tell_epoch(loader: Any, epoch: int) -> None:
    """Tell the epoch as the installed trainer does: transformers one wrapper deep, the fork down to what plans."""
    loader.set_epoch(epoch)
    takers = [getattr(loader.batch_sampler, "batch_sampler", None)]
    if _IS_FORK:
        takers = [find_sampler(loader).sampler]
    for taker in takers:
        if hasattr(taker, "set_epoch"):
            taker.set_epoch(epoch)


def _by_name(dataset: Any) -> dict[str, Dataset]:
    datasets = {"train": dataset} if isinstance(dataset, Dataset) else dataset
    if not isinstance(datasets, dict) or not all(isinstance(one, Dataset) for one in datasets.values()):
        kind = type(dataset).__name__
        raise ValueError(
            f"The order can be told of rows that have numbers, but got {kind}: pass a datasets.Dataset, or several in "
            "a DatasetDict, loaded without streaming."
        )
    if not any(map(len, datasets.values())):
        raise ValueError("The data has no rows, so an epoch has no order: pass a dataset of a row or more.")
    return dict(datasets)


def _args_of_one(args: BaseTrainingArguments, world_size: int) -> BaseTrainingArguments:
    """The arguments as one process of that world has them: under DDP, each has one device and drops the last batch."""
    args = copy.copy(args)
    args.dataloader_drop_last = args.dataloader_drop_last or world_size > 1
    if world_size > 1:
        args._n_gpu = 1
    # A sampler that asks accelerate for the number of processes would be told that of this run
    if callable(args.batch_sampler) and "num_processes" in inspect.signature(args.batch_sampler).parameters:
        args.batch_sampler = partial(args.batch_sampler, num_processes=world_size)
    return args


def _loader(
    dataset: Any, args: BaseTrainingArguments, world: _World, loss: Any, trainer_class: type[BaseTrainer]
) -> DataLoader[Any]:
    """The training dataloader of a trainer that has nothing but what this takes: no model, no started world."""
    trainer: Any = trainer_class.__new__(trainer_class)
    trainer.args, trainer.train_dataset, trainer.data_collator = args, dataset, _Rows()
    trainer.loss = nn.Identity() if loss is None else loss
    trainer.accelerator = world
    trainer._train_batch_size = args.train_batch_size
    trainer.validate_column_names(dataset, dataset_name="train")
    loader: DataLoader[Any] = trainer.get_train_dataloader()
    return loader


def _shard_of(shard: BatchSamplerShard, rank: int, batches: Iterator[Batch]) -> BatchSamplerShard:
    """The shard of another process, over the same batches."""
    other = copy.copy(shard)
    other.process_index = rank
    other.batch_sampler = _Stream(batches, getattr(shard.batch_sampler, "batch_size", None))
    return other
