"""Where a resumed run goes on: the epoch, and the batches of it that are skipped.

transformers divides the number of steps by that of an epoch. This is right where each epoch so far was as long as its
loader promised, and not where epochs ended early, or have no length. The checkpoint's ``TrainerState.epoch`` is the
epoch it was written in, plus the fraction of the promised batches; where both are right, they are equal.

Known bias: it is the main process's place. Where processes read shards of a stream, of unequal length, others differ.
"""

from __future__ import annotations

import json
import math
import os
import sys

from transformers import TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME


def resumed_position(
    state: TrainerState,
    args: TrainingArguments,
    num_update_steps_per_epoch: int,
    num_train_epochs: int,
    checkpoint: str,
) -> tuple[int, int] | None:
    """
    The place that a checkpoint names.

    Args:
        state (:class:`~transformers.TrainerState`): The state in the checkpoint; its ``epoch`` is above 0.
        args (:class:`~transformers.TrainingArguments`): Those of the run that goes on.
        num_update_steps_per_epoch (int): Optimizer steps that the loader promises for an epoch now.
        num_train_epochs (int): Epochs of the run; ``sys.maxsize`` if they have no length.
        checkpoint (str): The folder.

    Returns:
        Tuple[int, int], optional: The epoch, and the number of batches of it to skip. None if no epoch would be left
        by the state, and the loader promises another length than before, as when rows were added.
    """
    epoch, part = int(state.epoch), state.epoch % 1
    control = state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
    if part and control.get("should_epoch_stop"):
        return epoch + 1, 0
    if num_train_epochs == sys.maxsize or epoch >= num_train_epochs:
        with open(os.path.join(checkpoint, TRAINER_STATE_NAME), encoding="utf-8") as f:
            saved = json.load(f)
        if num_train_epochs == sys.maxsize:  # without a length, `max_steps` of the run so far counts as one epoch
            num_update_steps_per_epoch = saved["max_steps"]
        elif saved["max_steps"] * num_train_epochs != state.max_steps * saved["num_train_epochs"]:
            return None
    # The last step of an epoch may accumulate fewer batches, so that the product exceeds the steps by less than one
    step = int(part * num_update_steps_per_epoch + 1e-3)
    # Shared by other processes, an epoch can have a step less than before, and the product be less than the steps
    steps_before = math.ceil(state.global_step / state.epoch - 1e-3)
    if steps_before == num_update_steps_per_epoch + 1:
        step = state.global_step - epoch * steps_before
    epoch, step = epoch + step // num_update_steps_per_epoch, step % num_update_steps_per_epoch
    return epoch, 0 if args.ignore_data_skip else step * args.gradient_accumulation_steps
