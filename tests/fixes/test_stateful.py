"""Stateful loaders (torchdata): after a resume, too, each epoch has its own plan."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from conformance.launch import run_ranks
from conformance.runs import Run, Steps, continued, train
from conformance.trainers import stateful_trainer

pytest.importorskip("torchdata")

DEFECT = pytest.mark.defect
ROWS, BATCH_SIZE, EPOCHS = 100, 8, 3
LOADERS: dict[str, dict[str, Any]] = {
    "no workers": {},
    "workers": {"arguments": {"dataloader_num_workers": 2}},
    "persistent workers": {"arguments": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: str) -> Any:
    """The rows of each rank at each step, of an uninterrupted run with PyTorch's loader."""

    @cache
    def make(world_size: int, sampler: str) -> list[Steps]:
        run = Run(str(tmp_path_factory.mktemp("whole")), model, rows=(ROWS,), batch_size=BATCH_SIZE, sampler=sampler)
        return run_ranks(world_size, train, run)

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world_size", "loader", "sampler"),
    [
        pytest.param(1, "no workers", "no_duplicates", marks=pytest.mark.wide),
        pytest.param(1, "workers", "no_duplicates", marks=[DEFECT, pytest.mark.wide]),
        pytest.param(2, "persistent workers", "batch_sampler", marks=[DEFECT, pytest.mark.wide]),
        pytest.param(2, "workers", "no_duplicates", marks=DEFECT),
    ],
)
def test_every_epoch_after_a_resume_has_its_own_plan(
    world_size: int, loader: str, sampler: str, whole: Any, tmp_path: Path, model: str
) -> None:
    """Stopped at the end of epoch 0 and in epoch 1, a run goes on, through epoch 2, as one with PyTorch's loader."""
    expected = whole(world_size, sampler)
    run = Run(str(tmp_path), model, rows=(ROWS,), batch_size=BATCH_SIZE, sampler=sampler, trainer=stateful_trainer)
    run = replace(run, **LOADERS[loader])
    length = len(expected[0]) // EPOCHS
    before = run_ranks(world_size, train, replace(run, stop_after=length))
    middle = run_ranks(world_size, train, replace(continued(run), stop_after=length + 2))
    after = run_ranks(world_size, train, continued(run))
    assert [one + two + three for one, two, three in zip(before, middle, after)] == expected
    assert [len(steps) for steps in middle] == [2] * world_size
