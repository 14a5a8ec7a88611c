"""The process group of training on CPU, with the timeout that the training arguments ask for.

Guarantee: within ``ddp_timeout`` seconds of the last message of a process that hangs or has lost its connection, the
processes that wait for it raise an error. transformers hands ``ddp_timeout`` on for accelerators only; with
``use_cpu=True`` gloo's own half hour counts, whatever is set.

Cost: none. A group that is there already is left as it is; with the default timeout, or where a launcher other than
torchrun or accelerate describes the processes, the group is left to accelerate.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch

DEFAULT_TIMEOUT = 1800  # seconds: transformers' ddp_timeout, and gloo's
_DESCRIBED_BY = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def init_cpu_process_group(use_cpu: bool, ddp_timeout: int) -> None:
    """
    Start the process group of a training run on CPU, unless accelerate does it just so.

    Args:
        use_cpu (bool): Whether the training arguments ask for the CPU.
        ddp_timeout (int): Seconds that a process waits for the others.

    Raises:
        ValueError: If ``ddp_timeout`` is not above 0.
    """
    if not use_cpu or ddp_timeout == DEFAULT_TIMEOUT or not all(name in os.environ for name in _DESCRIBED_BY):
        return
    if not torch.distributed.is_available() or torch.distributed.is_initialized() or _mpi_is_preferred():
        return
    if ddp_timeout <= 0:
        raise ValueError(f"ddp_timeout must be above 0 seconds, but is {ddp_timeout}. Leave it unset for 1800.")
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=ddp_timeout))


def _mpi_is_preferred() -> bool:
    """Whether accelerate takes MPI in gloo's place; it knows no timeout."""
    return torch.distributed.is_mpi_available()
