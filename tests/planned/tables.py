"""Tables of values, a row for each row of a dataset, for tests of the planner to draw."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import strategies as st


def table(rows: int, columns: int, distinct: int, seed: int, hot: float) -> np.ndarray:
    """Values drawn at random, a share ``hot`` of the first column replaced by one value."""
    generator = np.random.RandomState(seed)
    values = generator.randint(0, distinct, size=(rows, columns))
    values[generator.random_sample(rows) < hot, 0] = 0
    return values


def tables(columns: st.SearchStrategy[int], rows: int = 60) -> st.SearchStrategy[np.ndarray]:
    return st.builds(
        table,
        st.integers(1, rows),
        columns,
        st.sampled_from([1, 2, 3, 10, 40, 10**6]),
        st.integers(0, 10**6),
        st.sampled_from([0, 0, 0.25, 0.5]),
    )


def conflict(values: np.ndarray, strong: int, row: int, other: int) -> bool:
    """Whether two rows share a value that is in one of the first ``strong`` columns of either."""
    mine, theirs = values[row].tolist(), values[other].tolist()
    return row != other and bool(set(mine[:strong]) & set(theirs) or set(theirs[:strong]) & set(mine))


def conflicts_by_hand(values: np.ndarray, strong: int, rows: list[int]) -> list[tuple[int, int]]:
    """The pairs of rows that conflict."""
    return [pair for pair in combinations(rows, 2) if conflict(values, strong, *pair)]
