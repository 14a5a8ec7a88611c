"""A report of what a run's epochs hold, without training: rows used and left out, duplicates, repeated epochs.

Guarantee: the figures are those of the batches that a run with these arguments reads on ``world_size`` processes, see
:mod:`~sentence_transformers.base.rehearsal`. Nothing is trained, and neither the data nor the arguments are changed.

Cost: linear in rows × columns; each epoch is drawn and counted once. Of an epoch, its counts are held; of the values,
their numbers, about 10 bytes a row and column.

From a terminal: ``python -m sentence_transformers.base.report --help``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset, DatasetDict
from datasets.utils import tqdm
from sentence_transformers.base.data_collator import DEFAULT_LABEL_COLUMNS
from sentence_transformers.base.sampler import RoundRobinBatchSampler
from sentence_transformers.base.trainer import BaseTrainer
from sentence_transformers.base.training_args import BaseTrainingArguments
from sentence_transformers.sentence_transformer.trainer import SentenceTransformerTrainer
from torch import nn
from torch.utils.data import ConcatDataset

from sentence_transformers.base.epoch import epochless_shufflers
from sentence_transformers.base.keys import shown_value
from sentence_transformers.base.planned import PlannedNoDuplicatesBatchSampler
from sentence_transformers.base.rehearsal import Rehearsal, Step
from sentence_transformers.base.repeats import RepeatedValues
from sentence_transformers.base.tally import Tally, repeated_values

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "order-report/1"
FREQUENT = 5  # values that are named
_EXCLUDED = {"dataset_name", *DEFAULT_LABEL_COLUMNS}


@dataclass(frozen=True)
class FrequentValue:
    """A value and the number of rows that hold it."""

    value: str
    rows: int


@dataclass(frozen=True)
class EpochReport:
    """
    One epoch.

    Args:
        epoch: Counted from 0.
        steps: That each process takes.
        batches: Over all processes.
        rows_used: Different rows.
        rows_repeated: Rows used more than once.
        rows_sitting_out: Rows not used, by the reason why; ``report_text.REASONS`` explains them.
        batches_with_duplicates: Batches of one process that hold a value more than once.
        steps_with_duplicates: Steps whose batches, over all processes, hold a value more than once.
        uneven_steps: Steps in which some process has no batch; a run would wait there forever.
        fingerprint: Of the rows that the sampler planned for these steps, as a run logs it.
        same_as: The first earlier epoch with the same fingerprint, or None.
    """

    epoch: int
    steps: int
    batches: int
    rows_used: int
    rows_repeated: int
    rows_sitting_out: dict[str, int]
    batches_with_duplicates: int
    steps_with_duplicates: int
    uneven_steps: int
    fingerprint: str
    same_as: int | None


@dataclass(frozen=True)
class OrderReport:
    """
    What :func:`order_report` found. ``print(report)`` shows it, in colour if printed by rich.

    Args:
        datasets: Rows of each dataset, by name.
        columns: Names of the columns whose values count as duplicates.
        batch_sampler: Name of the batch sampler's class.
        world_size: Number of processes.
        batch_size: Rows of a batch of one process.
        epochs: The epochs looked at.
        rows_in_no_epoch: Rows used in none of these.
        frequent: The most frequent values, the first one leading.
        epochless: Names of samplers that shuffle, but to which no epoch can be told.
    """

    datasets: dict[str, int]
    columns: list[str]
    batch_sampler: str
    world_size: int
    batch_size: int
    epochs: list[EpochReport]
    rows_in_no_epoch: int
    frequent: list[FrequentValue]
    epochless: list[str]

    @property
    def rows(self) -> int:
        """Rows of all datasets."""
        return sum(self.datasets.values())

    @property
    def epochs_differ(self) -> bool:
        """Whether no epoch looked at has the order of an earlier one."""
        return all(epoch.same_as is None for epoch in self.epochs)

    def to_json(self) -> str:
        """All figures as a JSON object; ``schema`` names its form."""
        found = {"rows": self.rows, "epochs_differ": self.epochs_differ}
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self), **found}, indent=2, ensure_ascii=False)

    def __str__(self) -> str:
        from sentence_transformers.base.report_text import plain

        return plain(self)

    def __rich__(self) -> RenderableType:
        from sentence_transformers.base.report_text import tables

        return tables(self)


def order_report(
    dataset: Dataset | DatasetDict | dict[str, Dataset],
    args: BaseTrainingArguments,
    world_size: int | None = None,
    epochs: int = 2,
    loss: nn.Module | dict[str, nn.Module] | None = None,
    trainer_class: type[BaseTrainer] = SentenceTransformerTrainer,
    watch: Callable[[int, Step], None] | None = None,
) -> OrderReport:
    """
    Look at the epochs of a run without training.

    Args:
        dataset (Dataset, DatasetDict or dict): The training data.
        args (BaseTrainingArguments): As given to the trainer.
        world_size (int, optional): The number of processes. Defaults to that of ``args``.
        epochs (int): The number of epochs to look at, from the first on. Defaults to 2.
        loss (nn.Module or dict, optional): As given to the trainer. Where it gathers across devices, planned batches
            are planned across devices.
        trainer_class (type, optional): A trainer that overrides how its batches are made.
        watch (Callable, optional): Called with the epoch and the batches of all processes, at each step.

    Returns:
        OrderReport: The figures.

    Raises:
        ValueError: If the data, the arguments, the world size or the number of epochs cannot make an epoch.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"epochs must be an integer of at least 1, but got {epochs!r}: look at an epoch or more.")
    rehearsal = Rehearsal(dataset, args, world_size, loss, trainer_class)
    datasets = list(rehearsal.datasets.values())
    values = repeated_values(datasets, _EXCLUDED)
    epochless = list(dict.fromkeys(type(one).__qualname__ for one in epochless_shufflers(rehearsal.loader)))
    looked_at: list[EpochReport] = []
    never = np.ones(rehearsal.rows, dtype=bool)
    with tqdm(total=epochs * len(rehearsal), unit=" steps", desc="Looking at epochs", delay=2) as bar:
        for number in range(epochs):
            tally = Tally(values)
            steps = rehearsal.epoch(number)
            taken = _watched(itertools.islice(steps, len(rehearsal)), number, bar, watch)
            deque(tally.passing(taken), maxlen=0)  # goes through them
            out = _sitting_out(rehearsal, tally.times == 0, () if epochless else steps)
            looked_at.append(_epoch_report(number, tally, out, rehearsal.fingerprint(), looked_at))
            never &= tally.times == 0
    columns = dict.fromkeys(name for one in datasets for name in one.column_names if name not in _EXCLUDED)
    return OrderReport(
        datasets={name: len(one) for name, one in rehearsal.datasets.items()},
        columns=list(columns),
        batch_sampler=type(rehearsal.batch_sampler).__qualname__,
        world_size=rehearsal.world_size,
        batch_size=rehearsal.batch_size,
        epochs=looked_at,
        rows_in_no_epoch=int(np.count_nonzero(never)),
        frequent=_frequent(datasets, values),
        epochless=epochless,
    )


def _watched(
    steps: Iterable[Step], number: int, bar: tqdm, watch: Callable[[int, Step], None] | None
) -> Iterator[Step]:
    for step in steps:
        bar.update()
        if watch is not None:
            watch(number, step)
        yield step


def _epoch_report(
    number: int, tally: Tally, sitting_out: dict[str, int], fingerprint: str, earlier: list[EpochReport]
) -> EpochReport:
    return EpochReport(
        epoch=number,
        steps=tally.steps,
        batches=tally.batches,
        rows_used=tally.used,
        rows_repeated=tally.repeated,
        rows_sitting_out=sitting_out,
        batches_with_duplicates=tally.batches_with_duplicates,
        steps_with_duplicates=tally.steps_with_duplicates,
        uneven_steps=tally.uneven_steps,
        fingerprint=fingerprint,
        same_as=next((one.epoch for one in earlier if one.fingerprint == fingerprint), None),
    )


def _sitting_out(rehearsal: Rehearsal, unused: npt.NDArray[np.bool_], later: Iterable[Step]) -> dict[str, int]:
    """The rows that no step uses, by the reason why; ``later`` are the steps that the trainer does not come to."""
    late = np.zeros(len(unused), dtype=bool)
    for step in later:
        for batch in step:
            late[batch] = True
    drawn = rehearsal.drawn
    counts = {
        **_not_drawn(rehearsal.batch_sampler, int(np.count_nonzero(unused & ~drawn))),
        "incomplete_step": int(np.count_nonzero(unused & drawn & ~late)),
        "past_the_end": int(np.count_nonzero(unused & drawn & late)),
    }
    return {reason: rows for reason, rows in counts.items() if rows}


def _not_drawn(sampler: Any, rows: int) -> dict[str, int]:
    """Why a sampler puts rows into no batch."""
    children = getattr(sampler, "batch_samplers", [sampler])
    planned = [child for child in children if isinstance(child, PlannedNoDuplicatesBatchSampler)]
    no_room = min(sum(child.rows_without_room for child in planned), rows)
    rest = rows - no_room
    if isinstance(sampler, RoundRobinBatchSampler) and rest:
        return {"no_room": no_room, "other_dataset_ended": rest}
    unfilled = getattr(sampler, "drop_last", False) and rest < len(children) * (sampler.batch_size or 1)
    return {"no_room": no_room, "incomplete_batch" if unfilled else "not_drawn": rest}


def _frequent(datasets: list[Dataset], values: RepeatedValues) -> list[FrequentValue]:
    rows: ConcatDataset[Any] = ConcatDataset(datasets)
    numbers = np.arange(values.values)[: -FREQUENT - 1 : -1]  # from the most frequent one on
    named = [shown_value(rows, values, int(number), _EXCLUDED) for number in numbers]
    return [FrequentValue(value, int(size)) for value, size in zip(named, values.sizes(numbers))]


if __name__ == "__main__":
    from sentence_transformers.base.report_command import main

    sys.exit(main())
