"""Property tests of the walk that carries the epoch, over random nestings of wrappers."""

from __future__ import annotations

from typing import Any

import pytest
from accelerate.data_loader import (
    BatchSamplerShard,
    DataLoaderDispatcher,
    DataLoaderShard,
    SkipBatchSampler,
    SkipDataLoader,
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
