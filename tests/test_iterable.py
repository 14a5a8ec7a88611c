"""Runs over an ``IterableDataset``: a new order in each pass, and a resume that goes on where the run was stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dispatching
import pytest
from dispatching import attempt, interrupted

from conformance.runs import Run, train


@dataclass(frozen=True)
class Case:
    """A run over a stream, and the optimizer steps after which it is cut."""

    world_size: int
    trainer: Any
    cut: int
    rows: tuple[int, ...] = (40,)
    accelerator: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=lambda: {"max_steps": 14})

    def run(self, folder: Path, model: str) -> Run:
        """What each process calls."""
        return Run(
            str(folder),
            model,
            rows=self.rows,
            trainer=self.trainer,
            accelerator=self.accelerator,
            arguments=self.arguments,
        )


WORKERS = {"max_steps": 16, "dataloader_num_workers": 2}
SHARDED = {"dispatch_batches": False}
CASES = {
    "one process": Case(1, dispatching.streaming_trainer, 7),
    "at the end of a pass": Case(1, dispatching.streaming_trainer, 10),
    "gradient accumulation": Case(
        1, dispatching.streaming_trainer, 3, arguments={"max_steps": 6, "gradient_accumulation_steps": 2}
    ),
    "workers": Case(1, dispatching.files_trainer, 12, arguments=WORKERS, rows=(80,)),
    "persistent workers": Case(
        1, dispatching.files_trainer, 12, rows=(80,), arguments={**WORKERS, "dataloader_persistent_workers": True}
    ),
    "dispatched": Case(2, dispatching.streaming_trainer, 5, rows=(56,), arguments={"max_steps": 8}),
    "dispatched, workers": Case(2, dispatching.files_trainer, 9, rows=(112,), arguments=WORKERS),
    "dispatched, interleaved": Case(2, dispatching.interleaved_trainer, 8, rows=(40, 40)),
    "sharded": Case(2, dispatching.streaming_trainer, 5, (56,), SHARDED, {"max_steps": 8}),
    "sharded by files": Case(2, dispatching.files_trainer, 13, (80,), SHARDED, {"max_steps": 16}),
}


@pytest.mark.slow
@pytest.mark.defect
@pytest.mark.parametrize("case", CASES)
def test_a_resumed_stream_goes_on_where_it_stopped(case: str, tmp_path: Path, model: str) -> None:
    """Cut in a later pass, the rows before and after are, step by step, those of the uninterrupted run."""
    world_size, cut, run = CASES[case].world_size, CASES[case].cut, CASES[case].run(tmp_path, model)
    whole = attempt(world_size, run, train)
    assert not isinstance(whole[0], str), whole[0]
    assert interrupted(world_size, run, cut) == whole


def test_each_pass_has_an_order_of_its_own(tmp_path: Path, model: str) -> None:
    """A buffer shuffles by the epoch, and every row is seen once in each pass."""
    run = Run(str(tmp_path), model, rows=(40,), trainer=dispatching.streaming_trainer, arguments={"max_steps": 15})
    (steps,) = attempt(1, run, train)
    passes = [[row for step in steps[start : start + 5] for row in step] for start in (0, 5, 10)]
    assert all(sorted(rows) == list(range(40)) for rows in passes)
    assert len({tuple(rows) for rows in passes}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, pytest.param(2, marks=pytest.mark.defect)])
def test_a_stream_of_known_length_resumes_in_a_later_epoch(world_size: int, tmp_path: Path, model: str) -> None:
    """A stream with ``__len__`` has epochs, as a dataset has."""
    run = Run(str(tmp_path), model, rows=(72,), epochs=3, trainer=dispatching.sized_stream_trainer)
    whole = attempt(world_size, run, train)
    assert not isinstance(whole[0], str), whole[0]
    steps_in_epoch = 72 // (8 * world_size)
    assert [len(steps) for steps in whole] == [steps_in_epoch * 3] * world_size
    assert interrupted(world_size, run, steps_in_epoch + 2) == whole
