"""The batch sizes that a report names are those that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.order import order_report
from sentence_transformers.order.batch_sizes import TIMES, fitting_batch_sizes


def numbers(*columns: list[int]) -> np.ndarray:
    return np.array(columns, dtype=np.uint64).T


def apart(rows: int, of_a_value: int) -> list[int]:
    """A column in which each value is in so many rows."""
    return [1000 + row // of_a_value for row in range(rows)]


UNIQUE, OTHERS = [10_000 + row for row in range(24)], [20_000 + row for row in range(24)]


@pytest.mark.parametrize(
    ("columns", "batch_size", "world_size", "false_negatives", "duplicates"),
    [
        # 24 rows, each anchor in 4: 4 batches or more, so 6 rows at most in one
        ((apart(24, 4), UNIQUE), 6, 1, 6, 6),
        ((apart(24, 4), UNIQUE), 3, 2, 3, 3),
        ((apart(24, 4), UNIQUE), 6, 2, 3, 3),
        ((apart(24, 4), UNIQUE), 7, 1, 3, 3),  # only halves of the run's are tried
        ((apart(24, 4), UNIQUE), 1, 1, 4, 4),  # and its doubles: 8 is too large
        # A negative that rows share does no harm, but is a value twice
        ((UNIQUE, OTHERS, apart(24, 12)), 4, 1, 4 * TIMES, 2),
        # One anchor alone
        ((apart(24, 24), UNIQUE), 2, 1, 1, 1),
        ((apart(24, 24), UNIQUE), 2, 2, 0, 0),
        # No text
        (([], []), 8, 1, 8 * TIMES, 8 * TIMES),
    ],
)
def test_the_largest_size_by_hand(
    columns: tuple[list[int], ...], batch_size: int, world_size: int, false_negatives: int, duplicates: int
) -> None:
    """By both rules; of several processes, the rows of a step are kept apart."""
    datasets = [numbers(*columns)] if columns[0] else [np.empty((5, 0), dtype=np.uint64)]
    found = fitting_batch_sizes(datasets, batch_size, world_size)
    assert found == {"false_negatives": false_negatives, "duplicates": duplicates}


def test_every_dataset_has_to_fit() -> None:
    """The strictest counts."""
    loose, tight = numbers(UNIQUE, OTHERS), numbers(apart(24, 4), UNIQUE)
    assert fitting_batch_sizes([loose, tight], 6, 1)["duplicates"] == 6


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_report_names_them(world_size: int, tmp_path: Path) -> None:
    """48 rows, of which 12 share a negative, and 12 another: 12 batches or more. Placeholders there are no text."""
    hard = [f"hard {row % 2}" if row < 24 else "" for row in range(48)]
    columns = {"anchor": [f"a{row}" for row in range(48)], "positive": [f"p{row}" for row in range(48)], "hard": hard}
    report = order_report(Dataset.from_dict(columns), arguments(tmp_path), world_size, epochs=1)
    assert report.fitting == {"false_negatives": 64, "duplicates": 4 // world_size}
    assert SAID[world_size] in str(report)


SAID = {
    1: "Batch sizes at which planned batches have room for every row: up to 64 and perhaps more without a false "
    "negative, up to 4 without a value twice.",
    2: "Batch sizes (of one process; 2 take a step) at which planned batches have room for every row: up to 64 and "
    "perhaps more without a false negative, up to 2 without a value twice.",
}


def test_a_report_says_that_none_fits(tmp_path: Path) -> None:
    """One of the two datasets has one value alone, and two processes take a step."""
    data = {"one": Dataset.from_dict({"a": ["x"] * 9}), "other": Dataset.from_dict({"a": ["y", "z"] * 4})}
    report = order_report(DatasetDict(data), arguments(tmp_path), 2, epochs=1)
    assert "at none without a value twice" in str(report)


def arguments(folder: Path) -> SentenceTransformerTrainingArguments:
    """Batches of 4 rows."""
    return SentenceTransformerTrainingArguments(
        str(folder), per_device_train_batch_size=4, use_cpu=True, report_to="none"
    )
