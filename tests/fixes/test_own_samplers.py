"""Batch samplers that users write: by subclassing the default one, and by shuffling without the epoch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from selection import few_of
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch.utils.data import BatchSampler, SubsetRandomSampler

from conformance.launch import RankFailed, run_ranks
from conformance.runs import Run, Steps, train

DEFECT = pytest.mark.defect
ROWS, EPOCHS = 96, 3


class Mine(DefaultBatchSampler):
    """As the documentation invites users to begin."""


@pytest.mark.defect
@pytest.mark.parametrize("world_size", few_of([1, 2], [2]))
def test_a_subclass_of_the_default_sampler_shuffles_as_it_does(world_size: int, tmp_path: Path, model: str) -> None:
    """With nothing overridden, the rows are the default's, new in each epoch."""
    run = Run(str(tmp_path), model, rows=(ROWS,), sampler="batch_sampler")
    expected = run_ranks(world_size, train, run)
    try:
        ranks = run_ranks(world_size, train, replace(run, sampler=Mine))
    except RankFailed:
        ranks = []
    assert ranks == expected
    assert all(first != second for first, second, _ in map(epochs_of, ranks))


def at_random(dataset: Any, batch_size: int, drop_last: bool, **kwargs: Any) -> BatchSampler:
    """A batch sampler that takes no epoch, over a random sampler of PyTorch that takes none either."""
    return BatchSampler(SubsetRandomSampler(range(len(dataset))), batch_size, drop_last)


class Shuffled(BatchSampler):
    """Shuffles by itself, which nobody can tell from outside."""

    def __init__(self, dataset: Any, batch_size: int, drop_last: bool, **kwargs: Any) -> None:
        super().__init__(range(len(dataset)), batch_size, drop_last)

    def __iter__(self) -> Any:
        rows = torch.randperm(len(self.sampler), generator=torch.Generator().manual_seed(0)).tolist()
        return iter(BatchSampler(rows, self.batch_size, self.drop_last))


def shuffled(dataset: Any, **kwargs: Any) -> BatchSampler:
    """How it is passed to the training arguments."""
    return Shuffled(dataset, **kwargs)


def warnings_of(run: Run) -> tuple[Steps, list[str]]:
    """The steps of a run, and what it warns of."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("sentence_transformers").addHandler(handler)
    return train(run), messages


def epochs_of(steps: Steps) -> list[Steps]:
    """The steps of a whole run, by epoch."""
    length = len(steps) // EPOCHS
    return [steps[start : start + length] for start in range(0, len(steps), length)]


@pytest.mark.parametrize(("sampler", "named"), [(at_random, 1), (shuffled, 0), (Mine, 0)])
def test_a_random_sampler_that_takes_no_epoch_is_named_once(
    sampler: Any, named: int, tmp_path: Path, model: str
) -> None:
    """On each process once, and no other sampler is: there is no guess."""
    run = Run(str(tmp_path), model, rows=(ROWS,), epochs=2, sampler=sampler)
    for _, messages in run_ranks(2, warnings_of, run):
        assert sum("SubsetRandomSampler has no `set_epoch`" in message for message in messages) == named
        assert sum("set_epoch" in message for message in messages) == named
