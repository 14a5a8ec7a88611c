"""The batches that a rehearsal foresees are those that the ranks of a real run read; what a report counts is right."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset, DatasetDict
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, ConcatDataset

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, Steps, datasets_of, train
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.rehearsal import Rehearsal
from sentence_transformers.base.tally import Tally, repeated_values

EPOCHS = 2
PLANNED = "no_duplicates_planned"
ACROSS = {"plan_across_devices": True}
DISPATCH, SPLIT = {"dispatch_batches": True}, {"split_batches": True}
TWO = {"rows": (53, 70)}

RUNS: dict[str, tuple[int, dict[str, Any]]] = {
    "single": (1, {}),
    "single, default": (1, {"sampler": "batch_sampler"}),
    "single, drop_last": (1, {"arguments": {"dataloader_drop_last": True}}),
    "ddp": (2, {}),
    "ddp on 3, default": (3, {"sampler": "batch_sampler"}),
    "ddp, user-written": (2, {"sampler": runs.user_written}),
    "ddp, data_seed": (2, {"arguments": {"data_seed": 7}}),
    "ddp, proportional": (2, {"multi": "proportional", **TWO}),
    "ddp, round robin": (2, {"multi": "round_robin", **TWO}),
    "split": (2, {"accelerator": SPLIT}),
    "dispatch": (2, {"accelerator": DISPATCH}),
    "dispatch, default": (2, {"accelerator": DISPATCH, "sampler": "batch_sampler"}),
    "dispatch, split": (2, {"accelerator": {**DISPATCH, **SPLIT}}),
    "planned, ddp on 3": (3, {"sampler": PLANNED}),
    "planned, ddp across": (2, {"sampler": PLANNED, "arguments": ACROSS}),
    "planned, ddp, gathers": (2, {"sampler": PLANNED, "trainer": runs.gathering_trainer}),
    "planned, split": (2, {"sampler": PLANNED, "accelerator": SPLIT}),
    "planned, dispatch": (2, {"sampler": PLANNED, "accelerator": DISPATCH}),
    "planned, ddp, proportional": (2, {"sampler": PLANNED, "multi": "proportional", **TWO}),
}
QUICK = ("single", "ddp", "split", "dispatch", "planned, ddp across")


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


def steps_and_fingerprints(run: Run) -> tuple[Steps, list[str]]:
    """What a rank reads, and what it logs of the order."""
    trainers: list[Any] = []
    build = run.trainer or runs.sentence_transformer_trainer

    def kept(*args: Any) -> Any:
        trainers.append(build(*args))
        return trainers[0]

    steps = train(replace(run, trainer=kept, arguments={**run.arguments, "logging_strategy": "epoch"}))
    return steps, [log["epoch_order"] for log in trainers[0].state.log_history if "epoch_order" in log]


class Gathering(torch.nn.Module):
    """All that is asked of a loss."""

    gather_across_devices = True


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RUNS]
)
def test_a_rehearsal_foresees_the_batches_of_each_rank(name: str, tmp_path: Path, model: str) -> None:
    """At each step of each epoch, each rank reads the batch foreseen for it, and logs the fingerprint foreseen."""
    world_size, changes = RUNS[name]
    run = Run(str(tmp_path), model, **{"rows": (107,), "epochs": EPOCHS, **changes})
    loss = Gathering() if run.trainer is runs.gathering_trainer else None
    rehearsal = Rehearsal(datasets_of(run), arguments_of(run), world_size, loss)
    foreseen, fingerprints = [], []
    for epoch in range(EPOCHS):
        foreseen += islice(rehearsal.epoch(epoch), len(rehearsal))
        fingerprints.append(rehearsal.fingerprint())
    read, logged = zip(*run_ranks(world_size, steps_and_fingerprints, run))
    assert [list(step) for step in zip(*read, strict=True)] == foreseen
    assert list(logged) == [fingerprints] * world_size
    assert len(foreseen) == EPOCHS * len(rehearsal) > 0


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
    rehearsal = Rehearsal(dataset, arguments_of(run), world_size)
    generator = torch.Generator().manual_seed(42 + epoch)
    order = torch.randperm(rows, generator=generator).tolist()
    shards = [
        list(BatchSamplerShard(BatchSampler(order, batch_size, True), world_size, rank, split, even_batches=False))
        for rank in range(world_size)
    ]
    assert list(rehearsal.epoch(epoch)) == [list(step) for step in zip(*shards, strict=True)]


def test_neither_arguments_nor_data_nor_the_global_generator_change() -> None:
    """A rehearsal of two processes leaves no trace."""
    arguments, dataset = arguments_of(Run("", "", sampler=PLANNED)), runs.names(50)
    before = arguments.to_dict(), torch.random.get_rng_state(), dataset.format
    rehearsal = Rehearsal(dataset, arguments, 2)
    list(rehearsal.epoch(0))
    assert arguments.to_dict() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert dataset.format == before[2]


def test_a_trainers_own_batch_sampler_counts() -> None:
    """A trainer that overrides ``get_batch_sampler`` is asked for its batches."""

    class InOrder(SentenceTransformerTrainer):
        def get_batch_sampler(self, dataset: Dataset, batch_size: int, drop_last: bool, **kwargs: Any) -> BatchSampler:
            return BatchSampler(range(len(dataset)), batch_size, drop_last)

    rehearsal = Rehearsal(runs.names(10), arguments_of(Run("", "", batch_size=4)), 1, trainer_class=InOrder)
    assert list(rehearsal.epoch(5)) == [[[0, 1, 2, 3]], [[4, 5, 6, 7]], [[8, 9]]]


@pytest.mark.parametrize(
    ("dataset", "world_size", "sampler", "message"),
    [
        ([{"text": "a"}], 1, "batch_sampler", "but got list: pass a datasets.Dataset"),
        (runs.names(10).to_iterable_dataset(), 1, "batch_sampler", "but got IterableDataset: pass"),
        (runs.names(10).select([]), 1, "batch_sampler", "has no rows"),
        (runs.names(10), 0, "batch_sampler", "world_size must be an integer of at least 1, but got 0"),
        (runs.names(10), True, "batch_sampler", "world_size must be an integer of at least 1, but got True"),
        (runs.names(10).rename_column("label", "return_loss"), 1, "batch_sampler", "return_loss"),
        (runs.names(2), 3, PLANNED, "2 rows without duplicates cannot be shared by 3 processes"),
    ],
)
def test_what_has_no_order_is_refused(dataset: Any, world_size: Any, sampler: str, message: str) -> None:
    """The message names the value, the rule and the way out."""
    with pytest.raises(ValueError, match=message):
        Rehearsal(dataset, arguments_of(Run("", "", sampler=sampler)), world_size)


def test_a_split_that_is_not_even_is_refused() -> None:
    """As in a run, but with the batch size in the message."""
    run = Run("", "", sampler="batch_sampler", accelerator=SPLIT)
    with pytest.raises(ValueError, match=r"3 processes cannot share batches of 8 rows equally\. Use a batch size"):
        Rehearsal(runs.names(50), arguments_of(run), 3)


# --- counting


TEXTS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcxyzuvw")), min_size=1, max_size=30)


def as_dataset(pairs: list[tuple[str, str]]) -> Dataset:
    return Dataset.from_dict({"one": [pair[0] for pair in pairs], "other": [pair[1] for pair in pairs]})


def holds_twice(pairs: list[tuple[str, str]], rows: list[int]) -> bool:
    """Whether a text is in two members of a batch, as one would count it by hand."""
    counts = Counter(text for row in rows for text in set(pairs[row]))
    return any(count > 1 for count in counts.values())


@given(pairs=TEXTS, data=st.data())
def test_a_tally_counts_as_one_would_by_hand(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    """Rows used and repeated, and batches and steps that hold a value twice, whatever the batches."""
    batch = st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=5)
    steps = data.draw(st.lists(st.lists(batch, min_size=2, max_size=2), min_size=1, max_size=8))
    tally = Tally(repeated_values([as_dataset(pairs)], set()))
    assert list(tally.passing(iter(steps))) == steps
    rows = Counter(row for step in steps for one in step for row in one)
    assert (tally.steps, tally.batches) == (len(steps), 2 * len(steps))
    assert tally.used == len(rows)
    assert tally.repeated == sum(count > 1 for count in rows.values())
    assert tally.batches_with_duplicates == sum(holds_twice(pairs, one) for step in steps for one in step)
    assert tally.steps_with_duplicates == sum(holds_twice(pairs, step[0] + step[1]) for step in steps)


@given(first=TEXTS, second=TEXTS)
def test_values_are_counted_over_all_datasets(first: list[tuple[str, str]], second: list[tuple[str, str]]) -> None:
    """Rows are numbered through; a dataset of fewer columns, or of none that counts, adds no value of its own."""
    narrow = as_dataset(second).select_columns(["one"])
    bare = Dataset.from_dict({"label": [0, 0]})
    values = repeated_values([as_dataset(first), narrow, bare], {"label"})
    texts = [set(pair) for pair in first] + [{pair[0]} for pair in second] + [set(), set()]
    sizes = Counter(text for row in texts for text in row)
    assert sorted(np.diff(values.starts)) == sorted(count for count in sizes.values() if count > 1)
    assert values.rows == len(ConcatDataset([as_dataset(first), narrow, bare]))


def test_steps_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts do not depend on how many rows are counted at a time."""
    steps = [[[0, 1], [2, 3]], [[0, 2], []], [[1, 1], [3, 0]]]
    values = repeated_values([as_dataset([("a", "x"), ("b", "x"), ("a", "y"), ("d", "z")])], set())
    counts = []
    for piece in (1, 1000):
        monkeypatch.setattr("sentence_transformers.base.tally.PIECE", piece)
        tally = Tally(values)
        list(tally.passing(steps))
        counts.append((tally.batches, tally.uneven_steps, tally.batches_with_duplicates, tally.steps_with_duplicates))
    assert counts == [(5, 1, 3, 3)] * 2


def test_several_datasets_keep_their_names() -> None:
    """A DatasetDict, or a dict, is rehearsed as the trainer reads it."""
    data = {"one": runs.names(30), "other": runs.names(20, 30)}
    arguments = arguments_of(Run("", "", sampler="batch_sampler"))
    plain, named = (Rehearsal(kind(data), arguments) for kind in (dict, DatasetDict))
    assert list(plain.epoch(1)) == list(named.epoch(1))
    assert list(plain.datasets) == list(named.datasets) == ["one", "other"]
