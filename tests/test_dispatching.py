"""Dispatched batches are those of a sharded run, whatever they hold; and cross-encoders train on several processes.

All but the launch mode is as a user has it: each model's own collator, texts of unequal length, default flags.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dispatching
import pytest
from dispatching import attempt, interrupted

from conformance import runs
from conformance.runs import Run, train
from conformance.trainers import as_collated_trainer, default_cross_encoder_trainer

DEFECT = pytest.mark.defect
CASES: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "transformer": (dispatching.evaluating_trainer, (40,), {}),
    "losses": (dispatching.losses_trainer, (40, 40), {}),
    "losses, split": (dispatching.losses_trainer, (40, 40), {"split_batches": True}),
    "static embedding": (dispatching.static_trainer, (40,), {}),
    "cross-encoder": (default_cross_encoder_trainer, (40,), {}),
    "sparse": (runs.sparse_encoder_trainer, (40,), {}),
    "multi-vector": (runs.multi_vector_encoder_trainer, (40,), {}),
    "evaluation stream": (dispatching.streaming_evaluation_trainer, (16,), {}),
}
"""The trainer, the rows of each dataset, and what else accelerate is told."""
STREAMS = {
    "transformer": dispatching.streaming_trainer,
    "static embedding": dispatching.streaming_static_trainer,
    "cross-encoder": dispatching.streaming_cross_encoder_trainer,
}


def ran(ranks: list[Any]) -> list[Any]:
    """What the ranks return; a rank that failed fails the test."""
    assert not isinstance(ranks[0], str), ranks[0]
    return ranks


@pytest.mark.slow
@DEFECT
@pytest.mark.parametrize("case", CASES)
def test_dispatched_batches_are_those_of_a_sharded_run(case: str, tmp_path: Path, model: str) -> None:
    """On each rank: the same rows, the same tensors' shapes, all else that a batch holds, and the same losses."""
    trainer, rows, settings = CASES[case]
    run = Run(str(tmp_path), model, rows=rows, epochs=1, trainer=trainer, accelerator=settings)
    sharded = ran(attempt(2, run))
    dispatched = attempt(2, Run(**{**vars(run), "accelerator": {**settings, "dispatch_batches": True}}))
    assert ran(dispatched) == sharded
    assert len(sharded[0]) > 1


@DEFECT
def test_a_dispatched_evaluation_counts_each_row_once(tmp_path: Path, model: str) -> None:
    """Five batches for two processes: the loss before the first step is that of an evaluation on one process."""
    run = Run(str(tmp_path), model, rows=(16,), trainer=dispatching.evaluating_first_trainer)
    (alone,) = ran(attempt(1, run))
    dispatched = ran(attempt(2, Run(**{**vars(run), "accelerator": {"dispatch_batches": True}})))
    losses = [rank[-1]["evaluations"][0] for rank in dispatched]
    assert losses == [pytest.approx(alone[-1]["evaluations"][0], rel=1e-6)] * 2


@pytest.mark.slow
@DEFECT
@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_is_dispatched_as_it_would_be_sharded(case: str, tmp_path: Path, model: str) -> None:
    """Two ranks on an ``IterableDataset``, which are dispatched to by default: equal steps, over several passes."""
    run = Run(str(tmp_path), model, rows=(40,), trainer=STREAMS[case], arguments={"max_steps": 5})
    dispatched = ran(attempt(2, run))
    assert dispatched == ran(attempt(2, Run(**{**vars(run), "accelerator": {"dispatch_batches": False}})))
    assert [len(steps) for steps in dispatched] == [6, 6]  # the last one says what was evaluated


@DEFECT
@pytest.mark.parametrize("case", ["static embedding", "cross-encoder"])
def test_a_stream_is_read_whole_on_one_process(case: str, tmp_path: Path, model: str) -> None:
    """Tensors whose first dimension is not the row are not cut to the batch size."""
    run = Run(str(tmp_path), model, rows=(40,), trainer=STREAMS[case], arguments={"max_steps": 6})
    (steps,) = ran(attempt(1, run))
    assert [len(step["rows"]) for step in steps[:-1]] == [8] * 6


@pytest.mark.slow
@DEFECT
@pytest.mark.parametrize("case", ["transformer", "losses"])
def test_a_dispatched_run_resumes_exactly(case: str, tmp_path: Path, model: str) -> None:
    """Cut in epoch 1, with batches as the models have them."""
    trainer = {"transformer": as_collated_trainer, "losses": dispatching.losses_trainer}[case]
    run = Run(
        str(tmp_path), model, rows=CASES[case][1], epochs=2, trainer=trainer, accelerator={"dispatch_batches": True}
    )
    whole = ran(attempt(2, run, train))
    assert interrupted(2, run, len(whole[0]) // 2 + 1) == whole


@DEFECT
@pytest.mark.parametrize(
    "arguments",
    [{}, {"gradient_accumulation_steps": 2, "gradient_checkpointing": True}],
    ids=["alone", "with accumulation and checkpointing"],
)
def test_a_cross_encoder_trains_with_default_flags(arguments: dict[str, Any], tmp_path: Path, model: str) -> None:
    """Under DDP, it takes the losses of a run that is told that all parameters are used."""
    run = Run(str(tmp_path), model, rows=(40,), epochs=2, trainer=default_cross_encoder_trainer)
    default = Run(**{**vars(run), "arguments": arguments})
    told = Run(**{**vars(run), "arguments": {**arguments, "ddp_find_unused_parameters": False}})
    assert ran(attempt(2, default)) == ran(attempt(2, told))
