"""Runs with an :class:`OrderCallback`: what a process makes of one, and the launch modes."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conformance import runs
from conformance.runs import Run, train
from sentence_transformers.order import OrderCallback

ROWS, EPOCHS = 96, 3
LOGGING = {"logging_strategy": "epoch"}


@dataclass(frozen=True)
class Outcome:
    """What one process makes of a run: the fingerprints it logged, what the callback said, and how it ended."""

    fingerprints: list[int]
    messages: list[str]
    error: str
    steps: list[list[int]] = field(default_factory=list)
    printed: str = ""

    @property
    def quiet(self) -> bool:
        """Whether nothing was said and nothing went wrong."""
        return not self.messages and not self.error


def attempt(run: Run, *callbacks: Any, **options: Any) -> Outcome:
    """Train with the callback, and survive what goes wrong; further callbacks come before it."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("sentence_transformers.order").addHandler(handler)
    trainers: list[Any] = []
    build = run.trainer or runs.sentence_transformer_trainer

    def built(*args: Any) -> Any:
        trainers.append(build(*args))
        for callback in callbacks:
            trainers[0].add_callback(callback)
        trainers[0].add_callback(OrderCallback(**options))
        return trainers[0]

    error, steps, printed = "", [], io.StringIO()
    try:
        with redirect_stdout(printed):
            steps = train(replace(run, trainer=built))
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    logs = [log for log in trainers[0].state.log_history if "order_fingerprint" in log]
    return Outcome([log["order_fingerprint"] for log in logs], said, error, steps, printed.getvalue())


def stopping(run: Run) -> Outcome:
    """The same, with ``on_change="stop"``."""
    return attempt(run, on_change="stop")


def run_of(folder: Path, model: str, **changes: Any) -> Run:
    """A run of three epochs with the default sampler."""
    run = Run(str(folder), model, rows=(ROWS,), epochs=EPOCHS, sampler="batch_sampler", arguments=LOGGING)
    return replace(run, **changes)


LAUNCHES: dict[str, tuple[int, dict[str, Any]]] = {
    "1 x 16": (1, {"batch_size": 16}),
    "2 x 8": (2, {}),
    "split": (2, {"batch_size": 16, "accelerator": {"split_batches": True}}),
    "workers": (2, {"arguments": {**LOGGING, "dataloader_num_workers": 2, "dataloader_persistent_workers": True}}),
    "accumulation": (1, {"batch_size": 16, "arguments": {**LOGGING, "gradient_accumulation_steps": 4}}),
}
