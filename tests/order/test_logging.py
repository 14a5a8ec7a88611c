"""The fingerprints that real trainers log, with 1 and 2 processes, in every launch mode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from guarded import EPOCHS, LAUNCHES, LOGGING, attempt, run_of

from conformance import runs
from conformance.launch import run_ranks
from conformance.runs import Run, continued


@pytest.mark.parametrize("launch", LAUNCHES)
def test_every_launch_mode_logs_the_fingerprints_of_the_plan(launch: str, orders: Any) -> None:
    """For one global batch, each epoch has the same fingerprint in each mode and on each rank, and one of its own."""
    assert orders(launch) == orders("1 x 16")
    assert len(set(orders(launch))) == EPOCHS


@pytest.mark.slow
@pytest.mark.parametrize("gathers", [True, False], ids=["across devices", "for each device"])
def test_the_fingerprints_of_planned_batches_are_the_same_on_one_process_and_two(
    gathers: bool, tmp_path: Path, model: str
) -> None:
    """Where batches are planned across devices; where each device has batches of its own, another plan shows."""
    run = run_of(tmp_path, model, rows=(100,), sampler="no_duplicates_planned")
    two = run_ranks(2, attempt, replace(run, arguments={**LOGGING, "plan_across_devices": gathers}))
    one = run_ranks(1, attempt, replace(run, batch_size=16))
    assert [outcome.error for outcome in two + one] == ["", "", ""]
    assert two[0].orders == two[1].orders
    assert (two[0].orders == one[0].orders) == gathers


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer",
    [
        runs.cross_encoder_trainer,
        runs.sparse_encoder_trainer,
        runs.multi_vector_encoder_trainer,
        runs.own_loader_trainer,
        runs.evaluating_trainer,
    ],
)
def test_every_trainer_logs_the_fingerprints(trainer: Any, tmp_path: Path, model: str, orders: Any) -> None:
    """Each trainer, also one that evaluates, and one whose loader a user has overridden."""
    for outcome in run_ranks(2, attempt, run_of(tmp_path, model, trainer=trainer)):
        assert (outcome.orders, outcome.messages, outcome.error) == (orders("2 x 8"), [], "")


def stream_trainer(run: Run, arguments: dict[str, Any], dataset: Dataset) -> Any:
    """Streams the rows, which processes get dispatched by default."""
    trainer = runs.sentence_transformer_trainer(run, {**arguments, "max_steps": 9}, dataset.to_iterable_dataset())
    trainer.data_collator = runs.FixedShapes(trainer.data_collator)
    return trainer


@pytest.mark.parametrize("stop_after", [2, 6, 8], ids=["first pass", "its end", "second pass"])
def test_streams_have_no_fingerprint_and_stop_nobody(stop_after: int, tmp_path: Path, model: str) -> None:
    """Two processes train on a stream, in passes of 6 steps, and go on from a checkpoint."""
    run = run_of(tmp_path, model, trainer=stream_trainer, stop_after=stop_after)
    for one in (run, continued(run)):
        for outcome in run_ranks(2, attempt, one):
            assert (outcome.orders, outcome.messages, outcome.error) == ([], [], "")
