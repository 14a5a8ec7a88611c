"""Where a run over a dataset without a length goes on when it is resumed.

A trainer passes over such a dataset again and again until ``max_steps``, and tells each pass its number as the epoch.
How many steps a pass has is known when it ends. On a resume, transformers takes all steps so far for steps of one
pass, skips that many batches, finds the pass too short, and begins another one at its start.

Guarantee: a resumed run goes on in the pass in which its checkpoint was written, after the batches that were taken of
it. So the rows at each step are those of the uninterrupted run, if the dataset yields the same rows for the same
epoch. Each process has its own position, since shards need not be equally long.

The position is written beside each checkpoint's random states, a file for each process. A checkpoint without it, such
as the unpatched library's, has the main process's position in ``TrainerState.epoch``; it is then taken for all. So it
is, with a warning, where a file is damaged.

Cost: a file of 60 bytes for each process and checkpoint. A resume reads the pass from its start, as before, and now no
further than the position.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

logger = logging.get_logger(__name__)


class Position(NamedTuple):
    """The batches of an epoch that a process has taken."""

    epoch: int
    batches: int

    @classmethod
    def of(cls, state: TrainerState, max_batches: int) -> Position:
        """
        The position in a dataset without a length.

        Args:
            state (TrainerState): Its ``epoch`` counts the passes, and ``max_batches`` as a whole one.
            max_batches (int): Number of batches, of one process, in ``max_steps``.
        """
        epoch = state.epoch or 0.0
        return cls(int(epoch), round((epoch - int(epoch)) * max_batches))


@contextmanager
def keep_position(trainer: Trainer) -> Iterator[None]:
    """
    Within this context, each checkpoint of ``trainer`` says where in a dataset without a length it was written.

    Args:
        trainer (:class:`transformers.Trainer`): A trainer about to enter its training loop.
    """
    callback = _PositionCallback()
    trainer.add_callback(callback)
    try:
        yield
    finally:
        trainer.remove_callback(callback)


class _PositionCallback(TrainerCallback):
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        checkpoint = Path(str(args.output_dir), f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
        # Elsewhere, in a hyperparameter search, no run is resumed
        if not passes_until_max_steps(state) or not checkpoint.is_dir():
            return
        position = Position.of(state, state.max_steps * args.gradient_accumulation_steps)
        content = {**position._asdict(), "num_processes": args.world_size}
        file = _file(checkpoint, args)
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(content), "utf-8")
        temporary.replace(file)  # whole, or not there


def resumed_position(trainer: Trainer, counted: tuple[int, int], checkpoint: str | None) -> tuple[int, int]:
    """
    The epoch in which a run goes on, and the number of batches to skip there.

    Args:
        trainer (:class:`transformers.Trainer`): A trainer whose state is that of the checkpoint; its ``epoch`` is set
            to what this process has reached.
        counted (Tuple[int, int]): What transformers makes of the number of steps. It is returned for a new run, and
            where the training dataloader has a length.
        checkpoint (str, optional): The folder that the run is resumed from.
    """
    args, state = trainer.args, trainer.state
    if checkpoint is None or not state.global_step or not passes_until_max_steps(state):
        return counted
    position = _read(Path(checkpoint), args)
    state.epoch = position.epoch + position.batches / (state.max_steps * args.gradient_accumulation_steps)
    return position.epoch, 0 if args.ignore_data_skip else position.batches


def passes_until_max_steps(state: TrainerState) -> bool:
    """Whether the training dataloader has no length; how transformers says so."""
    return state.num_train_epochs == sys.maxsize


def _read(checkpoint: Path, args: TrainingArguments) -> Position:
    file = _file(checkpoint, args)
    if file.exists():
        try:
            content = json.loads(file.read_text("utf-8"))
            if content.pop("num_processes") == args.world_size:
                return Position(int(content["epoch"]), int(content["batches"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning(
                f"{file} is damaged ({error!r}). This process goes on where the main process was, which is its own "
                "place unless each process has a stream of its own length."
            )
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    return Position.of(state, state.max_steps * args.gradient_accumulation_steps)


def _file(checkpoint: Path, args: TrainingArguments) -> Path:
    return checkpoint / f"position_{args.process_index}.json"
