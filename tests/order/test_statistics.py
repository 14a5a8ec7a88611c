"""What is counted is what one would count by hand."""

from __future__ import annotations

from collections import Counter

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from sentence_transformers.order.statistics import Statistics, hashes_of, value_table

TEXTS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcxyzuvw"), st.sampled_from("axnm")),
    min_size=1,
    max_size=30,
)
NAMES = ("anchor", "positive", "negative")


def as_dataset(rows: list[tuple[str, ...]], columns: int) -> Dataset:
    return Dataset.from_dict({name: [row[at] for row in rows] for at, name in enumerate(NAMES[:columns])})


def holds_twice(rows: list[tuple[str, ...]], members: list[int], strong: bool) -> bool:
    """Whether two members share a text; one that is anchor or positive of one of them, or any; or are one row."""
    pairs = [(one, other) for at, one in enumerate(members) for other in members[:at]]
    for one, other in pairs:
        shared = set(rows[one]) & set(rows[other])
        if one == other or shared & set(rows[one][:2] + rows[other][:2] if strong else rows[one]):
            return True
    return False


@pytest.mark.parametrize("columns", [2, 3])
@settings(deadline=None)
@given(rows=TEXTS, data=st.data())
def test_counts_are_as_by_hand(columns: int, rows: list[tuple[str, ...]], data: st.DataObject) -> None:
    """Rows used and repeated; batches and steps with a value twice, or with a false negative, whatever the batches."""
    batch = st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5)
    steps = data.draw(st.lists(st.lists(batch, min_size=2, max_size=2), min_size=1, max_size=8))
    counted = Statistics(value_table(hashes_of([as_dataset(rows, columns)], set())))
    assert list(counted.passing(iter(steps))) == steps
    rows = [row[:columns] for row in rows]
    times = Counter(row for step in steps for one in step for row in one)
    batches, joined = [one for step in steps for one in step], [step[0] + step[1] for step in steps]
    assert (counted.steps, counted.batches) == (len(steps), 2 * len(steps))
    assert counted.used == len(times) and counted.repeated == sum(count > 1 for count in times.values())
    assert counted.batches_with_duplicates == sum(holds_twice(rows, one, False) for one in batches)
    assert counted.steps_with_duplicates == sum(holds_twice(rows, one, False) for one in joined)
    assert counted.batches_with_false_negatives == sum(holds_twice(rows, one, True) for one in batches)
    assert counted.steps_with_false_negatives == sum(holds_twice(rows, one, True) for one in joined)


@settings(deadline=None)
@given(first=TEXTS, second=TEXTS)
def test_values_are_counted_over_all_datasets(first: list[tuple[str, ...]], second: list[tuple[str, ...]]) -> None:
    """Rows are numbered through; a dataset of fewer columns, or of none that counts, adds no value of its own."""
    bare = Dataset.from_dict({"label": [0, 0]})
    values = value_table(hashes_of([as_dataset(first, 2), as_dataset(second, 1), bare], {"label"}))
    texts = [set(row[:2]) for row in first] + [{row[0]} for row in second] + [set(), set()]
    sizes = Counter(text for row in texts for text in row)
    assert sorted(values.rows_of) == sorted(count for count in sizes.values() if count > 1)
    assert len(values.numbers) == len(first) + len(second) + 2


def test_steps_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts do not depend on how many rows are counted at a time."""
    steps = [[[0, 1], [2, 3]], [[0, 2], []], [[1, 1], [3, 0]]]
    rows = [("a", "x"), ("b", "x"), ("a", "y"), ("d", "z")]
    values = value_table(hashes_of([as_dataset(rows, 2)], set()))
    counts = []
    for piece in (1, 1000):
        monkeypatch.setattr("sentence_transformers.order.statistics.PIECE", piece)
        counted = Statistics(values)
        list(counted.passing(steps))
        found = counted.batches, counted.uneven_steps
        counts.append((*found, counted.batches_with_duplicates, counted.steps_with_duplicates))
    assert counts == [(5, 1, 3, 3)] * 2
