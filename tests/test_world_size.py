"""A run that is stopped on some processes and continued on another number of them, with the same global batch."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from layouts import LAYOUTS, laid_out
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, Steps, continued, train

DEFECT = pytest.mark.defect
ROWS, GLOBAL_BATCH, EPOCHS = 100, 16, 3
WHOLE_STEPS = ROWS // GLOBAL_BATCH  # of an epoch; the rest of 4 rows is a step of its own where one process takes it
DONE = 2  # steps of epoch 1, when a run is stopped


def distinct_trainer(run: Run, arguments: dict[str, Any], dataset: Any) -> Any:
    """Every text of the dataset holds its row's number, so that none is there twice."""
    texts = {name: [f"{text} {row}" for row, text in enumerate(dataset[name])] for name in ("anchor", "positive")}
    dataset = dataset.from_dict({**texts, "label": dataset["label"]})
    return runs.sentence_transformer_trainer(run, arguments, dataset)


def steps_of(layout: str, ranks: list[Steps], done: int = 0) -> Steps:
    """The rows of each optimizer step, over all processes, sorted; of a run that begins after steps of an epoch."""
    batches = [[row for batch in step for row in batch] for step in zip(*ranks)]
    if layout == "1 × 8, twice":
        per_epoch = -(-ROWS // 8)
        place = [(2 * done + index) % per_epoch for index in range(len(batches))]
        firsts = [index for index in range(len(batches)) if place[index] % 2 == 0]
        # The last batch of an epoch is alone in its step, where their number is odd
        pairs = [batches[i : i + 1 + (place[i] + 1 < per_epoch)] for i in firsts]
        batches = [[row for batch in pair for row in batch] for pair in pairs]
    return [sorted(rows) for rows in batches]


def epoch_of(layout: str) -> int:
    """The number of steps of an epoch: on one process the rest is one, too."""
    return WHOLE_STEPS + (layout != "2 × 8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: str) -> Any:
    """Uninterrupted runs by layout and sampler, made once, with a checkpoint in epoch 1; and their steps."""

    @cache
    def make(layout: str, sampler: str) -> tuple[Run, Steps]:
        saving = {"save_strategy": "steps", "save_steps": epoch_of(layout) + DONE}
        folder = str(tmp_path_factory.mktemp("run"))
        run = Run(folder, model, (ROWS,), epochs=EPOCHS, sampler=sampler, arguments=saving, trainer=distinct_trainer)
        world_size, changes = laid_out(layout, run)
        run = replace(run, **changes)
        return run, steps_of(layout, run_ranks(world_size, train, run))

    return make


MOVES = [
    ("2 × 8", "1 × 16", "batch_sampler"),
    ("1 × 16", "2 × 8", "batch_sampler"),
    ("2 × 8", "1 × 8, twice", "batch_sampler"),
    ("1 × 8, twice", "2 × 8", "batch_sampler"),
    ("2 × 8", "1 × 16", "no_duplicates"),
    ("1 × 16", "2 × 8", "no_duplicates"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after", "sampler"), [pytest.param(*move, marks=DEFECT) for move in MOVES])
def test_a_run_goes_on_with_another_number_of_processes(
    before: str, after: str, sampler: str, whole: Any, tmp_path: Path
) -> None:
    """Stopped in epoch 1, it goes on in epoch 1, with the rows that it would have had, at each step that both have."""
    (stopped, steps_before), (run, steps_after) = whole(before, sampler), whole(after, sampler)
    for epoch in range(EPOCHS):
        one = steps_before[epoch * epoch_of(before) :][:WHOLE_STEPS]
        assert one == steps_after[epoch * epoch_of(after) :][:WHOLE_STEPS]

    checkpoint = f"checkpoint-{epoch_of(before) + DONE}"
    shutil.copytree(Path(stopped.folder, checkpoint), tmp_path / checkpoint)
    ranks = run_ranks(LAYOUTS[after][0], train, continued(replace(run, folder=str(tmp_path))))
    assert steps_of(after, ranks, DONE) == steps_after[epoch_of(after) + DONE :]


def test_no_duplicates_agrees_where_a_step_holds_no_value_twice() -> None:
    """Two batches of 8 are one of 16 in each step up to the first in which they share a value."""
    dataset = runs.names(ROWS)
    for epoch in range(EPOCHS):
        eights, sixteens = (planned(dataset, batch_size, epoch) for batch_size in (8, 16))
        steps = [one + other for one, other in zip(eights[::2], eights[1::2])]
        texts = [[text for row in step for text in dataset_texts(dataset, row)] for step in steps]
        agreeing = next(i for i, values in enumerate(texts) if len(set(values)) < len(values))
        assert [sorted(step) for step in steps[:agreeing]] == [sorted(batch) for batch in sixteens[:agreeing]]
        assert agreeing < WHOLE_STEPS


def planned(dataset: Any, batch_size: int, epoch: int) -> Steps:
    """Upstream's batches without duplicates of an epoch."""
    generator = torch.Generator()
    sampler = NoDuplicatesBatchSampler(dataset, batch_size, True, ["label"], generator=generator, seed=42)
    sampler.set_epoch(epoch)
    return list(sampler)


def dataset_texts(dataset: Any, row: int) -> set[str]:
    """The texts of a row; an anchor may be its own translation."""
    return {dataset[row]["anchor"], dataset[row]["positive"]}
