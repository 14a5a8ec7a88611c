"""Runs that log the fingerprints of their orders: what a process makes of one, and the launch modes."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conformance import runs
from conformance.runs import Run, train

ROWS, EPOCHS = 96, 3
LOGGING = {"logging_strategy": "epoch"}


@dataclass(frozen=True)
class Outcome:
    """What one process makes of a run: the fingerprints it logged, what the guard said, and how it ended."""

    orders: list[str]
    messages: list[str]
    error: str
    seconds: float


def attempt(run: Run) -> Outcome:
    """Train as told, and survive what goes wrong."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("sentence_transformers.base.guard").addHandler(handler)
    trainers: list[Any] = []
    build = run.trainer or runs.sentence_transformer_trainer
    kept = replace(run, trainer=lambda *args: trainers.append(build(*args)) or trainers[0])
    error, start = "", time.monotonic()
    try:
        train(kept)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    logs = trainers[0].state.log_history if trainers else []
    return Outcome([log["epoch_order"] for log in logs if "epoch_order" in log], said, error, time.monotonic() - start)


def run_of(folder: Path, model: str, **changes: Any) -> Run:
    """A run of three epochs with the default sampler."""
    run = Run(str(folder), model, rows=(ROWS,), epochs=EPOCHS, sampler="batch_sampler", arguments=LOGGING)
    return replace(run, **changes)


LAUNCHES: dict[str, tuple[int, dict[str, Any]]] = {
    "1 x 16": (1, {"batch_size": 16}),
    "2 x 8": (2, {}),
    "split": (2, {"batch_size": 16, "accelerator": {"split_batches": True}}),
    "dispatch": (2, {"accelerator": {"dispatch_batches": True}}),
    "dispatch, split": (2, {"batch_size": 16, "accelerator": {"dispatch_batches": True, "split_batches": True}}),
    "workers": (2, {"arguments": {**LOGGING, "dataloader_num_workers": 2, "dataloader_persistent_workers": True}}),
    "accumulation": (2, {"arguments": {**LOGGING, "gradient_accumulation_steps": 4}}),
}
