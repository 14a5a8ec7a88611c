"""Set the epoch on the samplers and datasets beneath a dataloader.

transformers sets it one wrapper deep (``batch_sampler.batch_sampler``), but a resumed loader has two wrappers
(``SkipBatchSampler`` over ``BatchSamplerShard``), and ``DataLoaderDispatcher`` passes no epoch to its batch sampler.
Only attributes in which torch, torch_xla, accelerate and sentence-transformers hold these objects are followed, as an
instance stores them: no property is evaluated. What lies beneath an object that takes the epoch is left to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

logger = logging.get_logger(__name__)

_LOADERS = ("dataloader", "base_dataloader", "_loader")
_SAMPLERS = ("batch_sampler", "sampler", "batch_samplers")
_DATASETS = ("dataset", "datasets")


def set_epoch(dataloader: Any, epoch: int) -> None:
    """Call ``set_epoch(epoch)``, counted from 0, once on each sampler and dataset beneath a dataloader that has it."""
    for node in _beneath(dataloader):
        if _takes_epoch(node):
            node.set_epoch(epoch)


class SetEpochCallback(TrainerCallback):
    """Calls :func:`set_epoch` on the training dataloader when an epoch begins."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.epoch = trainer, 0

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.epoch = int(state.epoch or 0)  # a resumed run: the checkpoint's
        for node in _beneath(self.trainer.callback_handler.train_dataloader):
            random = issubclass(type(node), (RandomSampler, SubsetRandomSampler, WeightedRandomSampler))
            if random and not _takes_epoch(node):
                logger.warning_once(
                    f"The batch sampler over a {type(node).__name__} has no `set_epoch`: its order does not follow "
                    "from the seed and the epoch, so that a resumed run may see other rows."
                )

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        set_epoch(self.trainer.callback_handler.train_dataloader, self.epoch)
        self.epoch += 1


def _beneath(dataloader: Any) -> Iterator[Any]:
    """Each sampler and dataset beneath a dataloader, once, and none beneath one that takes the epoch."""
    found, seen = [(_LOADERS, dataloader)], set()
    for kind, node in found:  # grows while it is walked
        if id(node) not in seen:
            seen.add(id(node))
            if kind is not _LOADERS:
                yield node
            if kind is _LOADERS or not _takes_epoch(node):
                below = (_LOADERS, _SAMPLERS, _DATASETS) if kind is _LOADERS else (kind,)
                found += [(names, held) for names in below for name in names for held in _held(node, name)]


def _held(owner: Any, name: str) -> list[Any]:
    held = getattr(owner, "__dict__", {}).get(name)
    if name in ("batch_samplers", "datasets") and isinstance(held, (list, tuple, dict)):
        return list(held.values() if isinstance(held, dict) else held)
    return [] if held is None else [held]


def _takes_epoch(node: Any) -> bool:
    return hasattr(type(node), "set_epoch") or bool(_held(node, "set_epoch"))
