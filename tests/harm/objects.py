"""What users write: samplers, datasets and loaders, some of them awkward. None knows anything of this project."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler


class Shuffled(BatchSampler):
    """Shuffles by the epoch that it is told."""

    def __init__(self, dataset: Any, batch_size: int, drop_last: bool, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(range(len(dataset)), batch_size, drop_last)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch."""
        self.epoch = epoch

    def order(self) -> list[int]:
        """The rows of the epoch."""
        rows = list(range(len(self.sampler)))
        random.Random(f"{self.seed}, {self.epoch}").shuffle(rows)
        return rows

    def __iter__(self) -> Iterator[list[int]]:
        return iter(BatchSampler(self.order(), self.batch_size, self.drop_last))


class AttrDict(dict):
    """Settings whose names are attributes; one that is missing is a KeyError."""

    __getattr__ = dict.__getitem__


class LazyClient:
    """Connects when anything is asked of it, and cannot."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no connection, needed for {name}")


class RaisingProperty:
    """Has a property that is not there yet."""

    @property
    def sampler(self) -> Any:
        """Raises."""
        raise ValueError("not built yet")

    batch_sampler = dataset = set_epoch = sampler


class Schedule:
    """Takes the epoch together with the number of epochs, from the sampler that owns it."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def set_epoch(self, epoch: int, total: int) -> None:
        """Take both."""
        self.calls.append((epoch, total))


class Holding(Shuffled):
    """Holds something under names of its own."""

    def __init__(self, *args: Any, held: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cfg = self.client = self.parts = held


class Scheduling(Shuffled):
    """Passes the epoch on by itself, with the total."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.schedule = Schedule()

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch, and pass it on."""
        super().set_epoch(epoch)
        self.schedule.set_epoch(epoch, 2)


class OwnIterator(Shuffled):
    """Begins anew in ``__iter__`` and is its own iterator."""

    def __iter__(self) -> Iterator[list[int]]:
        self.left = list(BatchSampler(self.order(), self.batch_size, self.drop_last))
        return self

    def __next__(self) -> list[int]:
        if not self.left:
            raise StopIteration
        return self.left.pop(0)


class ByType(Shuffled):
    """Looks its settings up by its class, and insists on that."""

    def order(self) -> list[int]:
        """The rows of the epoch."""
        assert type(self) is ByType
        return super().order()[:: SETTINGS[type(self)]]


SETTINGS = {ByType: -1}


class Slotted(Shuffled):
    """Takes no attribute that it does not know."""

    KNOWN = frozenset({"sampler", "batch_size", "drop_last", "seed", "epoch"})

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.KNOWN:
            raise AttributeError(f"no attribute {name}")
        super().__setattr__(name, value)


class OfItself(Shuffled):
    """Is its own child, by two names."""

    @property
    def batch_sampler(self) -> Any:
        """Itself."""
        return self


class AnsweringAnything(Shuffled):
    """Has whatever attribute is asked for, one of these objects each time."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class Anything:
    """Has every attribute, can be called, and has no length."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return Anything()


class Sequential(Shuffled):
    """From the first row to the last, in each epoch."""

    def order(self) -> list[int]:
        """The rows as they lie."""
        return list(range(len(self.sampler)))


class Flagged(BatchSampler):
    """Shuffles only if told to, and takes no epoch."""

    def __init__(self, dataset: Any, batch_size: int, drop_last: bool, shuffle: bool = False, **kwargs: Any) -> None:
        super().__init__(range(len(dataset)), batch_size, drop_last)
        self.shuffle = shuffle

    def __iter__(self) -> Iterator[list[int]]:
        rows = list(range(len(self.sampler)))
        if self.shuffle:
            random.Random(3).shuffle(rows)
        return iter(BatchSampler(rows, self.batch_size, self.drop_last))


class Argsorted(Flagged):
    """Draws its order by sorting random numbers, from a seed of its own."""

    def __iter__(self) -> Iterator[list[int]]:
        rows = torch.rand(len(self.sampler), generator=torch.Generator().manual_seed(5)).argsort().tolist()
        return iter(BatchSampler(rows, self.batch_size, self.drop_last))


class Misjudging(Shuffled):
    """Yields ``more`` batches than its length promises, or fewer."""

    def __init__(self, *args: Any, more: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.more = more

    def __len__(self) -> int:
        return super().__len__() - self.more


class Failing(Shuffled):
    """Cannot take the second epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Raise at epoch 1."""
        if epoch:
            raise LookupError("no order for epoch 1")


class Told(Shuffled):
    """Holds a child that takes the epoch, but is its own business."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: list[int] = []
        self.sampler = Counted(len(self.sampler))

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch."""
        super().set_epoch(epoch)
        self.told.append(epoch)


class Counted:
    """A child sampler that notes the epochs that it is told."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.told: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch."""
        self.told.append(epoch)

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rows))


class Weighted(BatchSampler):
    """Draws three batches of the first dataset for one of the second, and begins one again that is at its end."""

    def __init__(self, dataset: Any, batch_samplers: Any, generator: Any = None, seed: int = 0) -> None:
        super().__init__(range(len(dataset)), batch_samplers[0].batch_size, False)
        self.dataset, self.batch_samplers, self.epoch = dataset, batch_samplers, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch, and pass it on."""
        self.epoch = epoch
        for child in self.batch_samplers:
            child.set_epoch(epoch)

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[list[int]]:
        starts = [0, *self.dataset.cumulative_sizes]
        children = [iter(child) for child in self.batch_samplers]
        for step in range(len(self)):
            which = 1 if step % 4 == 3 else 0
            try:
                batch = next(children[which])
            except StopIteration:
                children[which] = iter(self.batch_samplers[which])
                batch = next(children[which])
            yield [row + starts[which] for row in batch]


class Interleaved(Weighted):
    """Opens two iterators over its only child."""

    def __iter__(self) -> Iterator[list[int]]:
        one, other = iter(self.batch_samplers[0]), iter(self.batch_samplers[0])
        for step in range(len(self)):
            yield next(other if step % 2 else one)


class Delegating:
    """Wraps a dataset: what it does not know, it asks of it."""

    def __init__(self, dataset: Any) -> None:
        self.wrapped = dataset

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __len__(self) -> int:
        return len(self.wrapped)

    def __getitem__(self, key: Any) -> Any:
        return self.wrapped[key]


class Listed(torch.utils.data.Dataset):
    """torch's kind of dataset, over rows in memory."""

    column_names = ("anchor", "positive", "label")

    def __init__(self, dataset: Any) -> None:
        self.rows = list(dataset)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        return self.rows[number]


class Batches:
    """A loader that is a class of the user's own, around another one."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader
