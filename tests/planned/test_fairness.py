"""Planned epochs are drawn evenly: of all rows, batches and pairs, none is preferred.

The tests draw fixed seeds; each states the rate at which a correct planner with other seeds would fail it.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import chi2

from sentence_transformers.planned.duplicates import group_by_value
from sentence_transformers.planned.plan import capacity, plan_epoch
from sentence_transformers.planned.rng import Rng

FALSE_ALARM = 1e-6


def test_rows_left_out_are_drawn_evenly():
    """Rows of the frequent value sit out equally often (false alarm 1e-6)."""
    values = np.where(np.arange(400) < 100, -5, np.arange(400))[:, None]
    repeated = group_by_value(values)
    held = capacity(repeated, 10)
    epochs = 600
    out = np.zeros(400)
    for epoch in range(epochs):
        out[plan_epoch(repeated, held, 5, epoch).left_out] += 1
    share = out[:100].mean() / epochs
    statistic = ((out[:100] - share * epochs) ** 2 / (epochs * share * (1 - share))).sum() * 99 / 100
    assert chi2.sf(statistic, 99) > FALSE_ALARM
    assert not out[100:].any()


@pytest.mark.parametrize("name", ["distinct", "pairs", "dense"])
def test_the_batch_of_a_row_is_uniform(name):
    """Over 400 epochs rows visit all batches equally often (false alarm 1e-6 over all rows checked)."""
    rows, batch_size, epochs = 240, 12, 400
    values = {"distinct": np.arange(rows), "pairs": np.arange(rows) // 2, "dense": np.arange(rows) // 12}[name][
        :, None
    ]
    repeated = group_by_value(values)
    held = capacity(repeated, batch_size)
    seen = np.zeros((rows, len(held)))
    for epoch in range(epochs):
        order = plan_epoch(repeated, held, 11, epoch).order
        seen[order, np.arange(rows) // batch_size] += 1
    expected = epochs / len(held)
    statistics = ((seen - expected) ** 2 / expected).sum(axis=1)
    assert chi2.sf(statistics.max(), len(held) - 1) > FALSE_ALARM / rows


@pytest.mark.parametrize("name", ["distinct", "pairs", "dense"])
def test_two_rows_meet_as_often_as_theory_says(name):
    """Rows that may meet do so with equal probability, whichever they are (false alarm 1e-6 over all pairs)."""
    rows, batch_size, epochs = 60, 6, 1500
    group = {"distinct": np.arange(rows), "pairs": np.arange(rows) // 2, "dense": np.arange(rows) // 6}[name]
    repeated = group_by_value(group[:, None])
    held = capacity(repeated, batch_size)
    met = np.zeros((rows, rows))
    for epoch in range(epochs):
        for batch in plan_epoch(repeated, held, 13, epoch):
            met[np.ix_(batch, batch)] += 1
    may = group[:, None] != group[None, :]
    partners = may.sum(axis=1)[0]
    share = (batch_size - 1) / partners
    pairs = np.array([met[a, b] for a, b in combinations(range(rows), 2) if may[a, b]])
    deviation = np.abs(pairs - share * epochs).max() / np.sqrt(epochs * share * (1 - share))
    assert pairs.sum() == epochs * rows * (batch_size - 1) / 2
    assert chi2.sf(deviation**2, 1) > FALSE_ALARM / len(pairs)


def test_a_frequent_value_is_spread_over_the_epoch():
    """A value in half of the batches is as often in the first half of an epoch as in the second (false alarm 1e-6)."""
    values = np.where(np.arange(2000) < 50, -5, np.arange(2000))[:, None]
    repeated = group_by_value(values)
    held = capacity(repeated, 20)
    early = 0
    for epoch in range(100):
        batch = np.empty(2000, dtype=int)
        batch[plan_epoch(repeated, held, 3, epoch).order] = np.arange(2000) // 20
        early += int((batch[:50] < 50).sum())
    assert chi2.sf((early - 2500) ** 2 / (100 * 50 * 0.25 * 50 / 99), 1) > FALSE_ALARM


def test_large_permutations_hold_each_row_once_and_differ_by_path():
    """Beyond the size shuffled at once, the permutation is still one."""
    first, second = Rng(0, 1).permutation(700_000), Rng(0, 2).permutation(700_000)
    assert (np.sort(first) == np.arange(700_000)).all()
    assert (first != second).mean() > 0.99


def test_large_permutations_are_uniform():
    """Blocks of rows fall evenly on blocks of places (false alarm 1e-6)."""
    order = Rng(4, 1).permutation(640_000)
    counts = np.zeros((64, 64))
    np.add.at(counts, (order // 10_000, np.arange(640_000) // 10_000), 1)
    expected = 10_000 / 64
    assert chi2.sf(((counts - expected) ** 2 / expected).sum(), 63 * 63) > FALSE_ALARM
