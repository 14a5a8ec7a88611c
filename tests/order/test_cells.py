"""The cells of a picture hold what one would count by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sentence_transformers.order.cells import Order, bin_counts, order_cells, value_cells, value_codes

EPOCHS = st.permutations(range(12)).flatmap(
    lambda rows: st.lists(st.integers(1, 4), min_size=1, max_size=6).map(
        lambda sizes: [rows[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes)) if sum(sizes[:i]) < 12]
    )
)


@settings(deadline=None)
@given(one=EPOCHS, other=EPOCHS, most_steps=st.integers(1, 8), most_places=st.integers(1, 5))
def test_a_cell_has_the_colour_of_the_row_in_its_middle(
    one: list[list[int]], other: list[list[int]], most_steps: int, most_places: int
) -> None:
    """Its place in the first epoch, of up to so many columns and rows of cells."""
    first, order = [row for batch in one for row in batch], Order(other)
    cells = order_cells(order, Order(one).places(12), most_steps, most_places)
    height, width = cells.shape
    largest = max(map(len, other))
    assert (height, width) == (min(largest, most_places), min(len(other), most_steps))
    for line in range(height):
        for column in range(width):
            batch = other[int((column + 0.5) * len(other) / width)]
            slot = int((line + 0.5) * largest / height)
            if slot < len(batch) and batch[slot] in first:
                expected = first.index(batch[slot]) / max(len(first) - 1, 1)
                assert abs(cells[line, column] - expected) < 1e-6
            else:
                assert np.isnan(cells[line, column])


@settings(deadline=None)
@given(
    epoch=EPOCHS,
    values=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=12, max_size=12),
    spans=st.integers(1, 7),
)
def test_each_row_of_a_value_is_in_one_span(epoch: list[list[int]], values: list[str | None], spans: int) -> None:
    """Steps fall into up to so many spans; a row without a value is in none."""
    codes, names = value_codes(values)
    counts = value_cells(Order(epoch), codes, np.arange(len(names)), spans)
    width = min(len(epoch), spans)
    held = Counter((values[row], step * width // len(epoch)) for step, batch in enumerate(epoch) for row in batch)
    expected = [[held[name, span] for span in range(width)] for name in names]
    assert counts.tolist() == expected


@settings(deadline=None)
@given(points=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 9)), max_size=30), bins=st.integers(1, 6))
def test_each_point_is_in_one_bin(points: list[tuple[int, int]], bins: int) -> None:
    """Of the square that it lies in, the upper ends included."""
    x, y = (np.array([point[axis] for point in points], dtype=float) for axis in (0, 1))
    counts = bin_counts(x, y, [20, 10], bins)
    held = Counter((int(down * bins / 10), int(across * bins / 20)) for across, down in points)
    assert counts.tolist() == [[held[line, column] for column in range(bins)] for line in range(bins)]
