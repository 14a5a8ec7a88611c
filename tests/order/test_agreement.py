"""Ranks whose orders disagree stop, before their weights diverge: on real trainers with 2 and 3 processes.

Tests marked ``defect`` fail on the pristine release (``make test-pristine`` shows it).
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from guarded import EPOCHS, LOGGING, ROWS, attempt, run_of
from torch.utils.data import DataLoader, DistributedSampler

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, continued


def other_data(change: str, run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """A trainer that is built on another process from something else than on the others."""
    if os.environ.get("RANK") == "1":
        rows = list(range(len(dataset)))
        if change == "a row changed":
            last = {**dataset[-1], "anchor": "Atlantis"}
            dataset = Dataset.from_list([*dataset.select(rows[:-1]), last], features=dataset.features)
        elif change == "two rows swapped":
            dataset = dataset.select([rows[-1], *rows[1:-1], rows[0]])
        elif change == "a row more":
            dataset = dataset.select([*rows, 0])
        elif change == "half of the rows":
            dataset = dataset.select(rows[: len(rows) // 2])
        elif change == "seed":
            arguments = {**arguments, "seed": 43}
        elif change == "dispatching":
            arguments = {**arguments, "accelerator_config": {"dispatch_batches": True}}
        elif change == "batch size":
            arguments = {**arguments, "per_device_train_batch_size": 4}
    return runs.sentence_transformer_trainer(run, arguments, dataset)


STOPPED = {
    "a row changed": "contents of train_dataset: ",
    "two rows swapped": "contents of train_dataset: ",
    "a row more": "rows of train_dataset: 96 on ",
    "half of the rows": "steps in an epoch: ",
    "seed": "seed: 42 on ",
    "dispatching": "dispatch_batches: None on ",
    "batch size": "batch size over all processes: 16 on ",
}
HANGS = ("half of the rows", "dispatching", "batch size")  # as released, until PyTorch gives up


@pytest.mark.parametrize(
    "change", [pytest.param(name, marks=() if name in HANGS else pytest.mark.defect) for name in STOPPED]
)
def test_a_rank_given_other_data_stops_the_run(change: str, tmp_path: Path, model: str) -> None:
    """All ranks end at once, before a step, with an error that says who disagrees about what."""
    run = run_of(tmp_path, model, trainer=partial(other_data, change))
    for outcome in run_ranks(2, attempt, run):
        assert outcome.error.startswith("RanksDisagree") and STOPPED[change] in outcome.error
        assert "on rank 0" in outcome.error and "on rank 1" in outcome.error
        assert outcome.orders == [] and outcome.seconds < 30
    assert not list(tmp_path.glob("rows-*"))


@pytest.mark.slow
def test_the_rank_that_differs_is_named_among_three(tmp_path: Path, model: str) -> None:
    """Two agree, one does not."""
    for outcome in run_ranks(3, attempt, run_of(tmp_path, model, trainer=partial(other_data, "seed"))):
        assert "seed: 42 on ranks 0, 2, 43 on rank 1" in outcome.error


@pytest.mark.slow
def test_a_dispatching_run_does_not_ask_for_data_that_is_not_read(tmp_path: Path, model: str, orders: Any) -> None:
    """The main process alone reads; what the others hold in its place is their business, but for its length."""
    run = run_of(tmp_path, model, accelerator={"dispatch_batches": True}, trainer=partial(other_data, "a row changed"))
    assert [outcome.orders for outcome in run_ranks(2, attempt, run)] == [orders("dispatch")] * 2
    shorter = replace(run, trainer=partial(other_data, "half of the rows"))
    for outcome in run_ranks(2, attempt, shorter):
        assert "steps in an epoch: 6 on rank 0, 3 on rank 1" in outcome.error and outcome.seconds < 30


class DrawsByTheRank(runs.WrittenByAUser):
    """Disagrees about every epoch, from a row on."""

    first = 0

    def __iter__(self) -> Any:
        batches = list(super().__iter__())
        if os.environ.get("RANK") == "1":
            batches[self.first :] = reversed(batches[self.first :])
        return iter(batches)


class DrawsTheEndByTheRank(DrawsByTheRank):
    """Disagrees about the last batches."""

    first = 4


@pytest.mark.defect
@pytest.mark.parametrize("sampler", [DrawsByTheRank, DrawsTheEndByTheRank])
def test_ranks_whose_samplers_disagree_stop(sampler: Any, tmp_path: Path, model: str) -> None:
    """About the first rows: before the first step. About later ones: at the end of the epoch, before it is logged."""
    run = run_of(tmp_path, model, sampler=partial(sampler))
    for outcome in run_ranks(2, attempt, run):
        assert outcome.error.startswith("RanksDisagree") and outcome.seconds < 30
        assert ("the first rows: " if sampler is DrawsByTheRank else "order of the epoch: ") in outcome.error
        assert outcome.orders == []


def test_off_lets_every_rank_have_its_own(tmp_path: Path, model: str) -> None:
    """With ``order_guard="off"``, nothing is compared, and no fingerprint is logged."""
    arguments = {**LOGGING, "order_guard": "off"}
    run = run_of(tmp_path, model, trainer=partial(other_data, "seed"), arguments=arguments)
    for outcome in run_ranks(2, attempt, run):
        assert (outcome.orders, outcome.messages, outcome.error) == ([], [], "")


class Tells(runs.WrittenByAUser):
    """Has an argument that does not decide the order."""

    def __init__(self, *args: Any, verbose: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verbose = verbose


def tells_on_the_main_process(dataset: Dataset, **kwargs: Any) -> Tells:
    """Differs from process to process."""
    return Tells(dataset, verbose=os.environ.get("RANK") == "0", **kwargs)


def test_an_argument_that_does_not_decide_the_order_may_differ(tmp_path: Path, model: str) -> None:
    """What counts are the rows."""
    for outcome in run_ranks(2, attempt, run_of(tmp_path, model, sampler=tells_on_the_main_process)):
        assert (len(outcome.orders), outcome.messages, outcome.error) == (EPOCHS, [], "")


class ShareOfItsOwn(runs.SentenceTransformerTrainer):
    """Loads as PyTorch's tutorials do: each process has a sampler of its own."""

    def get_train_dataloader(self) -> Any:
        """Not prepared by accelerate."""
        sampler: Any = DistributedSampler(self.train_dataset, seed=1)
        return DataLoader(self.train_dataset, batch_size=8, sampler=sampler, collate_fn=self.data_collator)


class PartOfItsOwn(runs.SentenceTransformerTrainer):
    """Each process reads a part of its own, again and again, until `max_steps`."""

    def get_train_dataloader(self) -> Any:
        """Passes of 5 steps on the one and of 7 on the other."""
        part = self.train_dataset.select(range(40) if os.environ.get("RANK") == "0" else range(40, ROWS))
        sampler: Any = DistributedSampler(part, num_replicas=1, rank=0)
        return DataLoader(part, batch_size=8, sampler=sampler, collate_fn=self.data_collator)


def own_order_trainer(kind: Any, run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """A trainer whose processes do not share a plan."""
    trainer = runs.sentence_transformer_trainer(run, {**arguments, "max_steps": 12}, dataset)
    trainer.__class__ = kind
    return trainer


@pytest.mark.parametrize("kind", [ShareOfItsOwn, PartOfItsOwn])
def test_processes_with_orders_of_their_own_are_left_alone(kind: Any, tmp_path: Path, model: str) -> None:
    """They need not end a pass together, and go on from a checkpoint of the main process in silence."""
    arguments = {"logging_strategy": "steps"}  # the loss of an epoch is of all processes, and so waits for all
    trainer = partial(own_order_trainer, kind)
    run = run_of(tmp_path, model, trainer=trainer, arguments=arguments, stop_after=8)
    for one in (run, continued(run)):
        for outcome in run_ranks(2, attempt, one):
            assert (outcome.messages, outcome.error) == ([], "")


def own_stream_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """Each process streams rows of its own, the first one fewer; to log an epoch's loss, it would wait for others."""
    rows = 40 if os.environ["RANK"] == "0" else 70
    arguments |= {"accelerator_config": {"dispatch_batches": False}, "logging_strategy": "no"}
    arguments |= {"max_steps": 8, "ddp_timeout": 30}
    return runs.sentence_transformer_trainer(run, arguments, dataset.take(rows).to_iterable_dataset())


@pytest.mark.slow
def test_streams_of_unequal_length_do_not_wait_for_each_other(tmp_path: Path, model: str) -> None:
    """Where processes end their passes at different steps, as they may, no one waits for the others there."""
    run = run_of(tmp_path, model, trainer=own_stream_trainer, sampler="batch_sampler")
    assert [outcome.error for outcome in run_ranks(2, attempt, run, timeout=60)] == ["", ""]
