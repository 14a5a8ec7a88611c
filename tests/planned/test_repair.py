"""The parts of the planner beside slow oracles: rows grouped by value, given to batches, moved if they conflict."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tables import conflict, conflicts_by_hand, tables

from sentence_transformers.planned.assignment import FREQUENT, agreeing, first_order, surplus
from sentence_transformers.planned.conflicts import Assignment
from sentence_transformers.planned.duplicates import group_by_value, stable_argsort
from sentence_transformers.planned.plan import capacity
from sentence_transformers.planned.repair import swap_rounds
from sentence_transformers.planned.rng import Rng
from sentence_transformers.planned.search import degrees, first_fit, tabu_search

STRONG = st.integers(0, 3)


def assigned(values: np.ndarray, strong: int, batch_size: int, seed: int) -> Assignment:
    """The rows in random order; those of an unfilled last batch, every second time, in a batch."""
    full, tail = divmod(len(values), batch_size)
    order = Rng(seed).permutation(len(values))
    return Assignment(group_by_value(values, strong), order, batch_size, full, tail if seed % 2 else 0)


@settings(max_examples=100, deadline=None)
@given(tables(st.integers(1, 3), rows=80), STRONG)
@example(np.array([[0, 1, 1], [0, 0, 1]]), 2)  # two values in the same rows, strong in one and in two of them
def test_rows_are_grouped_as_a_dictionary_would(values, strong):
    """Values that make a conflict get a number shared by their holders, the strong ones first; sizes never fall."""
    holders, firm = defaultdict(set), defaultdict(set)
    for row, held in enumerate(values.tolist()):
        for column, value in enumerate(held):
            holders[value].add(row)
            if column < strong:
                firm[value].add(row)
    found = group_by_value(values, strong)
    numbers = [np.array([number]) for number in range(found.values)]
    groups = [found.holders(number)[0].tolist() for number in numbers]
    parts = [found.holders(number, "strong")[0].tolist() for number in numbers]
    expected = [
        (sorted(rows), sorted(firm[value])) for value, rows in holders.items() if len(rows) > 1 and firm[value]
    ]
    assert sorted((sorted(group), part) for group, part in zip(groups, parts)) == sorted(expected)
    assert all(group[: len(part)] == part for group, part in zip(groups, parts))
    assert (np.diff(np.diff(found.starts)) >= 0).all()
    for number, group in enumerate(groups):
        assert np.flatnonzero((found.row_values == number).any(axis=1)).tolist() == sorted(group)


def test_grouping_many_cells_agrees_with_numpy():
    """Equal identities meet: a value has a number if and only if NumPy counts two or more."""
    values = np.random.RandomState(0).randint(-(2**62), 2**62, size=1_500_000)
    values[::3] = values[np.random.RandomState(1).randint(0, len(values), size=len(values[::3]))]
    found = group_by_value(values.reshape(-1, 1))
    counts = np.unique(values, return_counts=True)[1]
    assert found.values == (counts > 1).sum() and len(found.members) == counts[counts > 1].sum()
    numbers = found.row_values[found.members, 0]
    assert (numbers == np.repeat(np.arange(found.values), np.diff(found.starts))).all()
    assert len(np.unique(values[found.members])) == found.values


def test_identities_that_agree_in_their_high_bits_are_told_apart():
    """Sorted together, they are parted afterwards."""
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)  # of the factor that spreads identities
    first, second = (np.uint64((low * inverse) % 2**64) for low in (1, 2))
    found = group_by_value(np.array([[first], [second], [first], [second], [second]]))
    assert [found.holders(np.array([number]))[0].tolist() for number in (0, 1)] == [[0, 2], [1, 3, 4]]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_stable_argsort_is_pythons_sort(numbers):
    """Equal numbers keep their order."""
    assert stable_argsort(np.array(numbers, dtype=np.int64)).tolist() == sorted(
        range(len(numbers)), key=numbers.__getitem__
    )


@settings(max_examples=150, deadline=None)
@given(tables(st.integers(1, 4), rows=120), STRONG, st.integers(1, 30), st.integers(0, 9))
def test_moving_the_conflicting_rows_leaves_no_conflict(values, strong, batch_size, seed):
    """Rows found are of those that conflict, and the others agree."""
    held = assigned(values, strong, batch_size, seed)
    found = set(held.conflicting().tolist())
    for batch in range(held.batches):
        rows = held.rows_in(batch).tolist()
        pairs = conflicts_by_hand(values, strong, rows)
        assert all(found & set(pair) for pair in pairs)
        assert found & set(rows) <= {row for pair in pairs for row in pair}


@settings(max_examples=100, deadline=None)
@given(tables(st.integers(1, 4), rows=120), STRONG, st.integers(1, 30), st.integers(0, 9))
def test_a_row_would_conflict_where_it_shares_a_value(values, strong, batch_size, seed):
    """For every row and every batch, the answer is that of comparing with each row in turn."""
    held = assigned(values, strong, batch_size, seed)
    rows = held.order
    for batch in range(held.batches):
        others = held.rows_in(batch).tolist()
        slow = [any(conflict(values, strong, row, other) for other in others) for row in rows.tolist()]
        assert held.would_conflict(rows, np.full(len(rows), batch), rows).tolist() == slow


@settings(max_examples=60, deadline=None)
@given(tables(st.integers(1, 4), rows=60), STRONG)
def test_degrees_count_conflicts_with_all_rows(values, strong):
    """A row conflicts with none exactly if its degree is 0."""
    found = degrees(group_by_value(values, strong))
    rows = range(len(values))
    assert [number > 0 for number in found.tolist()] == [
        any(conflict(values, strong, row, other) for other in rows) for row in rows
    ]


@settings(max_examples=100, deadline=None)
@given(tables(st.integers(1, 3)), STRONG, st.integers(1, 20))
def test_agreeing_rows_agree(values, strong, wanted):
    """No two conflict, the first candidate is one of them, and they are not more than wanted."""
    order = Rng(1).permutation(len(values))
    chosen = agreeing(group_by_value(values, strong), wanted, order).tolist()
    assert chosen[0] == order[0] and len(set(chosen)) == len(chosen) <= wanted
    assert not conflicts_by_hand(values, strong, chosen)


@settings(max_examples=100, deadline=None)
@given(tables(st.just(1)), st.integers(1, 20), st.integers(0, 9))
def test_dense_values_of_one_column_are_assigned_without_a_conflict(values, batch_size, seed):
    """Where a value is in many batches and rows hold no other, the first assignment has no conflict already."""
    found = group_by_value(values)
    held = capacity(found, batch_size)
    if found.largest * FREQUENT > len(held):
        order = first_order(found, batch_size, held.full, held.tail, Rng(seed))
        assert not len(Assignment(found, order, batch_size, held.full, held.tail).conflicting())


@settings(max_examples=100, deadline=None)
@given(tables(st.integers(1, 3)), STRONG, st.integers(1, 30), st.integers(1, 9))
def test_after_the_surplus_every_value_has_room(values, strong, batches, batch_size):
    """Rows left out bring every value down; with one strong column no row too many is left out."""
    out = set(surplus(group_by_value(values, strong), batch_size, batches, Rng(0).permutation(len(values))).tolist())
    firm = Counter(value for row, held in enumerate(values.tolist()) if row not in out for value in set(held[:strong]))
    assert all(count <= batches for count in firm.values())
    if values.shape[1] == 1 and strong:
        counts = Counter(values[:, 0].tolist()).values()
        assert len(out) == sum(max(0, count - batches) for count in counts)


@settings(max_examples=60, deadline=None)
@given(tables(st.integers(1, 4), rows=100), STRONG, st.integers(2, 20), st.integers(0, 9))
def test_the_searches_keep_each_row_and_the_sizes(values, strong, batch_size, seed):
    """First fit and the tabu search move rows, and nothing else; what they say still conflicts does."""
    held = first_fit(assigned(values, strong, batch_size, seed), Rng(seed, 1))
    assert sorted(held.order.tolist()) == list(range(len(values)))
    left = set(tabu_search(held, Rng(seed, 2), patience=20).tolist())
    assert sorted(held.order.tolist()) == list(range(len(values)))
    assert [len(held.rows_in(batch)) for batch in range(held.full)] == [batch_size] * held.full
    for batch in range(held.batches):
        assert bool(conflicts_by_hand(values, strong, held.rows_in(batch).tolist())) == bool(
            left & set(held.rows_in(batch).tolist())
        )


@pytest.mark.parametrize("rows", [2000, 20_000, 200_000])
@pytest.mark.parametrize("multiple", [2, 50])
def test_the_rounds_of_swaps_do_not_grow_with_the_rows(rows, multiple, monkeypatch):
    """Work is counted, not timed: a few rounds move all conflicting rows at any size."""
    from sentence_transformers.planned import repair

    rounds = []
    swap_round = repair._swap_round
    monkeypatch.setattr(repair, "_swap_round", lambda *args: rounds.append(1) or swap_round(*args))
    values = np.stack([np.arange(rows) // multiple, rows + np.arange(rows)[::-1] // 2], axis=1)
    found, rng, batch_size = group_by_value(values), Rng(0, 0), rows // 250
    held = Assignment(found, first_order(found, batch_size, 250, 0, rng), batch_size, 250, 0)
    assert len(swap_rounds(held, held.conflicting(), rng)) == 0
    assert len(rounds) <= 12
