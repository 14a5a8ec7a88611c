"""Dispatched batches are those of a sharded run, whatever they hold, and a resumed run goes on after whole steps.

All but the launch mode is as a user has it: each model's own collator, and texts of unequal length.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dispatched
import pytest
from dispatched import UnequalBatches, attempt, interrupted
from selection import few_of

from conformance import runs
from conformance.runs import Run, train
from conformance.trainers import as_collated_trainer

DEFECT = pytest.mark.defect
DISPATCH = {"dispatch_batches": True}


@dataclass(frozen=True)
class Case:
    """A run, without its launch mode."""

    trainer: Any = as_collated_trainer
    rows: tuple[int, ...] = (40,)
    ranks: int = 2
    accelerator: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    sampler: Any = "no_duplicates"

    def run(self, folder: Path, model: str, **changes: Any) -> Run:
        """What each process calls."""
        run = Run(
            str(folder),
            model,
            rows=self.rows,
            epochs=1,
            trainer=self.trainer,
            accelerator=self.accelerator,
            arguments=self.arguments,
            sampler=self.sampler,
        )
        return replace(run, **changes)


WORKERS = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
CASES = {
    "transformer, evaluated": Case(dispatched.evaluating_trainer),
    "three ranks": Case(rows=(76,), ranks=3),
    "losses": Case(dispatched.losses_trainer, (40, 40)),
    "losses, split": Case(dispatched.losses_trainer, (40, 40), accelerator={"split_batches": True}),
    "losses, workers": Case(dispatched.losses_trainer, (40, 40), arguments=WORKERS),
    "unequal batches": Case(rows=(60,), sampler=UnequalBatches),
    "static embedding": Case(dispatched.static_trainer),
    "cross-encoder": Case(dispatched.cross_encoder_trainer),
    "sparse": Case(runs.sparse_encoder_trainer),
    "multi-vector": Case(runs.multi_vector_encoder_trainer),
    "evaluation stream": Case(dispatched.streaming_evaluation_trainer, (16,)),
}
RESUMED = {
    "transformer": Case(rows=(56,)),
    "three ranks": Case(rows=(76,), ranks=3),
    "losses, split": CASES["losses, split"],
    "workers": Case(rows=(56,), arguments=WORKERS),
    "unequal batches": CASES["unequal batches"],
    "accumulation": Case(rows=(88,), arguments={"gradient_accumulation_steps": 2}),
}
STREAMS = {
    "transformer": Case(dispatched.streaming_trainer, arguments={"max_steps": 5}),
    "skip and take": Case(dispatched.taken_stream_trainer, (58,), arguments={"max_steps": 7}),
    "static embedding": Case(dispatched.streaming_static_trainer, arguments={"max_steps": 5}),
    "cross-encoder": Case(dispatched.streaming_cross_encoder_trainer, arguments={"max_steps": 5}),
}


def ran(ranks: list[Any]) -> list[Any]:
    """What the ranks return; a rank that failed fails the test."""
    assert not isinstance(ranks[0], str), ranks[0]
    return ranks


@pytest.mark.slow
@DEFECT
@pytest.mark.parametrize("case", few_of(CASES, ["transformer, evaluated", "losses, split"]))
def test_dispatched_batches_are_those_of_a_sharded_run(case: str, tmp_path: Path, model: str) -> None:
    """On each rank: the same rows, the same tensors' shapes, all else that a batch holds, and the same losses."""
    run = CASES[case].run(tmp_path, model)
    sharded = ran(attempt(CASES[case].ranks, run))
    assert ran(attempt(CASES[case].ranks, replace(run, accelerator={**run.accelerator, **DISPATCH}))) == sharded
    assert len(sharded[0]) > 1


@DEFECT
def test_a_dispatched_evaluation_counts_each_row_once(tmp_path: Path, model: str) -> None:
    """Five batches for two processes: the loss before the first step is that of an evaluation on one process."""
    run = Run(str(tmp_path), model, rows=(16,), trainer=dispatched.evaluating_first_trainer)
    (alone,) = ran(attempt(1, run))
    both = ran(attempt(2, replace(run, accelerator=DISPATCH)))
    losses = [rank[-1]["evaluations"][0] for rank in both]
    assert losses == [pytest.approx(alone[-1]["evaluations"][0], rel=1e-6)] * 2


@DEFECT
@pytest.mark.parametrize("case", few_of(RESUMED, ["unequal batches"]))
@pytest.mark.parametrize("epoch", few_of([0, 1], [1]))
def test_a_dispatched_run_resumes_after_whole_steps(case: str, epoch: int, tmp_path: Path, model: str) -> None:
    """Cut after two steps of an epoch, the rows before and after are those of the uninterrupted run."""
    ranks, settings = RESUMED[case].ranks, {**RESUMED[case].accelerator, **DISPATCH}
    run = RESUMED[case].run(tmp_path, model, epochs=2, accelerator=settings)
    whole = ran(attempt(ranks, run, train))
    steps = len(whole[0]) // (2 * run.arguments.get("gradient_accumulation_steps", 1))
    cut = epoch * steps + min(2, steps - 1)
    assert interrupted(ranks, run, cut) == whole


@pytest.mark.slow
@DEFECT
@pytest.mark.parametrize("case", few_of(STREAMS, ["transformer"]))
def test_a_stream_is_dispatched_as_it_would_be_sharded(case: str, tmp_path: Path, model: str) -> None:
    """Two ranks on an ``IterableDataset``, which are dispatched to by default: equal steps, over several passes."""
    run = STREAMS[case].run(tmp_path, model)
    by_default = ran(attempt(2, run))
    assert by_default == ran(attempt(2, replace(run, accelerator={"dispatch_batches": False})))
    assert len(by_default[0]) == run.arguments["max_steps"] + 1  # the last one says what was evaluated


@DEFECT
@pytest.mark.parametrize(
    "workers", [pytest.param({}, id="main process"), pytest.param(WORKERS, id="workers", marks=pytest.mark.wide)]
)
def test_a_dispatched_stream_resumes_after_whole_steps(workers: Any, tmp_path: Path, model: str) -> None:
    """Cut in the first pass; ``test_streams.py`` has the later ones."""
    case = Case(dispatched.files_trainer, (112,), arguments={"max_steps": 6, **workers})
    run = case.run(tmp_path, model)
    whole = ran(attempt(2, run, train))
    assert interrupted(2, run, 3) == whole


@DEFECT
@pytest.mark.parametrize("case", few_of(["static embedding", "cross-encoder"], ["static embedding"]))
def test_a_stream_is_read_whole_on_one_process(case: str, tmp_path: Path, model: str) -> None:
    """Strings are no obstacle, and tensors whose first dimension is not the row are not cut to the batch size."""
    run = STREAMS[case].run(tmp_path, model, arguments={"max_steps": 6})
    (steps,) = ran(attempt(1, run))
    assert [len(step["rows"]) for step in steps[:-1]] == [8] * 6
