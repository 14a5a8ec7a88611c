"""Carry the epoch to every object beneath a dataloader that orders rows by it.

Guarantee: after ``set_epoch(dataloader, epoch)`` every sampler, batch sampler, loader and dataset beneath
``dataloader`` that has a ``set_epoch`` method has been given ``epoch``, however deeply accelerate or other wrappers
nest it. Within :func:`carry_epoch` this happens at the start of each epoch of a trainer, a resumed one included, so
that the order of batches is a function of (seed, epoch) alone.

Why a walk: accelerate's ``DataLoaderShard.set_epoch`` and transformers' ``Trainer`` follow fixed chains of attributes
(``batch_sampler``, ``batch_sampler.batch_sampler``), which miss one wrapper more (``SkipBatchSampler`` over
``BatchSamplerShard`` after a resume) and all of ``DataLoaderDispatcher``. A list of known wrappers would miss the next
one; so the walk looks at what an object holds, and knows no wrapper by name.

Cost: one look at the attributes of the loader, its samplers and its datasets, per epoch; no row is read. Lists are
looked at for the types of their elements only.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, RandomSampler, Sampler, SubsetRandomSampler, WeightedRandomSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Values that hold no sampler, though they are iterable and may be large or have attributes of their own.
_LEAVES = (str, bytes, range, torch.Tensor, torch.nn.Module, np.ndarray, type, types.GeneratorType, types.ModuleType)
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
_RANDOM_SAMPLERS = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
_RANDOM_NAMES = {"default_rng", "manual_seed", "permutation", "permuted", "random", "randperm", "shuffle"}


def set_epoch(dataloader: Any, epoch: int) -> list[Any]:
    """
    Give the epoch to every object beneath a dataloader that takes one.

    The trainers do this themselves. Call it in a training loop of your own, before each epoch's first batch::

        dataloader = accelerator.prepare(DataLoader(dataset, batch_sampler=batch_sampler))
        for epoch in range(num_epochs):
            set_epoch(dataloader, epoch)
            for batch in dataloader:
                ...

    Args:
        dataloader: A dataloader, prepared by accelerate or not, or anything that holds one. It is changed only by the
            ``set_epoch`` methods that are called.
        epoch (int): The epoch about to start, counted from 0.

    Returns:
        list: The objects that took the epoch, outermost first, each once. Empty if nothing beneath takes one.

    Raises:
        ValueError: If ``epoch`` is not an integer of at least 0.
    """
    if isinstance(epoch, bool) or not isinstance(epoch, (int, np.integer)) or epoch < 0:
        raise ValueError(f"epoch must be an integer of at least 0, but got {epoch!r}. Count epochs from 0.")
    takers = [node for node, _ in _walk(dataloader) if _takes_epoch(node)]
    for taker in takers:
        taker.set_epoch(int(epoch))
    return takers


@contextmanager
def carry_epoch(trainer: Trainer) -> Iterator[None]:
    """
    Within this context, every epoch of ``trainer`` begins with :func:`set_epoch` on its training dataloader.

    The callback that does it is the last one to see an epoch begin, and is gone when the context ends.

    Args:
        trainer (:class:`transformers.Trainer`): A trainer about to enter its training loop.
    """
    callback = _EpochCallback(trainer.get_sp_size() if hasattr(trainer, "get_sp_size") else 1)
    trainer.add_callback(callback)
    try:
        yield
    finally:
        trainer.remove_callback(callback)


class _EpochCallback(TrainerCallback):
    """Counts the epochs as the trainer does, and hands each to the training dataloader before its first batch."""

    def __init__(self, sequence_parallel_size: int) -> None:
        self.sequence_parallel_size = sequence_parallel_size
        self.next_epoch = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        dataloader = kwargs["train_dataloader"]
        if has_length(dataloader):
            steps = len(dataloader) * self.sequence_parallel_size
            self.next_epoch = state.global_step // max(ceil(steps / args.gradient_accumulation_steps), 1)
        else:  # the state alone knows how often the loader has been passed over
            self.next_epoch = int(state.epoch or 0)
        if state.is_local_process_zero:
            _warn_of_epochless_shuffling(dataloader)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        set_epoch(kwargs["train_dataloader"], self.next_epoch)
        self.next_epoch += 1


def epochless_shufflers(dataloader: Any) -> list[Sampler[Any]]:
    """
    The samplers beneath a dataloader that shuffle, but to which no epoch can be told.

    A sampler counts as shuffling if it is one of PyTorch's random samplers, or if a method that its class or a parent
    outside of PyTorch defines names one of the usual shuffling functions. One beneath a sampler that takes the epoch
    is left to it.

    Args:
        dataloader: A dataloader, prepared by accelerate or not.

    Returns:
        list: Those samplers, outermost first.
    """
    return [
        node
        for node, told in _walk(dataloader)
        if isinstance(node, Sampler) and not told and not _takes_epoch(node) and _shuffles(node)
    ]


def _warn_of_epochless_shuffling(dataloader: Any) -> None:
    for name in dict.fromkeys(type(sampler).__qualname__ for sampler in epochless_shufflers(dataloader)):
        logger.warning_once(
            f"{name} shuffles, but has no `set_epoch` method, so its order does not follow from the seed and the "
            "epoch: it may repeat in every epoch, differ between processes, and go on elsewhere after a resume. Add\n"
            "    def set_epoch(self, epoch):\n"
            "        self.epoch = epoch\n"
            "to it (with `self.epoch = 0` in `__init__`), and begin its `__iter__` with\n"
            "        generator = torch.Generator().manual_seed(self.seed + self.epoch)\n"
            "to draw from, e.g. `torch.randperm(n, generator=generator)`."
        )


def _walk(root: Any) -> Iterator[tuple[Any, bool]]:
    """Each object that can lead to a sampler, breadth first and once; and whether a sampler above takes the epoch."""
    seen = {id(root)}
    queue: list[tuple[Any, bool]] = [(root, False)]
    for node, told in queue:  # grows while it is walked
        yield node, told
        told = told or (isinstance(node, Sampler) and _takes_epoch(node))
        for child in _children(node):
            if id(child) not in seen:
                seen.add(id(child))
                queue.append((child, told))


def _children(node: Any) -> Iterator[Any]:
    """What an object holds that can lead to a sampler: its attributes, or elements if it is a container."""
    slots = (name for cls in type(node).__mro__ for name in _slots_of(cls))
    held = [*getattr(node, "__dict__", {}).values(), *(getattr(node, name, None) for name in slots)]
    if isinstance(node, _CONTAINERS):
        held += node.values() if isinstance(node, dict) else node
    for value in held:
        if isinstance(value, _CONTAINERS):
            elements = value.values() if isinstance(value, dict) else value
            if not any(_leads_on(kind) for kind in set(map(type, elements))):
                continue
            yield value
        elif _leads_on(type(value)):
            yield value


def _slots_of(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _leads_on(kind: type) -> bool:
    """Whether objects of this type may be, or hold, something that takes the epoch: iterables but for leaves."""
    if issubclass(kind, _CONTAINERS):
        return True
    if issubclass(kind, _LEAVES) or kind.__module__ == "builtins":
        return False
    return issubclass(kind, (Sampler, Dataset)) or hasattr(kind, "__iter__") or hasattr(kind, "set_epoch")


def _takes_epoch(node: Any) -> bool:
    return callable(getattr(node, "set_epoch", None))


def _shuffles(sampler: Sampler[Any]) -> bool:
    if isinstance(sampler, _RANDOM_SAMPLERS):
        return True
    written = [cls for cls in type(sampler).__mro__ if not cls.__module__.startswith(("torch.", "builtins"))]
    methods = [method for cls in written for name, method in vars(cls).items() if name != "__init__"]
    codes = [method.__code__ for method in methods if isinstance(method, types.FunctionType)]
    return any(not _RANDOM_NAMES.isdisjoint(code.co_names) for code in codes)
