"""Watch the order that a batch sampler plans, while a dataloader iterates over it.

Guarantee: what is digested are the rows that the sampler beneath accelerate's wrappers yields, in its order, which is
the order of all processes together: every process of a sharded loader goes through the whole plan, and takes its
share of it. How the batches come to the processes (sharded, split, dispatched; with workers that read ahead) makes no
difference, since batches are counted as the steps take them. The sampler yields what it yields unwatched, and keeps
its place, its attributes and its ``isinstance``.

How: while it is watched, the sampler is of a subclass of its class, with an ``__iter__`` that looks on. A wrapper in
its place would have to be put into each loader and each wrapper that holds the sampler, and would not be an instance
of its class.

Cost: samplers that draw their order as one array (the default one and ``no_duplicates_planned``) are digested from
that array, at once; of others each batch is packed as it passes. Held are the batches that were read ahead, and at
most ``_HELD`` more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderDispatcher, SkipBatchSampler
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch.utils.data import IterableDataset

from sentence_transformers.base.dispatch import StepBatchSampler
from sentence_transformers.base.fingerprint import OrderDigest, pack_rows
from sentence_transformers.base.planned import PlannedNoDuplicatesBatchSampler
from sentence_transformers.base.scatter import PartBatchSampler
from sentence_transformers.base.sharing import SharedBatchSampler

_HELD = 64  # batches
_WRAPPERS = (BatchSamplerShard, SkipBatchSampler, StepBatchSampler, PartBatchSampler, SharedBatchSampler)
_CLASS: Any = vars(object)["__class__"]  # sets the class of an object that does not let its attributes be set
_DRAW_WHOLE = (DefaultBatchSampler.__iter__, PlannedNoDuplicatesBatchSampler.__iter__)


@dataclass(frozen=True)
class PlanSource:
    """
    Where the order of a dataloader comes from.

    Args:
        sampler: The batch sampler that plans; None if rows are streamed, or there is none.
        per_step (int): The number of its batches that all processes take in one step, together.
        shared (bool): Whether the processes share one plan, rather than having one each.
        dispatched (bool): Whether the main process alone reads.
        elsewhere (bool): Whether that is another process. Workers read ahead on each, for nothing on the others.
    """

    sampler: Any
    per_step: int = 1
    shared: bool = False
    dispatched: bool = False
    elsewhere: bool = False


def plan_source(dataloader: Any) -> PlanSource:
    """
    Look through accelerate's wrappers, and this package's, at what plans the batches of a dataloader.

    Args:
        dataloader: A dataloader, prepared by accelerate or not.
    """
    if isinstance(getattr(dataloader, "dataset", None), IterableDataset):
        return PlanSource(None)
    dispatched = isinstance(dataloader, DataLoaderDispatcher)
    parts = dataloader.state.num_processes if dispatched and not dataloader.split_batches else 1
    shared = dispatched
    elsewhere = dispatched and not dataloader.state.is_main_process
    sampler = getattr(dataloader, "batch_sampler", None)
    whole = 1
    while isinstance(sampler, _WRAPPERS):
        if isinstance(sampler, (BatchSamplerShard, PartBatchSampler)):
            shared = True
            parts *= 1 if sampler.split_batches else sampler.num_processes
        elif isinstance(sampler, StepBatchSampler):
            parts *= sampler.num_processes
        elif isinstance(sampler, SharedBatchSampler) and sampler.across_devices:
            whole *= sampler.num_processes
        sampler = sampler.batch_sampler
    return PlanSource(sampler, max(parts // whole, 1), shared, dispatched, elsewhere)


class OrderWatch:
    """
    The order that a batch sampler plans, as far as it is taken.

    Made by :func:`watch_order`. Begin each pass with :meth:`expect`; one pass is watched at a time, the first that
    begins after it.

    Args:
        source (PlanSource): What plans the batches.
    """

    def __init__(self, source: PlanSource) -> None:
        self.source = source
        self.reason = "" if source.sampler is not None else "its rows are streamed, or it has no batch sampler"
        if source.elsewhere:
            self.reason = "the main process reads"
        """Why there is nothing to see; empty if there is."""
        self.expect()

    def expect(self) -> None:
        """The next pass over the sampler is the one to watch."""
        self._awaited = True
        self._digest = OrderDigest()
        self._taken = 0
        self._packed: deque[bytes] = deque()
        self._order: Any = None

    def take(self, steps: int | None = None) -> OrderDigest | None:
        """
        Go on to the end of a step.

        Args:
            steps (int, optional): The number of steps taken since the pass began, over all its processes together.
                Defaults to all that were read.

        Returns:
            OrderDigest: Of the rows of these steps and the ones before; None if nothing was seen.
        """
        if self._awaited or self.reason:
            return None
        self._go_on(None if steps is None else steps * self.source.per_step)
        return self._digest.copy()

    def count(self, steps: int) -> None:
        """So many steps were taken: what was held for them is not held for ever. Cheap enough for every step."""
        if len(self._packed) >= _HELD:
            self._go_on(steps * self.source.per_step)

    def _go_on(self, batches: int | None) -> None:
        """Digest up to a number of batches, or all that were read."""
        if self._order is not None:
            sampler = self.source.sampler
            whole = len(sampler) if batches is None else min(batches, len(sampler))  # without a rest that is dropped
            self._digest.update(self._order[self._digest.rows : whole * sampler.batch_size])
        due = len(self._packed) if batches is None else min(batches - self._taken, len(self._packed))
        if due > 0:
            self._digest.update_packed(b"".join([self._packed.popleft() for _ in range(due)]))
            self._taken += due

    def fingerprint(self) -> str | None:
        """
        The fingerprint of the pass that was watched last.

        Returns:
            str: 12 hexadecimal digits, as of :func:`~sentence_transformers.base.fingerprint.order_fingerprint`; None
            if nothing was seen, because rows are streamed, are no integers, or are read by another process.
        """
        digest = self.take()
        return None if digest is None else digest.short()

    def passing(self, batches: Iterator[list[int]], order: Any) -> Iterator[list[int]]:
        """
        A pass over the sampler; watched, if one is awaited when its first batch is asked for.

        Args:
            batches: Of the pass.
            order: The rows of all of them, if the sampler draws them whole.
        """
        if not self._awaited or self.reason:
            yield from batches
            return
        self._awaited = False
        if isinstance(order, (torch.Tensor, np.ndarray)):
            self._order = order
            yield from batches
            return
        packed = self._packed
        for batch in batches:
            if not self.reason:
                try:
                    packed.append(pack_rows(batch))
                except ValueError:
                    self.reason = f"its batches are no lists of integers, but e.g. {str(batch)[:60]}"
            yield batch


@contextmanager
def watch_order(dataloader: Any) -> Iterator[OrderWatch]:
    """
    Within this context, see in what order the rows of a dataloader are planned.

    The trainers do this themselves. In a training loop of your own::

        with watch_order(dataloader) as order:
            for epoch in range(num_epochs):
                set_epoch(dataloader, epoch)
                order.expect()
                for batch in dataloader:
                    ...
                print(order.fingerprint())

    Args:
        dataloader: A dataloader, prepared by accelerate or not.
    """
    watch = OrderWatch(plan_source(dataloader))
    sampler: Any = watch.source.sampler
    if watch.reason:
        yield watch
        return
    cls = type(sampler)
    try:
        _CLASS.__set__(sampler, _watched(cls, watch))
    except Exception as error:  # a list of batches, or whatever a class says that does not want to have subclasses
        watch.reason = f"{cls.__qualname__} cannot be watched: {error}"
        yield watch
        return
    try:
        yield watch
    finally:
        _CLASS.__set__(sampler, cls)


def _watched(cls: Any, watch: OrderWatch) -> type:
    """A subclass whose passes are watched, and that is like the class otherwise."""
    iterate = cls.__iter__
    draws_whole = iterate in _DRAW_WHOLE

    class Watched(cls):  # type: ignore[misc]
        __slots__ = ()
        __class__ = property(lambda self: cls)  # `super(self.__class__, self)` is to lead to the parent, as before

        def __iter__(self) -> Iterator[list[int]]:
            # At once, as the class does: it may draw from a generator that others draw from before the first batch
            order = self._draw_order() if draws_whole else None
            return watch.passing(self._cut_order(order) if draws_whole else iterate(self), order)

        def __reduce_ex__(self, protocol: Any) -> Any:
            """A copy, or what is pickled, is of the class, and not watched."""
            watched = type(self)
            _CLASS.__set__(self, cls)
            try:
                return self.__reduce_ex__(protocol)
            finally:
                _CLASS.__set__(self, watched)

    Watched.__name__, Watched.__qualname__, Watched.__module__ = cls.__name__, cls.__qualname__, cls.__module__
    Watched.__doc__ = cls.__doc__
    return Watched
