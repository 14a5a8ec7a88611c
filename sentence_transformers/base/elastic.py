"""Where in its epochs a resumed run goes on, if its epochs have another number of steps than when it was stopped.

transformers takes the position from the number of steps alone: epoch ``steps // steps_per_epoch``, step
``steps % steps_per_epoch``. But a run that is continued on another number of processes may have one step more or less
in an epoch, since the last step, which not all processes can share, is left out on several and taken on one. Beyond
the first epoch that division then ends up in another place. A checkpoint says how many epochs were done, as a
fraction, and so how many steps made an epoch.

Guarantee: a run that is continued with the same global batch goes on in the epoch in which it was stopped, after as
many steps of it. A run whose batches ``auto_find_batch_size`` had to shrink after it was resumed starts the epoch in
which it was stopped from the beginning. Any other run goes on where transformers puts it.

Known bias: where epochs have another length, the number of optimizer steps in all changes by one for each epoch, and
the learning rate's schedule, which counts steps, is off by as many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers.utils import logging

from sentence_transformers.base.position import passes_until_max_steps

if TYPE_CHECKING:
    from sentence_transformers.base.trainer import BaseTrainer

logger = logging.get_logger(__name__)


def steps_in(global_step: int, epochs_done: float) -> tuple[int, int, int]:
    """
    The epoch in which a checkpoint was written, and the steps of it that were done.

    Args:
        global_step (int): Optimizer steps done in all.
        epochs_done (float): Epochs done, the last one in part, as the trainer counts them; above 0.

    Returns:
        tuple: The epoch, counted from 0; the optimizer steps done in it; and those in a whole epoch. In the first
        epoch the latter is an estimate if gradients are accumulated.
    """
    epoch = int(epochs_done)
    # Accumulation over a rest of batches makes the quotient too small, but by less than half a step beyond epoch 0
    steps_per_epoch = round(global_step / epochs_done)
    return epoch, global_step - epoch * steps_per_epoch, steps_per_epoch


def continued_position(trainer: BaseTrainer, steps_per_epoch: int, epoch: int, batches: int) -> tuple[int, int]:
    """
    Where a resumed run goes on. The trainer's state is set to count as many steps as lead there.

    Args:
        trainer (BaseTrainer): A trainer whose state was loaded from a checkpoint, if it is to go on from one.
        steps_per_epoch (int): Optimizer steps in an epoch from now on.
        epoch (int): The epoch in which transformers goes on, counted from 0.
        batches (int): The number of batches of it that transformers leaves out.

    Returns:
        tuple: The epoch and the number of batches; transformers' own, unless epochs have become one step longer or
        shorter, or batches had to shrink.
    """
    state = trainer.state
    shrunk = trainer.args.auto_find_batch_size and trainer._train_batch_size < (state.train_batch_size or 0)
    state.train_batch_size = trainer._train_batch_size
    if not state.global_step or not state.epoch or passes_until_max_steps(state):
        return epoch, batches
    stopped_in, step, steps_before = steps_in(state.global_step, state.epoch)
    if shrunk:
        step = 0
    elif not stopped_in or abs(steps_before - steps_per_epoch) != 1:
        return epoch, batches
    position = stopped_in * steps_per_epoch + min(step, steps_per_epoch)
    if trainer.is_local_process_zero():
        logger.warning(
            f"An epoch had {steps_before} steps when this checkpoint was written, and has {steps_per_epoch} now. "
            f"Training goes on in epoch {stopped_in} after step {step} of it. This counts as step {position} in all, "
            f"no longer as step {state.global_step}."
        )
    state.global_step = position
    epoch, step = divmod(position, steps_per_epoch)
    return epoch, 0 if trainer.args.ignore_data_skip else step * trainer.args.gradient_accumulation_steps
