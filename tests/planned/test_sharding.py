"""How processes share planned batches, through accelerate's own shards; ranks are simulated."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.state import PartialState
from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from torch import nn
from torch.utils.data import DataLoader

from sentence_transformers.planned import PlannedNoDuplicatesBatchSampler
from sentence_transformers.planned.sharding import gathers_across_devices, last_step_filled, parts_of

Steps = list[list[list[int]]]


@pytest.fixture(autouse=True, scope="module")
def partial_state() -> None:
    """accelerate's loaders ask it for the device."""
    PartialState()


def pairs(rows: int, repeats: int = 1) -> Dataset:
    return Dataset.from_dict(
        {"a": [f"a{row}" for row in range(rows)], "b": [f"b{row // repeats}" for row in range(rows)]}
    )


def sampler_of(dataset: Dataset, batch_size: int, processes: int, **options) -> PlannedNoDuplicatesBatchSampler:
    """As the release's trainer builds it: ``drop_last`` is set wherever there are several processes."""
    options = {"num_processes": processes, "max_skipped": 1, **options}
    return PlannedNoDuplicatesBatchSampler(dataset, batch_size, processes > 1, seed=1, **options)


def sharded(loader: DataLoader, processes: int, **settings) -> Steps:
    """The batches of all processes, by step, as accelerate hands them out; all take equal numbers of steps."""
    ranks = [
        [
            batch.tolist()
            for batch in prepare_data_loader(loader, num_processes=processes, process_index=rank, **settings)
        ]
        for rank in range(processes)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    return [list(step) for step in zip(*ranks)]


def loader_of(sampler: PlannedNoDuplicatesBatchSampler) -> DataLoader:
    return DataLoader(range(len(sampler.dataset)), batch_sampler=sampler, collate_fn=torch.tensor)


def joined(parts: list[list]) -> list:
    return [item for part in parts for item in part]


@pytest.mark.parametrize("even_batches", [False, True], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("rows", "batch_size", "processes", "sizes"),
    [
        (8, 2, 2, [[2, 2], [2, 2]]),
        (11, 2, 2, [[2, 2], [2, 2], [2, 1]]),
        (9, 2, 2, [[2, 2], [2, 1], [1, 1]]),
        (33, 4, 3, [[4, 4, 4], [4, 4, 4], [3, 3, 3]]),
        (25, 4, 3, [[4, 4, 4], [4, 3, 3], [1, 1, 1]]),
        (3, 1, 2, [[1, 1]]),
        (7, 8, 3, [[3, 2, 2]]),
    ],
)
def test_processes_take_parts_of_each_step(even_batches, rows, batch_size, processes, sizes):
    """Literal sizes; a last step of too few rows is filled up from the one before it, if that can give any."""
    sampler = sampler_of(pairs(rows), batch_size, processes)
    steps = sharded(loader_of(sampler), processes, even_batches=even_batches)
    assert [list(map(len, step)) for step in steps] == sizes
    assert len(sampler) == processes * len(steps)
    seen = joined(joined(steps))
    assert len(set(seen)) == len(seen) == (rows if batch_size > 1 else rows - rows % processes)


@settings(max_examples=60, deadline=None)
# The last step has more rows than there are values, or most of them
@example(rows=26, batch_size=4, processes=4, repeats=3, across=False, equal=False, drop=None, epoch=0)
@example(rows=127, batch_size=4, processes=16, repeats=3, across=False, equal=False, drop=None, epoch=1)
@given(
    rows=st.integers(4, 60),
    batch_size=st.integers(1, 9),
    processes=st.integers(1, 8),
    repeats=st.integers(1, 4),
    across=st.booleans(),
    equal=st.booleans(),
    drop=st.sampled_from([None, True]),
    epoch=st.integers(0, 2),
)
def test_every_promise_holds_at_once(rows, batch_size, processes, repeats, across, equal, drop, epoch):
    """Equal numbers of steps, as many as promised; no row twice; no duplicate in a batch, or step; full batches."""
    dataset = pairs(rows, repeats)
    options = {"across_devices": across, "equal_parts": equal, "drop_last_step": drop}
    sampler = sampler_of(dataset, batch_size, processes, **options)
    if sampler.drop_last is False and rows // repeats < 2 * processes:
        return
    sampler.set_epoch(epoch)
    steps = sharded(loader_of(sampler), processes, even_batches=False)
    assert len(steps) * processes == len(sampler) == len(list(sampler))
    seen = joined(joined(steps))
    assert len(set(seen)) == len(seen)
    assert all(len(batch) == batch_size for step in steps[:-2] for batch in step)
    for step in steps:
        assert max(map(len, step)) - min(map(len, step)) <= (0 if equal and step is steps[-1] else 1)
        for batch in [joined(step)] if across else step:
            assert batch and len({row // repeats for row in batch}) == len(batch)
    if not drop and not sampler.rows_skipped and batch_size > 1:
        assert rows - len(seen) <= (processes - 1 if equal else 0)


def test_parts_differ_by_a_row_at_most():
    """The longer ones come first."""
    assert list(parts_of([*range(7)], 3)) == [[0, 1, 2], [3, 4], [5, 6]]


def test_the_last_step_takes_rows_that_agree_with_it():
    """Row 3 shares a value with the last row, so others move."""
    dataset = Dataset.from_dict({"a": [*"abcdefg"], "b": [*"tuvwxyw"]})
    duplicates = PlannedNoDuplicatesBatchSampler(dataset, 2, False).duplicates
    import numpy as np

    step, last = last_step_filled(np.arange(6, dtype=np.int32), np.array([6], dtype=np.int32), 3, duplicates)
    assert (step.tolist(), last.tolist()) == ([0, 1, 2, 3], [6, 4, 5])


class Accelerator:
    """Prepares loaders as accelerate does on the first of two processes."""

    num_processes = 2

    def __init__(self, split_batches: bool = False, dispatch_batches: bool | None = None, rank: int = 0) -> None:
        self.split_batches, self.dispatch_batches, self.rank = split_batches, dispatch_batches, rank

    def prepare(self, loader: DataLoader) -> DataLoader:
        settings = {"num_processes": 2, "process_index": self.rank, "even_batches": False}
        return prepare_data_loader(loader, split_batches=self.split_batches, **settings)


def shared(samplers, batch_sampler, loss=None, **settings) -> list[list[list[int]]]:
    """The batches of both ranks, by step, once the trainer asked the samplers how to share them."""
    ranks = []
    for rank in range(2):
        accelerator = Accelerator(rank=rank, **settings)
        loader = DataLoader(range(1000), batch_sampler=batch_sampler, collate_fn=torch.tensor)
        prepared = samplers[0].share_batches(loader, accelerator, loss)
        if not settings.get("split_batches"):
            prepared = accelerator.prepare(prepared)
        ranks.append([batch.tolist() for batch in prepared])
        assert len(prepared) == len(ranks[-1])
    return [list(step) for step in zip(*ranks)]


def test_split_batches_are_those_of_half_the_size():
    """Each process takes its part of the batch, and the last batch is shared as equally as can be."""
    sampler = sampler_of(pairs(11), 4, 2)
    steps = shared([sampler], sampler, split_batches=True)
    assert [list(map(len, step)) for step in steps] == [[2, 2], [2, 2], [2, 1]]
    assert sorted(joined(joined(steps))) == list(range(11))


def test_a_gathering_loss_gets_equal_parts():
    """One that is wrapped by others as well."""
    loss = nn.Sequential(nn.Linear(1, 1))
    assert not gathers_across_devices(loss) and not gathers_across_devices({"a": loss})
    loss[0].gather_across_devices = True
    assert gathers_across_devices({"a": loss})
    sampler = sampler_of(pairs(11), 2, 2)
    assert [list(map(len, step)) for step in shared([sampler], sampler, loss)] == [[2, 2], [2, 2], [1, 1]]


def test_the_options_word_counts_before_the_losss():
    """``equal_parts`` set by the user."""
    sampler = sampler_of(pairs(11), 2, 2, equal_parts=True)
    assert [list(map(len, step)) for step in shared([sampler], sampler)] == [[2, 2], [2, 2], [1, 1]]


def test_dispatched_batches_of_a_step_can_be_joined():
    """The dispatcher reads a batch for each process, or with ``split_batches`` one for all of them."""
    for split, sizes in ((False, [2, 2, 2, 2, 1, 1]), (True, [4, 4, 2])):
        sampler = sampler_of(pairs(11), 4 if split else 2, 2)
        loader = sampler.share_batches(loader_of(sampler), Accelerator(split, True), None)
        assert [len(batch) for batch in loader.batch_sampler] == sizes
        assert loader.batch_sampler.batch_size == (4 if split else 2)


def test_several_datasets_need_planned_batches_each():
    """Mixed kinds of batch samplers are refused by name."""
    planned = sampler_of(pairs(11), 2, 2)
    mixed = SimpleNamespace(batch_samplers=[planned, NoDuplicatesBatchSampler(pairs(5), 2, True)])
    loader = SimpleNamespace(batch_sampler=mixed)
    with pytest.raises(ValueError, match="and of NoDuplicatesBatchSampler in one run"):
        planned.share_batches(loader, Accelerator(), None)


def test_one_process_keeps_its_loader():
    """There is nothing to share."""
    sampler = sampler_of(pairs(11), 2, 1)
    loader = loader_of(sampler)
    assert sampler.share_batches(loader, SimpleNamespace(num_processes=1), None) is loader
    assert sampler.batch_size == 2


def test_the_epoch_reaches_the_sampler_through_its_parts():
    """Set on what accelerate sees, it changes the order."""
    sampler = sampler_of(pairs(40), 2, 2)
    batches = sampler.share_batches(loader_of(sampler), Accelerator(), None).batch_sampler
    first = list(batches)
    batches.set_epoch(1)
    assert sampler.epoch == 1 and list(batches) != first


def test_parts_that_differ_are_announced_where_the_loss_is_not_known(monkeypatch):
    """A gathering loss would fail in the last step; the option is named."""
    from sentence_transformers.planned import sampler as module

    said = []
    monkeypatch.setattr(module.logger, "warning_once", said.append)
    len(sampler_of(pairs(12), 2, 2))
    assert said == []
    len(sampler_of(pairs(11), 2, 2))
    assert len(said) == 1 and "equal_parts=True" in said[0]
