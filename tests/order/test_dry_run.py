"""The batches that a dry run foresees are those that the ranks of a real run read."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset, DatasetDict
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from order_runs import LOGGING, attempt
from torch.utils.data import BatchSampler

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, datasets_of
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.order import order_report
from sentence_transformers.order.dry_run import DryRun
from sentence_transformers.order.fingerprint import DIGITS
from sentence_transformers.planned import PlannedNoDuplicatesBatchSampler

EPOCHS = 2
DISPATCH, SPLIT = {"dispatch_batches": True}, {"split_batches": True}
TWO = {"rows": (53, 70)}

RUNS: dict[str, tuple[int, dict[str, Any]]] = {
    "single": (1, {}),
    "single, drop_last": (1, {"arguments": {**LOGGING, "dataloader_drop_last": True}}),
    "ddp": (2, {}),
    "ddp, user-written": (2, {"sampler": runs.user_written}),
    "ddp, proportional": (2, {"multi": "proportional", **TWO}),
    "ddp, round robin": (2, {"multi": "round_robin", "sampler": "batch_sampler", **TWO}),
    "split": (2, {"accelerator": SPLIT}),
    "dispatch": (2, {"accelerator": DISPATCH, "sampler": "batch_sampler", "rows": (96,)}),
    "planned": (1, {"sampler": PlannedNoDuplicatesBatchSampler}),
    "planned, ddp": (2, {"sampler": PlannedNoDuplicatesBatchSampler}),
}


def arguments_of(run: Run) -> SentenceTransformerTrainingArguments:
    """The training arguments of a run, as one process alone has them."""
    return SentenceTransformerTrainingArguments(
        output_dir="unused",
        use_cpu=True,
        per_device_train_batch_size=run.batch_size,
        batch_sampler=run.sampler,
        multi_dataset_batch_sampler=run.multi,
        accelerator_config=dict(run.accelerator),
        **run.arguments,
    )


@pytest.mark.parametrize("name", RUNS)
def test_a_dry_run_foresees_the_batches_of_each_rank(name: str, tmp_path: Path, model: str) -> None:
    """At each step of each epoch, each rank reads the batch foreseen for it, and logs the fingerprint foreseen."""
    world_size, changes = RUNS[name]
    run = Run(str(tmp_path), model, **{"rows": (107,), "epochs": EPOCHS, "arguments": LOGGING, **changes})
    dry_run = DryRun(datasets_of(run), arguments_of(run), world_size)
    foreseen, fingerprints = [], []
    for epoch in range(EPOCHS):
        foreseen += islice(dry_run.epoch(epoch), len(dry_run))
        fingerprints.append(int(dry_run.digest()[:DIGITS], 16))
    outcomes = run_ranks(world_size, attempt, run)
    assert [list(step) for step in zip(*(outcome.steps for outcome in outcomes), strict=True)] == foreseen
    assert [outcome.fingerprints for outcome in outcomes] == [fingerprints] * world_size
    assert len(foreseen) == EPOCHS * len(dry_run) > 0


@settings(deadline=None)
@given(
    rows=st.integers(1, 60),
    batch_size=st.integers(1, 8),
    world_size=st.integers(2, 4),
    split=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_one_pass_serves_all_shards(rows: int, batch_size: int, world_size: int, split: bool, epoch: int) -> None:
    """What each process would read of a loader of its own, is dealt out of a single pass."""
    dataset = Dataset.from_dict({"text": [str(row) for row in range(rows)]})
    batch_size *= world_size if split else 1
    assume(rows >= batch_size * (1 if split else world_size))  # an epoch without a step is refused
    run = Run("", "", batch_size=batch_size, sampler="batch_sampler", accelerator={"split_batches": split})
    dry_run = DryRun(dataset, arguments_of(run), world_size)
    generator = torch.Generator().manual_seed(42 + epoch)
    order = torch.randperm(rows, generator=generator).tolist()
    shards = [
        list(BatchSamplerShard(BatchSampler(order, batch_size, True), world_size, rank, split, even_batches=False))
        for rank in range(world_size)
    ]
    assert list(dry_run.epoch(epoch)) == [list(step) for step in zip(*shards, strict=True)]


def test_neither_arguments_nor_data_nor_the_global_generator_change() -> None:
    """A dry run of two processes leaves no trace."""
    arguments, dataset = arguments_of(Run("", "", sampler=PlannedNoDuplicatesBatchSampler)), runs.names(50)
    before = arguments.to_dict(), torch.random.get_rng_state(), dataset.format
    dry_run = DryRun(dataset, arguments, 2)
    list(dry_run.epoch(0))
    assert arguments.to_dict() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert dataset.format == before[2]


def test_a_trainers_own_batch_sampler_counts() -> None:
    """A trainer that overrides ``get_batch_sampler`` is asked for its batches."""

    class InOrder(SentenceTransformerTrainer):
        def get_batch_sampler(self, dataset: Dataset, batch_size: int, drop_last: bool, **kwargs: Any) -> BatchSampler:
            return BatchSampler(range(len(dataset)), batch_size, drop_last)

    dry_run = DryRun(runs.names(10), arguments_of(Run("", "", batch_size=4)), 1, trainer_class=InOrder)
    assert list(dry_run.epoch(5)) == [[[0, 1, 2, 3]], [[4, 5, 6, 7]], [[8, 9]]]


@pytest.mark.parametrize(
    ("dataset", "world_size", "sampler", "message"),
    [
        ([{"text": "a"}], 1, "batch_sampler", "but got list: pass a datasets.Dataset"),
        (runs.names(10).to_iterable_dataset(), 1, "batch_sampler", "but got IterableDataset: pass"),
        (runs.names(10).select([]), 1, "batch_sampler", "has no rows"),
        (runs.names(10), 0, "batch_sampler", "world_size must be an integer of at least 1, but got 0"),
        (runs.names(10), True, "batch_sampler", "world_size must be an integer of at least 1, but got True"),
        (runs.names(10).rename_column("label", "return_loss"), 1, "batch_sampler", "return_loss"),
        (runs.names(10), 3, "batch_sampler", "plans no batch for 3 processes: use a smaller batch size"),
        (runs.names(10), 1, lambda dataset, **_: [["a"]], "made of batches of row numbers, but got"),
    ],
)
def test_what_has_no_order_is_refused(dataset: Any, world_size: Any, sampler: Any, message: str) -> None:
    """The message names the value, the rule and the way out."""
    with pytest.raises(ValueError, match=message):
        order_report(dataset, arguments_of(Run("", "", sampler=sampler)), world_size)


def test_several_datasets_keep_their_names() -> None:
    """A DatasetDict, or a dict, is read as the trainer reads it."""
    data = {"one": runs.names(30), "other": runs.names(20, 30)}
    arguments = arguments_of(Run("", "", sampler="batch_sampler"))
    plain, named = (DryRun(kind(data), arguments) for kind in (dict, DatasetDict))
    assert list(plain.epoch(1)) == list(named.epoch(1))
    assert list(plain.datasets) == list(named.datasets) == ["one", "other"]
