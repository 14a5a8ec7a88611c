"""See the order that a batch sampler plans while a dataloader iterates over it.

Guarantee: what is digested are the rows that the sampler beneath accelerate's wrappers yields, in its order, which is
the order of all processes together: each process of a sharded loader goes through the whole plan, and takes its share
of it. The sampler is not changed, nothing is drawn, and no pass is made but those of the training.

How: an object that passes on batches and attributes takes the sampler's place in the one public attribute that holds
it: ``batch_sampler`` of accelerate's shard, or, where there is none, ``base_dataloader`` of accelerate's loader, which
is built anew with it from the same arguments. The trainer makes its loader anew in each ``train()``, so nothing has
to be put back.

Rejected: to draw each epoch a second time. That takes a sampler that draws from a generator of its own further than
it should be, doubles the cost of the slow ones, and shows what should have been read rather than what was.

Known limits: streams, loaders that accelerate has not prepared, and on one process stateful loaders (they may have
begun to read) are not seen; ``reason`` says so.

Cost: about 10 ns a row. Held are the batches that were read ahead.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from accelerate.data_loader import BatchSamplerShard, DataLoaderDispatcher, SkipBatchSampler
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from sentence_transformers.order.fingerprint import OrderDigest, pack_rows

_NOT_KEPT = {"self", "batch_size", "shuffle", "sampler", "batch_sampler", "drop_last"}


class SamplerPass:
    """One pass over a sampler: the rows that were read, of which the first are digested as they are taken."""

    def __init__(self) -> None:
        self.begun = self.exhausted = False
        self._read: deque[bytes] = deque()
        self._digest = OrderDigest()
        self._batches = 0

    def note(self, batch: Any) -> None:
        """A batch was read."""
        self._read.append(pack_rows(batch))

    def take(self, batches: int | None = None) -> OrderDigest:
        """
        The digest of the rows of the first batches.

        Args:
            batches (int, optional): No fewer than before. Defaults to all that were read.
        """
        while self._read and (batches is None or self._batches < batches):
            self._digest.update_packed(self._read.popleft())
            self._batches += 1
        return self._digest.copy()

    def first_rows(self, rows: int) -> str | None:
        """The digest of so many rows, the first ones; None if fewer were read, or more are taken."""
        digest = self._digest.copy()
        for packed in self._read:
            if digest.rows >= rows:
                break
            digest.update_packed(packed[: (rows - digest.rows) * 8])
        return digest.hexdigest() if digest.rows == rows else None


class TransparentBatchSampler(BatchSampler):
    """
    Stands in a batch sampler's place, and has its attributes, its length and its batches.

    What leads to something that takes the epoch is held as well, so that it is found among the object's own.

    Args:
        sampler: Any iterable of batches.
    """

    def __init__(self, sampler: Any) -> None:
        self.tracked = sampler
        if hasattr(type(sampler), "set_epoch"):
            self.set_epoch = sampler.set_epoch
        held = {"set_epoch", "sampler", "batch_sampler", "batch_samplers"} & getattr(sampler, "__dict__", {}).keys()
        vars(self).update({name: vars(sampler)[name] for name in held})

    def __getattr__(self, name: str) -> Any:
        if name == "tracked":  # while it is being copied
            raise AttributeError(name)
        return getattr(self.tracked, name)

    def __len__(self) -> int:
        return len(self.tracked)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tracked)


class TrackedBatchSampler(TransparentBatchSampler):
    """Notes what the sampler yields in the pass that is to be followed."""

    def __init__(self, sampler: Any) -> None:
        super().__init__(sampler)
        self.current = SamplerPass()
        self.reason = ""

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.tracked)  # at once, as without: a sampler may draw here
        if self.current.begun or self.reason:
            return batches
        self.current.begun = True
        return self._noted(batches, self.current)

    def _noted(self, batches: Iterator[Any], current: SamplerPass) -> Iterator[Any]:
        for batch in batches:
            if not self.reason:
                try:
                    current.note(batch)
                except ValueError:
                    self.reason = f"{type(self.tracked).__qualname__} yields no lists of row numbers"
            yield batch
        current.exhausted = True


@dataclass(frozen=True)
class SamplerPlace:
    """
    Where the order of a dataloader comes from.

    Args:
        sampler: The batch sampler that plans; None where rows are streamed.
        above: The wrapper of accelerate's, or of this library's, that holds it; None if the loader does.
        loader: The dataloader that reads by it.
        batches_per_step (int): The number of its batches that all processes take in one step, together.
        shared (bool): Whether the processes share one plan, rather than having one each.
        dispatched (bool): Whether the main process alone reads.
    """

    sampler: Any
    above: Any
    loader: Any
    batches_per_step: int
    shared: bool
    dispatched: bool


def find_sampler(dataloader: Any) -> SamplerPlace:
    """Look through the wrappers of a dataloader, down to what plans."""
    above, sampler = None, getattr(dataloader, "batch_sampler", None)
    if _is_wrapper(sampler) and isinstance(getattr(sampler, "dataloader", None), DataLoaderDispatcher):
        dataloader = sampler.dataloader  # dispatches by whole steps
        sampler = dataloader.batch_sampler
    dispatched = shared = isinstance(dataloader, DataLoaderDispatcher)
    batches = dataloader.state.num_processes if dispatched and not dataloader.split_batches else 1
    if isinstance(getattr(dataloader, "dataset", None), IterableDataset):
        sampler = None
    while _is_wrapper(sampler):
        shared = shared or isinstance(sampler, BatchSamplerShard)
        if not getattr(sampler, "split_batches", False):
            batches *= getattr(sampler, "num_processes", 1)
        above, sampler = sampler, sampler.batch_sampler
    return SamplerPlace(sampler, above, dataloader, batches, shared, dispatched)


class OrderTracker:
    """
    The order of a training dataloader. Call :meth:`expect` before each epoch, whose pass is then followed.

    Args:
        dataloader: As the trainer got it from ``get_train_dataloader``.
    """

    def __init__(self, dataloader: Any) -> None:
        place = find_sampler(dataloader)
        self.sampler = place.sampler.tracked if isinstance(place.sampler, TrackedBatchSampler) else place.sampler
        """What plans; None if there is nothing that does."""
        self.batches_per_step, self.shared, self.dispatched = place.batches_per_step, place.shared, place.dispatched
        self.dataset = getattr(place.loader, "dataset", None)
        self.reason = ""
        """Why there is nothing to see on this process; empty if there is."""
        self._tracked: TrackedBatchSampler | None = None
        if self.sampler is None:
            self.reason = "its rows are streamed, or it has no batch sampler"
        elif self.dispatched and not place.loader.state.is_main_process:
            self.reason = "the main process reads"
        else:
            self._plug_in(place)

    def _plug_in(self, place: SamplerPlace) -> None:
        if isinstance(place.sampler, TrackedBatchSampler):  # of a loader that is kept from one `train()` to the next
            self._tracked = place.sampler
            return
        tracked = TrackedBatchSampler(place.sampler)
        if place.above is not None:
            place.above.batch_sampler = tracked
        elif type(getattr(place.loader, "base_dataloader", None)) is DataLoader:
            place.loader.base_dataloader = _with_sampler(place.loader.base_dataloader, tracked)
        else:
            self.reason = f"{type(place.loader).__name__} is not prepared by accelerate, or stateful"
            return
        self._tracked = tracked

    def expect(self) -> None:
        """The next pass over the sampler is the one to follow."""
        if self._tracked is not None:
            self._tracked.current = SamplerPass()

    @property
    def current(self) -> SamplerPass | None:
        """The pass that is followed; None if nothing was seen of it."""
        tracked = self._tracked
        if tracked is None or tracked.reason or not tracked.current.begun:
            return None
        return tracked.current

    def take(self, steps: int) -> OrderDigest | None:
        """The digest of the rows that all processes have taken in so many steps; None if they are not seen."""
        current = self.current
        return None if current is None else current.take(steps * self.batches_per_step)


def _is_wrapper(sampler: Any) -> bool:
    """Whether a sampler is one of accelerate's, or of this library's, that shares the batches of another."""
    if isinstance(sampler, (BatchSamplerShard, SkipBatchSampler)):
        return True
    return type(sampler).__module__.startswith("sentence_transformers.base.") and hasattr(sampler, "batch_sampler")


def _with_sampler(dataloader: DataLoader[Any], sampler: Any) -> DataLoader[Any]:
    """A dataloader with the same arguments and another batch sampler."""
    names = inspect.signature(DataLoader.__init__).parameters.keys() - _NOT_KEPT
    return DataLoader(batch_sampler=sampler, **{name: getattr(dataloader, name) for name in names})
