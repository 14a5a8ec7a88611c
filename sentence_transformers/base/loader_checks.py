"""Errors for a training dataloader that fails anyway, which name the setting, the value and the way out.

They depend on settings and lengths alone, so that all processes stop alike, and are raised only where accelerate or
transformers raise an error that names another setting. No row is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader
from transformers import TrainingArguments
from transformers.trainer_utils import has_length

if TYPE_CHECKING:
    from accelerate import Accelerator


def check_batches_can_be_split(accelerator: Accelerator, dataloader: DataLoader[Any]) -> None:
    """
    Check that ``split_batches`` can share the batches of a dataloader, not yet prepared, among the processes.

    Raises:
        ValueError: If the rows of a batch cannot be shared equally.
    """
    if not accelerator.split_batches or getattr(accelerator, "parallelism_config", None) is not None:
        return  # processes that share a model read the same batches, and accelerate counts them as one
    rows = dataloader.batch_size or getattr(dataloader.batch_sampler, "batch_size", None) or 0
    processes = accelerator.num_processes
    if rows % processes and not (rows == 1 and accelerator.dispatch_batches):
        raise ValueError(
            f"`split_batches=True` splits each batch, but {processes} processes cannot share {rows} rows equally. "
            f"Set `per_device_train_batch_size` to a multiple of {processes}, or leave `split_batches` out."
        )


def check_has_steps(dataloader: DataLoader[Any], args: TrainingArguments, processes: int) -> None:
    """
    Check that an epoch has a step.

    Raises:
        ValueError: If the dataloader's length is 0, and ``max_steps`` does not decide in its place.
    """
    if args.max_steps > 0 or not has_length(dataloader) or len(dataloader):
        return
    datasets = getattr(dataloader.dataset, "datasets", [dataloader.dataset])
    rows = " and ".join(str(len(dataset)) for dataset in datasets if hasattr(dataset, "__len__"))
    raise ValueError(
        f"An epoch has no step: {rows} rows are too few for a batch of {args.per_device_train_batch_size} of each "
        f"dataset for each of {processes} processes. Lower `per_device_train_batch_size`, or use fewer processes or "
        "more rows."
    )
