"""A run that goes on in another layout, of processes and batches: what is the same order, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from guarded import LOGGING, ROWS, Outcome, attempt, run_of
from layouts import laid_out

from conformance.launch import run_ranks
from conformance.runs import Run, continued

ODD = 130  # rows: 8 steps of 16, and 2 rows, which are a step of their own on one process
MOVES = [
    ("2 × 8", "1 × 16", "batch_sampler"),
    ("1 × 16", "2 × 8", "batch_sampler"),
    ("2 × 8", "1 × 8, twice", "batch_sampler"),
    ("1 × 8, twice", "2 × 8", "batch_sampler"),
    ("2 × 8", "1 × 8, twice", "no_duplicates"),
    ("1 × 8, twice", "1 × 4, four times", "batch_sampler"),
]


def strict_move(before: str, now: str, run: Run, stop_after: int) -> list[Outcome]:
    """Stopped in one layout and continued in another."""
    world_size, changes = laid_out(before, run)
    run_ranks(world_size, attempt, replace(run, **changes, stop_after=stop_after))
    world_size, changes = laid_out(now, run)
    changes["arguments"] |= {"order_guard": "strict"}
    return run_ranks(world_size, attempt, continued(replace(run, **changes)))


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [4, 8, 12], ids=["epoch 0", "its last whole step", "epoch 1"])
@pytest.mark.parametrize(("before", "now", "sampler"), MOVES)
def test_the_same_rows_in_each_optimizer_step_pass(
    before: str, now: str, sampler: str, stop_after: int, tmp_path: Path, model: str
) -> None:
    """Also where an epoch's last rows are a step in one layout alone, and where gradients are accumulated."""
    for outcome in strict_move(before, now, run_of(tmp_path, model, rows=(ODD,), sampler=sampler), stop_after):
        assert (outcome.messages, outcome.error) == ([], "")


@pytest.mark.slow
def test_batches_planned_anew_are_said(tmp_path: Path, model: str) -> None:
    """`no_duplicates` draws other batches of 4 than of 8, though as many rows are in each optimizer step."""
    run = run_of(tmp_path, model, rows=(ODD,), sampler="no_duplicates")
    (outcome,) = strict_move("1 × 8, twice", "1 × 4, four times", run, 12)
    assert outcome.error.startswith("OrderChanged") and "(batch_size=4" in outcome.error


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [7, 9], ids=["between epochs", "in epoch 1"])
def test_several_datasets_take_turns_by_batches(stop_after: int, tmp_path: Path, model: str) -> None:
    """A step of 2 x 8 can be of two datasets, one of 1 x 16 is of one: said, also where no rows can tell."""
    (outcome,) = strict_move("2 × 8", "1 × 16", run_of(tmp_path, model, rows=(48, 64)), stop_after)
    assert outcome.error.startswith("OrderChanged")
    assert "DefaultBatchSampler(batch_size=8" in outcome.error and "now" in outcome.error


@pytest.mark.slow
@pytest.mark.parametrize(("before", "now"), [("2 × 8", "1 × 16"), ("1 × 16", "2 × 8")])
def test_several_datasets_planned_across_devices_pass(before: str, now: str, tmp_path: Path, model: str) -> None:
    """Their batches are of all processes together."""
    arguments = {**LOGGING, "plan_across_devices": True}
    run = run_of(tmp_path, model, rows=(48, 64), sampler="no_duplicates_planned", arguments=arguments)
    for outcome in strict_move(before, now, run, 9):
        assert (outcome.messages, outcome.error) == ([], "")


ALL_DONE: dict[str, tuple[dict[str, Any], str]] = {
    "batch size": ({"batch_size": 16}, "batch size over all processes: 8, now 16"),
    "rows": ({"rows": (ROWS // 2,)}, "data of train_dataset: 96 rows, now 48"),
    "accumulation": (
        {"arguments": {**LOGGING, "gradient_accumulation_steps": 2}},
        "rows in an optimizer step: 8 (batches of 8, 1 accumulated), now 16 (batches of 8, 2 accumulated)",
    ),
}


@pytest.mark.parametrize("change", ALL_DONE)
def test_a_change_that_leaves_no_step_is_said(change: str, tmp_path: Path, model: str) -> None:
    """Of 36 steps 30 are done, and 18 are all that there are now: said once, and with "strict" by an error."""
    run = run_of(tmp_path, model, stop_after=30)
    run_ranks(1, attempt, run)
    changes, expected = ALL_DONE[change]
    run = replace(continued(run), **changes)
    (outcome,) = run_ranks(1, attempt, run)
    (message,) = outcome.messages
    assert expected in message and outcome.error == ""
    assert "No step is left to train: 30 were done, of 18" in message
    (outcome,) = run_ranks(1, attempt, replace(run, arguments={**run.arguments, "order_guard": "strict"}))
    assert outcome.error.startswith("OrderChanged") and expected in outcome.error


def test_a_run_that_was_done_is_done(tmp_path: Path, model: str) -> None:
    """Resumed after its last step, with nothing changed, it says nothing."""
    run = run_of(tmp_path, model, arguments={**LOGGING, "order_guard": "strict"}, stop_after=36)
    run_ranks(1, attempt, run)
    (outcome,) = run_ranks(1, attempt, continued(run))
    assert (outcome.messages, outcome.error) == ([], "")
