"""A report of what a run's epochs hold, without training: rows used and left out, duplicates, repeated epochs.

Guarantee: the figures are those of the batches that a run with these arguments reads on ``world_size`` processes, see
:mod:`~sentence_transformers.order.dry_run`. Nothing is trained, and neither the data nor the arguments are changed.

Cost: linear in rows × columns but for the sorts; each epoch is drawn and counted once, and some are planned, see
:mod:`~sentence_transformers.order.batch_sizes`.

From a terminal: ``python -m sentence_transformers.order --help``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

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
from torch.utils.data import ConcatDataset, RandomSampler

from sentence_transformers.order.batch_sizes import fitting_batch_sizes
from sentence_transformers.order.dry_run import DryRun, Step
from sentence_transformers.order.fingerprint import DIGITS
from sentence_transformers.order.statistics import Statistics, ValueTable, hashes_of, value_table

SCHEMA = "order-report/2"
FREQUENT = 5  # values that are named
_SHOWN = 60  # characters of a value
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
        rows_left_out: Rows not used, by the reason why; ``table.REASONS`` explains them.
        batches_with_duplicates: Batches of one process that hold a value more than once.
        steps_with_duplicates: Steps whose batches, over all processes, hold a value more than once.
        batches_with_false_negatives: Batches in which such a value is right for one of its rows.
        steps_with_false_negatives: Steps in which one is.
        uneven_steps: Steps in which some process has no batch; a run would wait there forever.
        digest: Of the rows that the sampler planned for these steps.
        same_as: The first earlier epoch with the same order, or None.
    """

    epoch: int
    steps: int
    batches: int
    rows_used: int
    rows_repeated: int
    rows_left_out: dict[str, int]
    batches_with_duplicates: int
    steps_with_duplicates: int
    batches_with_false_negatives: int
    steps_with_false_negatives: int
    uneven_steps: int
    digest: str
    same_as: int | None

    @property
    def fingerprint(self) -> str:
        """As a run shows it."""
        return self.digest[:DIGITS]


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
        has_negatives: Whether there are columns that are taken for mined negatives.
        epochless: Names of PyTorch's random samplers to which no epoch can be told.
        fitting: By rule, the largest batch size at which every row finds a place in planned batches; see
            :mod:`~sentence_transformers.order.batch_sizes`.
    """

    datasets: dict[str, int]
    columns: list[str]
    batch_sampler: str
    world_size: int
    batch_size: int
    epochs: list[EpochReport]
    rows_in_no_epoch: int
    frequent: list[FrequentValue]
    has_negatives: bool
    epochless: list[str]
    fitting: dict[str, int]

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
        found = dataclasses.asdict(self)
        for epoch, shown in zip(self.epochs, found["epochs"]):
            shown["fingerprint"] = epoch.fingerprint
        more = {"rows": self.rows, "epochs_differ": self.epochs_differ}
        return json.dumps({"schema": SCHEMA, **found, **more}, indent=2, ensure_ascii=False)

    def __str__(self) -> str:
        from sentence_transformers.order.table import render

        return render(self)


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
        loss (nn.Module or dict, optional): As given to the trainer, for trainers whose batches depend on it.
        trainer_class (type, optional): A trainer that overrides how its batches are made.
        watch (Callable, optional): Called with the epoch and the batches of all processes, at each step.

    Returns:
        OrderReport: The figures.

    Raises:
        ValueError: If the data, the arguments, the world size or the number of epochs cannot make an epoch.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"epochs must be an integer of at least 1, but got {epochs!r}: look at an epoch or more.")
    run = DryRun(dataset, args, world_size, loss, trainer_class)
    datasets = list(run.datasets.values())
    hashes = hashes_of(datasets, _EXCLUDED)
    values = value_table(hashes)
    epochless = _epochless(run.batch_sampler)
    looked_at: list[EpochReport] = []
    never = np.ones(run.rows, dtype=bool)
    with tqdm(total=epochs * len(run), unit=" steps", desc="Looking at epochs", delay=2) as bar:
        for number in range(epochs):
            counted = Statistics(values)
            steps = run.epoch(number)
            taken = _watched(itertools.islice(steps, len(run)), number, bar, watch)
            deque(counted.passing(taken), maxlen=0)  # goes through them
            out = _left_out(run, counted.times == 0, () if epochless else steps)
            looked_at.append(_epoch_report(number, counted, out, run.digest(), looked_at))
            never &= counted.times == 0
    columns = dict.fromkeys(name for one in datasets for name in one.column_names if name not in _EXCLUDED)
    return OrderReport(
        datasets={name: len(one) for name, one in run.datasets.items()},
        columns=list(columns),
        batch_sampler=type(run.batch_sampler).__qualname__,
        world_size=run.world_size,
        batch_size=run.batch_size,
        epochs=looked_at,
        rows_in_no_epoch=int(np.count_nonzero(never)),
        frequent=_frequent(datasets, values),
        has_negatives=values.has_negatives,
        epochless=epochless,
        fitting=fitting_batch_sizes(hashes, run.batch_size, run.world_size),
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
    number: int, counted: Statistics, left_out: dict[str, int], digest: str, earlier: list[EpochReport]
) -> EpochReport:
    return EpochReport(
        epoch=number,
        steps=counted.steps,
        batches=counted.batches,
        rows_used=counted.used,
        rows_repeated=counted.repeated,
        rows_left_out=left_out,
        batches_with_duplicates=counted.batches_with_duplicates,
        steps_with_duplicates=counted.steps_with_duplicates,
        batches_with_false_negatives=counted.batches_with_false_negatives,
        steps_with_false_negatives=counted.steps_with_false_negatives,
        uneven_steps=counted.uneven_steps,
        digest=digest,
        same_as=next((one.epoch for one in earlier if one.digest == digest), None),
    )


def _left_out(run: DryRun, unused: npt.NDArray[np.bool_], later: Iterable[Step]) -> dict[str, int]:
    """The rows that no step uses, by the reason why; ``later`` are the steps that the trainer does not come to."""
    late = np.zeros(len(unused), dtype=bool)
    for step in later:
        for batch in step:
            late[batch] = True
    drawn = run.drawn
    counts = {
        **_not_drawn(run.batch_sampler, int(np.count_nonzero(unused & ~drawn))),
        "incomplete_step": int(np.count_nonzero(unused & drawn & ~late)),
        "past_the_end": int(np.count_nonzero(unused & drawn & late)),
    }
    return {reason: rows for reason, rows in counts.items() if rows}


def _not_drawn(sampler: Any, rows: int) -> dict[str, int]:
    """Why a sampler puts rows into no batch."""
    children = getattr(sampler, "batch_samplers", [sampler])
    # Planned samplers say how many rows they have no room for
    no_room = min(sum(getattr(child, "rows_skipped", 0) for child in children), rows)
    rest = rows - no_room
    if isinstance(sampler, RoundRobinBatchSampler) and rest:
        return {"no_room": no_room, "other_dataset_ended": rest}
    unfilled = getattr(sampler, "drop_last", False) and rest < len(children) * (sampler.batch_size or 1)
    return {"no_room": no_room, "incomplete_batch" if unfilled else "not_drawn": rest}


def _epochless(sampler: Any) -> list[str]:
    """PyTorch's random samplers in batch samplers that cannot be told the epoch."""
    children = getattr(sampler, "batch_samplers", [sampler])
    inner = [getattr(child, "sampler", None) for child in children if not hasattr(child, "set_epoch")]
    random = [one for one in inner if isinstance(one, RandomSampler) and not hasattr(one, "set_epoch")]
    return list(dict.fromkeys(type(one).__qualname__ for one in random))


def _frequent(datasets: list[Dataset], values: ValueTable) -> list[FrequentValue]:
    rows: ConcatDataset[Any] = ConcatDataset(datasets)
    most = np.lexsort((values.cells, -values.rows_of))[:FREQUENT]  # of equally many, the first in the data
    return [FrequentValue(_shown(rows, values, int(number)), int(values.rows_of[number])) for number in most]


def _shown(rows: Any, values: ValueTable, number: int) -> str:
    """A value in words, as a row holds it."""
    row, column = divmod(int(values.cells[number]), values.numbers.shape[1])
    counting = [value for name, value in rows[row].items() if name not in _EXCLUDED]
    shown = repr(counting[column])
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"
