"""Refuse, before the first batch, what cannot be loaded, with an error that names the setting and the way out.

What is refused here fails without these checks, too: in accelerate, PyTorch or transformers, with a message that names
none of the user's settings. Whether it is refused depends on the settings alone, so that all processes stop alike.

Cost: none.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import AcceleratorConfig

if TYPE_CHECKING:
    from accelerate import Accelerator
    from sentence_transformers.base.training_args import BaseTrainingArguments


_ELSEWHERE = {
    "use_stateful_dataloader": "trainer.accelerator.dataloader_config.use_stateful_dataloader = True, before train()",
}
"""Settings of accelerate that a user may look for in ``accelerator_config``, and where they are."""


def check_accelerator_config(config: Any) -> None:
    """
    Check that a dictionary holds settings that transformers passes on to accelerate, and no others.

    Args:
        config: The ``accelerator_config`` of training arguments, as the user gave it. Only a dictionary is checked.

    Raises:
        ValueError: If it has a key that is no such setting.
    """
    if not isinstance(config, dict):
        return
    known = [field.name for field in fields(AcceleratorConfig)]
    for name in (name for name in config if name not in known):
        way_out = f"set {_ELSEWHERE[name]}" if name in _ELSEWHERE else f"its settings are {', '.join(known)}"
        raise ValueError(f"accelerator_config has no setting {name!r}: {way_out}.")


def check_loader_settings(accelerator: Accelerator, args: BaseTrainingArguments, batch_size: int) -> None:
    """
    Check settings that do not go together.

    Args:
        accelerator (Accelerator): Will prepare the dataloader.
        args (BaseTrainingArguments): The trainer's.
        batch_size (int): Number of samples per batch that the dataloader reads.

    Raises:
        ValueError: If processes cannot share a batch equally that is to be split, or workers are to persist where
            there are none.
    """
    processes = accelerator.num_processes
    # As in transformers: an accelerate before its parallelism_config has none. Where there is one, processes that
    # share a model read the same batches, and accelerate counts them as one.
    shards_models = getattr(accelerator, "parallelism_config", None) is not None
    if accelerator.split_batches and batch_size % processes and not shards_models:
        lower = batch_size // processes * processes
        raise ValueError(
            f"accelerator_config={{'split_batches': True}} splits each batch over the processes, but {processes} "
            f"processes cannot share batches of {batch_size} rows equally. Set per_device_train_batch_size to a "
            f"multiple of {processes}, such as {lower or processes}, or leave split_batches out."
        )
    if args.dataloader_persistent_workers and not args.dataloader_num_workers:
        raise ValueError(
            "dataloader_persistent_workers=True needs workers to keep, but dataloader_num_workers is 0. Set it to 1 "
            "or more, or leave dataloader_persistent_workers out."
        )


def check_steps(dataloader: DataLoader[Any], processes: int, batch_size: int) -> None:
    """
    Check that an epoch has a step.

    Args:
        dataloader (DataLoader): Prepared for training.
        processes (int): The number of processes.
        batch_size (int): Number of samples per batch that the dataloader was built with.

    Raises:
        ValueError: If it is known to have none.
    """
    try:
        steps = len(dataloader)
    except (TypeError, NotImplementedError):  # an IterableDataset, or a sampler without a length
        return
    if steps:
        return
    rows = len(dataloader.dataset) if isinstance(dataloader.dataset, Sized) else "too few"
    raise ValueError(
        f"An epoch has no step: {rows} rows in the train_dataset do not fill one batch of {batch_size} for each of "
        f"{processes} process{'es' * (processes > 1)}. Lower per_device_train_batch_size, or train on fewer processes "
        "or more rows."
    )
