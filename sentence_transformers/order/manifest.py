"""What decides the order of a run, and how far the run has come in it; kept in the checkpoints.

It is part of ``trainer_state.json``, as the state of a callback, so that it is there in every checkpoint, whoever
saves it, and found however the resume is started.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
from datasets import Dataset
from torch.utils.data import ConcatDataset
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import has_length
from transformers.utils import logging

from sentence_transformers.order.dataset_hash import dataset_hash
from sentence_transformers.order.tracker import OrderTracker

logger = logging.get_logger(__name__)

_NONE = type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "str | None": (str, _NONE),
    "tuple[str, ...]": (list,),
    "tuple[DatasetInfo, ...]": (list,),
}


class DamagedManifest(ValueError):
    """What a checkpoint holds as the manifest of its order is none."""


@dataclass(frozen=True)
class DatasetInfo:
    """
    One dataset of a run.

    Args:
        name (str): Its name, or its position among several.
        rows (int): Its number of rows.
        hash (str, optional): Of its values; None where there is none.
    """

    name: str
    rows: int
    hash: str | None


@dataclass(frozen=True)
class OrderManifest:
    """
    The order of a run at one place.

    Args:
        seed (int): ``data_seed``, or else ``seed``.
        batch_sampler (str): The class that plans.
        batch_size (int): The number of rows in a batch, over all processes.
        processes (int): Their number.
        accumulation (int): The number of batches in an optimizer step.
        batches_per_epoch (int): That each process takes; 0 if it is not known.
        num_train_epochs (float): As in the arguments.
        max_steps (int): The optimizer steps of the whole run.
        datasets (tuple of DatasetInfo): What is trained on; empty for a stream.
        step (int): The optimizer steps done.
        epoch (float): The epochs done, the last one in part, as the trainer counts them.
        rows (int): The number of rows taken of the epoch under way, over all processes.
        digest (str, optional): Of these rows; None if they were not seen.
        epochs (tuple of str): The digests of the whole epochs before; empty strings where there is none.
    """

    seed: int
    batch_sampler: str
    batch_size: int
    processes: int
    accumulation: int
    batches_per_epoch: int
    num_train_epochs: float
    max_steps: int
    datasets: tuple[DatasetInfo, ...]
    step: int = 0
    epoch: float = 0.0
    rows: int = 0
    digest: str | None = None
    epochs: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "datasets": list(map(asdict, self.datasets)), "epochs": list(self.epochs)}

    @classmethod
    def from_dict(cls, stored: Any) -> OrderManifest:
        """
        What :meth:`to_dict` made.

        Raises:
            DamagedManifest: If it is something else; the message says what.
        """
        values = _checked(cls, stored)
        datasets = tuple(DatasetInfo(**_checked(DatasetInfo, one)) for one in values["datasets"])
        if not all(isinstance(one, str) for one in values["epochs"]):
            raise DamagedManifest(f"epochs is {values['epochs']!r:.60}")
        return cls(**{**values, "datasets": datasets, "epochs": tuple(values["epochs"])})


def _checked(cls: Any, stored: Any) -> dict[str, Any]:
    """What was stored for a class, if its values are of the types of its fields."""
    if not isinstance(stored, dict):
        raise DamagedManifest(f"it is {stored!r:.60}")
    for field in fields(cls):
        value = stored.get(field.name, "missing")
        if isinstance(value, bool) or not isinstance(value, _TYPES[str(field.type)]):
            raise DamagedManifest(f"{field.name} is {value!r:.60}")
    return {field.name: stored[field.name] for field in fields(cls)}


def manifest_of(
    dataloader: Any, tracker: OrderTracker, args: TrainingArguments, state: TrainerState, hash_rows: int | None
) -> OrderManifest:
    """
    The manifest of a run, at its beginning.

    Args:
        dataloader: The training dataloader.
        tracker (OrderTracker): Of that.
        args (TrainingArguments): The trainer's.
        state (TrainerState): The trainer's.
        hash_rows (int, optional): The number of rows of each dataset whose values count; None for all.
    """
    size = getattr(tracker.sampler, "__dict__", {}).get("batch_size")
    if isinstance(size, int):
        size *= tracker.batches_per_step
    else:
        size = args.train_batch_size * args.world_size
    return OrderManifest(
        seed=args.seed if args.data_seed is None else args.data_seed,
        batch_sampler=type(tracker.sampler).__qualname__,
        batch_size=size,
        processes=args.world_size,
        accumulation=args.gradient_accumulation_steps,
        batches_per_epoch=len(dataloader) if has_length(dataloader) else 0,
        num_train_epochs=args.num_train_epochs,
        max_steps=state.max_steps,
        datasets=() if tracker.sampler is None else _datasets(tracker.dataset, hash_rows),
    )


def _datasets(dataset: Any, hash_rows: int | None) -> tuple[DatasetInfo, ...]:
    parts = dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset]
    names = ["the dataset"] if len(parts) == 1 else [f"dataset {number}" for number in range(len(parts))]
    return tuple(
        DatasetInfo(name, len(part), _hash(name, part, hash_rows))
        for name, part in zip(names, parts)
        if has_length(part)
    )


def _hash(name: str, dataset: Any, rows: int | None) -> str | None:
    if not isinstance(dataset, Dataset):
        return None
    try:
        return dataset_hash(dataset, rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        logger.warning(f"The values of {name} are not compared, since they cannot be read: {error}.")
        return None
