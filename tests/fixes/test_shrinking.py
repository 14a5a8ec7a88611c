"""``auto_find_batch_size`` on real trainers, whose memory runs out at a step of our choice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selection import few_of

from conformance import runs
from conformance.launch import RankFailed, run_ranks
from conformance.runs import Run, Steps, continued, train
from sentence_transformers import SentenceTransformerTrainer

DEFECT = pytest.mark.defect
ROWS, FITS = 100, 6
LAUNCHES: dict[str, tuple[int, dict[str, Any]]] = {
    "single": (1, {}),
    "ddp": (2, {}),
    "split": (2, {"accelerator": {"split_batches": True}}),
    "accumulating": (1, {"arguments": {"gradient_accumulation_steps": 2}}),
    "default sampler": (1, {"sampler": "batch_sampler"}),
    "several datasets": (1, {"rows": (60, 40)}),
}


class SmallMemory(SentenceTransformerTrainer):
    """Runs out of memory in the third step of more than ``FITS`` rows, as CUDA says it."""

    fit = 0

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if len(inputs["label"]) > FITS:
            self.fit += 1
            if self.fit % 3 == 0:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().training_step(model, inputs, *args, **kwargs)


def small_memory(run: Run, arguments: dict[str, Any], dataset: Any) -> SmallMemory:
    """A trainer that has to shrink its batches."""
    return runs.sentence_transformer_trainer(run, {**arguments, "auto_find_batch_size": True}, dataset, SmallMemory)


def run_of(launch: str, folder: Path, model: str, **changes: Any) -> tuple[int, Run]:
    """The number of processes, and a run with batches that do not fit."""
    world_size, settings = LAUNCHES[launch]
    batch_size = 16 if launch == "split" else 8
    run = Run(str(folder), model, rows=(ROWS,), batch_size=batch_size, epochs=2, trainer=small_memory)
    return world_size, replace(run, **{**settings, **changes})


def ranks_or_none(world_size: int, run: Run) -> list[Steps] | None:
    """What each rank saw; None if the run failed."""
    try:
        return run_ranks(world_size, train, run)
    except RankFailed:
        return None


def after_shrinking(steps: Steps) -> Steps:
    """The steps after the last one that did not fit."""
    last = max(step for step, batch in enumerate(steps) if len(batch) > FITS)
    return steps[last + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize("launch", few_of(LAUNCHES, ["single", "ddp"], LAUNCHES))
def test_a_shrunk_run_is_a_run_of_that_size_and_so_is_its_resume(launch: str, tmp_path: Path, model: str) -> None:
    """After the shrink, rows are those of a run begun at the found size; resumed in epoch 1, it goes on in them."""
    world_size, run = run_of(launch, tmp_path / "shrunk", model)
    found = 12 if launch == "split" else FITS
    whole = run_ranks(world_size, train, replace(run, folder=str(tmp_path / "whole"), batch_size=found, trainer=None))
    updates = len(whole[0]) // (2 if launch == "accumulating" else 1)
    saving = {"save_strategy": "steps", "save_steps": updates // 2 + 3}
    run = replace(run, arguments={**run.arguments, **saving})
    shrunk = ranks_or_none(world_size, run)
    assert shrunk is not None, "the run did not train"
    assert [after_shrinking(steps) for steps in shrunk] == whole

    checkpoint = f"checkpoint-{saving['save_steps']}"
    shutil.copytree(Path(run.folder, checkpoint), tmp_path / "resumed" / checkpoint)
    rest = run_ranks(world_size, train, continued(replace(run, folder=str(tmp_path / "resumed"))))
    assert [steps[-len(last) :] for steps, last in zip(whole, rest)] == rest
    assert all(0 < len(last) < len(steps) // 2 for steps, last in zip(whole, rest))
