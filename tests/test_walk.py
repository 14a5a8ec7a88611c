"""Property tests of the walk that carries the epoch, over random nestings of wrappers."""

from __future__ import annotations

from collections import deque
from math import prod
from typing import Any

import pytest
from accelerate.data_loader import (
    BatchSamplerShard,
    DataLoaderDispatcher,
    DataLoaderShard,
    SkipBatchSampler,
    SkipDataLoader,
    prepare_data_loader,
    skip_first_batches,
)
from accelerate.state import PartialState
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader

from sentence_transformers.base.epoch import set_epoch

ROWS = list(range(8))


@pytest.fixture(autouse=True, scope="module")
def partial_state() -> None:
    """Accelerate's loaders want to know of the processes."""
    PartialState()


class Taker(BatchSampler):
    """A batch sampler that notes what it is told."""

    def __init__(self) -> None:
        super().__init__(ROWS, 2, False)
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class Holder:
    """A wrapper that nobody has seen before: it holds others under names of its own."""

    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)

    def __iter__(self) -> Any:
        return iter(ROWS)


def _several(children: list[Any]) -> Any:
    return Holder(**{f"child{i}": child for i, child in enumerate(children)})


def _cycle(child: Any) -> Any:
    holder = Holder(child=child)
    holder.me = holder
    return holder


WRAPPERS = {
    "shard": lambda child: BatchSamplerShard(child, 2, 1),
    "skip": lambda child: SkipBatchSampler(child, 1),
    "loader": lambda child: DataLoader(ROWS, batch_sampler=child),
    "sampler of a loader": lambda child: DataLoader(ROWS, sampler=child, batch_size=None),
    "loader shard": lambda child: DataLoaderShard(ROWS, batch_sampler=child),
    "dispatcher": lambda child: DataLoaderDispatcher(ROWS, batch_sampler=child),
    "skipping loader": lambda child: SkipDataLoader(ROWS, batch_sampler=child),
    "list": lambda child: Holder(children=[None, child]),
    "tuple": lambda child: Holder(children=(child,)),
    "dict": lambda child: Holder(children={"a": child}),
    "cycle": _cycle,
}

takers = st.builds(Taker)
nestings = st.recursive(
    takers,
    lambda inner: st.one_of(
        st.builds(lambda wrap, child: WRAPPERS[wrap](child), st.sampled_from(sorted(WRAPPERS)), inner),
        st.lists(inner, min_size=1, max_size=3).map(_several),
    ),
    max_leaves=6,
)


def _leaves(node: Any, seen: set[int]) -> list[Taker]:
    """The obvious way: follow everything, by recursion."""
    if id(node) in seen:
        return []
    seen.add(id(node))
    if isinstance(node, Taker):
        return [node]
    if isinstance(node, dict):
        held = list(node.values())
    elif isinstance(node, (list, tuple)):
        held = list(node)
    else:
        held = list(getattr(node, "__dict__", {}).values())
    return [leaf for child in held for leaf in _leaves(child, seen)]


@given(nesting=nestings, epoch=st.integers(0, 1000))
def test_every_taker_is_told_and_returned_once(nesting: Any, epoch: int) -> None:
    """For any nesting, the takers that the walk finds are those that recursion finds, once, with the epoch set."""
    told = set_epoch(nesting, epoch)
    found = [taker for taker in told if isinstance(taker, Taker)]
    expected = _leaves(nesting, set())
    assert len(found) == len(expected)
    assert {id(taker) for taker in found} == {id(taker) for taker in expected}
    assert all(set(taker.epochs) == {epoch} for taker in expected)


@given(depth=st.integers(1, 3000))
def test_depth_is_no_limit(depth: int) -> None:
    """A chain of wrappers longer than Python's stack is walked to its end."""
    taker = Taker()
    chain: Any = taker
    for _ in range(depth):
        chain = SkipBatchSampler(chain, 0)
    assert set_epoch(chain, 1) == [taker]


class MpDeviceLoader:
    """torch_xla's loader, which runs on XLA devices only: its attributes as of torch_xla 2.9."""

    def __init__(self, loader: Any, device: Any, **kwargs: Any) -> None:
        self._loader = loader
        self._device = device
        self._parallel_loader_kwargs = kwargs
        self._parallel_loader = None

    def __iter__(self) -> Any:
        return iter(self._loader)


class MpDeviceLoaderWrapper(MpDeviceLoader):
    """accelerate's subclass, which it defines where torch_xla is installed."""

    def __init__(self, dataloader: Any, device: Any) -> None:
        super().__init__(dataloader, device)
        self._rng_types = dataloader.rng_types
        dataloader.rng_types = None
        self.device = device

    @property
    def batch_sampler(self) -> Any:
        return self._loader.batch_sampler

    @property
    def dataloader(self) -> Any:
        return self._loader


class UlyssesSPDataLoaderAdapter:
    """DeepSpeed's loader under sequence parallelism, which needs a group of processes: its attributes as of 0.19.8."""

    def __init__(self, dl: Any, sp_rank: int, sp_group: Any, sp_world_size: int, device: Any) -> None:
        self.dl = dl
        self.sp_rank = sp_rank
        self.sp_group = sp_group
        self.sp_world_size = sp_world_size
        self.device = device
        self.iter = iter(dl)
        self.micro_batches: deque[Any] = deque()

    def __iter__(self) -> Any:
        return self


class Mesh:
    """A device mesh as accelerate asks it: its axes, and the size of each."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.mesh_dim_names = tuple(sizes)

    def __getitem__(self, name: str) -> Mesh:
        return Mesh(**{name: self.sizes[name]})

    def size(self) -> int:
        (size,) = self.sizes.values()
        return size


def _shard(taker: Taker) -> DataLoaderShard:
    return DataLoaderShard(ROWS, batch_sampler=BatchSamplerShard(taker, 2, 1))


def _on_mesh(taker: Taker, **sizes: int) -> Any:
    """The loader of the last of the processes of a mesh, as accelerate prepares it."""
    processes = prod(sizes.values())
    loader = DataLoader(ROWS, batch_sampler=taker)
    return prepare_data_loader(
        loader, num_processes=processes, process_index=processes - 1, torch_device_mesh=Mesh(**sizes)
    )


ELSEWHERE = {
    "TPU": lambda taker: MpDeviceLoaderWrapper(_shard(taker), "xla:0"),
    "TPU, resumed": lambda taker: MpDeviceLoaderWrapper(skip_first_batches(_shard(taker), 1), "xla:0"),
    "DeepSpeed, sequence parallel": lambda taker: UlyssesSPDataLoaderAdapter(_shard(taker), 0, None, 2, "cpu"),
    "data and tensor parallel": lambda taker: _on_mesh(taker, dp_shard=2, tp=2),
    "data and context parallel": lambda taker: _on_mesh(taker, dp_replicate=2, cp=2),
    "tensor parallel": lambda taker: _on_mesh(taker, tp=2),
}
"""Loaders that cannot run here, around loaders that can."""


@pytest.mark.parametrize("where", ELSEWHERE)
def test_epoch_arrives_beneath_loaders_that_need_other_devices(where: str) -> None:
    """Whatever device or mesh the loader is for, its batch sampler is told the epoch, and taken for one."""
    taker = Taker()
    told = set_epoch(ELSEWHERE[where](taker), 3)
    assert set(taker.epochs) == {3}
    assert sum(one is taker for one in told) == 1
