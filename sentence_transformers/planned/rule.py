"""Which values keep rows apart: the rule of in-batch negatives.

For a row, a text of another row is a false negative if that row has the same anchor, or if the text equals this row's
anchor or positive. A negative that two rows share is a false negative for neither of them. So two rows are kept apart
if they share a value that is anchor or positive in at least one of them; under the strict rule, if they share any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sentence_transformers.planned.duplicates import Duplicates, group_by_value
from sentence_transformers.planned.value_hashes import Hashes, hash_values, placeholders_apart

POSITIVES = 2  # columns that are no negatives by sentence-transformers' convention: anchor, positive


@dataclass(frozen=True)
class Rule:
    """The columns that count, in the order of their part in the rule.

    Args:
        columns: names of the columns: anchor and positives, then negatives.
        firm: the number of leading columns that hold no negatives.
        strong: the number of leading columns whose values may be in no other row of a batch.
    """

    columns: tuple[str, ...]
    firm: int
    strong: int

    @classmethod
    def of(cls, columns: Sequence[str], negatives: Sequence[str] | None = None, strict: bool = False) -> Rule:
        """The rule for a dataset.

        Args:
            columns: names of the columns that count, in the order of the dataset.
            negatives: names of those that hold negatives. Defaults to all but the first two.
            strict: whether all values are kept apart.

        Raises:
            ValueError: If a negative is no column, or no other column is left.
        """
        if isinstance(negatives, str):
            raise ValueError(f"negative_columns must be a list of names, got {negatives!r}; pass [{negatives!r}].")
        if negatives is None:
            negatives = columns[POSITIVES:]
        elif unknown := [name for name in negatives if name not in columns]:
            raise ValueError(
                f"negative_columns names {unknown}, but the columns that count are {list(columns)}; labels do not."
            )
        elif columns and not set(columns) - set(negatives):
            raise ValueError(
                f"negative_columns names all columns that count, {list(columns)}: one at least must hold anchors, and "
                "another one usually holds positives. Leave them out of negative_columns."
            )
        firm = [name for name in columns if name not in negatives]
        ordered = (*firm, *(name for name in columns if name in negatives))
        return cls(ordered, len(firm), len(ordered) if strict else len(firm))

    def duplicates(self, dataset: Any, cache: bool = True) -> Duplicates:
        """The values of a dataset that keep rows apart. A placeholder (``""`` or None) among negatives is no text.

        Args:
            dataset: a ``datasets.Dataset``, or anything that returns a dictionary for a row's number.
            cache: keep the hashes of the values beside the dataset's cache files.

        Raises:
            ValueError: If a value can neither be compared nor pickled.
        """
        return kept_apart(hash_values(dataset, self.columns, cache), self.firm, self.strong)


def kept_apart(hashes: Hashes, firm: int = POSITIVES, strong: int | None = POSITIVES) -> Duplicates:
    """The values that keep rows apart. A placeholder (``""`` or None) among negatives is no text.

    Args:
        hashes: of shape (rows, columns), the columns in the order of a rule.
        firm: the number of leading columns that hold no negatives.
        strong: the number of leading columns whose values may be in no other row of a batch; None for all.
    """
    return group_by_value(placeholders_apart(hashes, slice(firm, None)), strong)
