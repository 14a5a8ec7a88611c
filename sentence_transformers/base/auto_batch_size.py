"""What ``auto_find_batch_size`` does when memory runs out: every process trains on, with the same smaller batches.

Guarantee: the size that is loaded is the size that the trainer counts with, a checkpoint carries, and a resume
restores. After a shrink the epochs are planned for the new size, and start from the beginning, so that the rows are
those of a run begun with it. Processes shrink together: if memory ran out on some of them alone, the others are left
waiting in a step that never ends, so those that can still speak end the run with an error, after ``PATIENCE``.

Cost: nothing as long as memory lasts; per shrink, one process group is made and dissolved.

Known limits: the weights keep what they learned before the shrink, as in transformers. Processes whose memory runs
out in different buckets of one backward pass have exchanged different numbers of gradients, which no one can undo.
"""

from __future__ import annotations

from datetime import timedelta
from math import lcm
from typing import TYPE_CHECKING

import torch.distributed as dist
from sentence_transformers.base.sampler import BatchSamplers
from transformers.utils import logging

if TYPE_CHECKING:
    from sentence_transformers.base.trainer import BaseTrainer

logger = logging.get_logger(__name__)

PATIENCE = timedelta(seconds=60)
"""How long a process whose memory ran out waits for that of the others to do so, too."""


def agreed_batch_size(trainer: BaseTrainer, loaded: int, proposed: int) -> int:
    """
    The batch size of the next attempt to train, the same on all processes.

    Args:
        trainer (BaseTrainer): A trainer with ``auto_find_batch_size``, about to build its dataloader.
        loaded (int): Number of samples per batch of one process in the attempt before, or to begin with.
        proposed (int): The number that is to be tried now.

    Returns:
        int: ``proposed``.

    Raises:
        RuntimeError: If processes or the batch sampler cannot share out batches of ``proposed``, as if there were no
            memory for them, so that a smaller size is proposed; or if the size shrinks, and other processes did not
            run out of memory within ``PATIENCE``.
    """
    if proposed >= loaded:
        return proposed
    divisor = lcm(
        trainer.accelerator.num_processes if trainer.accelerator.split_batches else 1,
        2 if trainer.args.batch_sampler == BatchSamplers.GROUP_BY_LABEL else 1,
    )
    if proposed % divisor:
        # How accelerate is asked for the next smaller size
        raise RuntimeError(f"Batches of {proposed} cannot be shared out, and are passed over as if out of memory.")
    _wait_for_all(trainer.args.world_size, loaded)
    if trainer.is_local_process_zero():
        logger.warning(
            f"Memory ran out with batches of {loaded}. Training starts again from the beginning of the epoch, planned "
            f"for batches of {proposed}. To start with this size, set per_device_train_batch_size."
        )
    return proposed


def _wait_for_all(world_size: int, loaded: int) -> None:
    """Return when all processes have called this; making a group is what they can only do together."""
    if world_size == 1 or not dist.is_initialized():
        return
    try:
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        dist.monitored_barrier(group, timeout=PATIENCE)
    except RuntimeError as error:
        raise RuntimeError(
            f"Memory for batches of {loaded} ran out here, but not on all {world_size} processes within "
            f"{PATIENCE.seconds} s. auto_find_batch_size can only shrink the batches of all at once. Set "
            "per_device_train_batch_size to what the smallest device can hold."
        ) from error
    dist.destroy_process_group(group)
