"""The pictures of an order report: what is seen at each step is kept, and drawn at the end.

Cost: 4 bytes a row of each epoch; see :mod:`~sentence_transformers.base.pictures` for what drawing takes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict

from sentence_transformers.base.grids import Order
from sentence_transformers.base.pictures import epoch_scatter, order_map, value_map


class Gallery:
    """
    The pictures of a run's epochs.

    Args:
        dataset (Dataset or DatasetDict): The data of the run.
        column (str, optional): The column whose values are shown. Defaults to the first.

    Raises:
        ValueError: If no dataset has that column.
    """

    def __init__(self, dataset: Dataset | DatasetDict, column: str | None = None) -> None:
        self.datasets = list(dataset.values()) if isinstance(dataset, DatasetDict) else [dataset]
        names = list(dict.fromkeys(name for one in self.datasets for name in one.column_names))
        if column is not None and column not in names:
            raise ValueError(f"The data has no column {column!r} to show. It has {', '.join(names)}.")
        self.column = names[0] if column is None else column
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
        values = self._values()
        for suffix in (".png", ".svg"):
            yield _drawn(folder / f"order{suffix}", order_map, orders)
            for number in range(1, len(orders)):
                path = folder / f"epochs-{number - 1}-{number}{suffix}"
                yield _drawn(path, epoch_scatter, *orders[number - 1 : number + 1], numbers=(number - 1, number))
            yield _drawn(folder / f"values{suffix}", value_map, orders[0], values, column=self.column)

    def _batches(self, epoch: int) -> list[Any]:
        rows = np.frombuffer(self._rows[epoch], dtype=np.int32)
        return np.split(rows, np.cumsum(self._sizes[epoch])[:-1])

    def _values(self) -> pa.ChunkedArray:
        """The column through all datasets; none where one lacks it."""
        parts: list[pa.ChunkedArray] = []
        for one in self.datasets:
            if self.column in one.column_names:
                parts.append(one.select_columns([self.column]).with_format("arrow")[:][self.column])
            else:
                parts.append(pa.chunked_array([pa.nulls(len(one))]))
        kind = next(part.type for part, one in zip(parts, self.datasets) if self.column in one.column_names)
        return pa.chunked_array([chunk for part in parts for chunk in part.cast(kind).chunks], type=kind)


def _drawn(path: Path, draw: Any, *args: Any, **kwargs: Any) -> Path:
    draw(*args, path=path, **kwargs)
    return path
