"""How many false negatives batches hold, of any sampler.

Guarantee: exact, up to the 64-bit identities of values. Cost: one sort of the numbered cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sentence_transformers.planned.duplicates import Duplicates


class FalseNegatives(NamedTuple):
    """What batches hold.

    Args:
        texts: For each row, the texts of other rows of its batch that equal a strong text of its own (its anchor or
            positive), summed over all rows.
        rows: Rows with one at least.
        batches: Batches with one at least.
    """

    texts: int
    rows: int
    batches: int


def count_false_negatives(duplicates: Duplicates, batches: Iterable[Sequence[int]]) -> FalseNegatives:
    """Count the false negatives of some batches.

    Args:
        duplicates: the values that keep rows apart, under the rule of the loss.
        batches: rows of each batch; of a loss that gathers across devices, of each step. A row may occur in several.
    """
    parts = [np.asarray(batch, dtype=np.int64) for batch in batches]
    rows = np.concatenate(parts) if parts else np.empty(0, np.int64)
    batch_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    numbers = duplicates.row_values[rows]
    at, column = np.nonzero(numbers >= 0)
    keys = numbers[at, column].astype(np.int64) * max(len(parts), 1) + batch_of[at]
    _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    strong = column < duplicates.strong_columns
    others = counts[place[strong]] - 1
    found = at[strong][others > 0]
    return FalseNegatives(int(others.sum()), len(np.unique(found)), len(np.unique(batch_of[found])))
