"""Batch samplers that users write: by subclassing the default one, and by shuffling without the epoch."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch.utils.data import BatchSampler

from conformance.launch import RankFailed, run_ranks
from conformance.runs import Run, Steps, continued, train

DEFECT = pytest.mark.defect
ROWS, EPOCHS = 96, 3


class Mine(DefaultBatchSampler):
    """As the documentation invites users to begin."""


@pytest.mark.defect
@pytest.mark.parametrize("world_size", [1, 2])
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


SOURCE = """
class Shuffled(BatchSampler):
    def __init__(self, dataset, batch_size, drop_last, seed=0, **kwargs):
        super().__init__(range(len(dataset)), batch_size, drop_last)
        self.seed = seed
        # in __init__
    # in the class
    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        # in __iter__
        rows = torch.randperm(len(self.sampler), generator=generator).tolist()
        return iter(BatchSampler(rows, self.batch_size, self.drop_last))
"""


@dataclass(frozen=True)
class Written:
    """What a user passes as ``batch_sampler``: a function that builds a sampler of the class in ``source``."""

    source: str

    def __call__(self, dataset: Any, **kwargs: Any) -> BatchSampler:
        written: dict[str, Any] = {"__name__": "__main__", "BatchSampler": BatchSampler, "torch": torch}
        exec(self.source, written)
        sampler: BatchSampler = written["Shuffled"](dataset, **kwargs)
        return sampler


def warnings_of(run: Run) -> tuple[Steps, list[str]]:
    """The steps of a run, and what it warns of."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("sentence_transformers").addHandler(handler)
    return train(run), messages


def mended(warning: str) -> str:
    """The source with the lines of a warning put where it says they belong."""
    method, start = re.findall(r"(?m)^(?: {4,}.*\n?)+", warning)
    (attribute,) = re.findall(r"with `(.*?)` in `__init__`", warning)
    source = SOURCE.replace("    # in the class\n", method)
    source = source.replace("# in __init__", attribute)
    return source.replace("        # in __iter__\n", start)


def epochs_of(steps: Steps) -> list[Steps]:
    """The steps of a whole run, by epoch."""
    length = len(steps) // EPOCHS
    return [steps[start : start + length] for start in range(0, len(steps), length)]


@pytest.mark.slow
@pytest.mark.defect
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_warning_shows_the_lines_that_mend_a_sampler(world_size: int, tmp_path: Path, model: str) -> None:
    """It names the sampler, once; with its lines, each epoch is new, all ranks share it, and a resume is exact."""
    run = Run(str(tmp_path / "named"), model, rows=(ROWS,), epochs=EPOCHS, sampler=Written(SOURCE))
    ranks = run_ranks(world_size, warnings_of, replace(run, epochs=1))
    named = [[message for message in messages if "Shuffled" in message] for _, messages in ranks]
    assert [len(messages) for messages in named] == [1] + [0] * (world_size - 1)

    run = replace(run, folder=str(tmp_path / "whole"), sampler=Written(mended(named[0][0])))
    whole, warned = zip(*run_ranks(world_size, warnings_of, replace(run)))
    assert not any("Shuffled" in message for messages in warned for message in messages)
    for epochs in zip(*map(epochs_of, whole)):
        assert sorted(row for steps in epochs for batch in steps for row in batch) == list(range(ROWS))
    assert all(first != second != third != first for first, second, third in map(epochs_of, whole))

    run = replace(run, folder=str(tmp_path / "cut"), stop_after=len(whole[0]) // EPOCHS + 2)
    before = run_ranks(world_size, train, run)
    after = run_ranks(world_size, train, continued(run))
    assert [one + other for one, other in zip(before, after)] == list(whole)
