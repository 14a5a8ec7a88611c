"""A hash of a dataset's values, by which runs and processes tell whether they have the same data.

Guarantee: equal rows have equal hashes however they are stored: in one piece or many, in memory, Arrow files or
Parquet, behind ``select``, ``shuffle`` or ``concatenate``. Two datasets of different columns or numbers of rows have
different ones.

Known bias: by default ``SAMPLED_ROWS`` rows are looked at, evenly spread over the dataset, the first and the last
among them. A change of others is not seen; pass ``rows=None`` to look at all.

What is hashed: the stored values; of a file (an image, a recording), its bytes and its name, not the folder, which
may be another on each machine. Formats and transforms are not applied: one that draws at random has no hash.

Cost: sampled, some 10 ms of one core, and no more than ``SAMPLED_BYTES`` of values, at any number of rows. All rows:
about 1 s for a million rows of three short texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

SAMPLED_ROWS = 1_000
SAMPLED_BYTES = 1 << 24  # of values as they are hashed; then no further row is looked at
_GATHERED = 16  # rows that are gathered at a time
_READ = 10_000  # rows that are read at a time, if all are


def dataset_hash(dataset: Dataset, rows: int | None = SAMPLED_ROWS) -> str:
    """
    Hash the values of a dataset.

    Args:
        dataset (Dataset): The rows; all columns count.
        rows (int, optional): The number of rows to look at; None for all.

    Returns:
        str: 32 hexadecimal digits.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: If rows cannot be read.
    """
    from xxhash import xxh3_128

    digest = xxh3_128(json.dumps([dataset.column_names, len(dataset)]).encode())
    hashed = 0
    for table in _tables(dataset, rows):
        for row in zip(*(_values(table, name) for name in table.column_names)):
            value = repr(row).encode()
            digest.update(value)
            hashed += len(value)
            if rows is not None and hashed > SAMPLED_BYTES:
                return str(digest.hexdigest())
    return str(digest.hexdigest())


def _tables(dataset: Dataset, rows: int | None) -> Iterator[pa.Table]:
    stored = dataset.with_format("arrow")
    if rows is None or rows >= len(dataset):
        yield from stored.iter(batch_size=_READ if rows is None else _GATHERED)
        return
    chosen = np.linspace(0, len(dataset) - 1, rows).astype(np.int64)
    for low in range(0, rows, _GATHERED):
        yield stored[chosen[low : low + _GATHERED].tolist()]


def _values(table: pa.Table, name: str) -> list[Any]:
    """A column's values as Python objects, whose ``repr`` tells them apart."""
    column = table.column(name)
    values = column.to_pylist()
    return list(map(_portable, values)) if "path: string" in str(column.type) else values


def _portable(value: Any) -> Any:
    """A value without the folders of its files."""
    if isinstance(value, list):
        return list(map(_portable, value))
    if not isinstance(value, dict):
        return value
    if value.keys() == {"bytes", "path"} and isinstance(value["path"], str):
        return [value["bytes"], re.split(r"[/\\]", value["path"])[-1]]
    return {name: _portable(one) for name, one in value.items()}
