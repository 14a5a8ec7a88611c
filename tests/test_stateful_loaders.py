"""Stateful loaders (torchdata): each epoch has its own plan, and a resume is exact, with the loader's state, too."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from sentence_transformers.base.sampler import DefaultBatchSampler, NoDuplicatesBatchSampler
from torch.utils.data import DataLoader

from conformance import runs
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
    "dispatch": {"accelerator": {"dispatch_batches": True}},
    "dispatch, workers": {"accelerator": {"dispatch_batches": True}, "arguments": {"dataloader_num_workers": 2}},
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
        (1, "no workers", "no_duplicates_planned"),
        pytest.param(1, "workers", "no_duplicates", marks=DEFECT),
        pytest.param(2, "persistent workers", "batch_sampler", marks=DEFECT),
        (2, "workers", "no_duplicates_planned"),
        pytest.param(2, "dispatch", "no_duplicates", marks=DEFECT),
        pytest.param(2, "dispatch, workers", "batch_sampler", marks=DEFECT),
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


SAMPLERS = {"batch_sampler": DefaultBatchSampler, "no_duplicates": NoDuplicatesBatchSampler}


def rows_of_epoch(sampler: str, workers: int, epoch: int, stop: int | None, state: Any) -> tuple[Steps, Any]:
    """A training loop of one's own: the rows of an epoch, and the state of the loader after ``stop`` batches."""
    from sentence_transformers.base.epoch import set_epoch
    from sentence_transformers.base.stateful import begin_anew

    dataset = runs.names(ROWS)
    batches = SAMPLERS[sampler](dataset, BATCH_SIZE, True, ["label"], generator=torch.Generator(), seed=42)
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_stateful_dataloader=True))
    loader = accelerator.prepare(DataLoader(dataset, batch_sampler=batches, num_workers=workers))
    assert begin_anew(loader)
    if state is not None:
        loader.load_state_dict(state[accelerator.process_index])
    set_epoch(loader, epoch)
    seen: Steps = []
    for batch in loader:
        seen.append(batch["label"].tolist())
        if len(seen) == stop:
            break
    return seen, loader.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "world_size", "workers"), [("no_duplicates", 1, 0), ("batch_sampler", 1, 2), ("no_duplicates", 2, 2)]
)
def test_the_state_of_a_loader_leads_on_where_it_was_taken(sampler: str, world_size: int, workers: int) -> None:
    """Without the trainer: an epoch that is cut off goes on, in a new process, from the loader's own state."""
    first = run_ranks(world_size, rows_of_epoch, sampler, workers, 0, None, None)
    whole = run_ranks(world_size, rows_of_epoch, sampler, workers, 1, None, None)
    before = run_ranks(world_size, rows_of_epoch, sampler, workers, 1, 2, None)
    states = [state for _, state in before]
    after = run_ranks(world_size, rows_of_epoch, sampler, workers, 1, None, states)
    assert [one + rest for (one, _), (rest, _) in zip(before, after)] == [steps for steps, _ in whole]
    assert [steps for steps, _ in first] != [steps for steps, _ in whole]
