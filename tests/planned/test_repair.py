"""The parts of the planner beside slow oracles: rows grouped by value, dealt to batches, and parted if they clash."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import tables

from sentence_transformers.planned.assignment import FREQUENT, place, surplus
from sentence_transformers.planned.duplicates import group_by_value, ragged, stable_argsort
from sentence_transformers.planned.plan import capacity
from sentence_transformers.planned.repair import Seating
from sentence_transformers.planned.rng import Rng


@settings(max_examples=100, deadline=None)
@given(tables(st.integers(1, 3), rows=80))
def test_rows_are_grouped_as_a_dictionary_would(values):
    """Values in two rows or more get a number shared by just these rows; sizes never fall."""
    holders = defaultdict(set)
    for row, held in enumerate(values.tolist()):
        for value in held:
            holders[value].add(row)
    repeated = group_by_value(values)
    groups = np.split(repeated.members, repeated.starts[1:-1]) if repeated.values else []
    assert sorted(map(sorted, groups)) == sorted(sorted(rows) for rows in holders.values() if len(rows) > 1)
    assert (np.diff(np.diff(repeated.starts)) >= 0).all()
    for number, group in enumerate(groups):
        assert np.flatnonzero((repeated.row_values == number).any(axis=1)).tolist() == group.tolist()


def test_grouping_in_many_pieces_agrees_with_numpy():
    """Beyond one piece, equal identities still meet: a value has a number if and only if NumPy counts two or more."""
    values = np.random.RandomState(0).randint(-(2**62), 2**62, size=1_500_000)
    values[::3] = values[np.random.RandomState(1).randint(0, len(values), size=len(values[::3]))]
    repeated = group_by_value(values.reshape(-1, 1))
    counts = np.unique(values, return_counts=True)[1]
    assert repeated.values == (counts > 1).sum() and len(repeated.members) == counts[counts > 1].sum()
    numbers = repeated.row_values[repeated.members, 0]
    assert (numbers == np.repeat(np.arange(repeated.values), np.diff(repeated.starts))).all()
    assert len(np.unique(values[repeated.members])) == repeated.values


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_stable_argsort_is_pythons_sort(numbers):
    """Equal numbers keep their order."""
    assert stable_argsort(np.array(numbers, dtype=np.int64)).tolist() == sorted(
        range(len(numbers)), key=numbers.__getitem__
    )


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), max_size=20))
def test_ragged_is_a_concatenation_of_ranges(pairs):
    """Empty ranges included."""
    slow = [number for start, size in pairs for number in range(start, start + size)]
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    assert ragged(columns[:, 0], columns[:, 1]).tolist() == slow


@settings(max_examples=100, deadline=None)
@given(tables(st.integers(1, 3), rows=120), st.integers(1, 30), st.integers(0, 9))
def test_clashing_rows_are_all_but_one_of_each_value_and_batch(values, batch_size, seed):
    """Taking the rows found out leaves no clash, and no fewer would do for any one value and batch."""
    repeated = group_by_value(values)
    order = Rng(seed).permutation(len(values))
    batches = -(-len(values) // batch_size)
    seating = Seating(repeated, order, batch_size, batches)
    found = set(seating.clashing().tolist())
    for batch in range(batches):
        holders = defaultdict(set)
        for row in order[batch * batch_size : (batch + 1) * batch_size].tolist():
            for value in values[row].tolist():
                holders[value].add(row)
        assert all(len(rows - found) <= 1 for rows in holders.values())
        inside = order[batch * batch_size : (batch + 1) * batch_size].tolist()
        alone = {row for row in inside if all(len(holders[value]) == 1 for value in values[row].tolist())}
        assert not alone & found


@settings(max_examples=100, deadline=None)
@given(tables(st.integers(1, 3), rows=120), st.integers(1, 30), st.integers(0, 9))
def test_meets_says_whether_another_row_of_the_batch_shares_a_value(values, batch_size, seed):
    """For every row and every batch, the answer is that of comparing with each row in turn."""
    repeated = group_by_value(values)
    order = Rng(seed).permutation(len(values))
    batches = -(-len(values) // batch_size)
    seating = Seating(repeated, order, batch_size, batches)
    rows = np.arange(len(values), dtype=np.int32)
    for batch in range(batches):
        inside = order[batch * batch_size : (batch + 1) * batch_size].tolist()
        slow = [any(set(values[row]) & set(values[other]) for other in inside if other != row) for row in rows]
        assert seating.meets(rows, np.full(len(rows), batch), rows).tolist() == slow


@settings(max_examples=200, deadline=None)
@given(tables(st.just(1)), st.integers(1, 20), st.integers(0, 9))
def test_dealing_one_value_a_row_needs_no_repair(values, batch_size, seed):
    """Where a value is in many batches and rows hold no other, the first seating is without clashes already."""
    repeated = group_by_value(values)
    held = capacity(repeated, batch_size)
    if repeated.single and repeated.largest * FREQUENT > len(held):
        order = place(repeated, batch_size, held.full, held.tail, Rng(seed))
        assert not len(Seating(repeated, order, batch_size, len(held)).clashing())


@settings(max_examples=100, deadline=None)
@given(tables(st.integers(1, 3)), st.integers(1, 30))
def test_after_the_surplus_no_value_is_in_more_rows_than_batches(values, batches):
    """The rows that sit out bring every value down; with one column no row too many sits out."""
    out = set(surplus(group_by_value(values), batches, Rng(0).permutation(len(values))).tolist())
    left = Counter(value for row, held in enumerate(values.tolist()) if row not in out for value in set(held))
    assert all(count <= batches for count in left.values())
    if values.shape[1] == 1:
        assert len(out) == sum(max(0, count - batches) for count in Counter(values[:, 0].tolist()).values())


@pytest.mark.parametrize("rows", [2000, 20_000, 200_000])
@pytest.mark.parametrize("multiple", [2, 50])
def test_the_rounds_of_swaps_do_not_grow_with_the_rows(rows, multiple):
    """Work is counted, not timed: a few rounds part all clashing rows at any size."""
    values = np.stack([np.arange(rows) // multiple, rows + np.arange(rows)[::-1] // 2], axis=1)
    repeated = group_by_value(values)
    rng = Rng(0, 0)
    batch_size = rows // 250
    seating = Seating(repeated, place(repeated, batch_size, 250, 0, rng), batch_size, 250)
    assert len(seating.part(seating.clashing(), rng)) == 0
    assert seating.rounds <= 12
