"""Which rows may share a batch: the rule by columns, the count of false negatives, and what fits."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import conflicts_by_hand, tables

from sentence_transformers.planned import PlannedNoDuplicatesBatchSampler
from sentence_transformers.planned.duplicates import group_by_value
from sentence_transformers.planned.false_negatives import FalseNegatives, count_false_negatives
from sentence_transformers.planned.fitting import largest_batch_size
from sentence_transformers.planned.plan import capacity, fits, plan_epoch
from sentence_transformers.planned.rule import Rule

TRIPLETS = {
    "anchor": ["a", "b", "c", "d"],
    "positive": ["A", "B", "C", "D"],
    "negative": ["B", "x", "x", "y"],
    "label": [1, 1, 1, 1],
}


def apart(dataset: Dataset, **options) -> list[tuple[int, int]]:
    """The pairs of rows that the sampler keeps apart."""
    sampler = PlannedNoDuplicatesBatchSampler(dataset, 1, False, ["label"], **options)
    values = sampler.duplicates.row_values
    values = np.where(values < 0, -1 - np.arange(values.size).reshape(values.shape), values)
    return conflicts_by_hand(values, sampler.rule.strong, list(range(len(dataset))))


def test_rows_that_share_a_negative_alone_are_not_kept_apart():
    """Row 0's negative is row 1's positive; rows 1 and 2 share a negative, which matters under the strict rule."""
    dataset = Dataset.from_dict(TRIPLETS)
    assert apart(dataset) == [(0, 1)]
    assert apart(dataset, strict=True) == [(0, 1), (1, 2)]


def test_two_columns_are_all_kept_apart():
    """Of pairs, each value counts, an anchor that is another row's positive as well."""
    dataset = Dataset.from_dict({"one": ["a", "b", "c", "d"], "two": ["b", "x", "x", "y"]})
    assert apart(dataset) == apart(dataset, strict=True) == [(0, 1), (1, 2)]


def test_negatives_can_be_named_and_may_stand_anywhere():
    """The same data with the negative in front, or a second column of positives."""
    first = Dataset.from_dict({name: TRIPLETS[name] for name in ("negative", "anchor", "positive")})
    assert apart(first, negative_columns=["negative"]) == [(0, 1)]
    assert apart(Dataset.from_dict(TRIPLETS), negative_columns=[]) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("strict", [False, True])
def test_placeholders_among_negatives_are_no_text(strict):
    """Rows without a negative do not keep each other apart; an empty anchor or positive is a value like others."""
    dataset = Dataset.from_dict({"a": ["", "", "c"], "p": ["A", "B", "C"], "n": ["", None, None], "n2": ["", "", "q"]})
    assert apart(dataset, strict=strict) == [(0, 1)]
    assert apart(dataset.select([0, 2]), strict=strict) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"negative_columns": ["hard"]},
            r"names \['hard'\], but the columns that count are \['anchor', 'positive', 'neg",
        ),
        ({"negative_columns": ["label"]}, "labels do not"),
        ({"negative_columns": ["anchor", "positive", "negative"]}, "names all columns that count"),
        ({"negative_columns": "negative"}, r"pass \['negative'\]"),
        ({"max_skipped": 30}, "max_skipped is a share of the rows, from 0 to 1, got 30"),
        ({"max_skipped": True}, "max_skipped is a share"),
        ({"num_processes": 0}, "num_processes must be a whole number of at least 1, got 0"),
        ({"across_devices": "yes"}, "across_devices must be True or False, got 'yes'"),
        ({"strict": None}, "strict must be True or False, got None"),
    ],
)
def test_bad_options_are_named(options, said):
    """One clear error, when the sampler is built."""
    with pytest.raises(ValueError, match=said):
        PlannedNoDuplicatesBatchSampler(Dataset.from_dict(TRIPLETS), 2, False, ["label"], **options)


def test_an_option_that_does_not_exist_is_named():
    """Python says so."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'stric'"):
        PlannedNoDuplicatesBatchSampler(Dataset.from_dict(TRIPLETS), 2, False, stric=True)


def test_a_dataset_of_one_column_has_no_negatives():
    """Naming its column as negative is refused, and says why."""
    dataset = Dataset.from_dict({"text": ["a", "b"]})
    assert len(PlannedNoDuplicatesBatchSampler(dataset, 1, False)) == 2
    with pytest.raises(ValueError, match="names all columns"):
        PlannedNoDuplicatesBatchSampler(dataset, 1, False, negative_columns=["text"])


@settings(max_examples=100, deadline=None)
@given(tables(st.integers(1, 4), rows=60), st.integers(0, 4), st.integers(1, 20))
def test_false_negatives_are_counted_as_by_hand(values, strong, batch_size):
    """Text by text, row by row, batch by batch."""
    strong = min(strong, values.shape[1])
    batches = [list(range(low, min(low + batch_size, len(values)))) for low in range(0, len(values), batch_size)]
    texts, rows, hit = 0, set(), set()
    for number, batch in enumerate(batches):
        for row in batch:
            for value in set(values[row, :strong].tolist()):
                found = sum(value in values[other].tolist() for other in batch if other != row)
                texts += found
                if found:
                    rows.add(row)
                    hit.add(number)
    expected = FalseNegatives(texts, len(rows), len(hit))
    assert count_false_negatives(group_by_value(values, strong), batches) == expected


def test_no_batches_hold_no_false_negatives():
    """Nothing in, nothing out."""
    assert count_false_negatives(group_by_value(np.zeros((3, 2), int)), []) == FalseNegatives(0, 0, 0)


@settings(max_examples=40, deadline=None)
@given(tables(st.integers(1, 3), rows=40), st.integers(1, 3), st.integers(1, 40))
def test_the_largest_batch_size_fits(values, strong, most):
    """The size found is one that fits, and the plan at that size leaves no row out."""
    found = group_by_value(values, min(strong, values.shape[1]))
    size = largest_batch_size(found, most)
    assert 1 <= size <= most
    assert fits(found, size) and capacity(found, size).left_out == 0
    assert sorted(plan_epoch(found, capacity(found, size), 0, 0).order.tolist()) == list(range(len(values)))


def crowded(rows: int = 200) -> Dataset:
    """A positive that a tenth of the rows share."""
    positives = ["same" if row % 10 == 0 else f"p{row}" for row in range(rows)]
    return Dataset.from_dict({"anchor": [f"a{row}" for row in range(rows)], "positive": positives})


def test_too_many_rows_without_a_place_are_an_error_before_the_first_step():
    """It says how many, because of which values, and the three ways on; each of them works."""
    with pytest.raises(ValueError, match="find no place") as caught:
        len(PlannedNoDuplicatesBatchSampler(crowded(), 20, False))
    said = str(caught.value)
    assert said.startswith("10 of 200 rows (5.00%) find no place in batches of 20, because too many rows share values")
    assert "'same' (20 rows)" in said and len(said.splitlines()) <= 4
    assert "a batch size of 10, with which all rows fit" in said and "max_skipped=0.05" in said
    assert len(PlannedNoDuplicatesBatchSampler(crowded(), 10, False)) == 20
    skipping = PlannedNoDuplicatesBatchSampler(crowded(), 20, False, max_skipped=0.05)
    assert (len(skipping), skipping.rows_skipped) == (10, 10)
    other = PlannedNoDuplicatesBatchSampler(crowded(), 20, False, negative_columns=["positive"])
    assert (len(other), other.rows_skipped) == (10, 0)


def test_few_rows_without_a_place_are_a_warning(monkeypatch):
    """They are others in each epoch."""
    from sentence_transformers.planned import fitting

    said = []
    monkeypatch.setattr(fitting.logger, "warning_once", said.append)
    sampler = PlannedNoDuplicatesBatchSampler(crowded(), 11, False, max_skipped=0.02)
    sampler_rows = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        sampler_rows.append(frozenset(row for batch in sampler for row in batch))
    assert sampler.rows_skipped == 1 and len(said) == 1 and "left out, others in each epoch" in said[0]
    assert {len(rows) for rows in sampler_rows} == {199} and len(set(sampler_rows)) > 1


def test_the_rule_is_the_datasets_columns_in_order():
    """Anchor and positive first, then negatives; the strict rule counts all."""
    assert Rule.of(["a", "p", "n", "m"]) == Rule(("a", "p", "n", "m"), 2, 2)
    assert Rule.of(["a", "p", "n", "m"], strict=True) == Rule(("a", "p", "n", "m"), 2, 4)
    assert Rule.of(["n", "a"], ["n"]) == Rule(("a", "n"), 1, 1)
    assert Rule.of([]) == Rule((), 0, 0)


def test_a_dataset_without_a_batch_is_named(monkeypatch):
    """Of several, the one that is too small for ``drop_last``, with its rows."""
    from sentence_transformers.planned import fitting

    said = []
    monkeypatch.setattr(fitting.logger, "warning_once", said.append)
    assert len(PlannedNoDuplicatesBatchSampler(crowded(3), 8, drop_last=True)) == 0
    assert len(said) == 1 and "A dataset of 3 rows, with columns ['anchor', 'positive'], has no batch" in said[0]
