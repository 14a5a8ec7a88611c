"""The pictures of an order report: what is seen at each step is kept, and drawn at the end.

Cost: 4 bytes a row of each epoch, and the column that is shown; see :mod:`~sentence_transformers.order.pictures` for
what drawing takes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict

from sentence_transformers.order.cells import Order, value_codes
from sentence_transformers.order.pictures import epoch_scatter, order_map, value_map


class Gallery:
    """
    The pictures of a run's epochs.

    Args:
        dataset (Dataset or DatasetDict): The data of the run.
        column (str, optional): The column whose values are shown. Defaults to the first whose values can be told
            apart; without one, there is no picture of values.

    Raises:
        ValueError: If no dataset has that column, or its values cannot be told apart.
    """

    def __init__(self, dataset: Dataset | DatasetDict, column: str | None = None) -> None:
        self.datasets = list(dataset.values()) if isinstance(dataset, DatasetDict) else [dataset]
        names = list(dict.fromkeys(name for one in self.datasets for name in one.column_names))
        if column is not None and column not in names:
            raise ValueError(f"The data has no column {column!r} to show. It has {', '.join(names)}.")
        self.column, self._values = self._first(names) if column is None else (column, self._shown(column))
        self._rows: dict[int, array[int]] = {}
        self._sizes: dict[int, array[int]] = {}

    def watch(self, epoch: int, step: list[list[int]]) -> None:
        """Keep the rows of a step."""
        rows = self._rows.setdefault(epoch, array("i"))
        before = len(rows)
        for batch in step:
            rows.extend(batch)
        self._sizes.setdefault(epoch, array("i")).append(len(rows) - before)

    def draw(self, folder: Path) -> Iterator[Path]:
        """
        Draw each picture as PNG and SVG.

        Yields:
            Path: The files.
        """
        orders = [Order(self._batches(epoch)) for epoch in sorted(self._rows)]
        for suffix in (".png", ".svg"):
            yield _drawn(folder / f"order{suffix}", order_map, orders)
            for number in range(1, len(orders)):
                path = folder / f"epochs-{number - 1}-{number}{suffix}"
                yield _drawn(path, epoch_scatter, *orders[number - 1 : number + 1], numbers=(number - 1, number))
            if self.column is not None:
                yield _drawn(folder / f"values{suffix}", value_map, orders[0], self._values, column=self.column)

    def _batches(self, epoch: int) -> list[Any]:
        rows = np.frombuffer(self._rows[epoch], dtype=np.int32)
        return np.split(rows, np.cumsum(self._sizes[epoch])[:-1])

    def _first(self, names: list[str]) -> tuple[str | None, pa.ChunkedArray | None]:
        """The first column that can be shown."""
        for name in names:
            try:
                return name, self._shown(name)
            except ValueError:
                continue
        return None, None

    def _shown(self, column: str) -> pa.ChunkedArray:
        """The column through all datasets, none where one lacks it; refused before the epochs are looked at."""
        kind = next(one.data.schema.field(column).type for one in self.datasets if column in one.column_names)
        value_codes(pa.array([], type=kind), column)  # refuses a kind that cannot be compared
        try:
            parts = [_column(one, column).cast(kind) for one in self.datasets]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as cause:
            raise ValueError(
                f"{column!r} is not of one kind in all datasets: {cause}. Show another column."
            ) from cause
        values = pa.chunked_array([chunk for part in parts for chunk in part.chunks], type=kind)
        if values.null_count == len(values):
            raise ValueError(
                f"Each value of {column!r} is None, so that there is nothing to show: choose another column."
            )
        return values


def _column(dataset: Dataset, name: str) -> pa.ChunkedArray:
    if name not in dataset.column_names:
        return pa.chunked_array([pa.nulls(len(dataset))])
    return dataset.select_columns([name]).with_format("arrow")[:][name]


def _drawn(path: Path, draw: Any, *args: Any, **kwargs: Any) -> Path:
    draw(*args, path=path, **kwargs)
    return path
