"""Watch a run: what ``runs.train`` records, and besides where epochs begin, and how long the dataloader is.

Nothing of the run changes but that it may write checkpoints. Cost: one pass through the dataloader after the last
step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import TrainerCallback

from conformance.properties import Record
from conformance.runs import Run, sentence_transformer_trainer, train

MIDDLE = 2
"""Steps into an epoch at which a run is cut there."""


def observe(run: Run, whole: bool = False) -> Record:
    """
    Train as told; to be called in each rank. Without gradient accumulation: a step is a batch.

    Args:
        run: What to train, and how.
        whole: Whether to compute gradients, to write a checkpoint at each place that :func:`cuts` names, and to read
            the dataloader to its end after the last step.
    """
    watch = _Watch(checkpoints=whole)

    def build(watched: Run, arguments: dict[str, Any], dataset: Any) -> Any:
        trainer = (run.trainer or sentence_transformer_trainer)(run, arguments, dataset)
        watch.over(trainer)
        return trainer

    steps = train(replace(run, trainer=build, gradients=run.gradients or whole))[watch.tried :]
    promised = _length(watch.dataloader) if whole else None
    yielded = None if promised is None else sum(1 for _ in watch.dataloader)
    return Record(steps, tuple(watch.starts), promised, yielded)


def _length(dataloader: Any) -> int | None:
    """A loader over a dataset without a length has the method, and it raises."""
    try:
        return len(dataloader)
    except TypeError:
        return None


def cuts(record: Record) -> dict[str, int]:
    """The steps after which a run can be resumed: in the middle of epoch 0, at its end, in the middle of epoch 1."""
    first, second = record.starts[:2]
    return {"in epoch 0": first + MIDDLE, "after epoch 0": second, "in epoch 1": second + MIDDLE}


class _Watch(TrainerCallback):
    def __init__(self, checkpoints: bool) -> None:
        self.checkpoints = checkpoints
        self.starts: list[int] = []
        self.steps = self.tried = self.before = 0
        self.dataloader: Any = None

    def over(self, trainer: Any) -> None:
        """Count the trainer's steps, and be told of its epochs."""
        training_step = trainer.training_step

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.steps += 1
            return training_step(*args, **kwargs)

        trainer.training_step = counted
        trainer.add_callback(self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Comes again where a run starts anew with a smaller batch; what was tried before is no part of it."""
        self.dataloader, self.starts = kwargs["train_dataloader"], []
        self.tried, self.before = self.steps, state.global_step

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.starts.append(state.global_step - self.before)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        middle = state.global_step - self.before - self.starts[-1] == MIDDLE
        control.should_save |= self.checkpoints and middle and len(self.starts) <= 2

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save |= self.checkpoints and len(self.starts) == 1
