"""A fingerprint is of the rows in their order, and of nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from sentence_transformers.order import order_fingerprint
from sentence_transformers.order.fingerprint import order_digest

BATCHES = st.lists(st.lists(st.integers(0, 2**40), max_size=5), max_size=6)


@settings(deadline=None)
@given(batches=BATCHES, other=BATCHES)
def test_orders_of_the_same_rows_are_equal_however_they_are_cut_and_held(
    batches: list[list[int]], other: list[list[int]]
) -> None:
    """In one batch or many, as lists, tuples, arrays or tensors; and no others are."""
    rows, others = ([row for batch in one for row in batch] for one in (batches, other))
    whole = order_digest([rows])
    kinds = [tuple, np.array, lambda batch: np.array(batch, dtype=np.int64), torch.tensor]
    assert {order_digest(kind(batch) for batch in batches if batch) for kind in kinds} == {whole}
    assert (order_digest(other) == whole) == (rows == others)
    assert order_fingerprint(batches) == whole[:6]


def test_fingerprints_stay_as_they_are() -> None:
    """They are compared with those of runs of before."""
    assert order_fingerprint(BatchSampler(range(100), 8, drop_last=False)) == order_fingerprint([np.arange(100)])
    assert order_fingerprint([range(100)]) == "7b9a5b"


@pytest.mark.parametrize("batch", [["a"], [1.5], [[1, 2]], np.ones((2, 2), int), np.array([1.0]), [2**63]])
def test_what_is_no_batch_of_rows_is_refused(batch: Any) -> None:
    """With what it is."""
    with pytest.raises(ValueError, match="batches of row numbers, but got"):
        order_fingerprint([batch])
