"""The error for a training dataloader that fails anyway, which names the value, the rule and the way out."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainingArguments
from transformers.trainer_utils import has_length


def check_has_steps(dataloader: DataLoader[Any], args: TrainingArguments, processes: int) -> None:
    """
    Check that an epoch has a step. It depends on settings and lengths alone, so that all processes stop alike.

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
